"""Samplers of notebook 10 around a function that the reader writes; their random stream is that of the package's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise

import torch
from torch import Generator, Tensor

from diffkit.processes.base import Denoiser
from diffkit.processes.masked import MaskedDiffusion
from diffkit.random import inverse_cdf, uniform_like, uniform_numbers
from diffkit.sampling.parallel import Choose
from diffkit.sampling.unmasking import probs_at

# masking rates (B,), is_masked (B, L) bool, uniform u (B,) and v (B, L) -> the next rates (B,), reveal (B, L) bool
Hit = Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
# is_masked, is_own (B, L) bool, rates before and after, wished chance of remasking, uniform u (B, L) -> reveal, remask
Move = Callable[[Tensor, Tensor, float, float, float, Tensor], tuple[Tensor, Tensor]]


class HittingBy:
    """`FirstHitting` by somebody's function of what is revealed next, and when."""

    def __init__(self, process: MaskedDiffusion, hit: Hit):
        self.process, self.hit = process, hit

    def states(self, denoise: Denoiser, z: Tensor, rng: Generator) -> Iterator[tuple[float, Tensor]]:
        schedule, t = self.process.schedule, torch.full((len(z),), float(self.process.T), dtype=torch.float64)
        while (is_masked := z == self.process.mask_id).any():
            u, v = 1 - uniform_numbers((len(z),), rng), uniform_like(z, rng)
            gamma, reveal = self.hit(schedule.rate(t), is_masked, u, v)
            t = schedule.time(gamma)
            probs = probs_at(self.process, denoise, z, t, reveal)
            z = z.masked_scatter(reveal, inverse_cdf(probs, uniform_like(z, rng)[reveal]))
            yield float(t.max()), z


class RemaskingBy:
    """`Remasking` with `cap(eta)` by somebody's function of what is revealed and what is masked again."""

    def __init__(self, process: MaskedDiffusion, times: Tensor, eta: float, move: Move):
        self.process, self.times, self.eta, self.move = process, times, eta, move

    def states(self, denoise: Denoiser, z: Tensor, rng: Generator) -> Iterator[tuple[float, Tensor]]:
        mask_id, is_given = self.process.mask_id, z != self.process.mask_id
        for t, s in pairwise(self.times):
            whether, what = uniform_like(z, rng), uniform_like(z, rng)
            rates = float(self.process.schedule.rate(t)), float(self.process.schedule.rate(s))
            is_masked = z == mask_id
            reveal, remask = self.move(is_masked, ~is_masked & ~is_given, *rates, self.eta, whether)
            drawn = inverse_cdf(probs_at(self.process, denoise, z, t.expand(len(z)), reveal), what[reveal])
            z = z.masked_scatter(reveal, drawn).masked_fill(remask, mask_id)
            yield float(s), z


def choose_by(within: Callable[[Tensor, Tensor, float], Tensor], bound_nats: float) -> Choose:
    """A rule for `ParallelUnmasking` from a function of the entropies (B, L), is_masked (B, L) and the bound."""

    def choose(probs: Tensor, is_masked: Tensor) -> Tensor:
        nats = (torch.special.entr(probs).sum(-1) * 1e4).round() / 1e4  # 1e-4 nats, as everywhere in the package
        table = torch.zeros(is_masked.shape, dtype=torch.float64).masked_scatter(is_masked, nats)
        return within(table, is_masked, bound_nats)

    return choose
