"""Which positions to reveal first: rules that score the hidden places, and the step that follows one."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor

from diffkit.processes.base import Denoise, Step
from diffkit.processes.masked import MaskedDiffusion
from diffkit.processes.schedules import Schedule, get_schedule
from diffkit.random import categorical, highest, uniform_like

Score = Callable[[Tensor, Generator], Tensor]  # probs (B, L, V) -> (B, L), high goes first


def rounded(score: Tensor) -> Tensor:
    """Saturated beliefs differ by rounding noise, not the same on every machine: ties go to the lower position."""
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
    """Where the belief has the lowest entropy (arXiv:2505.24857)."""
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


class Unmasking:
    """A step that reveals a planned number of tokens, at the positions a rule puts first; for masked diffusion.

    Positions are chosen before tokens are drawn: one token at a time is exact under every rule when the denoiser is.

    Args:   rule: a name from UNMASKING_ORDERS, or a score; counts: the schedule whose gamma says which share of the starting masks
                is left at each time; linear reveals the same number at every step.
    Raises: ValueError for an unknown rule.
    """

    def __init__(self, process: MaskedDiffusion, order: str | Score, counts: Schedule | None = None):
        if isinstance(order, str) and order not in UNMASKING_ORDERS:
            raise ValueError(f"Reveal: the orders are {sorted(['ancestral', *UNMASKING_ORDERS])}, got {order!r}.")
        self.process, self.score = process, UNMASKING_ORDERS[order] if isinstance(order, str) else order
        self.counts = counts or get_schedule("linear", process.T)

    def step(self, denoise: Denoise, zt: Tensor, t: Tensor, s: Tensor, rng: Generator) -> Step:
        """One step from t back to s; same call as the process's own step."""
        probs = self.process.log_probs(denoise(zt, t).double(), zt).exp()
        is_masked = zt == self.process.mask_id
        share = (self.counts.gamma(s) / self.counts.gamma(t)).to(zt.device)
        left = (is_masked.sum(1) * share + 1e-9).floor()  # masks to keep, (B,)
        reveal = highest(self.score(probs, rng), is_masked, is_masked.sum(1) - left)
        return Step(torch.where(reveal, categorical(probs, rng), zt), probs)
