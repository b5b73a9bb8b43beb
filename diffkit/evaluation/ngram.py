"""What every model has to beat: counting. Each is a denoiser of the autoregressive process, judged like a network."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Table(NamedTuple):
    """Counts of words behind H histories, without the zeros: those of history i lie at starts[i], sizes[i] of them."""

    known: Tensor  # (H,) sorted histories
    starts: Tensor  # (H,)
    sizes: Tensor  # (H,)
    words: Tensor  # (pairs seen,)
    counts: Tensor  # (pairs seen,) float64

    def following(self, histories: Tensor, V: int) -> Tensor:
        """Counts of all words behind each history, (...) -> (..., V); zeros where it was never seen."""
        sought = histories.flatten()
        row = torch.searchsorted(self.known, sought).clamp(max=len(self.known) - 1)
        sizes = torch.where(self.known[row] == sought, self.sizes[row], 0)
        place = torch.arange(len(sought)).repeat_interleave(sizes)
        within = torch.arange(len(place)) - (sizes.cumsum(0) - sizes)[place]
        entry = self.starts[row][place] + within
        counts = torch.zeros(len(sought), V, dtype=torch.float64)
        counts[place, self.words[entry]] = self.counts[entry]
        return counts.view(*histories.shape, V)


class NGram:
    """Counts of the words that follow the last `order` - 1 words, smoothed by those that follow fewer of them.

    Witten-Bell: p(v | h) = (c(h, v) + N(h) p(v | h')) / (c(h) + N(h)), where N(h) counts the different words seen after
    h, and h' is h without its first word; below the empty history stands the uniform distribution. Order 1 is the
    unigram, order 0 uniform.

    Args:    x0: (N, L) clean sequences to count; PAD and EOS are words. order: n of the n-gram, 0 or more.
             vocab_size: V; mask_id: starts every text and is never predicted.
    Raises:  ValueError for a negative order, one that is too high for the vocabulary, or if there is nothing to count.
    Source:  Chen and Goodman 1999, section 2.6 (after Witten and Bell 1991).
    """

    def __init__(self, x0: Tensor, order: int, *, vocab_size: int, mask_id: int):
        if order < 0 or x0.ndim != 2 or not x0.numel():
            raise ValueError(
                f"NGram: order must be 0 or more and x0 (N, L) ids, got order {order} and x0 {tuple(x0.shape)}."
            )
        if vocab_size**order >= 2**63:
            raise ValueError(f"NGram: {order} words of {vocab_size} do not fit one number; choose a smaller order.")
        self.order, self.vocab_size, self.mask_id = order, vocab_size, mask_id
        is_word = torch.arange(vocab_size) != mask_id
        self.uniform = is_word.double() / is_word.sum()  # (V,)
        before = torch.cat([torch.full_like(x0[:, :1], mask_id), x0[:, :-1]], 1)
        self.tables = [self._count(self._histories(before, n), x0) for n in range(order)]

    def _histories(self, before: Tensor, n: int) -> Tensor:
        """The last n words that each place has seen, as one number: (B, L) ids shifted right -> (B, L)."""
        code = torch.zeros_like(before)
        for back in reversed(range(n)):
            shifted = before.roll(back, 1)
            shifted[:, :back] = self.mask_id
            code = code * self.vocab_size + shifted
        return code

    def _count(self, histories: Tensor, x0: Tensor) -> Table:
        """How often each word follows each history; what was never seen takes no place."""
        pairs, counts = (histories * self.vocab_size + x0).unique(return_counts=True)  # sorted by history, then by word
        known, sizes = (pairs // self.vocab_size).unique_consecutive(return_counts=True)
        return Table(known, sizes.cumsum(0) - sizes, sizes, pairs % self.vocab_size, counts.double())

    def __call__(self, xt: Tensor, t: Tensor | float) -> Tensor:
        """A text shifted right by one place (B, L) -> log p of the next word at every place, (B, L, V) float64."""
        probs = self.uniform.expand(*xt.shape, -1)
        for n, table in enumerate(self.tables):
            seen = table.following(self._histories(xt, n), self.vocab_size)  # (B, L, V)
            kinds = (seen > 0).sum(-1, keepdim=True)
            blend = (seen + kinds * probs) / (seen.sum(-1, keepdim=True) + kinds).clamp(min=1)
            probs = torch.where(kinds > 0, blend, probs)
        return probs.log()
