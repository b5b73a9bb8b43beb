"""Calls of the network: expected, counted, and saved by a cache."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from diffkit.processes.base import Denoise, as_denoiser
from diffkit.processes.schedules import Schedule


def expected_calls(schedule: Schedule, times: Tensor, L: int) -> float:
    """Mean number of steps that reveal at least one of L masked tokens: the calls of `SkipIdle` for one text.

    A token is revealed in the step from t to s with chance gamma(t) - gamma(s). With N steps of equal chance this is
    N (1 - (1 - 1/N)^L): never more than N, nor than L.
    """
    chance = -schedule.rate(times).diff()
    return float((1 - (1 - chance) ** L).sum())


class NoChangeCache(nn.Module):
    """The no-change cache: a denoiser that reads again only the rows that changed since the last call.

    Wraps any denoiser that ignores time, for any sampler that reads whole tables; exact, row by row.

    Args:   time: the `time` setting of the network, "none" if it takes no time.
    Raises: ValueError if the network takes the time: its old output is then wrong although no token changed.
    Source: arXiv:2406.07524, section on caching; by rows as in arXiv:2406.03736.
    """

    def __init__(self, denoise: Denoise, time: str = "none"):
        super().__init__()
        if time != "none":
            raise ValueError(
                f"NoChangeCache: this network takes the time ({time!r}), so its predictions change even where no token "
                "does. Use a model built with time='none', or SkipIdle, which needs no cache."
            )
        self.denoise, self.ask = denoise, as_denoiser(denoise)
        self.seen: Tensor | None = None
        self.answers = torch.empty(0)

    def forward(self, zt: Tensor, t: Tensor, where: Tensor | None = None) -> Tensor:
        if self.seen is None or self.seen.shape != zt.shape:
            self.answers = self.ask(zt, t)
        elif not torch.equal(self.seen, zt):  # ids are compared exactly: to allclose, 150,000 and 150,001 are the same
            changed = (self.seen != zt).any(1)
            fresh = self.ask(zt[changed], torch.as_tensor(t, device=zt.device).expand(len(zt))[changed])
            self.answers = self.answers.index_put((changed,), fresh)
        self.seen = zt.clone()
        return self.answers if where is None else self.answers[where]


class CallCounter(nn.Module):
    """A denoiser that keeps count: `calls`, `rows` read in them, and `heads`, positions with logits."""

    def __init__(self, denoise: Denoise):
        super().__init__()
        self.denoise, self.ask = denoise, as_denoiser(denoise)
        self.calls = self.rows = self.heads = 0

    def forward(self, zt: Tensor, t: Tensor, where: Tensor | None = None, **cache: Any) -> Tensor:
        self.calls += 1
        self.rows += len(zt)
        self.heads += zt.numel() if where is None else int(where.sum())
        return self.ask(zt, t, where, **cache)
