"""Estimates with their standard errors, intervals for shares, divergences of counts."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor


class Estimate(NamedTuple):
    """A mean and its standard error."""

    mean: float
    standard_error: float

    def __truediv__(self, scale: float) -> Estimate:
        return Estimate(self.mean / scale, self.standard_error / abs(scale))

    def __str__(self) -> str:
        return f"{self.mean:.4f}" + ("" if math.isnan(self.standard_error) else f" ± {self.standard_error:.4f}")


def perplexity(nats: float) -> float:
    """exp of nats; infinite where no number is large enough."""
    return math.exp(nats) if nats < 709 else math.inf


def mean_of(values: Tensor) -> Estimate:
    """Mean of independent values (n,), at least one, and its standard error (NaN for a single value)."""
    spread = values.double().std().item() if len(values) > 1 else math.nan
    return Estimate(values.double().mean().item(), spread / math.sqrt(len(values)))


class Sums:
    """Sums over windows of which each has some nats x and k tokens: sum(x) / sum(k) and its standard error."""

    def __init__(self) -> None:
        self.n, self.sums = 0, torch.zeros(5, dtype=torch.float64)

    def add(self, x: Tensor, k: Tensor) -> None:
        """Windows' nats (B,) and tokens (B,)."""
        self.n += len(x)
        self.sums += torch.stack([each.double().sum() for each in (x, k, x * x, x * k, k * k)])

    def ratio(self) -> Estimate:
        """The error is that of a ratio: of the residuals x - mean k."""
        x, k, xx, xk, kk = self.sums.tolist()
        squares = max(0.0, xx - 2 * x / k * xk + (x / k) ** 2 * kk)
        return Estimate(x / k, math.sqrt(squares * self.n / (self.n - 1)) / k if self.n > 1 else math.nan)


def wilson(hits: int, n: int) -> tuple[float, float]:
    """95 % interval for a share, from hits out of n (Wilson 1927); sensible at 0 and at n, unlike plus-minus."""
    from scipy.stats import binomtest  # takes a moment to import

    interval = binomtest(hits, n).proportion_ci(0.95, "wilson")
    return float(interval.low), float(interval.high)


def binomial(probs: Tensor, n: int) -> Tensor:
    """Probability that k of n samples have each outcome: (K,) probabilities to (K, n + 1) float64."""
    from scipy.stats import binom

    return torch.from_numpy(binom.pmf(torch.arange(n + 1).numpy(), n, probs.double()[:, None].numpy()))


def kl_of_counts(counts: Tensor, probs: Tensor) -> float:
    """KL(frequencies || exact probabilities), nats, from counts (K,) and probs (K,)."""
    share = counts.double() / counts.sum().clamp(min=1)
    return (torch.special.xlogy(share, share) - torch.special.xlogy(share, probs)).sum().item()


def kl_floor(probs: Tensor, n: int) -> float:
    """Mean of `kl_of_counts` over n perfect samples, nats: near (K - 1) / (2 n) for many, exact for few."""
    share = torch.arange(n + 1, dtype=torch.float64) / n
    mean = (binomial(probs, n) @ torch.special.xlogy(share, share)).sum() + torch.special.entr(probs).sum()
    return mean.item()
