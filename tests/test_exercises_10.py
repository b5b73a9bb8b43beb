"""Exercises of notebook 10: the worked solutions pass, and each likely mistake is named."""

import math

import pytest
from exercise_cases import assert_met_kindly, assert_named, assert_passes

from diffkit import exercises


def calls(steps, L):
    return steps * (1 - (1 - 1 / steps) ** L)


def next_time(t, n, u):
    return t * u ** (1 / n)


def how_many(entropies, bound):
    ranked = entropies.sort().values
    return (ranked.cumsum(0) - ranked <= bound).sum()


def stay(gamma_t, gamma_s, r):
    return (gamma_s - r * (1 - gamma_t)) / gamma_t


CHECKS = {
    exercises.check_calls: calls,
    exercises.check_next_time: next_time,
    exercises.check_how_many: how_many,
    exercises.check_make_up: stay,
}


@pytest.mark.parametrize(("check", "solution"), CHECKS.items())
def test_the_worked_solution_passes(check, solution):
    assert_passes(check, solution)


@pytest.mark.parametrize("check", CHECKS)
def test_an_untouched_stub_and_one_that_raises_are_told_kindly(check):
    assert_met_kindly(check)


WRONG = [
    (exercises.check_calls, lambda steps, L: steps * (1 - 1 / steps) ** L, "nothing happens"),
    (exercises.check_calls, lambda steps, L: 1 - (1 - 1 / steps) ** L, "one given step"),
    (exercises.check_calls, min, "share a step"),
    (exercises.check_calls, lambda steps, L: steps * (1 - math.exp(-L / steps)), "is exact"),
    (exercises.check_calls, lambda steps, L: steps / 2, "busy"),
    (exercises.check_next_time, lambda t, n, u: t * u, "single hidden token"),
    (exercises.check_next_time, lambda t, n, u: t * u**n, "last of the n"),
    (exercises.check_next_time, lambda t, n, u: t - t * u ** (1 / n), "time that passes"),
    (exercises.check_next_time, lambda t, n, u: 1000 * u ** (1 / n), "start from t"),
    (exercises.check_next_time, lambda t, n, u: t * n / (n + 1), "average"),
    (exercises.check_next_time, lambda t, n, u: t * u / n, "largest of n uniforms"),
    (exercises.check_next_time, lambda t, n, u: t, "u = 0"),
    (exercises.check_next_time, lambda t, n, u: t[:2], "shape"),
    (exercises.check_how_many, lambda h, b: (h.sort().values.cumsum(0) <= b).sum().clamp(min=1), "costs nothing"),
    (exercises.check_how_many, lambda h, b: (h.sort().values.cumsum(0) <= b).sum(), "at least one"),
    (exercises.check_how_many, lambda h, b: (h <= b).sum().clamp(min=1), "by itself"),
    (exercises.check_how_many, lambda h, b: (h.cumsum(0) - h <= b).sum(), "sort first"),
    (exercises.check_how_many, lambda h, b: len(h), "can be revealed"),
    (exercises.check_make_up, lambda gt, gs, r: gs / gt, "makes up for"),
    (exercises.check_make_up, lambda gt, gs, r: 1 - stay(gt, gs, r), "to be revealed"),
    (exercises.check_make_up, lambda gt, gs, r: (gs - r * gt) / gt, "the share 1 - gamma_t"),
    (exercises.check_make_up, lambda gt, gs, r: gs - r * (1 - gt), "divide by gamma_t"),
    (exercises.check_make_up, lambda gt, gs, r: 0.5, "yours is"),
]


@pytest.mark.parametrize(("check", "answer", "why"), WRONG)
def test_likely_mistakes_are_named(check, answer, why):
    assert_named(check, answer, why)
