"""Exercises of notebook 03_objective."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Generator, Tensor

from diffkit.course.exercises.checks import Untouched, Wrong, exercise, first_off, not_these, number, tensor_of
from diffkit.processes.schedules import get_schedule


@exercise
def check_discrete_weight(weight: Callable[[Tensor, Tensor, int], Tensor]) -> str:
    """weight(gamma_t, gamma_s, T) -> weight of a loss drawn at t = 1..T, s = t - 1, to estimate the bound."""
    T, t = 20, torch.arange(1, 21)
    cosine = get_schedule("cosine", T)
    gamma_t, gamma_s = cosine.gamma(t), cosine.gamma(t - 1)
    mine = tensor_of(weight, gamma_t, gamma_s, T, shape=(T,), called="the weight").double()
    want = T * (gamma_t - gamma_s) / gamma_t
    not_these(
        mine,
        {
            "that is the weight of one term of the sum; a draw of t stands for all T, so multiply by T": want / T,
            "that weights by the chance to stay masked; a token is paid for when it is revealed": T * gamma_s / gamma_t,
            "that is the chance to be hit in this step; divide by what is known, gamma_t": T * (gamma_t - gamma_s),
            "1 / gamma_t is right for the linear schedule only; here the step gamma_t - gamma_s varies": 1 / gamma_t,
        },
    )
    if not torch.isfinite(mine).all():
        raise Wrong("your weight is infinite or NaN at t = 1, where gamma_s = 0. Which gamma stands below the line?")
    if (i := first_off(mine, want, 1e-6)) is not None:
        raise Wrong(
            f"T = {T}, gamma_t = {gamma_t[i]:.4f}, gamma_s = {gamma_s[i]:.4f}: the weight should be {want[i]:.4f}, "
            f"yours is {mine[i]:.4f}."
        )
    return "T times the chance that a token masked at t is revealed by the step to t - 1."


@exercise
def check_count_estimate(estimate: Callable[[Tensor, Tensor], Tensor]) -> str:
    """estimate(nats, is_masked) -> exact-count estimate of each row's bound: (B, L) and (B, L) bool to (B,) nats."""
    rng = Generator().manual_seed(3)
    is_masked = torch.rand(5, 8, generator=rng) < torch.tensor([[0.2], [0.4], [0.5], [0.7], [1.0]])
    is_masked[:, 3] = True
    nats = torch.rand(5, 8, generator=rng, dtype=torch.float64) * is_masked
    mine = tensor_of(estimate, nats, is_masked, shape=(5,), called="the estimate").double()
    total, count = nats.sum(1), is_masked.sum(1)
    not_these(
        mine,
        {
            "that is the plain sum; few masks then look cheap. Scale each row by its own L / k": total,
            "that is nats per masked token; times L it estimates the bound of the whole text": total / count,
            "you divide by L; multiply by L and divide by the number of masks k": total / 8,
            "your factor is upside down: L / k, not k / L": total * count / 8,
            "you divide by the average count; each row has its own k": 8 * total / count.double().mean(),
        },
    )
    want = 8 * total / count
    if (i := first_off(mine, want, 1e-5)) is not None:
        raise Wrong(
            f"a row of L = 8 with {int(count[i])} masks that cost {total[i]:.3f} nats in all estimates {want[i]:.3f}, "
            f"yours is {mine[i]:.3f}."
        )
    return "L / k times the loss of the k masked tokens: unbiased when k is uniform on 1..L."


@exercise
def check_report(report: Callable[[Tensor, Tensor], Any]) -> str:
    """report(nats, tokens) -> (perplexity, bits per token) of a test set: bounds (N,) nats and lengths (N,) tokens."""
    tokens = torch.tensor([4, 30, 12, 7])
    nats = tokens * torch.tensor([2.1, 0.4, 1.3, 3.0], dtype=torch.float64)
    answer = report(nats, tokens)
    if not isinstance(answer, tuple | list) or len(answer) != 2:
        raise Wrong(f"return two numbers, (perplexity, bits per token); yours is {type(answer).__name__}.")
    if all(part is ... or part is None for part in answer):
        raise Untouched
    perplexity, bits = (number(part, "each of the two") for part in answer)
    rate = nats.sum() / tokens.sum()
    not_these(
        torch.tensor(perplexity),
        {
            "you average perplexities; average nats first, exponentiate last": (nats / tokens).exp().mean(),
            "a short text weighs as much as a long one; divide all nats by all tokens": (nats / tokens).mean().exp(),
            "that is the perplexity of a whole text; divide by tokens before exp": nats.mean().exp(),
            "these are nats, so the base is e, not 2": 2**rate,
        },
    )
    not_these(
        torch.tensor(bits),
        {
            "1 nat is 1.4427 bits: divide by ln 2, do not multiply": rate * math.log(2),
            "the second number is still in nats; divide by ln 2": rate,
            "bits: a short text weighs as much as a long one": (nats / tokens).mean() / math.log(2),
        },
    )
    for name, value, want in (("perplexity", perplexity, rate.exp()), ("bits per token", bits, rate / math.log(2))):
        if not abs(value - float(want)) < 1e-3:
            raise Wrong(f"{nats.sum():.1f} nats in {tokens.sum()} tokens are {want:.3f} {name}, yours is {value:.3f}.")
    return "All nats over all tokens, and only then exp or / ln 2."
