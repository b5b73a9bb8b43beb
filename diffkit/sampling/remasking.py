"""Remasking (ReMDM): a sampler that can mask its own tokens again and so correct them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from diffkit.checks import check_whole
from diffkit.processes.base import Denoiser
from diffkit.processes.masked import MaskedDiffusion
from diffkit.random import inverse_cdf, uniform_like
from diffkit.sampling.skipping import even_times
from diffkit.sampling.unmasking import probs_at


class RemaskState(NamedTuple):
    """What a remasking schedule may depend on."""

    alpha_t: float  # probability that a token is visible, now
    alpha_s: float  # and after the step; the same in a loop, where time stands still
    is_own: Tensor  # (B, L) bool: drawn by the sampler and visible; a given token is never masked
    confidence: Tensor  # (B, L), the probability that each of these had when it was drawn

    @property
    def r_max(self) -> float:
        """The largest valid probability: more, and too few tokens could be revealed to make up for it."""
        return min(1.0, (1 - self.alpha_s) / self.alpha_t) if self.alpha_t > 0 else 1.0


Rate = Callable[[RemaskState], Tensor | float]  # -> probability that a visible token is masked, for all or each (B, L)


def cap(eta: float) -> Rate:
    """ReMDM-cap: the same probability at every step, at most the largest valid one."""
    return lambda now: min(eta, now.r_max)


def rescale(eta: float) -> Rate:
    """ReMDM-rescale: a fraction of the largest valid probability."""
    return lambda now: eta * now.r_max


def conf(eta: float) -> Rate:
    """ReMDM-conf: unlikely tokens first; eta times the largest valid probability, distributed by a softmax.

    The probability differs between tokens and depends on what was drawn, so the number of masks is not kept on average.
    """

    def rate(now: RemaskState) -> Tensor:
        weight = (-now.confidence).masked_fill(~now.is_own, -torch.inf).softmax(1)
        return eta * now.r_max * torch.where(now.is_own, weight, 0.0)  # a row without tokens has NaN weights

    return rate


def loop(eta: float) -> Rate:
    """ReMDM-loop: only while time stands still (see `loop_times`)."""
    return lambda now: min(eta, now.r_max) if now.alpha_s == now.alpha_t else 0.0


def forward_backward() -> Rate:
    """The forward-backward corrector: one step of noise forward, then two steps back, as far as that is valid."""
    return lambda now: min((now.alpha_s - now.alpha_t) / now.alpha_t, now.r_max) if now.alpha_t > 0 else 0.0


RATES = {"cap": cap, "rescale": rescale, "conf": conf, "loop": loop}


def loop_times(T: int, steps: int, at: float, loops: int) -> Tensor:
    """Times for `loop`: down from T to `at`, `loops` steps there, and on to 0; `steps` in all, (steps + 1,)."""
    before = round((steps - loops) * (T - at) / T) if 0 < at < T else 0
    after = steps - loops - before
    if not (0 < at < T and loops >= 0 and before > 0 and after > 0):
        raise ValueError(
            f"loop_times: at must lie between 0 and {T}, with steps left before and after {loops} loops; got "
            f"at={at}, {steps} steps."
        )
    down = torch.linspace(T, at, before + 1, dtype=torch.float64)
    return torch.cat([down, down[-1:].expand(loops), torch.linspace(at, 0, after + 1, dtype=torch.float64)[1:]])


def stay_masked(gamma_t: float, gamma_s: float, r: Tensor | float) -> Tensor | float:
    """Probability that a masked token stays masked if a visible one is masked again with probability r.

    Chosen so that after the step, too, a token is masked with rate gamma_s: (1 - gamma_t) r + gamma_t stay = gamma_s.
    """
    return (gamma_s - r * (1 - gamma_t)) / gamma_t


class Remasking:
    """Ancestral sampling in which a visible token is masked again with probability r, so that errors can be corrected.

    r = 0 is plain ancestral sampling, to the bit under the same random stream. Given tokens stay. Which tokens are
    masked and revealed is drawn before the network is asked, as in `SkipIdle`.

    Args:   times: (N + 1,) from T down to 0, may stand still; rate: probability of remasking, from the functions above.
    Source: arXiv:2503.00307 (ReMDM), sections 3 and 4.
    """

    def __init__(self, process: MaskedDiffusion, times: Tensor, rate: Rate):
        self.process, self.times, self.rate = process, times, rate

    def states(self, denoise: Denoiser, z: Tensor, rng: Generator) -> Iterator[tuple[float, Tensor]]:
        mask_id, is_given = self.process.mask_id, z != self.process.mask_id
        confidence = torch.zeros(z.shape, dtype=torch.float64, device=z.device)
        for t, s in pairwise(self.times):
            whether, what = uniform_like(z, rng), uniform_like(z, rng)
            gamma_t, gamma_s = float(self.process.schedule.rate(t)), float(self.process.schedule.rate(s))
            is_own = (z != mask_id) & ~is_given
            r = self.rate(RemaskState(1 - gamma_t, 1 - gamma_s, is_own, confidence))
            reveal = (z == mask_id) & (whether >= stay_masked(gamma_t, gamma_s, r))
            probs = probs_at(self.process, denoise, z, t.expand(len(z)), reveal)
            drawn = inverse_cdf(probs, what[reveal])
            z = z.masked_scatter(reveal, drawn).masked_fill(is_own & (whether < r), mask_id)
            confidence = confidence.masked_scatter(reveal, probs.gather(1, drawn[:, None]))
            yield float(s), z


def remasking(process: MaskedDiffusion, *, steps: int, rate: str = "rescale", eta: float = 0.1) -> Remasking:
    """A remasking sampler: rate "cap", "rescale", "conf", or "loop" (half of the steps at T / 2), of strength eta.

    Raises: ValueError for an unknown rate, eta outside [0, 1], or steps outside 1..T.
    """
    if rate not in RATES or not 0 <= eta <= 1:
        raise ValueError(f"remasking: rate is one of {sorted(RATES)} and eta in [0, 1], got {rate!r} and {eta}.")
    check_whole(steps, "steps", "remasking", 4 if rate == "loop" else 1, process.T)
    times = loop_times(process.T, steps, process.T / 2, steps // 2) if rate == "loop" else even_times(process.T, steps)
    return Remasking(process, times, RATES[rate](eta))
