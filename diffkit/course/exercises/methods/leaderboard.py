"""Exercises of notebook 16_leaderboard."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Generator, Tensor

from diffkit.course.exercises.checks import Wrong, counterexample, exercise, not_these, number_of, read, tensor_of
from diffkit.evaluation.statistics import Estimate


def apart(a: Estimate, b: Estimate) -> bool:
    """Whether two independent estimates differ by more than two standard errors of their difference."""
    return abs(a.mean - b.mean) > 2 * math.hypot(a.standard_error, b.standard_error)


def least_valid(gap: float, L: int) -> float:
    """The smallest share of valid texts that a model with this gap, nats a token, can have."""
    return math.exp(-gap * L)


def order_nats(log_prob: Callable[[Tensor], Tensor], x0: Tensor, order: Tensor, mask_id: int) -> Tensor:
    """Nats of a text (L,) whose positions are revealed in this order, one at a time."""
    xt, nats = torch.full_like(x0, mask_id), torch.zeros((), dtype=torch.float64)
    for position in order.tolist():
        nats = nats - log_prob(xt)[position, x0[position]]
        xt = xt.index_copy(0, torch.tensor([position]), x0[position][None])
    return nats


# ----------------------------------------------------------------------------------------------------------- the checks

PAIRS = [  # (mean, standard error) of two rows that were judged apart
    (Estimate(0.100, 0.010), Estimate(0.115, 0.010)),  # 1.1 errors of the difference
    (Estimate(0.100, 0.002), Estimate(0.110, 0.002)),
    (Estimate(0.110, 0.002), Estimate(0.100, 0.002)),
    (Estimate(0.100, 0.004), Estimate(0.110, 0.004)),  # 1.8 errors of the difference, 2.5 of either
    (Estimate(0.100, 0.001), Estimate(0.120, 0.009)),
    (Estimate(0.100, 0.006), Estimate(0.122, 0.006)),  # 2.6 errors of the difference, and the two intervals overlap
]


@exercise
def check_apart(apart: Callable[[Estimate, Estimate], Any]) -> str:
    """apart(a, b) -> do two independent estimates differ by more than twice the standard error of their difference."""
    wants = [abs(a.mean - b.mean) > 2 * math.hypot(a.standard_error, b.standard_error) for a, b in PAIRS]
    mine = [read(apart(a, b), "the answer") for a, b in PAIRS]
    if not all(each.dtype == torch.bool and each.numel() == 1 for each in mine):
        raise Wrong(f"return True or False, yours is {mine[0].tolist()}.")
    found = [bool(each) for each in mine]
    slips = {
        "the sign: a row may be better or worse": [
            a.mean - b.mean > 2 * math.hypot(a.standard_error, b.standard_error) for a, b in PAIRS
        ],
        "one error will not do: both rows have one, and their squares add": [
            abs(a.mean - b.mean) > 2 * a.standard_error for a, b in PAIRS
        ],
        "errors of independent numbers add as squares; intervals that overlap may still be apart": [
            abs(a.mean - b.mean) > 2 * (a.standard_error + b.standard_error) for a, b in PAIRS
        ],
    }  # fmt: skip
    for why, slip in slips.items():
        if found == slip != wants:
            raise Wrong(f"{why}.")
    for (a, b), each, want in zip(PAIRS, found, wants, strict=True):
        if each != want:
            raise Wrong(f"{a} and {b} are {'apart' if want else 'not apart'} by this rule, yours is {each}.")
    return "And for rows judged on the same stories pair them first, as in notebook 07: the error is then smaller."


@exercise
def check_least_valid(least_valid: Callable[[float, int], Any]) -> str:
    """least_valid(gap, L) -> the smallest share of valid texts that a model with this gap, nats a token, can have."""
    cases = [(0.0, 48), (0.01, 48), (0.02, 24), (0.1, 48), (0.3, 10)]
    mine = torch.tensor([number_of(least_valid, *case, called="the share") for case in cases], dtype=torch.float64)
    want = torch.tensor([math.exp(-gap * L) for gap, L in cases], dtype=torch.float64)
    not_these(
        mine,
        {
            "that is for a gap of a whole text; yours is per token, and a text has L of them": torch.tensor(
                [math.exp(-gap) for gap, _ in cases], dtype=torch.float64
            ),
            "that is the nats a text; a share of probability is exp of minus that": torch.tensor(
                [gap * L for gap, L in cases], dtype=torch.float64
            ),
            "that is only near the answer for small gaps, and falls below zero for large ones": torch.tensor(
                [1 - gap * L for gap, L in cases], dtype=torch.float64
            ),
            "that is the share that may be lost; what is left is one minus it": 1 - want,
        },
    )
    counterexample(mine, want, [f"a gap of {gap} and L = {L}" for gap, L in cases], "the share")
    return "The least there can be: nats are also lost among valid texts, by writing some of them too often."


@exercise
def check_order_nats(order_nats: Callable[..., Any]) -> str:
    """order_nats(log_prob, x0, order, mask_id) -> nats of a text (L,) whose positions are revealed in this order."""
    L, V, mask_id = 5, 4, 4
    powers = (V + 1) ** torch.arange(L)
    for seed in range(3):
        rng = Generator().manual_seed(seed)
        table = torch.randn((V + 1) ** L, L, V, generator=rng, dtype=torch.float64).log_softmax(-1)
        x0, order = torch.randint(0, V, (L,), generator=rng), torch.randperm(L, generator=rng)

        def log_prob(xt: Tensor, table: Tensor = table) -> Tensor:
            return table[int(xt @ powers)]

        hidden = {k: x0.scatter(0, order[k:], mask_id) for k in range(L + 1)}
        nats = [-log_prob(hidden[k])[order[k], x0[order[k]]] for k in range(L)]
        seen = [-log_prob(hidden[k + 1])[order[k], x0[order[k]]] for k in range(L)]
        natural = [-log_prob(x0.scatter(0, torch.arange(k, L), mask_id))[k, x0[k]] for k in range(L)]
        blind = [-log_prob(hidden[0])[i, x0[i]] for i in range(L)]
        mine = tensor_of(order_nats, log_prob, x0, order, mask_id, shape=(), called="order_nats(...)").double()
        slips = {
            "a token must still be hidden when it is predicted": sum(seen),
            "take the positions in the given order, not from left to right": sum(natural),
            "each token is predicted given the earlier ones; yours sees an empty canvas every time": sum(blind),
            "nats are minus the logarithm; the sign is wrong": -sum(nats),
            "add the nats of all positions; do not average": sum(nats) / L,
        }
        not_these(mine, {why: torch.as_tensor(slip) for why, slip in slips.items()})
        counterexample(mine[None], torch.stack(nats).sum()[None], [f"order {order.tolist()}"], "the sum of nats")
    return "With the order drawn at random its mean is the masked model's bound: one network, L! autoregressive models."
