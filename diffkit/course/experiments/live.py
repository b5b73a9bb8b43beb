"""Training before one's eyes: a network small enough for `micro` on any laptop, and a loop that yields its loss."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class CanvasNetwork(nn.Module):
    """Reads the whole canvas at once: L one-hot tokens and the time to L rows of V numbers, through two hidden layers.

    No attention and nothing shared between positions, so it is of use for a few short texts only; there it learns in
    seconds. MASK is an input like any other. Its last layer starts at zero.
    """

    def __init__(self, vocab_size: int, length: int, T: int, width: int = 192, seed: int = 0):
        super().__init__()
        self.V, self.L, self.T = vocab_size, length, T
        self.layers = three_layers(length * vocab_size + 8, width, length * vocab_size, seed)

    def forward(self, zt: Tensor, t: Tensor) -> Tensor:
        """(B, L) ids and (B,) times in [0, T] to (B, L, V)."""
        x = torch.cat([F.one_hot(zt, self.V).float().flatten(1), phases(t, self.T)], 1)
        return self.layers(x).view(-1, self.L, self.V)


class PointsNetwork(nn.Module):
    """Like CanvasNetwork, but it reads L points of E numbers. Answers have a shape: (L, V), or (4,) for 4 classes."""

    def __init__(self, numbers: int, shape: tuple[int, ...], T: int, width: int = 192, seed: int = 0):
        super().__init__()
        self.shape, self.T = shape, T
        self.layers = three_layers(numbers + 8, width, math.prod(shape), seed)

    def forward(self, zt: Tensor, t: Tensor) -> Tensor:
        """(B, L, E) points, `numbers` in all, and (B,) times in [0, T] to (B, *shape)."""
        return self.layers(torch.cat([zt.float().flatten(1), phases(t, self.T)], 1)).view(-1, *self.shape)


def three_layers(inputs: int, width: int, outputs: int, seed: int) -> nn.Sequential:
    """Two hidden layers; the last one starts at zero."""
    layers = nn.Sequential(
        nn.Linear(inputs, width), nn.GELU(), nn.Linear(width, width), nn.GELU(), nn.Linear(width, outputs)
    )
    rng = torch.Generator().manual_seed(seed)
    for layer in layers:
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=layer.in_features**-0.5, generator=rng)
            nn.init.zeros_(layer.bias)
    nn.init.zeros_(layers[-1].weight)  # type: ignore[arg-type]
    return layers


def phases(t: Tensor, T: int) -> Tensor:
    """The time as eight waves, (B, 8)."""
    phase = t.float()[:, None] / T * torch.pi * torch.arange(1, 5)
    return torch.cat([phase.sin(), phase.cos()], 1)


def descend(
    network: nn.Module, loss: Callable[[], Tensor], *, steps: int, lr: float = 3e-3, warmup: int = 20,
    betas: tuple[float, float] = (0.9, 0.99), clip: float = 10.0,
) -> Iterator[float]:  # fmt: skip
    """Minimise what `loss` draws anew at every step; yields it, nats. Adam, a warm-up, then straight down to 0."""
    optimizer = torch.optim.Adam(network.parameters(), lr=lr, betas=betas)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = lr * min(1.0, (step + 1) / warmup) * (1 - step / steps)
        nats = loss()
        optimizer.zero_grad()
        nats.backward()
        nn.utils.clip_grad_norm_(network.parameters(), clip)
        optimizer.step()
        yield nats.item()


class BlockViews(nn.Module):
    """A network for block diffusion, slow and plain: one canvas for each block, on which nothing behind it is seen.

    Reads [x_t ; x_0], (B, 2 L) ids, as `two_stream_mask` has it: for a block the clean blocks before it and its own
    noisy tokens, MASK elsewhere. A transformer with that mask computes all blocks in one pass.
    """

    def __init__(self, vocab_size: int, mask_id: int, length: int, block: int, seed: int = 0):
        super().__init__()
        self.mask_id, self.number = mask_id, torch.arange(length) // block
        self.network = CanvasNetwork(vocab_size, length, T=int(self.number[-1]) + 1, seed=seed)

    def forward(self, both: Tensor, t: Tensor | None = None) -> Tensor:
        """(B, 2 L) ids to (B, L, V); the number of the block stands in place of a time."""
        xt, x0 = (half[:, None] for half in both.chunk(2, 1))
        B, blocks = len(both), self.number.unique()
        own, later = self.number == blocks[:, None], self.number > blocks[:, None]  # (N, L)
        views = torch.where(own, xt, torch.where(later, self.mask_id, x0))  # (B, N, L)
        raw = self.network(views.flatten(0, 1), blocks.repeat(B)).unflatten(0, (B, len(blocks)))
        return raw[:, self.number, torch.arange(xt.shape[2])]
