"""Estimates with their standard errors, intervals for shares, divergences of counts."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from diffkit.checks import check_whole


class Estimate(NamedTuple):
    """A mean and its standard error."""

    mean: float
    standard_error: float

    def __truediv__(self, scale: float) -> Estimate:
        return Estimate(self.mean / scale, self.standard_error / abs(scale))

    def __str__(self) -> str:
        return f"{self.mean:.4f} ± {self.standard_error:.4f}"


def mean_of(values: Tensor) -> Estimate:
    """Mean of independent values (n,) and its standard error (NaN for a single value)."""
    if values.ndim != 1 or not len(values):
        raise ValueError(f"mean_of: needs values (n,), at least one, got {tuple(values.shape)}.")
    spread = values.double().std().item() if len(values) > 1 else math.nan
    return Estimate(values.double().mean().item(), spread / math.sqrt(len(values)))


def chance_of_counts(probs: Tensor, n: int) -> Tensor:
    """Binomial chance that k of n samples have each outcome: (K,) probabilities to (K, n + 1) float64."""
    p, k = probs.double()[:, None], torch.arange(n + 1, dtype=torch.float64)
    ways = math.lgamma(n + 1) - torch.lgamma(k + 1) - torch.lgamma(n - k + 1)
    return (ways + torch.special.xlogy(k, p) + torch.special.xlogy(n - k, 1 - p)).exp()


def kl_of_counts(counts: Tensor, probs: Tensor) -> float:
    """KL(frequencies || exact probabilities), nats, from counts (K,) and probs (K,)."""
    if counts.shape != probs.shape:
        raise ValueError(
            f"kl_of_counts: one count for each of {tuple(probs.shape)} outcomes, got {tuple(counts.shape)}."
        )
    share = counts.double() / counts.sum().clamp(min=1)
    return (torch.special.xlogy(share, share) - torch.special.xlogy(share, probs)).sum().item()


def kl_floor(probs: Tensor, n: int) -> float:
    """Mean of `kl_of_counts` over n perfect samples, nats: near (K - 1) / (2 n) for many, exact for few."""
    check_whole(n, "n", "kl_floor")
    k = torch.arange(n + 1, dtype=torch.float64)
    return float(
        (chance_of_counts(probs, n) @ torch.special.xlogy(k / n, k / n)).sum() + torch.special.entr(probs).sum()
    )


def wilson(hits: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """95 % interval for a share, from hits out of n (Wilson 1927); sensible at 0 and at n, unlike plus-minus."""
    if n < 1 or not 0 <= hits <= n:
        raise ValueError(f"wilson: needs 0 <= hits <= n and n >= 1, got {hits} of {n}.")
    middle = (hits + z * z / 2) / (n + z * z)
    half = z * math.sqrt(hits * (n - hits) / n + z * z / 4) / (n + z * z)
    return max(0.0, middle - half), min(1.0, middle + half)
