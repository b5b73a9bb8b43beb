"""Unmasking orders: which positions to reveal first, and the sampler that follows one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise

import torch
from torch import Generator, Tensor

from diffkit.processes.base import Denoiser
from diffkit.processes.masked import MaskedDiffusion
from diffkit.processes.schedules import Schedule, get_schedule
from diffkit.random import highest, inverse_cdf, uniform_like

Score = Callable[[Tensor, Generator], Tensor]  # probs (B, L, V) -> (B, L), the highest are revealed first


def rounded(score: Tensor) -> Tensor:
    """Saturated predictions differ by rounding noise, not the same on every machine: ties go to the lower position."""
    return (score * 1e4).round()


def random_order(probs: Tensor, rng: Generator) -> Tensor:
    """Any position, all equally likely."""
    return uniform_like(probs[..., 0], rng)


def confidence(probs: Tensor, rng: Generator) -> Tensor:
    """Where the most likely token is most likely (arXiv:2202.04200, choosing before drawing)."""
    return rounded(probs.amax(-1))


def margin(probs: Tensor, rng: Generator) -> Tensor:
    """Where the best token beats the second best by most (arXiv:2502.06768)."""
    best = probs.topk(2, dim=-1).values
    return rounded(best[..., 0] - best[..., 1])


def entropy(probs: Tensor, rng: Generator) -> Tensor:
    """Where the prediction has the lowest entropy (arXiv:2505.24857)."""
    return rounded(-torch.special.entr(probs).sum(-1))


def left_to_right(probs: Tensor, rng: Generator) -> Tensor:
    """In reading order."""
    return -torch.arange(probs.shape[1], device=probs.device).expand(probs.shape[:2]).double()


UNMASKING_ORDERS: dict[str, Score] = {
    "random": random_order,
    "confidence": confidence,
    "margin": margin,
    "entropy": entropy,
    "left_to_right": left_to_right,
}
WITHOUT_PREDICTIONS = (random_order, left_to_right)  # the network is asked at the revealed positions only
POSITION_BY_POSITION = (confidence, margin, entropy)  # take (N, V) too: the network is asked at masked positions only


def probs_at(process: MaskedDiffusion, denoise: Denoiser, z: Tensor, t: Tensor, where: Tensor) -> Tensor:
    """Predicted tokens at masked positions `where`, (B, L) bool: (N, V) float64. Rows without one are not read."""
    rows = where.any(1)
    if not rows.any():
        return torch.empty(0, process.vocab_size, dtype=torch.float64, device=z.device)
    logits = denoise(z[rows], t.to(z.device)[rows], where[rows]).double()
    return process.token_logits(logits, z[where]).softmax(-1)


class Unmasking:
    """Reveal a planned number of tokens at each step, at the positions with the highest scores; masked diffusion only.

    Positions are chosen before tokens are drawn: one token at a time is exact in any order when the denoiser is.

    Args:   order: a name from UNMASKING_ORDERS, or a score; times: (N + 1,) from T down to 0;
            counts: the schedule whose gamma is the share of the starting masks left at each time; linear reveals the
            same number at every step.
    """

    def __init__(self, process: MaskedDiffusion, order: str | Score, times: Tensor, counts: Schedule | None = None):
        self.process, self.score = process, UNMASKING_ORDERS[order] if isinstance(order, str) else order
        self.times, self.counts = times, counts or get_schedule("linear", process.T)

    def states(self, denoise: Denoiser, z: Tensor, rng: Generator) -> Iterator[tuple[float, Tensor]]:
        for t, s in pairwise(self.times):
            is_masked = z == self.process.mask_id
            score, probs_of = self._scored(denoise, z, t.expand(len(z)), is_masked, rng)
            left = (is_masked.sum(1) * (self.counts.rate(s) / self.counts.rate(t)).item() + 1e-9).floor()
            reveal = highest(score, is_masked, is_masked.sum(1) - left)
            z = z.masked_scatter(reveal, inverse_cdf(probs_of(reveal), uniform_like(z, rng)[reveal]))
            yield float(s), z

    def _scored(
        self, denoise: Denoiser, z: Tensor, t: Tensor, is_masked: Tensor, rng: Generator
    ) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """The scores (B, L), and a function from revealed positions, (B, L) bool, to their predictions (n, V)."""
        if self.score in WITHOUT_PREDICTIONS:
            return self.score(z[..., None], rng), lambda reveal: probs_at(self.process, denoise, z, t, reveal)
        if self.score in POSITION_BY_POSITION:
            probs = probs_at(self.process, denoise, z, t, is_masked)
            score = torch.zeros(z.shape, dtype=probs.dtype, device=z.device)
            return score.masked_scatter(is_masked, self.score(probs, rng)), lambda reveal: probs[reveal[is_masked]]
        probs = self.process.token_probs(denoise(z, t), z, t)
        return self.score(probs, rng), lambda reveal: probs[reveal]
