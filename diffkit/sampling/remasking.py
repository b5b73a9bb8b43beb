"""Remasking (ReMDM): a sampler that may take back what it wrote."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from diffkit.checks import check_whole
from diffkit.processes.base import Denoise
from diffkit.processes.masked import MaskedDiffusion
from diffkit.random import uniform_like
from diffkit.sampling.skipping import check_times, revealed


class RemaskState(NamedTuple):
    """What a rule may look at to say how likely a token is taken back."""

    alpha_t: float  # chance that a token is visible, now
    alpha_s: float  # and after the step; the same where time stands still
    is_own: Tensor  # (B, L) bool: written by the sampler and visible; a given token is never taken back
    chance: Tensor  # (B, L), the probability that each of these had when it was drawn

    @property
    def most(self) -> float:
        """The largest legal chance of remasking: more, and too few tokens could be revealed to make up for it."""
        return min(1.0, (1 - self.alpha_s) / self.alpha_t) if self.alpha_t > 0 else 1.0


Rate = Callable[
    [RemaskState], Tensor | float
]  # -> chance that a visible token is masked again, for all or for each (B, L)


def capped(eta: float) -> Rate:
    """The same chance at every step, as far as it is legal."""
    return lambda now: min(eta, now.most)


def rescaled(eta: float) -> Rate:
    """A share of what is legal."""
    return lambda now: eta * now.most


def confidence_based(eta: float) -> Rate:
    """Tokens that were unlikely when they were drawn go first: eta times the legal chance, shared out by a softmax.

    The chance differs between tokens and depends on what was drawn, so the number of masks is not kept on average.
    """

    def rate(now: RemaskState) -> Tensor:
        weight = (-now.chance).masked_fill(~now.is_own, -torch.inf).softmax(1)
        return eta * now.most * torch.where(now.is_own, weight, 0.0)  # a row without tokens has NaN weights

    return rate


def loop_only(eta: float) -> Rate:
    """Only while time stands still (see `looped_times`): write, take back, write again, and then go on."""
    return lambda now: min(eta, now.most) if now.alpha_s == now.alpha_t else 0.0


def forward_backward() -> Rate:
    """As if the text was noised one step forward before it is denoised two steps back, as far as that is legal."""
    return lambda now: min((now.alpha_s - now.alpha_t) / now.alpha_t, now.most) if now.alpha_t > 0 else 0.0


def looped_times(T: int, steps: int, at: float, loops: int) -> Tensor:
    """Times for `loop_only`: down from T to `at`, `loops` steps there, and on to 0; `steps` in all, (steps + 1,)."""
    check_whole(steps, "steps", f"looped_times, at={at}")
    before = round((steps - loops) * (T - at) / T) if 0 < at < T else 0
    after = steps - loops - before
    if not (0 < at < T and loops >= 0 and before > 0 and after > 0):
        raise ValueError(
            f"looped_times: at must lie between 0 and {T}, with steps left before and after {loops} loops; got "
            f"at={at}, {steps} steps."
        )
    down = torch.linspace(T, at, before + 1, dtype=torch.float64)
    return torch.cat([down, down[-1:].expand(loops), torch.linspace(at, 0, after + 1, dtype=torch.float64)[1:]])


def stay_masked(gamma_t: float, gamma_s: float, r: Tensor | float) -> Tensor | float:
    """Chance that a masked token stays masked if a visible one is masked again with chance r.

    Chosen so that after the step, too, a token is masked with chance gamma_s: (1 - gamma_t) r + gamma_t stay = gamma_s.
    """
    return (gamma_s - r * (1 - gamma_t)) / gamma_t


class Remasking:
    """Ancestral sampling in which a visible token is masked again with chance r, so that mistakes can be mended.

    r = 0 is plain ancestral sampling, to the bit under the same random stream. Tokens that were given stay. Which
    tokens go and come is drawn before the network is asked, as in `SkipIdle`.

    Args:   times: (N + 1,) from T down to 0, may stand still; rate: chance of remasking, from the functions above.
    Raises: ValueError if a rate is outside [0, r_max].
    Source: arXiv:2503.00307 (ReMDM), sections 3 and 4.
    """

    def __init__(self, process: MaskedDiffusion, times: Tensor, rate: Rate):
        self.process, self.rate = process, rate
        self.times = check_times(times, process.T, "Remasking", loop_only=True)

    def moves(self, denoise: Denoise, z: Tensor, rng: Generator) -> Iterator[tuple[float, Tensor]]:
        mask_id, is_given = self.process.mask_id, z != self.process.mask_id
        chance = torch.zeros(z.shape, dtype=torch.float64, device=z.device)
        for t, s in pairwise(self.times):
            whether, what = uniform_like(z, rng), uniform_like(z, rng)
            gamma_t, gamma_s = float(self.process.schedule.gamma(t)), float(self.process.schedule.gamma(s))
            is_own = (z != mask_id) & ~is_given
            r = self.legal(RemaskState(1 - gamma_t, 1 - gamma_s, is_own, chance)).to(z.device)
            reveal = (z == mask_id) & (whether >= stay_masked(gamma_t, gamma_s, r))
            z, drawn = revealed(self.process, denoise, z, t.expand(len(z)), reveal, what)
            z, chance = z.masked_fill(is_own & (whether < r), mask_id), torch.where(reveal, drawn, chance)
            yield float(s), z

    def legal(self, now: RemaskState) -> Tensor:
        """The rate at a moment, checked."""
        r = torch.as_tensor(self.rate(now), dtype=torch.float64)
        if not ((r >= 0) & (r <= now.most + 1e-12)).all():
            raise ValueError(
                f"Remasking: the chance of remasking must lie in [0, {now.most:.4g}] (r_max), got "
                f"{r.min():.4g}..{r.max():.4g}. Is eta in [0, 1]?"
            )
        return r
