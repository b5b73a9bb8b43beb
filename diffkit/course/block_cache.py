"""Block by block with a KV cache that goes stale (Fast-dLLM): faster calls, APPROXIMATE predictions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Generator, Tensor, nn

from diffkit.checks import check_whole
from diffkit.network.cache import KeyValueCache
from diffkit.processes.base import Denoiser
from diffkit.processes.masked import MaskedDiffusion
from diffkit.random import uniform_like
from diffkit.sampling.parallel import Choose, reveal_chosen, time_by_count
from diffkit.sampling.unmasking import probs_at


class StaleCache(KeyValueCache):
    """Keys and values of a whole canvas from one full pass; later passes compute new ones for a span of it only.

    In a bidirectional network those of the other positions are out of date once a token changes: APPROXIMATE. Exact
    are the full pass itself, and a network of one layer, whose keys depend on nothing but the token at their position.

    Args: first: where the span starts; rows: which rows of the full pass are read, (B,) bool.
    """

    exact = False

    def __init__(self) -> None:
        super().__init__()
        self.first, self.rows = 0, torch.empty(0)

    def __len__(self) -> int:
        """Positions before the span."""
        return self.first

    def extend(self, layer: nn.Module, k: Tensor, v: Tensor, max_length: int) -> tuple[Tensor, Tensor]:
        """Keys and values (B, H, L, K) of the canvas: new ones in the span, old ones around it."""
        if layer not in self.layers:
            self.layers[layer] = k, v
            return k, v
        last = self.first + k.shape[2]
        k, v = (
            torch.cat([old[self.rows][:, :, : self.first], new, old[self.rows][:, :, last:]], 2)
            for old, new in zip(self.layers[layer], (k, v), strict=True)
        )
        return k, v


Span = Callable[[int, int, int], tuple[int, int]]  # block from lo to hi of a canvas of L -> positions computed again


def prefix_cache(lo: int, hi: int, L: int) -> tuple[int, int]:
    """Prefix cache: keys and values before the block are reused."""
    return lo, L


def dual_cache(lo: int, hi: int, L: int) -> tuple[int, int]:
    """Dual cache: those of the masks behind it, too."""
    return lo, hi


class Blockwise:
    """Generate block after block from left to right, each as `choose` allows; the whole canvas is in view.

    Args:   size: tokens of a block; cache: which keys and values are reused after the first call of a block. None:
            none, exact and slow; `prefix_cache` or `dual_cache`: APPROXIMATE, for networks of this package only.
    Source: blocks: arXiv:2502.09992; caches: arXiv:2505.22618 (Fast-dLLM), sections on prefix and dual cache.
    """

    def __init__(self, process: MaskedDiffusion, size: int, choose: Choose, cache: Span | None = None):
        check_whole(size, "size", "Blockwise")
        self.process, self.size, self.choose, self.cache = process, size, choose, cache

    def states(self, denoise: Denoiser, z: Tensor, rng: Generator) -> Iterator[tuple[float, Tensor]]:
        L = z.shape[1]
        position = torch.arange(L, device=z.device)
        for lo in range(0, L, self.size):
            hi = min(lo + self.size, L)
            in_block = (position >= lo) & (position < hi)
            u = uniform_like(z, rng)  # once a block: what a row draws does not depend on the calls that others need
            predict: Callable[[Tensor, Tensor, Tensor], Tensor] = partial(probs_at, self.process, denoise)
            if self.cache is not None:
                predict = BlockCache(self.process, denoise, *self.cache(lo, hi, L))
            while (is_masked := (z == self.process.mask_id) & in_block).any():
                probs = predict(z, time_by_count(self.process, z), is_masked)
                z = reveal_chosen(self.choose, probs, z, is_masked, u)
                yield float(time_by_count(self.process, z).max()), z


class BlockCache:
    """As `probs_at`, but reads all positions once, and then first..last only, with `StaleCache` for the others."""

    def __init__(self, process: MaskedDiffusion, denoise: Denoiser, first: int, last: int):
        self.process, self.first, self.last = process, first, last
        self.network: Any = denoise  # one of ours: it takes a cache
        self.old: StaleCache | None = None

    def __call__(self, z: Tensor, t: Tensor, where: Tensor) -> Tensor:
        rows, span = where.any(1), slice(0, None)
        if self.old is None:
            self.old, self.read = StaleCache(), rows  # rows whose block is complete are never asked about again
        else:
            self.old.first, self.old.rows, span = self.first, rows[self.read], slice(self.first, self.last)
        logits = self.network(z[rows, span], t[rows], where[rows, span], cache=self.old)
        return self.process.token_logits(logits.double(), z[where]).softmax(-1)


def reuse_error(
    process: MaskedDiffusion, network: Denoiser, before: Tensor, after: Tensor, where: Tensor, span: tuple[int, int]
) -> Tensor:
    """Cost of stale keys: total variation between predictions with and without them at each position of `where`, (N,).

    The canvas `before` (B, L) is read in full; it becomes `after`, of which the span (first, last) is read again.

    Args: where: (B, L) bool, masked positions of `after` within the span.
    """
    t, cached = torch.zeros(len(before), device=before.device), BlockCache(process, network, *span)
    cached(before, t, torch.ones_like(where))
    in_span = torch.zeros_like(where)
    in_span[:, slice(*span)] = True
    stale, fresh = cached(after, t, in_span), probs_at(process, network, after, t, in_span)
    return ((stale - fresh).abs().sum(-1) / 2)[where[in_span]]
