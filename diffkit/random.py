"""Random draws that are the same on every machine: inverse CDF in float64, ties in a fixed order."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Generator, Tensor

from diffkit.checks import check_generator


class SharedGenerator(Generator):
    """One generator, in the same state on several processes, each of which has some rows of every batch.

    The functions below draw for the whole batch and return the rows rank, rank + processes, and so on, so the noise of
    a text does not depend on the number of processes.
    """

    def __new__(cls, rank: int = 0, processes: int = 1) -> SharedGenerator:
        """torch makes the generator; it takes no arguments."""
        return super().__new__(cls)

    def __init__(self, rank: int = 0, processes: int = 1):
        super().__init__()
        self.rank, self.processes = rank, processes


def checked_seed(seed: int) -> int:
    """The seed. Raises: ValueError if it does not fit in 64 bits with its sign."""
    if not -(2**63) <= seed < 2**63:
        raise ValueError(f"seed: expected a whole number of at most 64 bits, got {seed}. Choose a smaller one.")
    return seed


def uniform_numbers(shape: Sequence[int], rng: Generator, dtype: torch.dtype = torch.float64) -> Tensor:
    """Numbers from U[0, 1), of the shape (B, ...), on the generator's device."""
    return _rows(torch.rand, shape, rng, dtype)


def uniform_like(x: Tensor, rng: Generator, dtype: torch.dtype = torch.float64) -> Tensor:
    """A number from U[0, 1) for each entry of x, used or not, on its device: streams stay in step."""
    return uniform_numbers(x.shape, rng, dtype).to(x.device, non_blocking=x.is_cuda)


def normal_like(x: Tensor, rng: Generator) -> Tensor:
    """A number from N(0, 1), float64, for each entry of x, on its device."""
    return _rows(torch.randn, x.shape, rng, torch.float64).to(x.device, non_blocking=x.is_cuda)


def _rows(draw: Callable[..., Tensor], shape: Sequence[int], rng: Generator, dtype: torch.dtype) -> Tensor:
    check_generator(rng)
    if not isinstance(rng, SharedGenerator) or rng.processes == 1:
        return draw(shape, generator=rng, dtype=dtype, device=rng.device)
    whole = draw((shape[0] * rng.processes, *shape[1:]), generator=rng, dtype=dtype, device=rng.device)
    return whole[rng.rank :: rng.processes]


def categorical(probs: Tensor, rng: Generator) -> Tensor:
    """Draw one index from each row of a table of probabilities (rows need not be normalised).

    Double precision and one uniform number per row: float32 Gumbel noise cannot reach the tail (an event of probability
    1e-7 is drawn a quarter too rarely), and with an inverse CDF rounding moves an outcome only at a near tie.

    Args:    probs: (..., V) non-negative weights, each row with a positive sum.
    Returns: (...) int64 indices.
    Raises:  ValueError if a row has a negative, infinite or NaN entry, or sums to zero.
    Source:  arXiv:2409.02908, section on inaccurate categorical sampling.
    """
    return inverse_cdf(probs, uniform_numbers(probs.shape[:-1], rng))


def inverse_cdf(probs: Tensor, u: Tensor) -> Tensor:
    """The outcome at which the cumulative sum of (..., V) weights passes the share u (...) in [0, 1) of their total.

    The same u gives the same outcome later, from a part of the table: see sampling/skipping.py.
    """
    if not probs.ndim or not probs.shape[-1]:
        raise ValueError(f"categorical: a table of weights is (..., V) with V at least 1, got {tuple(probs.shape)}.")
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
    """Of the positions `among` (B, L) bool, the `count` (B,) of each row with the highest score (B, L): (B, L) bool.

    Among equals the lower position comes first.
    """
    order = score.masked_fill(~among, -torch.inf).argsort(dim=1, descending=True, stable=True)
    return among & (order.argsort(dim=1, stable=True) < count[:, None])
