"""Checkpoints that are whole or absent: safetensors and JSON, written to a temporary folder, then renamed."""

from __future__ import annotations

import json
import re
import shutil
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from diffkit.io import atomic_folder, json_text

FORMAT = 2  # of a checkpoint folder; raised when an older diffkit could not read it


def save_checkpoint(folder: str | Path, tensors: dict[str, Tensor], numbers: dict[str, Any]) -> None:
    """Write tensors and JSON values as one checkpoint folder; an interruption leaves no folder, or the whole one."""
    with atomic_folder(Path(folder)) as draft:
        save_file({name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()},
                  draft / "state.safetensors")  # fmt: skip
        written = json.loads(json_text({"format": FORMAT, **numbers}))  # as they will be read
        written["checksum"] = _checksum(draft, written)
        (draft / "state.json").write_text(json.dumps(written, indent=1, allow_nan=False), encoding="utf-8")


def _checksum(folder: Path, numbers: dict[str, Any]) -> str:
    """A digest of the numbers and of every byte of the tensors, to notice later that one has changed."""
    digest = blake2b(json.dumps(numbers, sort_keys=True, allow_nan=True).encode(), digest_size=16)
    with (folder / "state.safetensors").open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def load_checkpoint(folder: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and JSON values, as `save_checkpoint` was given them.

    Raises: ValueError if a file is missing, of another format, or if a single bit has changed since it was saved.
    """
    folder = Path(folder)
    try:
        numbers = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        if numbers["format"] != FORMAT:
            raise ValueError(f"it has format {numbers['format']}, this diffkit reads {FORMAT}")
        if numbers.pop("checksum") != _checksum(folder, numbers):
            raise ValueError("its bytes are not those that were saved")
        return load_file(folder / "state.safetensors"), numbers
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise ValueError(
            f"load_checkpoint: {folder} is not a whole checkpoint ({error}). Delete that folder to go on from the one "
            "before it."
        ) from error


def checkpoints(folder: str | Path) -> list[Path]:
    """A run's checkpoints, step-<number>, fewest steps first; what an interruption left half-written is skipped."""
    found = [path for path in Path(folder).glob("step-*") if path.is_dir() and re.fullmatch(r"step-\d+", path.name)]
    return sorted(found, key=lambda path: int(path.name.removeprefix("step-")))


def latest_checkpoint(folder: str | Path) -> Path | None:
    """The checkpoint with the most steps in a run's folder, None if there is none."""
    return next(reversed(checkpoints(folder)), None)


def drop_checkpoints(folder: str | Path, keep: int) -> None:
    """Delete all but the newest `keep` checkpoints of a run; renamed first, so that none is seen half-deleted."""
    for path in checkpoints(folder)[:-keep]:
        gone = path.with_name(f".{path.name}.gone")
        shutil.rmtree(gone, ignore_errors=True)
        shutil.rmtree(path.rename(gone))


def optimizer_state(optimizers: list[torch.optim.Optimizer]) -> dict[str, Tensor]:
    """The moments of all optimizers as named tensors: optimizer.<which>.<parameter>.<name>."""
    return {
        f"optimizer.{which}.{parameter}.{name}": torch.as_tensor(value)
        for which, optimizer in enumerate(optimizers)
        for parameter, moments in optimizer.state_dict()["state"].items()
        for name, value in moments.items()
    }


def restore_optimizers(optimizers: list[torch.optim.Optimizer], tensors: dict[str, Tensor]) -> None:
    """Load what `optimizer_state` returned; the settings (rates, decay) stay as the optimizers were built."""
    for which, optimizer in enumerate(optimizers):
        state: dict[int, dict[str, Tensor]] = {}
        for key in (key for key in tensors if key.startswith(f"optimizer.{which}.")):
            _, _, parameter, name = key.split(".", 3)
            state.setdefault(int(parameter), {})[name] = tensors[key]
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
