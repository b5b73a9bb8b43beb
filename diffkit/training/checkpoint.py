"""Checkpoints that are whole or absent: safetensors and JSON, written to a temporary folder, then renamed."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from diffkit.checks import check_whole

FORMAT = 1  # of a checkpoint folder; raised when an older diffkit could not read it


def check_writable(folder: Path) -> None:
    """Find out before the work, and without leaving anything behind, whether files can be written to a folder.

    Raises: OSError if it is no folder, or none that may be written to.
    """
    parent = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not (parent.is_dir() and os.access(parent, os.W_OK)):
        raise OSError(f"cannot write to {folder}: {parent} is not a folder you may write to. Choose another one.")


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Hold a folder for one run, and clear what killed runs left there; the system lets go of it if this one is killed.

    Folders that were made for a run which leaves nothing are gone again.
    Raises: ValueError if another run holds it; OSError if it cannot be made.
    """
    with ExitStack() as held:
        with _told_if_unwritable(folder):
            held.enter_context(_folder(folder))
        held.enter_context(_locked(folder))
        for name in (".step-*.part", ".step-*.gone"):
            for remains in folder.glob(name):
                shutil.rmtree(remains)
        yield


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    path = folder / ".lock"
    lock = FileLock(path, blocking=False)
    try:
        lock.acquire()
    except Timeout:
        raise ValueError(
            f"claimed: another run is at work in {folder}. Wait until it ends, stop it, or choose another folder."
        ) from None
    try:
        yield
    finally:
        with suppress(PermissionError):  # Windows deletes it when it is let go
            path.unlink(missing_ok=True)  # while it is held: who waits for it sees that it is another file
        lock.release()


@contextmanager
def _folder(path: Path) -> Iterator[None]:
    """A folder, made if it is not there; one that was made and is empty at the end is gone again."""
    made = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        with suppress(OSError):  # not empty
            for folder in made:
                folder.rmdir()


@contextmanager
def _told_if_unwritable(path: Path) -> Iterator[None]:
    """Turn what the system says of a full or failing disk into one clear line."""
    try:
        yield
    except Exception as error:  # tokenizers raises plain ones, with the system's number in the text
        if not isinstance(error, (OSError, SafetensorError)) and "os error" not in str(error):
            raise
        raise OSError(
            f"{path} cannot be written ({error}). What was there before is as it was. Make room on the disk, or see "
            "to the folder's rights, and go on from there."
        ) from error


@contextmanager
def whole_or_absent(folder: Path) -> Iterator[Path]:
    """A temporary folder to fill; it becomes `folder` only if the block ends well, replacing what was there.

    Killed at any moment, it leaves `folder` as it was, whole and new, or (for the instant between two renames, and only
    where `folder` was there before) whole under the name `.<folder>.old`, which the next call puts back first. Names
    with a leading dot are never read.
    """
    old = folder.with_name(f".{folder.name}.old")
    if old.exists() and not folder.exists():
        old.rename(folder)
    with _draft(folder.with_name(f".{folder.name}.part"), folder) as draft:
        yield draft
        _to_disk(draft)
        shutil.rmtree(old, ignore_errors=True)
        if folder.exists():
            folder.rename(old)
        draft.rename(folder)
        shutil.rmtree(old, ignore_errors=True)


@contextmanager
def whole_files(folder: Path, last: str) -> Iterator[Path]:
    """A temporary folder to fill; if the block ends well its files move into `folder`, each whole, `last` at the end.

    Unlike `whole_or_absent` it leaves everything else in `folder` alone. A reader that looks for `last` first never
    finds the other files missing.
    """
    with _draft(folder / ".files.part", folder) as draft:
        yield draft
        _to_disk(draft)
        for path in sorted(draft.iterdir(), key=lambda path: path.name == last):
            os.replace(path, folder / path.name)


@contextmanager
def _draft(draft: Path, target: Path) -> Iterator[Path]:
    """An empty folder that is gone at the end, however that comes about; only a killed process leaves it."""
    shutil.rmtree(draft, ignore_errors=True)
    with _told_if_unwritable(target), _folder(draft.parent):
        try:
            draft.mkdir()
            yield draft
        finally:
            shutil.rmtree(draft, ignore_errors=True)


def _to_disk(folder: Path) -> None:
    """Wait until all files of a folder are on the disk."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb+") as file:
                os.fsync(file.fileno())


def write_whole(path: Path, content: str | bytes) -> None:
    """Write one file, text as UTF-8, so that a reader finds the old one or the new one and never half of it."""
    draft = path.with_name(f".{path.name}.part")
    with _told_if_unwritable(path), _folder(path.parent):
        if path.exists() and not path.is_file():
            raise OSError("it is there and is no file")  # but a folder, or a device such as /dev/null
        try:
            draft.write_bytes(content.encode() if isinstance(content, str) else content)
            os.replace(draft, path)
        finally:
            draft.unlink(missing_ok=True)


def save_checkpoint(folder: Path, tensors: dict[str, Tensor], numbers: dict[str, Any]) -> None:
    """Write tensors and JSON values as one checkpoint folder; an interruption leaves no folder, or the whole one."""
    with whole_or_absent(folder) as draft:
        save_file({name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()},
                  draft / "state.safetensors")  # fmt: skip
        written = json.loads(json.dumps({"format": FORMAT, **numbers}))  # as they will be read
        written["checksum"] = _checksum(draft, written)
        (draft / "state.json").write_text(json.dumps(written, indent=1), encoding="utf-8")


def _checksum(folder: Path, numbers: dict[str, Any]) -> str:
    """A digest of the numbers and of every byte of the tensors, to notice later that one has changed."""
    digest = blake2b(json.dumps(numbers, sort_keys=True).encode(), digest_size=16)
    with (folder / "state.safetensors").open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def load_checkpoint(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `save_checkpoint` wrote.

    Raises: ValueError if a file is missing, no checkpoint of ours or of a newer format, or if a single bit has changed
            since it was saved (not noticed in checkpoints of before there were checksums).
    """
    try:
        numbers = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        found = numbers["format"]
        checksum = numbers.pop("checksum", None)
        if found == FORMAT and checksum not in (None, _checksum(folder, numbers)):
            raise ValueError("its bytes are not those that were saved")
        tensors = load_file(folder / "state.safetensors") if found == FORMAT else {}
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise ValueError(
            f"load_checkpoint: {folder} is not a whole checkpoint ({error}). Delete that folder to go on from the one "
            "before it."
        ) from error
    if found != FORMAT:
        raise ValueError(
            f"load_checkpoint: {folder} has format {found}, this diffkit reads {FORMAT}. Resume with the diffkit that "
            "wrote it."
        )
    return tensors, numbers


def checkpoints(folder: Path) -> list[Path]:
    """A run's checkpoints, step-<number>, fewest steps first; what an interruption left half-written is passed over."""
    found = {path: re.fullmatch(r"step-(\d+)", path.name) for path in folder.glob("step-*") if path.is_dir()}
    return sorted((path for path, match in found.items() if match), key=lambda path: int(path.name[len("step-") :]))


def latest_checkpoint(folder: Path) -> Path | None:
    """The checkpoint with the most steps under a run's folder, None if there is none."""
    return next(reversed(checkpoints(folder)), None)


def drop_checkpoints(folder: Path, keep: int) -> None:
    """Delete all but the newest `keep` checkpoints of a run; renamed first, so that none is seen half-deleted."""
    check_whole(keep, "keep", "drop_checkpoints")
    for path in checkpoints(folder)[:-keep]:
        gone = path.with_name(f".{path.name}.gone")
        shutil.rmtree(gone, ignore_errors=True)
        shutil.rmtree(path.rename(gone))


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
