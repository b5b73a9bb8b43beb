"""Checkpoints that are whole or absent: safetensors and JSON, written to a temporary folder, then renamed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

FORMAT = 1  # of a checkpoint folder; raised when an older diffkit could not read it


@contextmanager
def whole_or_absent(folder: Path) -> Iterator[Path]:
    """A temporary folder to fill; it becomes `folder` only if the block ends well, replacing what was there."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    try:
        yield draft
        for path in draft.rglob("*"):
            if path.is_file():
                with path.open("rb+") as file:
                    os.fsync(file.fileno())
        old = folder.with_name(f".{folder.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        if folder.exists():
            folder.rename(old)
        draft.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def save_checkpoint(folder: Path, tensors: dict[str, Tensor], numbers: dict[str, Any]) -> None:
    """Write tensors and JSON values as one checkpoint folder; an interruption leaves no folder, or the whole one."""
    with whole_or_absent(folder) as draft:
        save_file({name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()},
                  draft / "state.safetensors")  # fmt: skip
        (draft / "state.json").write_text(json.dumps({"format": FORMAT, **numbers}, indent=1), encoding="utf-8")


def load_checkpoint(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `save_checkpoint` wrote.

    Raises: ValueError if a file is missing, damaged, or of a newer format.
    """
    try:
        numbers = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        tensors = load_file(folder / "state.safetensors")
    except Exception as error:
        raise ValueError(
            f"load_checkpoint: {folder} is not a whole checkpoint ({error}). Delete that folder to go on from the one before it."
        ) from error
    if numbers.get("format") != FORMAT:
        raise ValueError(
            f"load_checkpoint: {folder} has format {numbers.get('format')}, this diffkit reads {FORMAT}. Update diffkit?"
        )
    return tensors, numbers


def latest_checkpoint(folder: Path) -> Path | None:
    """The checkpoint with the most steps under a run's folder, None if there is none."""
    found = sorted(folder.glob("step-*"))
    return found[-1] if found else None


def optimizer_state(optimizers: list[torch.optim.Optimizer]) -> dict[str, Tensor]:
    """All optimisers' moments as named tensors: optimizer.<which>.<parameter>.<name>."""
    return {
        f"optimizer.{which}.{parameter}.{name}": torch.as_tensor(value)
        for which, optimizer in enumerate(optimizers)
        for parameter, moments in optimizer.state_dict()["state"].items()
        for name, value in moments.items()
    }


def restore_optimizers(optimizers: list[torch.optim.Optimizer], tensors: dict[str, Tensor]) -> None:
    """Put back what `optimizer_state` took; the settings (rates, decay) stay as the optimisers were built."""
    for which, optimizer in enumerate(optimizers):
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            kind, *place = key.split(".", 3)
            if kind == "optimizer" and int(place[0]) == which:
                state.setdefault(int(place[1]), {})[place[2]] = value
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
