"""Exercises of notebook 11_scaling."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from diffkit.course.exercises.checks import Wrong, exercise, number_of, rows_of


def _close(mine: Any, want: float) -> bool:
    return math.isclose(float(mine), want, rel_tol=1e-3)


@exercise
def check_exponent(exponent: Callable[[Sequence[float], Sequence[float]], Any]) -> str:
    """exponent(x, y) -> b of y = a x^-b through two points, by the logarithms."""
    for a, b, x in ((3.0, 0.5, (10.0, 1000.0)), (0.2, 1.3, (2.0, 5.0)), (7.0, 0.1, (1.0, 4.0))):
        y = [a * value**-b for value in x]
        mine = number_of(exponent, x, y, called="the exponent")
        slope = (y[1] - y[0]) / (x[1] - x[0])
        if _close(mine, -b):
            raise Wrong("the sign is wrong: y falls as x grows, and b is counted positive.")
        if _close(mine, slope) or _close(mine, -slope):
            raise Wrong("that is the slope of y over x; take logarithms of both first.")
        if _close(mine, 1 / b):
            raise Wrong("that is log x over log y; it is turned round.")
        if not _close(mine, b):
            raise Wrong(f"x = {x} and y = {[round(v, 4) for v in y]} have b = {b}, yours is {float(mine):.4g}.")
    return "On logarithmic axes a power law is a straight line, and b is its slope downhill."


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
