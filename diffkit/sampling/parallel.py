"""Parallel decoding: reveal as many tokens in one call as the predictions allow."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Generator, Tensor

from diffkit.processes.base import Denoiser
from diffkit.processes.masked import MaskedDiffusion
from diffkit.random import highest, inverse_cdf, uniform_like
from diffkit.sampling.unmasking import probs_at, rounded

# predictions (N, V) at the masked positions of (B, L) bool -> which of them to reveal, (B, L) bool
Choose = Callable[[Tensor, Tensor], Tensor]


def scores(values: Tensor, is_masked: Tensor) -> Tensor:
    """A score (N,) for each masked position as a (B, L) table, -inf elsewhere; rounded as in the unmasking orders."""
    table = torch.full(is_masked.shape, -torch.inf, dtype=torch.float64, device=values.device)
    return table.masked_scatter(is_masked, rounded(values))


def most_confident(n: int) -> Choose:
    """The n positions with the likeliest best token, fewer where fewer are masked."""

    def choose(probs: Tensor, is_masked: Tensor) -> Tensor:
        return highest(scores(probs.amax(-1), is_masked), is_masked, is_masked.sum(1).clamp(max=n))

    return choose


def above_threshold(threshold: float) -> Choose:
    """Every position whose best token is likelier than the threshold, and always the most confident one.

    If n positions are each surer than 1 - e, (n + 1) e <= 1, their best tokens are also the best joint choice.
    Source: arXiv:2505.22618, section on confidence-aware parallel decoding.
    """
    surest = most_confident(1)

    def choose(probs: Tensor, is_masked: Tensor) -> Tensor:
        sure = torch.zeros_like(is_masked).masked_scatter(is_masked, probs.amax(-1) > threshold)
        return sure | surest(probs, is_masked)

    return choose


def within_entropy(bound_nats: float) -> Choose:
    """The largest set of most certain positions whose entropies, all but the largest one, sum to at most the bound.

    That sum bounds what is lost, in nats, by drawing them independently. A bound of 0 takes one position, and those
    that are certain.
    Source: arXiv:2505.24857 (EB-Sampler).
    """

    def choose(probs: Tensor, is_masked: Tensor) -> Tensor:
        certainty = scores(-torch.special.entr(probs).sum(-1), is_masked)  # minus the entropy, in 1e-4 nats
        ranked, order = certainty.sort(dim=1, descending=True, stable=True)
        entropies = -ranked.clamp(min=-1e12) / 1e4  # smallest first
        fits = entropies.cumsum(1) - entropies <= bound_nats + 1e-9
        return is_masked & torch.zeros_like(is_masked).scatter(1, order, fits)

    return choose


class ParallelUnmasking:
    """Reveal at each call as many tokens as `choose` allows; one call may reveal many; an uncertain text takes more.

    A network that takes the time gets the one at which as many tokens are masked on average.
    """

    def __init__(self, process: MaskedDiffusion, choose: Choose):
        self.process, self.choose = process, choose

    def states(self, denoise: Denoiser, z: Tensor, rng: Generator) -> Iterator[tuple[float, Tensor]]:
        while (is_masked := z == self.process.mask_id).any():
            probs = probs_at(self.process, denoise, z, time_by_count(self.process, z), is_masked)
            z = reveal_chosen(self.choose, probs, z, is_masked, uniform_like(z, rng))
            yield float(time_by_count(self.process, z).max()), z


def confidence_threshold(process: MaskedDiffusion, threshold: float) -> ParallelUnmasking:
    """The sampler that reveals all tokens likelier than the threshold at each call, see `above_threshold`.

    Raises: ValueError if the threshold is no probability.
    """
    if not 0 <= threshold <= 1:
        raise ValueError(f"confidence_threshold: the threshold is a probability in [0, 1], got {threshold}.")
    return ParallelUnmasking(process, above_threshold(threshold))


def entropy_bounded(process: MaskedDiffusion, bound_nats: float) -> ParallelUnmasking:
    """The sampler that loses at most `bound_nats` per call to parallel draws, see `within_entropy`.

    Raises: ValueError for a negative bound.
    """
    if not bound_nats >= 0:
        raise ValueError(f"entropy_bounded: the bound is a number of nats, 0 or more, got {bound_nats}.")
    return ParallelUnmasking(process, within_entropy(bound_nats))


def reveal_chosen(choose: Choose, probs: Tensor, z: Tensor, is_masked: Tensor, u: Tensor) -> Tensor:
    """Reveal what `choose` takes, by uniform numbers u: (B, L) ids; probs (N, V) at the masked positions."""
    reveal = choose(probs, is_masked)
    return z.masked_scatter(reveal, inverse_cdf(probs[reveal[is_masked]], u[reveal]))


def time_by_count(process: MaskedDiffusion, z: Tensor) -> Tensor:
    """The times (B,) whose masking rate is the share of MASK in each row."""
    share = (z == process.mask_id).double().mean(1).cpu()
    return torch.where(share > 0, process.schedule.time(share), 0.0).to(z.device)
