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


class CachedDenoiser(nn.Module):
    """A causal network as a denoiser of growing prefixes: of a longer one it reads only what is new.

    A prefix that does not continue the last one, or a `where` at positions read before, starts again.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model, self.cache, self.read = model, KeyValueCache(), torch.empty(0, 0)
        self.train(model.training)

    def forward(self, zt: Tensor, t: Tensor, where: Tensor | None = None) -> Tensor:
        past = len(self.cache)
        goes_on = where is not None and torch.equal(zt[:, :past], self.read) and not where[:, :past].any()
        if not goes_on:
            past, self.cache = 0, KeyValueCache()
        self.read = zt.clone()
        return self.model(zt[:, past:], t, None if where is None else where[:, past:], cache=self.cache)
