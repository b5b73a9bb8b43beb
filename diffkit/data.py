"""From texts to batches of ids: tokenized, cut into chunks, shuffled, and resumable at any batch.

Documents are joined into one stream, an EOS after each, and the stream is cut into chunks of equal length. No chunk
holds PAD, so a bound on the chunks is a bound on the stream. Batches are (B, L) int64 wherever they come from.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Iterator
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import numpy as np
import torch
from datasets import Dataset, Features, IterableDataset, List, Value
from torch import Generator, Tensor
from transformers import PreTrainedTokenizerBase

from diffkit.corpus import CORPORA, Split, load_corpus, seed_from, split_documents
from diffkit.doors import check_whole
from diffkit.tokenizer import special_ids

__all__ = ["CORPORA", "Split", "load_corpus", "split_documents", "tokenize_corpus", "fixed_batches"]
__all__ += ["Batches", "ChunkBatches", "Samples", "StoryBatches", "StreamBatches"]


class Batches(Protocol):
    """What a trainer needs: batches without end, and a state from which exactly the same batches follow again."""

    def __iter__(self) -> Iterator[Tensor]: ...
    def __next__(self) -> Tensor: ...  # (B, L) int64
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class Samples(Protocol):
    """Anything that can invent sequences, such as a StoryLanguage."""

    def sample(self, n: int, rng: Generator, label: str | None = None) -> Tensor: ...  # (n, L) int64


def tokenize_corpus(
    dataset: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    length: int,
    *,
    workers: int = 1,
    cache_dir: str | Path | None = None,
) -> Dataset:
    """Tokenize documents, join them with an EOS after each, and cut the stream into chunks of `length` tokens.

    No token is lost between chunks; only the tail of the whole stream, shorter than one chunk, is dropped. Empty
    documents are skipped. A special token spelled out inside a text is read as plain characters. The result is kept on
    disk under a key made of the text, the tokenizer and the length; it appears there in one move when it is whole.

    Args:    length: tokens in a chunk. workers: processes; with 1 a fast tokenizer still uses all cores.
             cache_dir: default $DIFFKIT_CACHE, else ~/.cache/diffkit.
    Returns: rows of one column `input_ids`, `length` int32 each, memory-mapped.
    Raises:  ValueError if all the text is shorter than one chunk, or the tokenizer lacks MASK, PAD or EOS, or gives
             an id outside its vocabulary; TypeError for a streamed corpus (use StreamBatches).
    """
    if isinstance(dataset, IterableDataset):
        raise TypeError("tokenize_corpus: needs a corpus on disk, but this one is streamed. Use StreamBatches for it.")
    encode, cut = _Encode(tokenizer), _Cut(tokenizer, length)
    home = Path(cache_dir or os.environ.get("DIFFKIT_CACHE") or Path.home() / ".cache" / "diffkit")
    key = blake2b(f"{dataset._fingerprint} {_rules(tokenizer)} {length}".encode(), digest_size=16).hexdigest()
    finished = home / f"chunks-{key}.arrow"
    if not finished.exists():
        home.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix="unfinished-", dir=home, ignore_cleanup_errors=True) as scratch:
            os.replace(_write_chunks(dataset, encode, cut, workers, Path(scratch)), finished)
    return Dataset.from_file(str(finished))


def _write_chunks(dataset: Dataset, encode: _Encode, cut: _Cut, workers: int, scratch: Path) -> Path:
    """Documents to ids, in parallel; then one pass over the stream that carries the rest of each piece to the next."""
    if len(dataset) == 0:
        raise ValueError("tokenize_corpus: the corpus has no documents. Check the file, the split and the limit.")
    stream = dataset.map(
        encode,
        desc="tokenizing",
        batched=True,
        num_proc=workers if workers > 1 else None,
        remove_columns=dataset.column_names,
        features=Features({"ids": List(Value("int32"))}),
        cache_file_name=str(scratch / "stream.arrow"),
        new_fingerprint="stream",  # nothing is looked up by it: both files live only until the move
    )
    chunks = stream.with_format("arrow").map(
        lambda table: {"input_ids": cut(table["ids"].combine_chunks().flatten().to_numpy())},
        desc="cutting",
        batched=True,
        remove_columns=["ids"],
        features=Features({"input_ids": List(Value("int32"), length=cut.length)}),
        cache_file_name=str(scratch / "chunks.arrow"),
        new_fingerprint="chunks",
    )
    if len(chunks) == 0:
        raise ValueError(
            f"tokenize_corpus: one chunk needs {cut.length} tokens, but all the text has {len(cut.rest)}. "
            "Choose a smaller length or give more text."
        )
    return scratch / "chunks.arrow"


class _Encode:
    """Rows of text to rows of ids, an EOS after each document."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        self.tokenizer, self.eos = tokenizer, special_ids(tokenizer).eos

    def __call__(self, rows: dict[str, list[str]]) -> dict[str, list[list[int]]]:
        texts = [text for text in rows["text"] if text and text.strip()]
        options = {"add_special_tokens": False, "split_special_tokens": True, "verbose": False}
        ids = self.tokenizer(texts, **options)["input_ids"] if texts else []
        return {"ids": [[*document, self.eos] for document in ids]}


class _Cut:
    """A stream of ids that arrives in pieces, to chunks of equal length; `rest` is what fills no chunk yet."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, length: int):
        check_whole(length, "length", "tokenize")
        self.vocab, self.mask, self.length = len(tokenizer), special_ids(tokenizer).mask, length
        self.rest = np.empty(0, dtype=np.int32)

    def __call__(self, ids: np.ndarray) -> np.ndarray:  # (n,) -> (chunks, length)
        if ids.size and (ids.min() < 0 or ids.max() >= self.vocab or (ids == self.mask).any()):
            raise ValueError(
                f"tokenize: ids of a text must lie in 0..{self.vocab - 1} and never be MASK ({self.mask}), but they "
                f"span {ids.min()}..{ids.max()}. Does the tokenizer fit its vocabulary?"
            )
        ids = np.concatenate([self.rest, ids])
        whole = len(ids) // self.length * self.length
        self.rest = ids[whole:].copy()
        return ids[:whole].reshape(-1, self.length)


def _rules(tokenizer: PreTrainedTokenizerBase) -> str:
    """Everything that decides how the tokenizer turns a text into ids, as one string."""
    rules: Any = sorted(tokenizer.get_vocab().items())
    if tokenizer.is_fast:
        rules = json.loads(tokenizer.backend_tokenizer.to_str()) | {"truncation": None, "padding": None}
    return json.dumps([type(tokenizer).__name__, rules, special_ids(tokenizer)])


class ChunkBatches:
    """Batches from a finite set of chunks, epoch after epoch, each in a new order drawn from (seed, epoch).

    Every chunk comes once an epoch. A batch may run over the end of an epoch into the next, so all batches have the
    same size and nothing is dropped. The state is one number, so resuming costs nothing.

    Attributes: position, chunks served so far; epoch, whole passes so far.
    """

    def __init__(self, chunks: Dataset, batch_size: int, seed: int, shuffle: bool = True):
        if len(chunks) == 0 or batch_size < 1:
            raise ValueError(f"ChunkBatches: needs a chunk and a batch size, got {len(chunks)} and {batch_size}.")
        self.chunks, self.batch_size, self.seed, self.shuffle = chunks.with_format("torch"), batch_size, seed, shuffle
        self.position = 0
        self._order: tuple[int, Tensor] = (-1, torch.empty(0))  # of the epoch it was drawn for

    @property
    def epoch(self) -> int:
        """Whole passes over the chunks so far."""
        return self.position // len(self.chunks)

    def __iter__(self) -> Iterator[Tensor]:
        return self

    def __next__(self) -> Tensor:
        rows: list[int] = []
        while len(rows) < self.batch_size:
            epoch, start = divmod(self.position + len(rows), len(self.chunks))
            rows += self._order_of(epoch)[start : start + self.batch_size - len(rows)].tolist()
        self.position += self.batch_size
        return self.chunks[rows]["input_ids"]  # (B, L)

    def _order_of(self, epoch: int) -> Tensor:
        if self._order[0] != epoch:
            n, rng = len(self.chunks), Generator().manual_seed(seed_from(self.seed, epoch))
            self._order = (epoch, torch.randperm(n, generator=rng) if self.shuffle else torch.arange(n))
        return self._order[1]

    def state_dict(self) -> dict[str, Any]:
        """The position, and what it refers to."""
        return {"position": self.position, "chunks": len(self.chunks), "seed": self.seed, "shuffle": self.shuffle}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where the state was taken. Raises ValueError if chunks, seed or shuffling are not the same."""
        _move("ChunkBatches", self, state)


def fixed_batches(chunks: Dataset, batch_size: int) -> Iterator[Tensor]:
    """Yield every chunk once, in order, as (B, L) int64; the last batch may be smaller. Call again for another pass."""
    check_whole(batch_size, "batch_size", "fixed_batches")  # datasets would never end
    for rows in chunks.with_format("torch").iter(batch_size):
        yield rows["input_ids"]


class StoryBatches:
    """Fresh samples of a language for ever; batch i depends on (seed, i) alone, so the state is its number.

    Attributes: position, batches served so far.
    """

    def __init__(self, language: Samples, batch_size: int, seed: int, label: str | None = None):
        check_whole(batch_size, "batch_size", "StoryBatches")
        self.language, self.batch_size, self.seed, self.label = language, batch_size, seed, label
        self.position = 0

    def __iter__(self) -> Iterator[Tensor]:
        return self

    def __next__(self) -> Tensor:
        rng = Generator().manual_seed(seed_from(self.seed, self.position))
        self.position += 1
        return self.language.sample(self.batch_size, rng, label=self.label)  # (B, L)

    def state_dict(self) -> dict[str, Any]:
        """The number of the next batch, and what it refers to."""
        return {"position": self.position, "batch_size": self.batch_size, "seed": self.seed, "label": self.label}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where the state was taken. Raises ValueError if batch size, seed or label are not the same."""
        _move("StoryBatches", self, state)


class StreamBatches:
    """Batches from a streamed corpus, tokenized on the way and shuffled in blocks, pass after pass.

    A block of at least `buffer` chunks is read and put into an order drawn from (seed, number of the block). The state
    is the place where the block began and how much of it was served; resuming reads that block again, so it is exact.

    Attributes: position, chunks served so far; epoch, whole passes over the corpus read so far.
    """

    def __init__(
        self,
        dataset: IterableDataset,
        tokenizer: PreTrainedTokenizerBase,
        length: int,
        batch_size: int,
        *,
        seed: int,
        buffer: int = 1024,
    ):
        self.dataset, self.batch_size, self.seed = dataset, batch_size, seed
        check_whole(batch_size, "batch_size", "StreamBatches")
        self.capacity = -(-max(1, buffer) // batch_size) * batch_size  # whole batches
        self.encode, self.cut = _Encode(tokenizer), _Cut(tokenizer, length)
        self.position = self.epoch = 0
        self._block: Tensor | None = None  # read when the next batch is asked for
        self._open()
        self._block_start = self._here()

    def _open(self, place: dict[str, Any] | None = None, tokens_read: int = 0) -> None:
        # A copy each time: a streamed data set that was once moved to a place starts there in later passes as well.
        self._stream = copy.deepcopy(self.dataset)
        if place is not None:
            self._stream.load_state_dict(place)
        self._documents, self._tokens_read = iter(self._stream), tokens_read

    def _here(self) -> dict[str, Any]:
        place = copy.deepcopy(self._stream.state_dict())
        return {"epoch": self.epoch, "place": place, "tokens_read": self._tokens_read, "rest": self.cut.rest.tolist()}

    def __iter__(self) -> Iterator[Tensor]:
        return self

    def __next__(self) -> Tensor:
        number, served = divmod(self.position, self.capacity)
        if self._block is None or served == 0:
            self._block_start = self._here()
            rng = Generator().manual_seed(seed_from(self.seed, number))
            self._block = self._read_block()[torch.randperm(self.capacity, generator=rng)]
        self.position += self.batch_size
        return self._block[served : served + self.batch_size]  # (B, L)

    def _read_block(self) -> Tensor:
        chunks = np.empty((0, self.cut.length), dtype=np.int32)
        while len(chunks) < self.capacity:
            chunks = np.concatenate([chunks, self._read(documents=16)])
        self.cut.rest = np.concatenate([chunks[self.capacity :].reshape(-1), self.cut.rest])
        return torch.from_numpy(chunks[: self.capacity]).long()  # (capacity, L)

    def _read(self, documents: int) -> np.ndarray:
        texts = [row["text"] for row in islice(self._documents, documents)]
        if not texts and self._tokens_read < self.cut.length:
            raise ValueError(
                f"StreamBatches: one chunk needs {self.cut.length} tokens, but the whole corpus has "
                f"{self._tokens_read}. Choose a smaller length, or check the file, the split and the limit."
            )
        if not texts:
            self.epoch += 1
            self._open()
        ids = [i for document in self.encode({"text": texts})["ids"] for i in document]
        self._tokens_read += len(ids)
        return self.cut(np.array(ids, dtype=np.int32))

    def state_dict(self) -> dict[str, Any]:
        """The position, where its block begins in the corpus, and what both refer to."""
        start = self._block_start if self.position % self.capacity else self._here()
        own = {"capacity": self.capacity, "batch_size": self.batch_size, "seed": self.seed, "length": self.cut.length}
        return {"position": self.position, "block": start, **own}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where the state was taken, over the same corpus. Raises ValueError if the settings differ."""
        _move("StreamBatches", self, state)
        self._block, self._block_start = None, state["block"]
        self.epoch, self.cut.rest = state["block"]["epoch"], np.array(state["block"]["rest"], dtype=np.int32)
        self._open(state["block"]["place"], state["block"]["tokens_read"])


def _move(name: str, batches: ChunkBatches | StoryBatches | StreamBatches, state: dict[str, Any]) -> None:
    """Set the position, if the state was taken from batches like these."""
    own = {key: value for key, value in batches.state_dict().items() if key not in ("position", "block")}
    differing = [f"{key} {state.get(key)!r} there, {own[key]!r} here" for key in own if state.get(key) != own[key]]
    if differing:
        raise ValueError(
            f"{name}: the saved position belongs to other batches ({'; '.join(differing)}). Resume with the same data "
            "and settings, or start afresh."
        )
    batches.position = state["position"]
