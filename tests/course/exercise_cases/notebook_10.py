"""Exercises of notebook 10: worked solutions, and likely mistakes with what is said of them."""

import math

from diffkit.course.exercises.methods import speed as exercises


def calls(steps, L):
    return steps * (1 - (1 - 1 / steps) ** L)


def next_time(t, n, u):
    return t * u ** (1 / n)


def how_many(entropies, bound):
    ranked = entropies.sort().values
    return (ranked.cumsum(0) - ranked <= bound).sum()


def stay(gamma_t, gamma_s, r):
    return (gamma_s - r * (1 - gamma_t)) / gamma_t


SOLUTIONS = {
    exercises.check_calls: [calls],
    exercises.check_next_time: [next_time],
    exercises.check_how_many: [how_many],
    exercises.check_make_up: [stay],
}


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
