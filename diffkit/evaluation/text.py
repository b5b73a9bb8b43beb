"""The bound on a text of any size, read once, window by window; other models and n-grams on the same windows."""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Generator, Tensor
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerBase

from diffkit.checks import check_whole
from diffkit.data.chunks import texts_of
from diffkit.data.corpus import CORPORA, load_corpus
from diffkit.data.files import BAR_DELAY
from diffkit.data.tokenizer import special_ids, text_ids
from diffkit.evaluation.bounds import TOGETHER, sequence_bounds
from diffkit.evaluation.ngram import NGram
from diffkit.evaluation.statistics import Estimate, Sums, perplexity
from diffkit.model import DiffusionModel, load_with_tokenizer
from diffkit.processes.autoregressive import Autoregressive
from diffkit.processes.base import Denoise, Process

CONTEXT = 16  # tokens decoded before new ones, so that no character or word is counted in halves
PIECE = 2**14  # characters of a document that are tokenized at once
PIECES = 16  # together
MOST_COUNTED = 2**23  # tokens that an n-gram counts
Judge = tuple[Process, Denoise]


class Windows(NamedTuple):
    """Windows of a text that are judged together."""

    ids: Tensor  # (B, L)
    given: Tensor  # (B, L) bool, tokens that an earlier window has counted: context, which costs nothing


class Read(NamedTuple):
    """What was read of a text."""

    windows: int
    length: int  # tokens of a window
    stride: int  # new tokens of a window
    tokens: int
    characters: int
    words: int
    unknown: int  # tokens that stand for a word outside the vocabulary

    @property
    def bounded(self) -> str:
        """Of what the figures are a bound."""
        if self.stride < self.length and self.windows > 1:
            return f"{self.stride} tokens at a time, given the {self.length - self.stride} before them"
        return f"windows of {self.length} tokens, each on its own: nothing is known of the text before it"


class TextBound(NamedTuple):
    """How well a model predicts a text. `print` shows it, and those beside it."""

    name: str
    per_token: Estimate  # nats; the standard error is over windows
    exact: bool  # is it -log p itself, not a bound on it
    read: Read
    difference: Estimate | None = None  # nats per token above the first model, window by window
    beside: tuple[TextBound, ...] = ()

    @property
    def bits_per_character(self) -> Estimate:
        """Comparable between tokenizers."""
        return self.per_token / (self.read.characters / self.read.tokens * math.log(2))

    @property
    def perplexity(self) -> float:
        """Of a token."""
        return perplexity(self.per_token.mean)

    def __str__(self) -> str:
        what, most = ("-log p", "") if self.exact else ("bound on -log p", "at most ")
        lines = [
            f"{self.name}: {what} {self.per_token} nats per token, {self.bits_per_character} bits per character, "
            f"perplexity {most}{self.perplexity:.4g}"
        ]
        if self.difference:
            lines[0] += f"; {self.difference} nats per token above the first"
        else:
            lines.append(f"of {self.read.bounded} ({self.read.windows:,} in all, {self.read.tokens:,} tokens)")
        return "\n".join([*lines, *map(str, self.beside)])


def stream_of(documents: Iterable[str], tokenizer: PreTrainedTokenizerBase) -> Iterator[np.ndarray]:
    """Documents as ids, an EOS after each, in pieces: a long document is cut between two words."""
    eos, pieces = special_ids(tokenizer).eos, (piece for text in documents for piece in pieces_of(text or ""))
    while some := [*islice(pieces, PIECES)]:
        for ids, (_, is_last) in zip(text_ids([text for text, _ in some], tokenizer), some, strict=True):
            yield np.array([*ids, eos] if is_last else ids, dtype=np.int64)


def pieces_of(text: str) -> Iterator[tuple[str, bool]]:
    """A document in pieces that begin with the space before a word, if there is one, and whether each is the last."""
    if not text.strip():
        return
    start = 0
    while len(text) - start > PIECE:
        space = text.rfind(" ", start + 1, start + PIECE)
        end = space if space > start else start + PIECE
        yield text[start:end], False
        start = end
    yield text[start:], True


def windows_of(pieces: Iterable[np.ndarray], length: int, stride: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
    """Cut a stream of ids into windows: each of `length` tokens (L,), with (L,) bool, which of them are context.

    Every token is new in exactly one window. The first window has no context, each later one the `length` - `stride`
    tokens before its new ones; the last one is filled up with context, unless all the text is shorter than a window.
    """
    stride = stride or length
    held, context, window = np.empty(0, np.int64), 0, np.empty(0, np.int64)
    position = torch.arange(length)
    for piece in pieces:
        held = np.concatenate([held, piece])
        start = 0
        while len(held) - start >= length:
            window = held[start : start + length]
            yield torch.from_numpy(window), position < context
            start, context = start + stride, length - stride
        held = held[start:]
    if new := len(held) - context:
        last = np.concatenate([window, held[context:]])[-length:]
        yield torch.from_numpy(last), position[: len(last)] < len(last) - new


def together(windows: Iterable[tuple[Tensor, Tensor]]) -> Iterator[Windows]:
    """Windows in batches; one that is shorter than the others is alone."""
    windows = iter(windows)
    while some := [*islice(windows, TOGETHER)]:
        longest = len(some[0][0])
        for part in ([one for one in some if len(one[0]) == longest], [one for one in some if len(one[0]) < longest]):
            if part:
                yield Windows(*map(torch.stack, zip(*part, strict=True)))


class Counted:
    """Characters and words of the new tokens of a text, in constant memory."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        self.tokenizer, self.before = tokenizer, torch.empty(0, dtype=torch.int64)
        self.characters = self.words = self.tokens = self.unknown = self.windows = self.length = 0

    def add(self, batch: Windows) -> None:
        new = batch.ids[~batch.given]
        text = torch.cat([self.before, new])
        for sign, ids in ((1, text), (-1, self.before)):
            texts = texts_of(ids[None], self.tokenizer)
            self.characters += sign * sum(map(len, texts))
            self.words += sign * sum(len(one.split()) for one in texts)
        self.before = text[-CONTEXT:]
        self.tokens, self.windows = self.tokens + len(new), self.windows + len(batch.ids)
        self.unknown += new.tolist().count(self.tokenizer.unk_token_id)
        self.length = max(self.length, batch.ids.shape[1])

    def read(self, stride: int | None) -> Read:
        """Everything so far."""
        stride = min(stride or self.length, self.length)
        return Read(self.windows, self.length, stride, self.tokens, self.characters, self.words, self.unknown)


def text_bounds(
    judges: Mapping[str, Judge], batches: Iterable[Windows], tokenizer: PreTrainedTokenizerBase, *,
    stride: int | None = None, draws: int = 4, seed: int = 0,
) -> Iterator[TextBound]:  # fmt: skip
    """After every batch of windows, the bound so far of the first judge, and those of the others beside it.

    Each judge reads the text once, with random numbers of its own from the same seed.
    """
    counted, rngs = Counted(tokenizer), {name: Generator().manual_seed(seed) for name in judges}
    nats, above = ({name: Sums() for name in judges} for _ in range(2))
    for batch in batches:
        counted.add(batch)
        tokens, first = (~batch.given).sum(1), None
        for name, (process, denoise) in judges.items():
            found = sequence_bounds(process, denoise, batch.ids, rng=rngs[name], draws=draws, frozen=batch.given)
            first = found if first is None else first
            nats[name].add(found, tokens)
            above[name].add(found - first, tokens)
        if counted.characters:
            yield _so_far(judges, nats, above, counted.read(stride))


def _so_far(judges: Mapping[str, Judge], nats: dict[str, Sums], above: dict[str, Sums], read: Read) -> TextBound:
    first, *others = (
        TextBound(name, nats[name].ratio(), not process.bound_varies, read, above[name].ratio())
        for name, (process, _) in judges.items()
    )
    return first._replace(difference=None, beside=tuple(others))


def watched(bounds: Iterable[TextBound], windows: int | None) -> Iterator[TextBound]:
    """The same, with a progress bar where it takes long."""
    with tqdm(total=windows, desc="reading", unit=" windows", delay=BAR_DELAY) as bar:
        for bound in bounds:
            bar.set_postfix_str(f"{bound.per_token} nats per token", refresh=False)
            bar.update(bound.read.windows - bar.n)
            yield bound
        bar.total = bar.n  # the text may end before so many windows


def check_windows(windows: int, stride: int | None, length: int) -> None:
    """Raise ValueError for a negative number of windows (0: all), and unless 1 <= stride <= length."""
    check_whole(windows, "windows", "bound_on_text", least=0)
    if stride is not None:
        check_whole(stride, "stride", "bound_on_text", most=length)


def documents_of(name: str | Path) -> Iterator[str]:
    """The documents of a corpus, read lazily; otherwise as `load_corpus`."""
    corpus = CORPORA.get(str(name))
    yield from (row["text"] for row in load_corpus(name, streaming=corpus is None or corpus.streaming))


def judge_of(
    name: str, tokenizer: PreTrainedTokenizerBase, length: int, counted: Callable[[], Tensor] | None = None
) -> Judge:
    """A baseline by name: "3-gram:FILE" counts a text, "3-gram" the sequences (N, L) of `counted`; else a model.

    Raises: ValueError for a model with another vocabulary or shorter texts, and an n-gram with nothing to count.
    """
    if gram := re.fullmatch(r"(\d+)-gram(?::(.+))?", name):
        order, file = int(gram[1]), gram[2]
        if not (file or counted):
            raise ValueError(f"judge_of: an n-gram has to count a text: write {name}:FILE, a text like the one judged.")
        x0 = full_windows(documents_of(file), tokenizer, length) if file else counted()  # type: ignore[misc]
        V, mask = len(tokenizer), special_ids(tokenizer).mask
        return Autoregressive(V, mask), NGram(x0, order, vocab_size=V, mask_id=mask)
    other, its_tokenizer = load_with_tokenizer(name)
    if its_tokenizer.get_vocab() != tokenizer.get_vocab() or other.denoiser.config.max_length < length:
        raise ValueError(
            f"judge_of: {name!r} cannot stand beside this model: it has another vocabulary, or shorter texts than "
            f"{length} tokens. Choose one that was trained on the same tokens, such as the autoregressive twin."
        )
    return other.process, other


def full_windows(documents: Iterable[str], tokenizer: PreTrainedTokenizerBase, length: int) -> Tensor:
    """The first windows of a text, (N, length), for an n-gram to count."""
    windows = windows_of(stream_of(documents, tokenizer), length)
    found = [ids for ids, _ in islice(windows, MOST_COUNTED // length) if len(ids) == length]
    if not found:
        raise ValueError(
            f"judge_of: the text that an n-gram counts has fewer than {length} tokens. Choose a longer one."
        )
    return torch.stack(found)


def bound_on_text(
    model: DiffusionModel | str | Path, text: str | Path | Iterable[str], *, windows: int = 0,
    stride: int | None = None, draws: int = 4, seed: int = 0, beside: Sequence[str] = (),
    counted: Callable[[], Tensor] | None = None, tokenizer: PreTrainedTokenizerBase | None = None,
) -> TextBound:  # fmt: skip
    """How well a model predicts a text: the bound on its negative log-likelihood, in one pass and constant memory.

        print(bound_on_text("tinystories-mdlm", "my.txt"))

    Args:    model: a model, its folder, or the name of a shipped one; text: a file, a folder or a name, as
             `load_corpus` takes them, or documents one after the other.
             windows: how many to read, 0 for all; a window is as long as the texts that the model was trained on.
             stride: new tokens of each window; the others are the tokens before them, which are given. None: no
             overlap, which is fastest; a smaller stride is slower and, as a rule, gives a lower bound.
             draws: maskings per window; seed: of the maskings; beside, counted: baselines to judge on the same windows,
             see `judge_of`; tokenizer: needed if the model was not loaded from a folder.
    Returns: nats per token and bits per character with standard errors over windows, perplexity, and what was read.
    Raises:  ValueError as `check_windows`, and for a text without a word that the model knows.
    """
    trained, tokenizer = load_with_tokenizer(model, tokenizer)
    length = trained.denoiser.config.max_length
    check_windows(windows, stride, length)
    documents = documents_of(text) if isinstance(text, str | Path) else text
    cut = islice(windows_of(stream_of(documents, tokenizer), length, stride), windows or None)
    judges: dict[str, Judge] = {Path(str(trained.name_or_path)).name or "model": (trained.process, trained)}
    judges |= {name: judge_of(name, tokenizer, length, counted) for name in beside}
    bounds = text_bounds(judges, together(cut), tokenizer, stride=stride, draws=draws, seed=seed)
    found = [*deque(watched(bounds, windows or None), maxlen=1)]
    if not found:
        raise ValueError("bound_on_text: no word of this text is in the model's vocabulary. Choose another text.")
    return found[0]
