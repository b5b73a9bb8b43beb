"""Random draws and choices that come out the same on every machine: inverse CDF in float64, ties in a fixed order."""

from __future__ import annotations

import torch
from torch import Generator, Tensor


def categorical(probs: Tensor, rng: Generator) -> Tensor:
    """Draw one index from each row of a table of probabilities (rows need not be normalised).

    Double precision and one uniform number per row: float32 Gumbel noise cannot reach the tail (an event of probability
    1e-7 is drawn a quarter too rarely), and with an inverse CDF rounding moves an outcome only at a near tie.

    Args:    probs: (..., V) non-negative weights, each row with a positive sum.
    Returns: (...) int64 indices.
    Raises:  ValueError if a row has a negative, infinite or NaN entry, or sums to zero.
    Source:  arXiv:2409.02908, section on inaccurate categorical sampling.
    """
    return inverse_cdf(probs, torch.rand(probs.shape[:-1], generator=rng, dtype=torch.float64, device=rng.device))


def inverse_cdf(probs: Tensor, u: Tensor) -> Tensor:
    """The outcome at which the cumulative sum of (..., V) weights passes the share u (...) in [0, 1) of their total.

    Whoever keeps u draws the same outcome later, from a part of the table: see fast.py.
    """
    cdf = probs.double().cumsum(-1)
    total = cdf[..., -1:]
    if not (torch.isfinite(total).all() and (total > 0).all() and (probs >= 0).all()):
        raise ValueError(
            "categorical: every row needs non-negative finite weights with a positive sum; a row has a negative, "
            "infinite or NaN entry or is all zeros. Did the denoiser return NaN, or forbid every token?"
        )
    index = torch.searchsorted(cdf.contiguous(), u.to(probs.device)[..., None] * total, right=True).squeeze(-1)
    return index.clamp(max=probs.shape[-1] - 1)


def highest(score: Tensor, among: Tensor, count: Tensor) -> Tensor:
    """Of the places `among` (B, L) bool, the `count` (B,) of each row with the highest score (B, L): (B, L) bool.

    Among equals the lower place goes first.
    """
    order = score.masked_fill(~among, -torch.inf).argsort(dim=1, descending=True, stable=True)
    return among & (order.argsort(dim=1, stable=True) < count[:, None])
