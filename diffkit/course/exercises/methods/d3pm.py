"""Exercises of notebook 12_d3pm."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Generator, Tensor

from diffkit.course.exercises.checks import Wrong, exercise, not_these, tensor_of


def _matrices(V: int, seed: int) -> tuple[Tensor, Tensor]:
    rng = Generator().manual_seed(seed)
    first, second = torch.rand(2, V, V, generator=rng, dtype=torch.float64).softmax(-1)
    return first, second


@exercise
def check_kept(kept: Callable[[list[float]], Any]) -> str:
    """kept(betas) -> chance that a token was never drawn anew in steps that draw it anew with these chances."""
    for betas in ([0.5, 0.2], [0.1, 0.2, 0.3], [0.4, 0.25], [0.9]):
        mine = tensor_of(kept, betas, shape=(), called="kept(betas)").double()
        each = torch.tensor(betas, dtype=torch.float64)
        want = (1 - each).prod()
        if len(betas) > 1:
            not_these(
                mine,
                {
                    "that is the chance to be drawn anew in every step": each.prod(),
                    "that is the chance to be drawn anew at least once": 1 - want,
                    "chances of being drawn anew do not add up: a token may be drawn twice": 1 - each.sum(),
                },
            )
        if not torch.isclose(mine, want, atol=1e-6):
            raise Wrong(f"after steps with betas {betas} it is {want:.4f}, yours is {mine:.4f}.")
    return "It is 1 - gamma(t): the only number about time that these matrices know."


@exercise
def check_transition(transition: Callable[[int, float], Any]) -> str:
    """transition(V, alpha) -> (V, V), a token is kept with chance alpha, or drawn anew from all V words alike."""
    for V, alpha in ((3, 0.7), (5, 0.2), (4, 1.0), (4, 0.0)):
        mine = tensor_of(transition, V, alpha, shape=(V, V), called="transition(V, alpha)").double()
        identity, ones = torch.eye(V, dtype=torch.float64), torch.ones(V, V, dtype=torch.float64)
        want = alpha * identity + (1 - alpha) / V * ones
        if 0 < alpha < 1:
            other = (1 - alpha) / (V - 1) * (ones - identity)
            not_these(
                mine,
                {
                    "drawn anew means from all words, the old one too: the diagonal gets its share": alpha * identity
                    + other,
                    "alpha and 1 - alpha are swapped": (1 - alpha) * identity + alpha / V * ones,
                },
            )
        sums = mine.sum(1)
        if not torch.allclose(sums, torch.ones(V).double(), atol=1e-6):
            raise Wrong(f"rows must sum to one, yours sum to {sums[0]:.4f} for V = {V} and alpha = {alpha}.")
        if not torch.allclose(mine, want, atol=1e-6):
            raise Wrong(f"for V = {V} and alpha = {alpha} entry [0, 0] is {want[0, 0]:.4f}, [0, 1] {want[0, 1]:.4f}.")
    return "Two of these multiplied give a third of the same kind, so no product is ever computed."


@exercise
def check_posterior(posterior: Callable[[Tensor, Tensor, int, int], Any]) -> str:
    """posterior(first, second, a, c) -> (V,) q(z_s | z_t = c, x_0 = a); first leads from 0 to s, second from s to t."""
    for V, seed in ((3, 1), (5, 2), (4, 3)):
        first, second = _matrices(V, seed)
        for a, c in ((0, 1), (V - 1, 0), (1, 1)):
            mine = tensor_of(posterior, first, second, a, c, shape=(V,), called="posterior(...)").double()
            joint = first[a] * second[:, c]
            want = joint / joint.sum()
            not_these(
                mine,
                {
                    "these are the chances of a, then b, then c; divide them by their sum": joint,
                    "you took row c of `second`; what leads to c is its column": first[a]
                    * second[c]
                    / (first[a] @ second[c]),  # noqa: E501  # fmt: skip
                    "that is where a is at s; you have not used c": first[a],
                    "you took column a of `first`; what a leads to is its row": first[:, a]
                    * second[:, c]
                    / (first[:, a] @ second[:, c]),  # noqa: E501  # fmt: skip
                },
            )
            if not torch.allclose(mine, want, atol=1e-6):
                raise Wrong(f"for V = {V}, a = {a}, c = {c} it starts with {want[0]:.4f}, yours with {mine[0]:.4f}.")
    posterior(*_matrices(2, 4), 0, 1)
    return "Bayes' rule with two rows of numbers, however large the matrices."
