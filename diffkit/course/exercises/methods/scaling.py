"""Exercises of notebook 11_scaling."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from scipy.stats import linregress

from diffkit.course.exercises.checks import Wrong, exercise, number, number_of, parts_of, rows_of
from diffkit.course.experiments.scaling import frontier


def _close(mine: Any, want: float) -> bool:
    return math.isclose(float(mine), want, rel_tol=1e-3)


def fit_line(x: Sequence[float], y: Sequence[float]) -> tuple[float, float, float]:
    """Least squares of log y over log x for y = a x^-b: a, b, and the standard error of b."""
    line = linregress([math.log(value) for value in x], [math.log(value) for value in y])
    return math.exp(line.intercept), -line.slope, float(line.stderr)


def compute(parameters: float, tokens: float) -> float:
    """Floating-point operations of a training run: two forward and four backward for each parameter and token."""
    return 6 * parameters * tokens


best_runs = frontier

# ----------------------------------------------------------------------------------------------------------- the checks


@exercise
def check_fit(fit: Callable[[Sequence[float], Sequence[float]], Any]) -> str:
    """fit(x, y) -> a and b of y = a x^-b by least squares of the logarithms, and the standard error of b."""
    cases = (
        ([10.0, 100.0, 1000.0, 4000.0], [3.0, 0.9, 0.4, 0.11]),
        ([2.0, 3.0, 7.0, 11.0, 20.0], [0.5, 0.45, 0.2, 0.22, 0.1]),
    )
    for x, y in cases:
        answer = parts_of(fit(x, y))
        if not isinstance(answer, tuple | list) or len(answer) != 3:
            raise Wrong("return three numbers: the factor, the exponent and its standard error.")
        mine = [
            number(each, name) for each, name in zip(answer, ("the factor", "the exponent", "its error"), strict=True)
        ]
        want = fit_line(x, y)
        _name_fit(mine, want, x, y)
        for name, found, right in zip(("the factor", "the exponent", "the standard error"), mine, want, strict=True):
            if not math.isclose(found, right, rel_tol=1e-5):  # float32 will do
                raise Wrong(f"x = {x}, y = {y}: {name} is {right:.4f}, yours is {found:.4f}.")
    return "A straight line on logarithmic axes, its slope downhill, and how far the points leave that slope open."


def _name_fit(mine: list[float], want: tuple[float, float, float], x: Sequence[float], y: Sequence[float]) -> None:
    """Raise Wrong for a fit that is known to be wrong."""
    a, b, error = want
    n, plain = len(x), linregress(x, y)
    ends = -(math.log(y[-1]) - math.log(y[0])) / (math.log(x[-1]) - math.log(x[0]))
    if _close(mine[1], -b):
        raise Wrong("the sign is wrong: y falls as x grows, and b is counted positive.")
    if _close(mine[1], plain.slope) or _close(mine[1], -plain.slope):
        raise Wrong("that is the slope of y over x; take logarithms of both first.")
    if _close(mine[1], ends):
        raise Wrong("that is the line through the first and the last point; least squares uses all of them.")
    if _close(mine[0], math.log(a)):
        raise Wrong("that is the logarithm of the factor: a is its exponential.")
    if _close(mine[2], error * math.sqrt((n - 2) / n)) or _close(mine[2], error * math.sqrt((n - 2) / (n - 1))):
        raise Wrong("two numbers were fitted, so the residuals have n - 2 degrees of freedom.")
    if _close(mine[2], error**2):
        raise Wrong("that is the variance of the exponent; its standard error is the root.")


@exercise
def check_compute(compute: Callable[[int, int], Any]) -> str:
    """compute(parameters, tokens) -> floating-point operations of a training run, the usual estimate."""
    for parameters, tokens in ((1000, 50), (148_960, 6_144_000), (7, 11)):
        mine, want = number_of(compute, parameters, tokens, called="the cost"), 6 * parameters * tokens
        if _close(mine, want / 3):
            raise Wrong("that is the forward pass alone; the backward pass costs twice as much again.")
        if _close(mine, want / 6) or _close(mine, want / 2):
            raise Wrong("count two operations for each number and token forward, a multiplication and an addition, and "
                        "four backward.")  # fmt: skip
        if _close(mine, 2 * want / 3):
            raise Wrong("that is the backward pass alone; the forward pass comes on top.")
        if _close(mine, 6 * parameters) or _close(mine, 6 * tokens):
            raise Wrong("every parameter works on every token: multiply the two.")
        if _close(mine, 6 * (parameters + tokens)):
            raise Wrong("every parameter works on every token: multiply them, do not add.")
        if not _close(mine, want):
            raise Wrong(f"{parameters} parameters and {tokens} tokens cost {want:.4g}, yours is {float(mine):.4g}.")
    return "Two operations for each number and token forward, four backward."


@exercise
def check_frontier(frontier: Callable[[Sequence[float], Sequence[float]], Any]) -> str:
    """frontier(compute, gap) -> indices of the runs that no cheaper run beats, in order of compute."""
    cases = [
        ([10, 20, 30, 40], [5, 6, 3, 4], [0, 2]), ([40, 10, 30, 20], [1, 9, 8, 7], [1, 3, 0]), ([20, 10], [3, 3], [1]),
        ([50, 10, 20], [1, 2, 3], [1, 0]),
    ]  # fmt: skip
    for compute, gap, want in cases:
        answer = frontier(compute, gap)
        answer = answer.tolist() if hasattr(answer, "tolist") else answer  # an array will do
        answer = list(answer) if isinstance(answer, range | tuple) else answer
        mine = rows_of([answer], "the frontier")[0]
        where = f"compute {compute}, gap {gap}"
        if sorted(mine) == sorted(want) and mine != want:
            raise Wrong(f"{where}: the right runs; list them from cheap to expensive, {want}.")
        if len(mine) == len(want) and {compute[i] for i in want} == set(mine):
            raise Wrong(f"{where}: return the indices of the runs, not what they cost.")
        if [i - 1 for i in mine] == want:
            raise Wrong(f"{where}: every index is one too high. Indices count from 0.")
        if set(mine) - set(want):
            i = min(set(mine) - set(want))
            raise Wrong(f"{where}: run {i} does not belong: a cheaper run has a gap that is no larger.")
        if mine != want:
            raise Wrong(f"{where}: {want} are on the frontier, yours are {mine}.")
    return "Go from cheap to expensive and keep each run that sets a record."
