"""Exercises of notebook 10: worked solutions, and likely mistakes with what is said of them."""

import math

import torch

from diffkit.course.exercises.methods import speed as ex


def calls(steps, L):
    return steps * (1 - (1 - 1 / steps) ** L)


def next_time(t, n, u):
    return t * u ** (1 / n)


def how_many(entropies, bound):
    ranked = entropies.sort().values
    return (ranked.cumsum(0) - ranked <= bound).sum()


def exclusive_sum(entropies, bound):
    before = torch.cat([torch.zeros(1), entropies.sort().values.cumsum(0)[:-1]])
    return (before <= bound).sum()


def running_total(entropies, bound):
    total = 0.0
    for n, nats in enumerate(sorted(entropies.tolist())):
        if total > bound:
            return n
        total += nats
    return len(entropies)


def stay(gamma_t, gamma_s, r):
    return (gamma_s - r * (1 - gamma_t)) / gamma_t


SOLUTIONS = {
    ex.check_calls: [calls],
    ex.check_next_time: [next_time, lambda t, n, u: t * (1 - u) ** (1 / n)],
    ex.check_how_many: [how_many, exclusive_sum, running_total],
    ex.check_make_up: [stay],
}


WRONG = [
    (ex.check_calls, "nothing happens", lambda steps, L: steps * (1 - 1 / steps) ** L),
    (ex.check_calls, "one given step", lambda steps, L: 1 - (1 - 1 / steps) ** L),
    (ex.check_calls, "share a step", min),
    (ex.check_calls, "is exact", lambda steps, L: steps * (1 - math.exp(-L / steps))),
    (ex.check_calls, "busy", lambda steps, L: steps / 2),
    (ex.check_next_time, "single hidden token", lambda t, n, u: t * u),
    (ex.check_next_time, "last of the n", lambda t, n, u: t * u**n),
    (ex.check_next_time, "time that passes", lambda t, n, u: t - t * u ** (1 / n)),
    (ex.check_next_time, "start from t", lambda t, n, u: 1000 * u ** (1 / n)),
    (ex.check_next_time, "average", lambda t, n, u: t * n / (n + 1)),
    (ex.check_next_time, "largest of n uniforms", lambda t, n, u: t * u / n),
    (ex.check_next_time, "u = 0", lambda t, n, u: t),
    (ex.check_how_many, "costs nothing", lambda h, b: (h.sort().values.cumsum(0) <= b).sum().clamp(min=1)),
    (ex.check_how_many, "at least one", lambda h, b: (h.sort().values.cumsum(0) <= b).sum()),
    (ex.check_how_many, "by itself", lambda h, b: (h <= b).sum().clamp(min=1)),
    (ex.check_how_many, "sort first", lambda h, b: (h.cumsum(0) - h <= b).sum()),
    (ex.check_how_many, "can be revealed", lambda h, b: len(h)),
    (ex.check_make_up, "makes up for", lambda gt, gs, r: gs / gt),
    (ex.check_make_up, "to be revealed", lambda gt, gs, r: 1 - stay(gt, gs, r)),
    (ex.check_make_up, "the share 1 - gamma_t", lambda gt, gs, r: (gs - r * gt) / gt),
    (ex.check_make_up, "divide by gamma_t", lambda gt, gs, r: gs - r * (1 - gt)),
    (ex.check_make_up, "yours is", lambda gt, gs, r: 0.5),
]
