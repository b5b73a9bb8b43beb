"""Exercises of notebook 13_sedd."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Generator, Tensor

from diffkit.course.exercises.checks import Wrong, counterexample, exercise, not_these, tensor_of


@exercise
def check_score(score: Callable[[Tensor, int], Any]) -> str:
    """score(p, x) -> (V,) how much more likely than x each word is, p the chances of all words."""
    for V, x in ((3, 0), (5, 4), (4, 2)):
        p = torch.rand(V, generator=Generator().manual_seed(V), dtype=torch.float64).softmax(0)
        mine = tensor_of(score, p, x, shape=(V,), called="score(p, x)").double()
        not_these(
            mine,
            {
                "these are the chances themselves; divide by that of x": p,
                "the ratio is upside down": p[x] / p,
                "these are logarithms; take the ratio itself": (p / p[x]).log(),
                "the score of x itself is 1, a ratio like the others": (p / p[x]).index_fill(0, torch.tensor([x]), 0.0),
            },
        )
        counterexample(mine, p / p[x], [f"p = {p.tolist()}, x = {x}, y = {y}" for y in range(V)], "the score")
    return "Any constant factor of p cancels: the network never has to make its numbers sum to one."


@exercise
def check_score_entropy(score_entropy: Callable[[Tensor, Tensor], Any]) -> str:
    """score_entropy(s, r) -> s - r log s + r (log r - 1), element by element, for positive s and r."""
    s = torch.tensor([0.1, 0.5, 1.0, 2.0, 7.0, 0.3], dtype=torch.float64)
    r = torch.tensor([0.4, 0.5, 3.0, 0.2, 7.0, 1.0], dtype=torch.float64)
    mine = tensor_of(score_entropy, s, r, shape=(6,), called="score_entropy(s, r)").double()
    want = s - r * s.log() + r * (r.log() - 1)
    not_these(
        mine,
        {
            "without r (log r - 1) it is no longer zero at s = r: fine for a gradient, but no bound": s - r * s.log(),
            "s and r are swapped": r - s * r.log() + s * (s.log() - 1),
            "that is the squared error; it lets s fall to zero and below": (s - r).square(),
            "the last part is r (log r - 1), not r log r": s - r * s.log() + r * r.log(),
        },
    )
    counterexample(mine, want, [f"s = {a:g}, r = {b:g}" for a, b in zip(s, r, strict=True)], "the score entropy")
    return "Zero at s = r, positive elsewhere, and infinite as s falls to zero: scores stay positive by themselves."


@exercise
def check_masking_rate(masking_rate: Callable[[Tensor], Any]) -> str:
    """masking_rate(sigma) -> gamma, the chance to be masked after a total noise of sigma."""
    sigma = torch.tensor([1e-14, 0.1, 1.0, math.log(2), 20.0], dtype=torch.float64)
    mine = tensor_of(masking_rate, sigma, shape=(5,), called="masking_rate(sigma)").double()
    want = -torch.expm1(-sigma)
    not_these(
        mine,
        {
            "that is the chance to survive": (-sigma).exp(),
            "a rate is not a chance: after a noise of 20 it must still be below one": sigma,
            "survival multiplies: it is exp(-sigma)": sigma / (1 + sigma),
        },
    )
    counterexample(mine[1:], want[1:], [f"sigma = {value:.4g}" for value in sigma[1:]], "the masking rate")
    if not math.isclose(mine[0].item(), 1e-14, rel_tol=1e-6):
        raise Wrong(
            f"for sigma = 1e-14 it should be 1e-14 too, yours is {mine[0]:.6g}: 1 - exp(-sigma) has lost all its "
            "digits. Use torch.expm1."
        )
    return "log-linear noise is the one whose masking rate grows evenly."
