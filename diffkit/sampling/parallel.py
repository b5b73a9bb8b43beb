"""Parallel decoding: reveal as many tokens in one call as the predictions allow."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Generator, Tensor

from diffkit.checks import check_whole
from diffkit.processes.base import Denoise
from diffkit.processes.masked import MaskedDiffusion
from diffkit.random import highest, inverse_cdf, uniform_like
from diffkit.sampling.skipping import probs_at
from diffkit.sampling.unmasking import rounded

Choose = Callable[
    [Tensor, Tensor], Tensor
]  # beliefs (N, V) at the masked places of (B, L) bool -> which to reveal, (B, L)


def scores(values: Tensor, is_masked: Tensor) -> Tensor:
    """One score (N,) for each masked place as a (B, L) table, -inf elsewhere; rounded as the rules of sample.py are."""
    table = torch.full(is_masked.shape, -torch.inf, dtype=torch.float64, device=values.device)
    return table.masked_scatter(is_masked, rounded(values))


def most_confident(n: int) -> Choose:
    """The n places with the likeliest best token, fewer where fewer are masked."""
    check_whole(n, "n", "most_confident")

    def choose(probs: Tensor, is_masked: Tensor) -> Tensor:
        return highest(scores(probs.amax(-1), is_masked), is_masked, is_masked.sum(1).clamp(max=n))

    return choose


def confidence_threshold(threshold: float) -> Choose:
    """Every place whose best token is likelier than the threshold, and always the most confident one.

    If n places are each surer than 1 - e, (n + 1) e <= 1, their best tokens are also the best joint choice.
    Source: arXiv:2505.22618, section on confidence-aware parallel decoding.
    """
    if not 0 <= threshold <= 1:
        raise ValueError(f"above: the threshold is a probability in [0, 1], got {threshold}.")
    surest = most_confident(1)

    def choose(probs: Tensor, is_masked: Tensor) -> Tensor:
        sure = torch.zeros_like(is_masked).masked_scatter(is_masked, probs.amax(-1) > threshold)
        return sure | surest(probs, is_masked)

    return choose


def entropy_bounded(bound_nats: float) -> Choose:
    """The largest set of most certain places whose entropies, all but the largest one, sum to at most the bound.

    That sum bounds what is lost, in nats, by drawing them independently. A bound of 0 takes one place, and those that
    are certain.
    Source: arXiv:2505.24857 (EB-Sampler).
    """
    if not bound_nats >= 0:
        raise ValueError(f"entropy_bounded: the bound is a number of nats, 0 or more, got {bound_nats}.")

    def choose(probs: Tensor, is_masked: Tensor) -> Tensor:
        certainty = scores(-torch.special.entr(probs).sum(-1), is_masked)  # minus the entropy, in 1e-4 nats
        ranked, order = certainty.sort(dim=1, descending=True, stable=True)
        entropies = -ranked.clamp(min=-1e12) / 1e4  # smallest first
        fits = entropies.cumsum(1) - entropies <= bound_nats + 1e-9
        return is_masked & torch.zeros_like(is_masked).scatter(1, order, fits)

    return choose


class ParallelUnmasking:
    """Reveal at each call as many tokens as `choose` allows; one call may do for many, an uncertain text takes more.

    The time that a network may ask for is the one at which as many tokens are masked on average.
    """

    def __init__(self, process: MaskedDiffusion, choose: Choose):
        self.process, self.choose = process, choose

    def moves(self, denoise: Denoise, z: Tensor, rng: Generator) -> Iterator[tuple[float, Tensor]]:
        while (is_masked := z == self.process.mask_id).any():
            probs = probs_at(self.process, denoise, z, time_by_count(self.process, z), is_masked)
            z = with_chosen(self.choose, probs, z, is_masked, rng)
            yield float(time_by_count(self.process, z).max()), z


def with_chosen(choose: Choose, probs: Tensor, z: Tensor, hidden: Tensor, rng: Generator) -> Tensor:
    """The ids (B, L) after a word is drawn at each hidden place that `choose` takes; probs (N, V) are theirs."""
    reveal, z = choose(probs, hidden), z.clone()
    z[reveal] = inverse_cdf(probs[reveal[hidden]], uniform_like(z, rng)[reveal])
    return z


def time_by_count(process: MaskedDiffusion, z: Tensor) -> Tensor:
    """The times (B,) whose masking rate is the share of MASK in each row."""
    share = (z == process.mask_id).double().mean(1).cpu()
    return torch.where(share > 0, process.schedule.time_of(share), 0.0).to(z.device)
