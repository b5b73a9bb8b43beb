"""Faster samplers that keep the distribution: fewer network calls, and logits only where a token is revealed."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Generator, Tensor

from diffkit.processes.base import Denoiser
from diffkit.processes.masked import MaskedDiffusion
from diffkit.random import highest, inverse_cdf, uniform_like, uniform_numbers
from diffkit.sampling.unmasking import probs_at


def even_times(T: int, steps: int) -> Tensor:
    """steps + 1 times from T down to 0, (steps + 1,) float64."""
    return torch.linspace(T, 0, steps + 1, dtype=torch.float64)


class SkipIdle:
    """Ancestral sampling that asks only about tokens that are being revealed, and skips the call where there are none.

    Which tokens are revealed does not depend on predictions, so it is drawn first. Under the same random stream this
    writes the same tokens as the process's own step, which computes every logit. Nothing is cached, so the network may
    take the time.

    Args:   times: (N + 1,) from T down to 0; any of them may be left out (step skipping), the last step reveals all.
    Source: arXiv:2406.07524 and arXiv:2406.03736 reuse predictions while nothing changes, to the same effect.
    """

    def __init__(self, process: MaskedDiffusion, times: Tensor):
        self.process, self.times = process, times

    def states(self, denoise: Denoiser, z: Tensor, rng: Generator) -> Iterator[tuple[float, Tensor]]:
        for t, s in pairwise(self.times):
            whether, what = uniform_like(z, rng), uniform_like(z, rng)
            reveal = (z == self.process.mask_id) & (whether >= self.process.stay_masked(t, s).item())
            probs = probs_at(self.process, denoise, z, t.expand(len(z)), reveal)
            z = z.masked_scatter(reveal, inverse_cdf(probs, what[reveal]))
            yield float(s), z


class FirstHitting:
    """Jump from one reveal to the next: ancestral sampling with infinitely many steps, in one call per masked token.

    Of n masked tokens the next one is revealed at the time t' where gamma(t') = gamma(t) u^(1/n), u uniform; all of
    them are equally likely to be the one.
    Source: arXiv:2409.02908, first-hitting sampler.
    """

    def __init__(self, process: MaskedDiffusion):
        self.process = process

    def states(self, denoise: Denoiser, z: Tensor, rng: Generator) -> Iterator[tuple[float, Tensor]]:
        schedule, t = self.process.schedule, torch.full((len(z),), float(self.process.T), dtype=torch.float64)
        while (is_masked := z == self.process.mask_id).any():
            n, u = is_masked.sum(1).cpu(), 1 - uniform_numbers((len(z),), rng).cpu()
            t = schedule.time(schedule.rate(t) * u ** (1 / n.clamp(min=1)))
            reveal = highest(uniform_like(z, rng), is_masked, is_masked.sum(1).clamp(max=1))
            probs = probs_at(self.process, denoise, z, t, reveal)
            z = z.masked_scatter(reveal, inverse_cdf(probs, uniform_like(z, rng)[reveal]))
            yield float(t[n > 1].max()) if (n > 1).any() else 0.0, z


def first_hitting(process: MaskedDiffusion) -> FirstHitting:
    """The first-hitting sampler of a masked diffusion, for `denoise_frames`."""
    return FirstHitting(process)
