"""Keys and values of what was read before, so that only new positions are read."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class KeyValueCache:
    """Keys and values of the positions read so far, a buffer of `max_length` positions for each layer."""

    exact = True  # False: for a network with full attention, whose old keys go stale (see course/block_cache.py)

    def __init__(self) -> None:
        self.layers: dict[nn.Module, tuple[Tensor, Tensor]] = {}
        self.lengths: dict[nn.Module, int] = {}

    def __len__(self) -> int:
        """Positions read so far."""
        return next(iter(self.lengths.values()), 0)

    def extend(self, layer: nn.Module, k: Tensor, v: Tensor, max_length: int) -> tuple[Tensor, Tensor]:
        """Append (B, H, L, K) keys and values of new positions to those of a layer, and return all of them."""
        if layer not in self.layers:
            shape = (*k.shape[:2], max_length, k.shape[3])
            self.layers[layer], self.lengths[layer] = (k.new_empty(shape), v.new_empty(shape)), 0
        first, last = self.lengths[layer], self.lengths[layer] + k.shape[2]
        keys, values = self.layers[layer]
        keys[:, :, first:last], values[:, :, first:last] = k, v
        self.lengths[layer] = last
        return keys[:, :, :last], values[:, :, :last]

    def cut(self, length: int) -> None:
        """Keep the first positions only."""
        self.lengths = {layer: min(length, read) for layer, read in self.lengths.items()}


class CachedDenoiser:
    """A causal network, or one with blocks, as a denoiser that reads only what is new.

    Asked at some positions, it reads up to the last of them, and rereads nothing that is unchanged since the last call.
    That is exact for a network that attends only to the left and takes no time. One with blocks reads two texts; here
    it reads one if both are the same, as in sampling. Rows that are at different positions are read from the first of
    these positions to the last: batch prompts of similar length.

    Args: block: tokens of a block, 1 for a causal network.
    """

    def __init__(self, model: nn.Module, block: int = 1):
        self.model, self.block, self.cache, self.read = model, block, KeyValueCache(), torch.empty(0, 0)

    def __call__(self, zt: Tensor, t: Tensor, where: Tensor | None = None) -> Tensor:
        if where is None or not where.any() or (zt.shape != where.shape and not torch.equal(*zt.chunk(2, 1))):
            return self.model(zt, t, where)
        asked = where.any(0).nonzero()[:, 0]
        first, last = int(asked[0]) // self.block * self.block, int(asked[-1]) // self.block * self.block + self.block
        if len(self.read) != len(zt):
            self.cache, self.read = KeyValueCache(), zt[:, :0]
        known = min(first, self._unchanged(zt) // self.block * self.block)
        self.cache.cut(known)
        self.read = zt[:, : min(last, where.shape[1])].clone()
        return self.model(self.read[:, known:], t, where[:, known:last], cache=self.cache)

    def _unchanged(self, zt: Tensor) -> int:
        """How many positions at the start of all texts are those of the last call."""
        same = (zt[:, : self.read.shape[1]] == self.read).all(0)
        return int(same.int().cumprod(0).sum())
