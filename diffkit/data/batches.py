"""Batches of ids, (B, L) int64: of chunks, of fresh stories or of a stream; shuffled, and resumable at any batch."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from itertools import islice
from typing import Any, Protocol

import numpy as np
import torch
from datasets import Dataset, IterableDataset
from torch import Generator, Tensor
from transformers import PreTrainedTokenizerBase

from diffkit.data.chunks import Cut, Encode
from diffkit.data.corpus import seed_from


class Batches(Iterator[Tensor], Protocol):
    """Endless batches (B, L) int64, with a state from which exactly the same batches follow."""

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class SamplesTexts(Protocol):
    """Anything that generates sequences, such as a StoryLanguage."""

    def sample(self, n: int, rng: Generator) -> Tensor: ...  # (n, L) int64


class ChunkBatches(Iterator[Tensor]):
    """Batches from a finite set of chunks, epoch after epoch, each in a new order drawn from (seed, epoch).

    Every chunk comes once an epoch. A batch may run over the end of an epoch into the next, so all batches have the
    same size and nothing is dropped. The state is one number.

    Attributes: position, chunks served so far; epoch, whole passes so far.
    """

    def __init__(self, chunks: Dataset, batch_size: int, seed: int):
        self.chunks, self.batch_size, self.seed = chunks.with_format("torch"), batch_size, seed
        self.position = 0
        self._order: tuple[int, Tensor] = (-1, torch.empty(0))  # of the epoch it was drawn for

    @property
    def epoch(self) -> int:
        return self.position // len(self.chunks)

    def __next__(self) -> Tensor:
        rows: list[int] = []
        while len(rows) < self.batch_size:
            epoch, start = divmod(self.position + len(rows), len(self.chunks))
            rows += self._order_of(epoch)[start : start + self.batch_size - len(rows)].tolist()
        self.position += self.batch_size
        return self.chunks[rows]["input_ids"]  # (B, L)

    def _order_of(self, epoch: int) -> Tensor:
        if self._order[0] != epoch:
            rng = Generator().manual_seed(seed_from(self.seed, epoch))
            self._order = (epoch, torch.randperm(len(self.chunks), generator=rng))
        return self._order[1]

    def state_dict(self) -> dict[str, Any]:
        return {"position": self.position, "chunks": len(self.chunks), "seed": self.seed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises: ValueError if chunks or seed are not the same."""
        _move(self, state)


class StoryBatches(Iterator[Tensor]):
    """Fresh samples of a language, endlessly; batch i depends on (seed, i) alone, so the state is its number.

    Attributes: position, batches served so far.
    """

    def __init__(self, language: SamplesTexts, batch_size: int, seed: int):
        self.language, self.batch_size, self.seed, self.position = language, batch_size, seed, 0

    def __next__(self) -> Tensor:
        rng = Generator().manual_seed(seed_from(self.seed, self.position))
        self.position += 1
        return self.language.sample(self.batch_size, rng)  # (B, L)

    def state_dict(self) -> dict[str, Any]:
        return {"position": self.position, "batch_size": self.batch_size, "seed": self.seed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises: ValueError if batch size or seed are not the same."""
        _move(self, state)


class StreamBatches(Iterator[Tensor]):
    """Batches from a streamed corpus, tokenized on the way and shuffled in blocks, pass after pass.

    A block of at least `buffer` chunks is read and put into an order drawn from (seed, number of the block). The state
    is the start of the block in the corpus and the number of chunks served; resuming reads that block again.

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
        self.capacity = -(-max(1, buffer) // batch_size) * batch_size  # whole batches
        self.encode, self.cut = Encode(tokenizer), Cut(tokenizer, length)
        self.position = self.epoch = 0
        self._block: Tensor | None = None  # read with the next batch, from _block_start on
        self._open()
        self._block_start = self._here()

    def _open(self, place: dict[str, Any] | None = None, tokens_read: int = 0) -> None:
        # A copy each time: a streamed data set that was once moved starts there in later passes as well.
        self._stream = copy.deepcopy(self.dataset)
        if place is not None:
            self._stream.load_state_dict(place)
        self._documents, self._tokens_read = iter(self._stream), tokens_read

    def _here(self) -> dict[str, Any]:
        place = copy.deepcopy(self._stream.state_dict())
        return {"epoch": self.epoch, "place": place, "tokens_read": self._tokens_read, "rest": self.cut.rest.tolist()}

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
        start = self._block_start if self.position % self.capacity else self._here()
        own = {"capacity": self.capacity, "batch_size": self.batch_size, "seed": self.seed, "length": self.cut.length}
        return {"position": self.position, "block": start, **own}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises: ValueError if the settings differ; the corpus must be the same."""
        _move(self, state)
        self._block, self._block_start = None, state["block"]
        self.epoch, self.cut.rest = state["block"]["epoch"], np.array(state["block"]["rest"], dtype=np.int32)
        self._open(state["block"]["place"], state["block"]["tokens_read"])


def _move(batches: ChunkBatches | StoryBatches | StreamBatches, state: dict[str, Any]) -> None:
    """Set the position, if the state was taken from batches like these."""
    own = {key: value for key, value in batches.state_dict().items() if key not in ("position", "block")}
    differing = [f"{key} {state.get(key)!r} there, {own[key]!r} here" for key in own if state.get(key) != own[key]]
    if differing:
        raise ValueError(
            f"{type(batches).__name__}: the saved position belongs to other batches ({'; '.join(differing)}). Resume "
            "with the same data and settings, or start afresh."
        )
    batches.position = state["position"]
