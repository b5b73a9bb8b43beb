"""A corpus by name or from local files, one document a row, and its split into training and validation."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from hashlib import blake2b
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import datasets
import numpy as np
from datasets import Dataset, IterableDataset
from huggingface_hub import HfApi
from tqdm.auto import tqdm

BAR_DELAY = 5.0  # seconds that a pass over the text takes before a progress bar shows
SEPARATOR = "<|endoftext|>"  # alone on a line, it ends a document of a text file
ARTICLE_HEADING = re.compile(r"\s*= [^=]+ =\s*")  # WikiText: headings inside an article have "= =" or more
FORMATS = {".txt": "text", ".jsonl": "json", ".json": "json", ".parquet": "parquet"}


class Corpus(NamedTuple):
    """Where a named corpus lies on the Hugging Face Hub, and how to read it."""

    repository: str
    config: str | None = None
    splits: tuple[str, ...] = ("train", "validation")
    streaming: bool = False
    rows_are_lines: bool = False  # of WikiText articles, which are joined again


CORPORA = {
    "tinystories": Corpus("roneneldan/TinyStories"),
    "wikitext-2": Corpus(
        "Salesforce/wikitext", "wikitext-2-raw-v1", ("train", "validation", "test"), rows_are_lines=True
    ),
    "openwebtext": Corpus("Skylion007/openwebtext", splits=("train",), streaming=True),
}


class Split(NamedTuple):
    """The two parts of a corpus; no document is in both."""

    train: Dataset | IterableDataset
    validation: Dataset | IterableDataset


def load_corpus(
    source: str | Path,
    split: str = "train",
    *,
    streaming: bool | None = None,
    limit: int | None = None,
) -> Dataset | IterableDataset:
    """Load a corpus by name, or a local file or folder, as rows of one column `text`, one document a row.

    A text file holds several documents: they end at lines `<|endoftext|>` if it has any, else at blank lines if it has
    any, else at every line. Of .jsonl, .json and .parquet each row is a document. A folder holds files of one kind.

    Args:    source: a name in CORPORA, or a path. split: local files have only "train"; see split_documents.
             streaming: read while it is used rather than first (default: as the corpus asks; files: no).
             limit: keep only the first so many documents.
    Raises:  FileNotFoundError, ConnectionError (no network), or ValueError when what is there cannot be used.
    """
    name = str(source)
    corpus = CORPORA.get(name, Corpus(name, splits=("train",)))
    if split not in corpus.splits:
        raise ValueError(
            f"load_corpus: {name!r} has the splits {', '.join(corpus.splits)}, but {split!r} was asked for. "
            "split_documents makes a validation split from any corpus."
        )
    streaming = corpus.streaming if streaming is None else streaming
    dataset = _from_hub(corpus, split, streaming) if name in CORPORA else _from_files(Path(source), streaming)
    dataset = _only_text(dataset, name)
    if limit is None:
        return dataset
    return dataset.take(limit) if streaming else dataset.select(range(min(limit, len(dataset))))


def _from_hub(corpus: Corpus, split: str, streaming: bool) -> Dataset | IterableDataset:
    setting = datasets.config.HF_HUB_OFFLINE
    try:
        HfApi().dataset_info(corpus.repository, timeout=10)  # fails at once where load_dataset would retry for long
    except Exception:
        datasets.config.HF_HUB_OFFLINE = True  # what an earlier run left in the cache still serves
    try:
        dataset = datasets.load_dataset(corpus.repository, corpus.config, split=split, streaming=streaming)
    except Exception as error:
        raise ConnectionError(
            f"load_corpus: the data set {corpus.repository!r} is not in the cache and could not be fetched from the "
            f"Hugging Face Hub ({type(error).__name__}: {error}). Two ways out without a network: give a local .txt, "
            ".jsonl or .parquet file, or use the built-in language 'tales'."
        ) from error
    finally:
        datasets.config.HF_HUB_OFFLINE = setting
    return dataset.map(_articles, batched=True, batch_size=None) if corpus.rows_are_lines else dataset


def _articles(rows: dict[str, list[str]]) -> dict[str, list[str]]:
    """Join the lines of WikiText into articles; each begins at its heading."""
    articles: list[str] = []
    for line in rows["text"]:
        if ARTICLE_HEADING.fullmatch(line) or not articles:
            articles.append("")
        articles[-1] += line.rstrip("\n") + "\n"
    return {"text": [article.strip() for article in articles if article.strip()]}


def _from_files(source: Path, streaming: bool) -> Dataset | IterableDataset:
    if not source.exists():
        raise FileNotFoundError(
            f"load_corpus: {str(source)!r} is neither a file or folder here nor one of {', '.join(CORPORA)}. "
            "Check the spelling, or use the built-in language 'tales', which needs no file."
        )
    files = [source] if source.is_file() else sorted(f for f in source.rglob("*") if f.suffix.lower() in FORMATS)
    kinds = {FORMATS.get(file.suffix.lower(), f"a file {file.name}") for file in files}
    if len(kinds) != 1 or not kinds <= set(FORMATS.values()):
        raise ValueError(
            f"load_corpus: {str(source)!r} must be or hold files of one kind ({', '.join(FORMATS)}), but there is "
            f"{' and '.join(sorted(kinds)) or 'none'}. Rename the file, or move the others elsewhere."
        )
    if not any(file.stat().st_size for file in files):
        raise ValueError(f"load_corpus: {str(source)!r} is empty. Was the download or the copy cut short?")
    (kind,) = kinds
    if kind == "text":
        return _from_text(files, streaming)
    if kind == "json":
        for file in files:
            for _ in _lines(file):  # other bytes would be noticed much later, and without their line
                pass
    paths = [glob.escape(str(file)) for file in files]  # datasets takes a path for a pattern
    try:
        with _unlogged():
            return datasets.load_dataset(kind, data_files=paths, split="train", streaming=streaming)
    except Exception as error:
        raise ValueError(
            f"load_corpus: {str(source)!r} cannot be read as {kind}. Is it cut short, or of another kind? Cause: "
            f"{error.__cause__ or error}"
        ) from error


@contextmanager
def _unlogged() -> Iterator[None]:
    """Without the library's log of errors that it also raises."""
    verbosity = datasets.logging.get_verbosity()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    try:
        yield
    finally:
        datasets.logging.set_verbosity(verbosity)


def _from_text(files: list[Path], streaming: bool) -> Dataset | IterableDataset:
    """Read all lines once: for separators, for bytes that are not UTF-8, and for the key of the cache."""
    content, seen = blake2b(digest_size=16), set()
    size = sum(file.stat().st_size for file in files)
    with tqdm(total=size, desc="reading", unit="B", unit_scale=True, delay=BAR_DELAY) as bar:
        for file in files:
            content.update(b"\0next file\0")
            for line, text in _lines(file):
                content.update(line)
                seen.add(text.strip() if text.strip() in (SEPARATOR, "") else "text")
                bar.update(len(line))
    separator = SEPARATOR if SEPARATOR in seen else "" if "" in seen else None
    source = {"files": [str(file) for file in files], "separator": separator}
    if "text" not in seen:
        return Dataset.from_dict({"text": []})  # refused by the caller
    if streaming:
        return IterableDataset.from_generator(_documents, gen_kwargs=source)
    return Dataset.from_generator(_documents, gen_kwargs=source, fingerprint=content.hexdigest())


def _lines(file: Path) -> Iterator[tuple[bytes, str]]:
    """The lines of a file, as bytes and as text. Raises: ValueError with the first line that is not UTF-8."""
    with file.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                if b"\0" in line:
                    raise ValueError("a NUL byte")
                text = line.decode("utf-8")
            except ValueError as error:  # UnicodeDecodeError is one
                raise ValueError(
                    f"load_corpus: {str(file)!r} should be UTF-8 text, but line {number} holds other bytes ({error}). "
                    "Is it a binary file, or text in another encoding? Save it as UTF-8."
                ) from error
            yield line, text


def _documents(files: list[str], separator: str | None) -> Iterator[dict[str, str]]:
    for file in files:
        with open(file, encoding="utf-8-sig") as lines:
            pieces: Iterable[Iterable[str]] = ([line] for line in lines)
            if separator is not None:
                grouped = groupby(lines, key=lambda line: line.strip() == separator)
                pieces = (group for is_separator, group in grouped if not is_separator)
            for piece in pieces:
                text = "".join(piece).strip()
                if text:
                    yield {"text": text}


def _only_text(dataset: Dataset | IterableDataset, name: str) -> Dataset | IterableDataset:
    first = next(iter(dataset), None)
    if first is None:
        raise ValueError(f"load_corpus: {name!r} holds no documents. Is it empty, or blank?")
    begins_well = isinstance(first.get("text"), str)
    feature = (dataset.features or {}).get("text")  # not known of a stream
    if not (begins_well if feature is None else getattr(feature, "dtype", "") in ("string", "large_string")):
        found = ", ".join(f"{key} ({type(value).__name__})" for key, value in first.items())
        raise ValueError(
            f"load_corpus: {name!r} needs a column 'text' of strings, but has {found}"
            f"{', and something else in a later row' if begins_well else ''}. Rename the one that holds the text."
        )
    return dataset.select_columns(["text"])


def split_documents(dataset: Dataset | IterableDataset, *, validation_fraction: float, seed: int) -> Split:
    """Hold out documents for validation. Their content decides, so copies of a text never land on both sides.

    A hash of the seed and the text without white space gives each document a number in [0, 1); those below the fraction
    go to validation. A document stays on its side when the corpus grows.

    Raises:  ValueError if one side would be empty.
    """
    if isinstance(dataset, IterableDataset):
        if not 0 < validation_fraction < 1:
            raise ValueError("split_documents: a streamed corpus needs a validation_fraction between 0 and 1.")
        held_out = partial(_is_held_out, seed=seed, threshold=validation_fraction)
        return Split(dataset.filter(lambda row: not held_out(row)), dataset.filter(held_out))
    rows = tqdm(dataset.iter(1000), "splitting", -(-len(dataset) // 1000), unit="k documents", delay=BAR_DELAY)
    draws = np.array([_draw(text, seed) for part in rows for text in part["text"]])
    validation = np.flatnonzero(draws < validation_fraction)
    if len(validation) in (0, len(draws)):
        raise ValueError(
            f"split_documents: both sides need a document, but {len(validation)} of {len(draws)} would be held out. "
            "Choose another validation_fraction, or give more text; in a text file every line is a document, or every "
            "paragraph if there are blank lines."
        )
    return Split(dataset.select(np.flatnonzero(draws >= validation_fraction)), dataset.select(validation))


def seed_from(*parts: int | str) -> int:
    """One seed of 63 bits from all parts, the same on any machine."""
    return int.from_bytes(blake2b("\0".join(map(str, parts)).encode(), digest_size=8).digest(), "big") >> 1


def _draw(text: str | None, seed: int) -> float:
    return seed_from(seed, *(text or "").split()) / 2**63


def _is_held_out(row: dict[str, str], seed: int, threshold: float) -> bool:
    return _draw(row["text"], seed) < threshold
