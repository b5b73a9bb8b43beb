"""Documents from local files: which files of a folder are read, how they are opened, and where a document ends."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import json
import lzma
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import chain, groupby
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm.auto import tqdm

BAR_DELAY = 5.0  # seconds that a pass over the text takes before a progress bar shows
SEPARATOR = "<|endoftext|>"  # alone on a line, it ends a document of a text file
ENDS = {SEPARATOR: f"ended by lines {SEPARATOR}", "": "ended by blank lines", None: "one a line"}
FORMATS = {".txt": "text", ".jsonl": "json", ".json": "json", ".parquet": "parquet"}
UNPACK: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
UNPACK[".zst"] = lambda file: pa.input_stream(str(file), compression="zstd")
UNREADABLE = (ValueError, TypeError, OSError, EOFError, RecursionError, zlib.error, lzma.LZMAError, pa.ArrowException)
SHOWN = 20  # names of files in a message


class Files(NamedTuple):
    """Files of one kind, looked through once."""

    paths: list[Path]  # no two of the same content
    kind: str  # text, json or parquet
    separator: str | None  # the lines that end a document of a text; None if every line is one
    columns: set[str]  # of tables
    rows: int  # of tables, with text or without
    digest: str  # of all content
    account: str  # which files are read, which are left out, and why


def look_through(source: Path) -> Files:
    """Choose the files of a source, which is one or a folder of them, and read all of them once.

    Hidden files, other kinds, and files of the same content as one before are left out.

    Raises: ValueError if there is none, or two kinds, or one that cannot be read.
    """
    found, left_out = _choose(source)
    kinds = {kind_of(file) or f"a file {file.name}" for file in found}
    if len(kinds) != 1 or not kinds <= set(FORMATS.values()):
        raise ValueError(
            f"load_corpus: {str(source)!r} must be or hold files of one kind ({', '.join(FORMATS)}, also with "
            f"{', '.join(UNPACK)}), but there is {' and '.join(sorted(kinds)) or 'none'}{_named(left_out)}. "
            "Rename the file, or move the others elsewhere."
        )
    size = sum(file.stat().st_size for file in found)
    if not size:
        raise ValueError(f"load_corpus: {str(source)!r} is empty. Was the download or the copy cut short?")
    (kind,) = kinds
    first: dict[bytes, Path] = {}  # of each content
    seen: set[str] = set()
    total = 0
    with tqdm(total=size, desc="reading", unit="B", unit_scale=True, delay=BAR_DELAY) as bar:
        for file, name in found.items():
            digest, rows, marks = _survey(file, kind, bar)
            if digest in first:
                left_out[name] = f"the same as {found[first[digest]]}"
                continue
            first[digest] = file
            total, seen = total + rows, seen | marks
    separator = next((each for each in (SEPARATOR, "") if each in seen), None)
    account = f"{source}: read {len(first)} file{'s' * (len(first) > 1)}{_named(left_out)}"
    key = hashlib.blake2b(b"".join([kind.encode(), *first]), digest_size=16).hexdigest()
    return Files([*first.values()], kind, separator, seen, total, key, account)


def _choose(source: Path) -> tuple[dict[Path, str], dict[str, str]]:
    """The files to read, in order, and their names; the names of the others with the reason."""
    if source.is_file():
        return {source: source.name}, {}
    files, left_out = {}, {}
    for path in sorted(source.rglob("*")):
        name = path.relative_to(source)
        if any(part.startswith(".") for part in name.parts):
            left_out[str(name)] = "hidden"
        elif path.is_file() and kind_of(path):
            files[path] = str(name)
        elif path.is_file() or path.is_symlink():
            left_out[str(name)] = "of another kind" if path.is_file() else "a link to a folder, or to nothing"
    return files, left_out


def kind_of(file: Path) -> str | None:
    """What a file holds, by its name: text, json or parquet; None for anything else."""
    *_, before, last = ["", "", *(suffix.lower() for suffix in file.suffixes)]
    kind = FORMATS.get(before if last in UNPACK else last)
    return None if kind == "parquet" and last in UNPACK else kind  # packed twice, and not read in pieces


def _named(left_out: dict[str, str]) -> str:
    names = [f"{name} ({reason})" for name, reason in left_out.items() if reason != "hidden"]
    hidden, more = len(left_out) - len(names), len(names) - SHOWN
    names = names[:SHOWN] + [f"{more} more"] * (more > 0) + [f"{hidden} hidden"] * (hidden > 0)
    return f", left out {', '.join(names)}" if names else ""


def _survey(file: Path, kind: str, bar: tqdm[Any]) -> tuple[bytes, int, set[str]]:
    """Read a file once: the digest of its content; of a table, rows and columns; of a text, the separators in it."""
    digest, rows, marks = hashlib.blake2b(digest_size=16), 0, set()

    def watched(lines: Iterator[str]) -> Iterator[str]:
        for line in lines:
            digest.update(line.encode())
            bar.update(len(line))
            yield line

    with _opened(file, kind) as lines:
        if kind == "parquet":
            rows, marks = pq.read_metadata(file).num_rows, {*pq.read_schema(file).names}
            with file.open("rb") as content:
                hashlib.file_digest(content, lambda: digest)
        elif kind == "json":
            for row in _rows(watched(lines)):
                rows, marks = rows + 1, marks | row.keys() if isinstance(row, dict) else marks
        else:
            marks = {bare for line in watched(lines) if (bare := line.strip()) in ENDS}
    return digest.digest(), rows, marks


def documents(files: list[str], kind: str, separator: str | None) -> Iterator[dict[str, str]]:
    """The documents of files as rows with a `text` that is not blank."""
    for file in map(Path, files):
        with _opened(file, kind) as lines:
            found = _texts(file, lines, kind, separator)
            for number, text in enumerate(found, start=1):
                if not (text is None or isinstance(text, str)):
                    raise ValueError(f"row {number} has {text!r:.40} as its text, which is no string")
                if text and text.strip():
                    text.isascii() or text.encode()  # half a surrogate pair is no text
                    yield {"text": text}


@contextmanager
def _opened(file: Path, kind: str) -> Iterator[Iterator[str]]:
    r"""The lines of a file, which may be compressed; \n, \r\n or \r ends one. Any error names the file."""
    try:
        with UNPACK.get(file.suffix.lower(), partial(open, mode="rb"))(file) as content:
            with io.TextIOWrapper(content, "utf-8-sig", "surrogateescape") as lines:
                yield _checked(lines)
    except UNREADABLE as error:
        raise ValueError(
            f"load_corpus: {str(file)!r} cannot be read as {kind} ({error}). Is it cut short, of another kind, or in "
            "another encoding than UTF-8?"
        ) from error


def _checked(lines: Iterable[str]) -> Iterator[str]:
    for number, line in enumerate(lines, start=1):
        if "\0" in line or not (line.isascii() or line == line.encode(errors="replace").decode()):
            raise ValueError(f"line {number} holds other bytes")
        yield line


def _texts(file: Path, lines: Iterator[str], kind: str, separator: str | None) -> Iterator[Any]:
    """The documents of a text without the space around them; of a table what each row has as its text."""
    if kind == "parquet":
        table = pq.ParquetFile(file)
        if "text" in table.schema_arrow.names:
            for batch in table.iter_batches(1000, columns=["text"]):
                yield from batch.column("text").to_pylist()
    elif kind == "json":
        yield from (row.get("text") if isinstance(row, dict) else row for row in _rows(lines))
    elif separator is None:
        yield from (line.strip() for line in lines)
    else:
        groups = groupby(lines, key=lambda line: line.strip() == separator)
        yield from ("".join(group).strip() for is_separator, group in groups if not is_separator)


def _rows(lines: Iterator[str]) -> Iterator[Any]:
    """The rows of JSON, one a line or all of them in one list."""
    numbered = ((number, line) for number, line in enumerate(lines, start=1) if line.strip())
    first = next(numbered, (1, "[]"))
    if first[1].lstrip().startswith("["):
        yield from json.loads("".join(line for _, line in chain([first], numbered)))
        return
    for number, line in chain([first], numbered):
        try:
            yield json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"line {number}: {error.msg}") from error
