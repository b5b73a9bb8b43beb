"""Exercises of notebook 11: the worked solutions pass, and each likely mistake is named."""

import math

import pytest

from diffkit import exercises
from diffkit.scaling import frontier


def exponent(x, y):
    return -(math.log(y[1]) - math.log(y[0])) / (math.log(x[1]) - math.log(x[0]))


def compute(parameters, tokens):
    return 6 * parameters * tokens


def records(compute, gap):
    best, kept = math.inf, []
    for i in sorted(range(len(gap)), key=lambda i: compute[i]):
        if gap[i] < best:
            best = gap[i]
            kept.append(i)
    return kept


CHECKS = {
    exercises.check_exponent: [exponent],
    exercises.check_compute: [compute],
    exercises.check_frontier: [records, frontier],
}


@pytest.mark.parametrize(("check", "solution"), [(check, each) for check, all_ in CHECKS.items() for each in all_])
def test_the_worked_solution_passes(check, solution):
    verdict = check(solution)
    assert verdict.passed, verdict


WRONG = [
    (exercises.check_exponent, lambda x, y: -exponent(x, y), "sign"),
    (exercises.check_exponent, lambda x, y: (y[1] - y[0]) / (x[1] - x[0]), "logarithms"),
    (exercises.check_exponent, lambda x, y: 1 / exponent(x, y), "turned round"),
    (exercises.check_exponent, lambda x, y: exponent(x, y) + 0.1, "yours is"),
    (exercises.check_compute, lambda n, d: 2 * n * d, "forward pass alone"),
    (exercises.check_compute, lambda n, d: n * d, "twice that backward"),
    (exercises.check_compute, lambda n, d: 6 * n, "yours says"),
    (exercises.check_frontier, lambda c, g: range(len(c)), "does not belong"),
    (exercises.check_frontier, lambda c, g: sorted(records(c, g)), "cheap to dear"),
    (exercises.check_frontier, lambda c, g: records(c, g)[:1], "on the frontier"),
]


@pytest.mark.parametrize(("check", "answer", "says"), WRONG)
def test_a_plausible_mistake_is_named(check, answer, says):
    verdict = check(answer)
    assert not verdict.passed and says in verdict.message, verdict


@pytest.mark.parametrize("check", CHECKS)
def test_stubs_and_errors_are_met_kindly(check):
    def raising(*arguments):
        raise KeyError("oops")

    assert "Not attempted yet" in check(lambda *arguments: ...).message
    assert "KeyError" in check(raising).message
