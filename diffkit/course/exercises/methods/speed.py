"""Exercises of notebook 10_speed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Generator, Tensor

from diffkit.course.exercises.checks import Wrong, exercise, not_these, tensor_of


@exercise
def check_calls(calls: Callable[[int, int], Any]) -> str:
    """calls(steps, L) -> mean number of steps that reveal at least one of L tokens, each equally likely at any step."""
    for steps, L in ((1000, 48), (64, 128), (10, 1), (1, 7)):
        mine = tensor_of(calls, steps, L, shape=(), called="the number").double()
        quiet = torch.tensor((1 - 1 / steps) ** L).double()
        want = steps * (1 - quiet)
        slips = {
            "those are the steps in which nothing happens; the others are wanted": steps * quiet,
            "that is the chance that one given step reveals something; there are `steps` of them": 1 - quiet,
            "two tokens may share a step, so it is less than the smaller of the two numbers": torch.tensor(
                float(min(steps, L))
            ),
            "that is the limit of long texts; 1 - 1/steps to the power L is exact": steps
            * (1 - torch.tensor(-L / steps).double().exp()),
        }
        not_these(mine, {why: slip.double() for why, slip in slips.items() if abs(float(slip - want)) > 1e-4})
        if abs(float(mine - want)) > 1e-6 * float(want):
            raise Wrong(f"{L} tokens in {steps} steps keep {want:.3f} of the steps busy, yours is {float(mine):.3f}.")
    return "Every step is quiet with chance (1 - 1/N)^L, and there are N of them."


@exercise
def check_next_time(next_time: Callable[[Tensor, Tensor, Tensor], Any]) -> str:
    """next_time(t, n, u) -> when the next of n tokens hidden at t is revealed, linear schedule; u uniform, all (B,)."""
    rng = Generator().manual_seed(4)
    t = 1000 * torch.rand(6, generator=rng, dtype=torch.float64)
    u = torch.rand(6, generator=rng, dtype=torch.float64)
    n = torch.tensor([1, 2, 3, 5, 9, 48])
    mine = tensor_of(next_time, t, n, u, shape=(6,), called="the times").double()
    want = t * u ** (1 / n)
    if torch.allclose(mine, t * (1 - u) ** (1 / n), atol=1e-3):  # 1 - u is as uniform as u
        mine = want
    slips = {
        "that is right for a single hidden token; the latest of n reveals comes sooner (later in t)": t * u,
        "that is the last of the n reveals; time runs back, so the next one has the largest t": t * u**n,
        "that is the time that passes until then; return the time itself": t - want,
        "that forgets how late it is already: start from t, not from T": 1000 * u ** (1 / n),
        "that is the average; it is to be drawn, with u": t * n / (n + 1),
        "dividing u by n does not give the largest of n uniforms": t * u / n,
    }
    not_these(mine, slips)
    if (mine - want).abs().max() > 1e-3:
        i = int((mine - want).abs().argmax())
        raise Wrong(f"t = {t[i]:.1f}, n = {n[i]}, u = {u[i]:.3f}: next {want[i]:.2f}, yours {mine[i]:.2f}.")
    return "The largest of n uniform times below t is distributed as t u^(1/n)."


@exercise
def check_how_many(how_many: Callable[[Tensor, float], Any]) -> str:
    """how_many(entropies, bound) -> how many of the most certain positions to reveal at once; (n,) nats, unsorted."""
    cases = (
        ([0.5, 0.4], 0.0), ([0.2, 0.2, 0.2, 0.2], 0.25), ([0.3, 0.0, 0.1, 0.9, 0.2], 0.25), ([0.2, 0.0, 0.0], 0.0),
        ([0.1, 0.1, 0.1, 2.0], 0.35), ([1.5], 0.2), ([0.6, 0.7, 0.8], 0.5), ([0.05, 0.3, 0.4, 0.45, 3.0], 1.0),
    )  # fmt: skip
    for values, bound in cases:
        entropies = torch.tensor(values, dtype=torch.float64)
        mine = tensor_of(how_many, entropies, bound, shape=(), called="the number").double()
        ranked = entropies.sort().values
        fits = {
            "want": ranked.cumsum(0) - ranked <= bound + 1e-9,
            "the largest of the set costs nothing (alone it is drawn exactly): subtract it before you compare": (
                ranked.cumsum(0) <= bound + 1e-9
            ),
            "each position fits the bound by itself; it is their sum that counts": ranked <= bound + 1e-9,
            "start with the most certain positions: sort first": entropies.cumsum(0) - entropies <= bound + 1e-9,
        }
        want = float(fits.pop("want").sum())
        if float(mine) == 0:
            raise Wrong(f"{values} with a bound of {bound}: reveal at least one, or the text is never finished.")
        counts = {why: fit.sum().double() for why, fit in fits.items()}
        not_these(mine, {why: count for why, count in counts.items() if float(count) != want})
        if float(mine) != want:
            raise Wrong(f"of {values} nats, {want:.0f} can be revealed within {bound}, yours is {float(mine):.0f}.")
    return "Sorted, summed, the largest left out: what is left bounds the price of drawing them independently."


@exercise
def check_make_up(stay: Callable[[float, float, float], Any]) -> str:
    """stay(gamma_t, gamma_s, r) -> chance that a masked token stays so, if visible ones are masked with chance r."""
    for gamma_t, gamma_s, r in ((0.5, 0.4, 0.0), (0.8, 0.6, 0.3), (0.5, 0.5, 0.2), (0.3, 0.21, 0.3), (1.0, 0.9, 1.0)):
        mine = tensor_of(stay, gamma_t, gamma_s, r, shape=(), called="the chance").double()
        want = torch.tensor((gamma_s - r * (1 - gamma_t)) / gamma_t).double()
        slips = {
            "as many are masked again as before, but nothing makes up for them: the text never gets finished": (
                gamma_s / gamma_t
            ),
            "that is the chance to be revealed": 1 - float(want),
            "the visible tokens are the share 1 - gamma_t, not gamma_t": (gamma_s - r * gamma_t) / gamma_t,
            "divide by gamma_t: only the masked tokens can stay masked": gamma_s - r * (1 - gamma_t),
        }
        tensors = {why: torch.tensor(float(slip)).double() for why, slip in slips.items()}
        not_these(mine, {why: slip for why, slip in tensors.items() if abs(float(slip - want)) > 1e-4})
        if abs(float(mine - want)) > 1e-6:
            raise Wrong(f"gamma_t = {gamma_t}, gamma_s = {gamma_s}, r = {r}: {want:.4f}, yours is {float(mine):.4f}.")
    return "Masked before and still masked, plus visible and masked again, make gamma_s together."
