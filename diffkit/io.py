"""Write files and folders whole or not at all."""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from filelock import FileLock, Timeout
from safetensors import SafetensorError

NOT_WRITTEN = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}


def check_writable(folder: Path) -> None:
    """Raise OSError unless files can be written to a folder, which may not exist yet; it is not made."""
    parent = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not (parent.is_dir() and os.access(parent, os.W_OK)):
        raise OSError(f"cannot write to {folder}: {parent} is not a folder you may write to. Choose another one.")


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Lock a folder for one run, and remove what killed runs left there; the lock ends with the process.

    Raises: ValueError if another run holds the lock; OSError if the folder cannot be made.
    """
    with ExitStack() as held:
        with _clear_write_errors(folder):
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
            f"exclusive: another run is at work in {folder}. Wait until it ends, stop it, or choose another folder."
        ) from None
    try:
        yield
    finally:
        with suppress(PermissionError):  # Windows deletes it when it is released
            path.unlink(missing_ok=True)  # while it is held, so that a waiting process sees another file
        lock.release()


@contextmanager
def _folder(path: Path) -> Iterator[None]:
    """A folder, made if it is not there; if it was made here and is empty at the end, it is removed."""
    made = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        with suppress(OSError):  # not empty
            for folder in made:
                folder.rmdir()


@contextmanager
def _clear_write_errors(path: Path) -> Iterator[None]:
    """Turn the errors of a full or failing disk into one clear line."""
    try:
        yield
    except Exception as error:  # tokenizers raises plain ones, with the system's number in the text
        if not isinstance(error, (OSError, SafetensorError)) and "os error" not in str(error):
            raise
        raise OSError(
            f"{path} cannot be written ({error}). The old files are unchanged. Make room on the disk, or check "
            "the permissions of the folder."
        ) from error


def is_write_error(error: BaseException | None) -> bool:
    """Whether an error comes, perhaps by way of others, from a disk that is full, failing or closed to us."""
    return error is not None and (getattr(error, "errno", None) in NOT_WRITTEN or is_write_error(error.__cause__))


def write_once(path: Path, write: Callable[[Path], Path]) -> None:
    """Make a file unless it exists: `write` makes it in an empty folder, from which it moves when it is whole."""
    if not path.exists():
        with _clear_write_errors(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
            with TemporaryDirectory(prefix="unfinished-", dir=path.parent, ignore_cleanup_errors=True) as scratch:
                os.replace(write(Path(scratch)), path)


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder to fill; it becomes `folder` only if the block ends well, replacing what was there.

    Killed at any moment, it leaves `folder` as it was, or new and whole, or (between two renames) under the name
    `.<folder>.old`, which the next call puts back first. Names with a leading dot are never read.
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
def atomic_files(folder: Path, last: str) -> Iterator[Path]:
    """A temporary folder to fill; if the block ends well its files move into `folder`, each whole, `last` at the end.

    Everything else in `folder` stays. A reader that looks for `last` first never finds the other files missing.
    """
    with _draft(folder / ".files.part", folder) as draft:
        yield draft
        _to_disk(draft)
        for path in sorted(draft.iterdir(), key=lambda path: path.name == last):
            os.replace(path, folder / path.name)


@contextmanager
def _draft(draft: Path, target: Path) -> Iterator[Path]:
    """An empty folder that is removed at the end; only a killed process leaves it."""
    shutil.rmtree(draft, ignore_errors=True)
    with _clear_write_errors(target), _folder(draft.parent):
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


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write one file, text as UTF-8; a reader finds the old file or the new one, never a part."""
    draft = path.with_name(f".{path.name}.part")
    with _clear_write_errors(path), _folder(path.parent):
        if path.exists() and not path.is_file():
            raise OSError("it is there and is no file")  # a folder, or a device such as /dev/null
        try:
            draft.write_bytes(content.encode() if isinstance(content, str) else content)
            os.replace(draft, path)
        finally:
            draft.unlink(missing_ok=True)


NO_NUMBERS = {"nan": "not defined, as the error of a single text", "inf": "infinite", "-inf": "minus infinity"}


def json_text(value: Any, indent: int | None = None) -> str:
    """JSON with null for NaN and infinity, which it does not have; "reasons_of_null" then says what each of them is."""
    reasons: dict[str, str] = {}

    def plain(part: Any, name: str) -> Any:
        if isinstance(part, dict):
            return {key: plain(one, f"{name}{key}.") for key, one in part.items()}
        if isinstance(part, list | tuple):
            return [plain(one, f"{name}{i}.") for i, one in enumerate(part)]
        if isinstance(part, float) and not math.isfinite(part):
            reasons[name[:-1]] = NO_NUMBERS[str(float(part))]
            return None
        return part

    whole = plain(value, "")
    if reasons and isinstance(whole, dict):
        whole["reasons_of_null"] = reasons
    return json.dumps(whole, indent=indent, allow_nan=False)


def write_json(path: Path, value: Any) -> None:
    """Write one file of JSON, whole or not at all."""
    write_atomic(path, json_text(value, indent=1) + "\n")
