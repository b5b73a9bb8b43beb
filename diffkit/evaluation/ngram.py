"""N-grams: baselines that the autoregressive process evaluates like a network, and windows that were seen before."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Table(NamedTuple):
    """Sparse counts of the tokens that follow H histories: those of history i lie at starts[i], sizes[i] of them."""

    known: Tensor  # (H,) sorted histories
    starts: Tensor  # (H,)
    sizes: Tensor  # (H,)
    tokens: Tensor  # (pairs seen,)
    counts: Tensor  # (pairs seen,) float64

    def following(self, histories: Tensor, V: int) -> Tensor:
        """Counts of all tokens after each history, (...) -> (..., V); zeros where it was never seen."""
        sought = histories.flatten()
        row = torch.searchsorted(self.known, sought).clamp(max=len(self.known) - 1)
        sizes = torch.where(self.known[row] == sought, self.sizes[row], 0)
        query = torch.arange(len(sought)).repeat_interleave(sizes)
        within = torch.arange(len(query)) - (sizes.cumsum(0) - sizes)[query]
        entry = self.starts[row][query] + within
        counts = torch.zeros(len(sought), V, dtype=torch.float64)
        counts[query, self.tokens[entry]] = self.counts[entry]
        return counts.view(*histories.shape, V)


class NGram:
    """Counts of the tokens that follow the last `order` - 1 tokens, smoothed by those that follow fewer of them.

    Witten-Bell: p(v | h) = (c(h, v) + N(h) p(v | h')) / (c(h) + N(h)), where N(h) counts the different tokens seen
    after h, and h' is h without its first token; the empty history backs off to the uniform distribution. Order 1 is
    the unigram, order 0 uniform.

    Args:    x0: (N, L) clean sequences to count, PAD and EOS included; order: n of the n-gram, 0 or more.
             vocab_size: V; mask_id: starts every text and is never predicted.
    Raises:  ValueError for an order that is too high for the vocabulary.
    Source:  Chen and Goodman 1999, section 2.6 (after Witten and Bell 1991).
    """

    def __init__(self, x0: Tensor, order: int, *, vocab_size: int, mask_id: int):
        if vocab_size**order >= 2**63:
            raise ValueError(f"NGram: {order} tokens of {vocab_size} do not fit one number; choose a smaller order.")
        self.order, self.vocab_size, self.mask_id = order, vocab_size, mask_id
        is_token = torch.arange(vocab_size) != mask_id
        self.uniform = is_token.double() / is_token.sum()  # (V,)
        before = torch.cat([torch.full_like(x0[:, :1], mask_id), x0[:, :-1]], 1)
        self.tables = [self._count(self._histories(before, n), x0) for n in range(order)]

    def _histories(self, before: Tensor, n: int) -> Tensor:
        """The last n tokens before each position as one number: (B, L) ids shifted right -> (B, L)."""
        code = torch.zeros_like(before)
        for back in reversed(range(n)):
            shifted = before.roll(back, 1)
            shifted[:, :back] = self.mask_id
            code = code * self.vocab_size + shifted
        return code

    def _count(self, histories: Tensor, x0: Tensor) -> Table:
        """How often each token follows each history."""
        pairs, counts = (histories * self.vocab_size + x0).unique(return_counts=True)  # sorted by history, token
        known, sizes = (pairs // self.vocab_size).unique_consecutive(return_counts=True)
        return Table(known, sizes.cumsum(0) - sizes, sizes, pairs % self.vocab_size, counts.double())

    def __call__(self, xt: Tensor, t: Tensor | float, where: Tensor | None = None) -> Tensor:
        """A text shifted right by one (B, L) -> log p of the next token at every position, (B, L, V) float64."""
        probs = self.uniform.expand(*xt.shape, -1)
        for n, table in enumerate(self.tables):
            seen = table.following(self._histories(xt, n), self.vocab_size)  # (B, L, V)
            kinds = (seen > 0).sum(-1, keepdim=True)
            blend = (seen + kinds * probs) / (seen.sum(-1, keepdim=True) + kinds).clamp(min=1)
            probs = torch.where(kinds > 0, blend, probs)
        return probs.log() if where is None else probs[where].log()


def seen_windows(ids: Tensor, stream: Tensor, n: int) -> float:
    """Share of the windows of n tokens in rows (N, L) that occur in a stream of ids (tokens,).

    Windows are compared by a hash of 64 bits; that two different ones of millions agree is less than one in a million.
    """
    rng = torch.Generator().manual_seed(0)
    odd = torch.randint(-(2**62), 2**62, (n,), generator=rng) * 2 + 1

    def codes(row: Tensor) -> Tensor:
        code = torch.zeros_like(row[..., : row.shape[-1] - n + 1])
        for i in range(n):
            code = (code + row[..., i : i + code.shape[-1]] + 1) * odd[i]  # modulo 2^64
        return code

    return torch.isin(codes(ids), codes(stream)).double().mean().item()
