"""A corpus by name or from local files, one document a row, and its split into training and validation."""

from __future__ import annotations

import re
from functools import partial
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import numpy as np
import pyarrow as pa
from datasets import Dataset, DatasetInfo, IterableDataset
from datasets.table import MemoryMappedTable
from huggingface_hub import HfApi
from tqdm.auto import tqdm

from diffkit.data.files import BAR_DELAY, ENDS, SEPARATOR, Files, documents, look_through
from diffkit.io import is_write_error, write_once
from diffkit.paths import cache_folder, user_path

ARTICLE_HEADING = re.compile(r"\s*= [^=]+ =\s*")  # WikiText: headings inside an article have "= =" or more


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
    any, else at every line. Of .jsonl, .json and .parquet each row that has a `text` is a document. All but .parquet
    may be compressed (.gz, .bz2, .xz, .zst). A folder holds files of one kind; what is hidden or there twice is left
    out. `info.description` of the result tells what was read and what was left out.

    Args:    source: a name in CORPORA, or a path. split: local files have only "train"; see split_documents.
             streaming: read while it is used rather than first (default: as the corpus asks; files: no).
             limit: keep only this many documents, from the start.
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
    dataset = _from_hub(name, split, streaming) if name in CORPORA else _from_files(user_path(source), streaming)
    if limit is None:
        return dataset
    dataset = dataset.take(limit) if streaming else dataset.select(range(min(limit, len(dataset))))
    return _described(dataset, f"{dataset.info.description}, of which the first {limit} are used")


def _described(dataset: Dataset | IterableDataset, account: str) -> Dataset | IterableDataset:
    dataset.info.description = account
    return dataset


def shadowed(name: str) -> str:
    """A note, if a name that means something else is also that of a file or folder here."""
    return f" (not the {name} in this folder, which is ./{name})" if Path(name).exists() else ""


def _from_hub(name: str, split: str, streaming: bool) -> Dataset | IterableDataset:
    corpus, setting = CORPORA[name], datasets.config.HF_HUB_OFFLINE
    try:
        HfApi().dataset_info(corpus.repository, timeout=10)  # fails at once where load_dataset would retry for long
    except Exception:
        datasets.config.HF_HUB_OFFLINE = True  # what an earlier run left in the cache still serves
    try:
        dataset = datasets.load_dataset(corpus.repository, corpus.config, split=split, streaming=streaming)
        dataset = dataset.map(_articles, batched=True, batch_size=None) if corpus.rows_are_lines else dataset
    except Exception as error:
        if is_write_error(error):
            raise OSError(f"load_corpus: {name} cannot be kept on the disk ({error}). Make room there.") from error
        raise ConnectionError(
            f"load_corpus: the data set {corpus.repository!r} is not in the cache and could not be fetched from the "
            f"Hugging Face Hub ({type(error).__name__}: {error}). Two ways out without a network: give a local .txt, "
            ".jsonl or .parquet file, or use the built-in language 'tales'."
        ) from error
    finally:
        datasets.config.HF_HUB_OFFLINE = setting
    count = "streamed documents" if streaming else f"{len(dataset):,} documents"
    account = f"{name}, split {split} of {corpus.repository}{shadowed(name)}: {count}"
    return _described(dataset.select_columns(["text"]), account)


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
    files = look_through(source)
    paths = [str(path) for path in files.paths]
    found: dict[str, Any] = {"files": paths, "kind": files.kind, "separator": files.separator}
    if next(documents(**found), None) is None:
        needed = files.kind != "text" and "text" not in files.columns
        names = ", ".join(sorted(files.columns))
        hint = f" A document is the 'text' of a row, but rows hold {names or 'nothing'}." if needed else ""
        raise ValueError(f"load_corpus: {str(source)!r} holds no documents ({files.account}). Is it blank?{hint}")
    if streaming:
        return _described(IterableDataset.from_generator(documents, gen_kwargs=found), f"{files.account}; streamed")
    path = cache_folder() / f"documents-{files.digest}.arrow"
    write_once(path, partial(_store, found))
    dataset = Dataset(MemoryMappedTable.from_file(str(path)), DatasetInfo(), fingerprint=files.digest)
    return _described(dataset, f"{files.account}; {_counted(files, len(dataset))}")


def _store(found: dict[str, Any], folder: Path) -> Path:
    """Write the documents of files as an Arrow stream."""
    schema = pa.schema({"text": pa.large_string()})
    rows = iter(tqdm(documents(**found), "keeping", unit=" documents", delay=BAR_DELAY))
    with pa.ipc.new_stream(str(folder / "documents.arrow"), schema) as writer:
        while part := list(islice(rows, 1000)):
            writer.write_batch(pa.RecordBatch.from_pylist(part, schema))
    return folder / "documents.arrow"


def _counted(files: Files, n: int) -> str:
    """How many documents there are, by which separator, and how many rows without text."""
    without = files.rows - n
    how = ENDS[files.separator] if files.kind == "text" else "one a row"
    return f"{n:,} documents, {how}" + (f"; {without:,} of {files.rows:,} rows have no text" if without > 0 else "")


def split_documents(dataset: Dataset | IterableDataset, *, validation_fraction: float, seed: int) -> Split:
    """Hold out documents for validation. Their content decides, so copies of a text never land on both sides.

    A hash of the seed and the text without white space gives each document a number in [0, 1); those below the fraction
    go to validation. A document stays on its side when the corpus grows. `info.description` of both sides tells the
    share.

    Raises:  ValueError if one side would be empty.
    """
    account = dataset.info.description or "documents"
    if isinstance(dataset, IterableDataset):
        if not 0 < validation_fraction < 1:
            raise ValueError("split_documents: a streamed corpus needs a validation_fraction between 0 and 1.")
        held_out = partial(_is_held_out, seed=seed, threshold=validation_fraction)
        sides = dataset.filter(lambda row: not held_out(row)), dataset.filter(held_out)
        account += f"; about {validation_fraction:.1%} of them held out"
        return Split(*(_described(side, account) for side in sides))
    rows = tqdm(dataset.iter(1000), "splitting", -(-len(dataset) // 1000), unit="k documents", delay=BAR_DELAY)
    pairs = ((_draw(text, seed), len(text or "")) for part in rows for text in part["text"])
    draws, sizes = np.fromiter(pairs, np.dtype((float, 2))).T  # to the last pair, so that the bar ends
    is_held_out = draws < validation_fraction
    n = int(is_held_out.sum())
    if n in (0, len(draws)):
        raise ValueError(
            f"split_documents: both sides need a document, but {n} of {len(draws)} would be held out ({account}). "
            "Hold out another share, or give more documents; in a text file, delete blank lines that end none, or put "
            f"{SEPARATOR} on a line between them."
        )
    share = sizes[is_held_out].sum() / max(1, sizes.sum())
    account += f"; {n:,} held out, {share:.1%} of the text"
    return Split(*(_described(dataset.select(np.flatnonzero(side)), account) for side in (~is_held_out, is_held_out)))


def seed_from(*parts: int | str) -> int:
    """One seed of 63 bits from all parts, the same on any machine."""
    return int.from_bytes(blake2b("\0".join(map(str, parts)).encode(), digest_size=8).digest(), "big") >> 1


def _draw(text: str | None, seed: int) -> float:
    return seed_from(seed, *(text or "").split()) / 2**63


def _is_held_out(row: dict[str, str], seed: int, threshold: float) -> bool:
    return _draw(row["text"], seed) < threshold
