"""Block by block with old keys and values: faster calls, APPROXIMATE beliefs (Fast-dLLM)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Generator, Tensor

from diffkit.checks import check_whole
from diffkit.network.attention import Attention, KeyValueCache
from diffkit.processes.base import Denoise
from diffkit.processes.masked import MaskedDiffusion
from diffkit.sampling.parallel import Choose, time_by_count, with_chosen
from diffkit.sampling.skipping import logits_of_rows, token_probs


class StaleCache(KeyValueCache):
    """Keys and values of a whole canvas, made by one full pass; later passes make new ones of a stretch of it only.

    In a network that looks both ways those of the other places are out of date once a token changes: APPROXIMATE. Exact
    are the full pass itself, and a network of one layer, whose keys depend on nothing but the token in their place.

    Args: first: where the stretch starts; rows: which rows of the full pass are read, (B,) bool.
    """

    exact = False

    def __init__(self) -> None:
        super().__init__()
        self.first, self.rows = 0, torch.empty(0)

    def __len__(self) -> int:
        """Places before the stretch."""
        return self.first

    def extend(self, layer: Attention, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (B, H, L, K) of the canvas: new ones in the stretch, old ones around it."""
        if layer not in self.layers:
            self.layers[layer] = k, v
            return k, v
        last = self.first + k.shape[2]
        k, v = (
            torch.cat([old[self.rows][:, :, : self.first], new, old[self.rows][:, :, last:]], 2)
            for old, new in zip(self.layers[layer], (k, v), strict=True)
        )
        return k, v


Span = Callable[[int, int, int], tuple[int, int]]  # block from lo to hi of a canvas of L -> places read anew


def recompute_suffix(lo: int, hi: int, L: int) -> tuple[int, int]:
    """Prefix cache: what stands before the block is not read again."""
    return lo, L


def recompute_block(lo: int, hi: int, L: int) -> tuple[int, int]:
    """Dual cache: nor are the masks behind it."""
    return lo, hi


class Blockwise:
    """Write block after block from left to right, each as `choose` allows; the whole canvas is in view.

    Args:   size: tokens of a block; anew: which places are read again after the first call of a block. None: all of
            them, at every call, exact and slow; `recompute_suffix` or `recompute_block`: APPROXIMATE, for networks of ours only.
    Source: blocks: arXiv:2502.09992; caches: arXiv:2505.22618 (Fast-dLLM), sections on prefix and dual cache.
    """

    def __init__(self, process: MaskedDiffusion, size: int, choose: Choose, recompute: Span | None = None):
        check_whole(size, "size", "Blockwise")
        self.process, self.size, self.choose, self.recompute = process, size, choose, recompute

    def moves(self, denoise: Denoise, z: Tensor, rng: Generator) -> Iterator[tuple[float, Tensor]]:
        L = z.shape[1]
        for lo in range(0, L, self.size):
            hi = min(lo + self.size, L)
            is_open = (torch.arange(L, device=z.device) >= lo) & (torch.arange(L, device=z.device) < hi)
            ask = (
                partial(logits_of_rows, denoise)
                if self.recompute is None
                else CachedDenoiser(denoise, *self.recompute(lo, hi, L))
            )
            while (hidden := (z == self.process.mask_id) & is_open).any():
                t = time_by_count(self.process, z)
                probs = token_probs(self.process, ask(z, t, hidden))
                z = with_chosen(self.choose, probs, z, hidden, rng)
                yield float(time_by_count(self.process, z).max()), z


class CachedDenoiser:
    """Reads all places once, and then places first..last only, with `StaleCache` for the others."""

    def __init__(self, network: Any, first: int, last: int):
        self.network, self.first, self.last = network, first, last
        self.old: StaleCache | None = None

    def __call__(self, z: Tensor, t: Tensor, hidden: Tensor) -> Tensor:
        """Logits (N, V) at the hidden places."""
        rows = hidden.any(1)
        if self.old is None:
            self.old, self.read = StaleCache(), rows  # rows whose block is complete are never asked about again
            return self.network(z[rows], t[rows], hidden[rows], cache=self.old)
        self.old.first, self.old.rows = self.first, rows[self.read]
        stretch = slice(self.first, self.last)
        return self.network(z[rows, stretch], t[rows], hidden[rows, stretch], cache=self.old)


def reuse_error(network: Any, before: Tensor, after: Tensor, hidden: Tensor, first: int, last: int) -> Tensor:
    """What old keys cost: total variation between beliefs with and without them at each hidden place, (N,).

    The canvas `before` (B, L) is read in full; it becomes `after`, of which places first..last are read again.

    Args: hidden: (B, L) bool, masked places of `after` within first..last.
    """
    t, reused = torch.zeros(len(before), device=before.device), CachedDenoiser(network, first, last)
    everywhere = torch.ones_like(hidden)
    reused(before, t, everywhere)
    whole = torch.zeros_like(hidden)
    whole[:, first:last] = True
    quick = reused(after, t, whole)
    slow = network(after, t, whole)
    difference = (quick.double().softmax(-1) - slow.double().softmax(-1)).abs().sum(-1) / 2
    return difference[hidden[whole]]
