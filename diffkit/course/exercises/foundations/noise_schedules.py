"""Exercises of notebook 02_noise_schedules."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor

from diffkit.course.exercises.checks import Wrong, exercise, first_off, not_these, tensor_of
from diffkit.processes.schedules import CURVES, get_schedule


@exercise
def check_cosine_gamma(gamma: Callable[[Tensor, int], Tensor]) -> str:
    """gamma(t, T) -> masking rate of the cosine schedule, (B,) times to (B,) rates."""
    T = int(torch.randint(10, 2000, (), generator=Generator().manual_seed(0)))
    t = torch.linspace(0, T, 7, dtype=torch.float64)
    mine = tensor_of(gamma, t, T, shape=(7,), called="gamma")
    want, tau = get_schedule("cosine", T).gamma(t), t / T
    not_these(
        mine,
        {
            "that is MaskGIT's mirrored cosine, which hides early; ours starts slowly, 1 - cos(pi t / 2T)": (
                math.pi / 2 * tau
            ).sin(),
            "that is the share that is still visible; one minus it is hidden": 1 - want,
            "the cosine runs over a whole half turn, from 0 to 2; the angle ends at pi / 2": 1 - (math.pi * tau).cos(),
            "the angle grows with t / T, not with t: at t = T it is pi / 2": 1 - (math.pi / 2 * t).cos(),
            "that is the square of the cosine, another schedule": 1 - (math.pi / 2 * tau).cos().square(),
        },
    )
    if (i := first_off(mine.double(), want, 1e-4)) is not None:
        raise Wrong(f"with T = {T}, at t = {t[i]:.1f} the rate should be {want[i]:.4f}, yours is {float(mine[i]):.4f}.")
    return "Slow at first, then faster: 1 - cos(pi t / 2T)."


@exercise
def check_expected_masks(expected: Callable[[Tensor, Tensor], Tensor]) -> str:
    """expected(gamma, frozen) -> expected number of masks per row: (B,) rates and (B, L) bool to (B,)."""
    rng = Generator().manual_seed(1)
    gamma = torch.rand(4, generator=rng, dtype=torch.float64)
    frozen = torch.rand(4, 9, generator=rng) < torch.tensor([[0.0], [0.3], [0.6], [1.0]])
    mine = tensor_of(expected, gamma, frozen, shape=(4,), called="the expected number of masks").double()
    free = (~frozen).sum(1)
    not_these(
        mine,
        {
            "you count frozen positions too; they are never masked": gamma * 9,
            "you count the frozen positions, not the free ones; ~frozen turns a mask around": gamma * frozen.sum(1),
            "that many tokens stay visible on average; gamma is the chance of being hidden": (1 - gamma) * free,
            "that is the share of hidden tokens; multiply by L, or do not divide by it": gamma * free / 9,
        },
    )
    if (i := first_off(mine, gamma * free, 1e-4)) is not None:
        raise Wrong(
            f"{int(free[i])} free tokens at gamma = {gamma[i]:.3f} give {gamma[i] * free[i]:.3f} masks on average, "
            f"yours is {mine[i]:.3f}."
        )
    return "Every free token adds gamma; frozen ones add nothing."


@exercise
def check_stay_masked(stay: Callable[[Tensor, Tensor], Tensor]) -> str:
    """stay(gamma_t, gamma_s) -> chance that a token masked at t is masked at the earlier s, (B,) and (B,) to (B,)."""
    gamma_t = torch.rand(6, generator=Generator().manual_seed(2), dtype=torch.float64) * 0.6 + 0.4
    gamma_s = gamma_t * torch.linspace(0, 0.9, 6, dtype=torch.float64)
    mine = tensor_of(stay, gamma_t, gamma_s, shape=(6,), called="the chance").double()
    not_these(
        mine,
        {
            "that is the chance of being revealed between t and s; its complement is asked for": 1 - gamma_s / gamma_t,
            "that is the chance of being masked at s knowing nothing; we know that it is masked at t": gamma_s,
            "that runs forward: visible at s, still visible at t": (1 - gamma_t) / (1 - gamma_s),
            "that is the chance of being hit between s and t; divide by what you know, masked at t": gamma_t - gamma_s,
        },
    )
    if (mine > 1 + 1e-9).any() or not torch.isfinite(mine).all():
        raise Wrong("a chance lies in [0, 1], yours does not. gamma_s is the smaller of the two, and may be 0.")
    if (i := first_off(mine, gamma_s / gamma_t, 1e-4)) is not None:
        raise Wrong(
            f"at gamma_t = {gamma_t[i]:.3f}, gamma_s = {gamma_s[i]:.3f}, {gamma_s[i] / gamma_t[i]:.3f} of the masked "
            f"tokens were masked already; yours is {mine[i]:.3f}."
        )
    return "Of all that is masked at t, the share gamma_s / gamma_t was masked by s."


@exercise
def check_own_schedule(gamma: Callable[[Tensor, int], Tensor]) -> str:
    """gamma(t, T) -> any masking rate that a bound can live with: 0 at 0, 1 at T, never falling; (B,) to (B,)."""
    for T, n in ((40, 201), (1000, 301)):
        t = torch.linspace(0, T, n, dtype=torch.float64)
        mine = tensor_of(gamma, t, T, shape=(n,), called="gamma").double()
        if mine[0] != 0:
            raise Wrong(f"gamma(0) is {float(mine[0]):g} and must be exactly 0: clean text has no masks.")
        if mine[-1] != 1:
            raise Wrong(
                f"gamma(T) is {float(mine[-1]):.17g} for T = {T} and must be exactly 1. A formula in tau = t / T "
                "serves every T; torch.where(t == T, 1.0, ...) mends rounding."
            )
        falls = (mine.diff() < -1e-12).nonzero()
        if len(falls):
            raise Wrong(f"with T = {T}, gamma falls after t = {t[int(falls[0])]:g}. What is masked must stay masked.")
    for name in CURVES:
        if torch.allclose(mine, get_schedule(name, T).gamma(t), atol=1e-3):
            return f"It is a schedule, and a known one: {name}. Try one that the table does not have."
    half = t[int((mine >= 0.5).nonzero()[0])] / T
    return f"A schedule of your own: half of the text is gone at t / T = {half:.2f}."
