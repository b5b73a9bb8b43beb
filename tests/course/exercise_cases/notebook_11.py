"""Exercises of notebook 11: worked solutions, and likely mistakes with what is said of them."""

import math

import numpy as np
import torch

from diffkit.course.exercises.methods import capstone
from diffkit.course.exercises.methods import scaling as ex
from diffkit.course.experiments.scaling import frontier
from diffkit.sampling.unmasking import UNMASKING_ORDERS, rounded


def line(x, y):
    u, v = [math.log(value) for value in x], [math.log(value) for value in y]
    mean_u, mean_v, n = sum(u) / len(u), sum(v) / len(v), len(u)
    spread = sum((a - mean_u) ** 2 for a in u)
    slope = sum((a - mean_u) * (b - mean_v) for a, b in zip(u, v, strict=True)) / spread
    rest = sum((b - mean_v - slope * (a - mean_u)) ** 2 for a, b in zip(u, v, strict=True))
    return math.exp(mean_v - slope * mean_u), -slope, (rest / (n - 2) / spread) ** 0.5


def line_by_numpy(x, y):
    (slope, level), covariance = np.polyfit(np.log(x), np.log(y), 1, cov=True)
    return np.exp(level), -slope, covariance[0, 0] ** 0.5


def bent(a=lambda a: a, b=lambda b: b, error=lambda error, n: error):
    """The right fit with one of its numbers spoilt."""
    return lambda x, y: (a(line(x, y)[0]), b(line(x, y)[1]), error(line(x, y)[2], len(x)))


def of_plain_numbers(x, y):
    slope, level = np.polyfit(x, y, 1)
    return level, -slope, 0.1


def through_the_ends(x, y):
    return 1.0, -math.log(y[-1] / y[0]) / math.log(x[-1] / x[0]), 0.1


def compute(parameters, tokens):
    return 6 * parameters * tokens


def records(compute, gap):
    best, kept = math.inf, []
    for i in sorted(range(len(gap)), key=lambda i: compute[i]):
        if gap[i] < best:
            best = gap[i]
            kept.append(i)
    return kept


def doubt_of(probs):
    """Entropy of every belief, (B, L) nats, without rounding noise."""
    return rounded(torch.special.entr(probs).sum(-1))


def one_open_question(probs, rng):
    doubt = doubt_of(probs)
    return (-doubt).scatter(1, doubt.argmax(1, keepdim=True), 1e9)


def two_open_questions(probs, rng):
    doubt = doubt_of(probs)
    return (-doubt).scatter(1, doubt.topk(2, dim=1).indices, 1e9)


def across_the_batch(probs, rng):
    """The most open place of all stories together."""
    doubt = doubt_of(probs)
    return (-doubt).scatter(0, doubt.argmax(0, keepdim=True), 1e9)


SOLUTIONS = {
    ex.check_fit: [line, line_by_numpy, ex.fit_line, lambda x, y: torch.tensor(line(x, y))],
    ex.check_compute: [compute],
    ex.check_frontier: [records, frontier, lambda c, g: np.array(records(c, g))],
    capstone.check_unmasking_order: [one_open_question, lambda probs, rng: one_open_question(probs, rng) / 2 + 3],
}


WRONG = [
    (ex.check_fit, "sign", bent(b=lambda b: -b)),
    (ex.check_fit, "take logarithms", of_plain_numbers),
    (ex.check_fit, "all of them", through_the_ends),
    (ex.check_fit, "its exponential", bent(a=math.log)),
    (ex.check_fit, "degrees of freedom", bent(error=lambda error, n: error * ((n - 2) / n) ** 0.5)),
    (ex.check_fit, "root", bent(error=lambda error, n: error**2)),
    (ex.check_fit, "three numbers", lambda x, y: line(x, y)[1]),
    (ex.check_fit, "the exponent is", bent(b=lambda b: b + 0.01)),
    (ex.check_compute, "forward pass alone", lambda n, d: 2 * n * d),
    (ex.check_compute, "a multiplication and an addition", lambda n, d: n * d),
    (ex.check_compute, "forward pass comes on top", lambda n, d: 4 * n * d),
    (ex.check_compute, "multiply the two", lambda n, d: 6 * n),
    (ex.check_compute, "do not add", lambda n, d: 6 * (n + d)),
    (ex.check_compute, "yours is", lambda n, d: 5 * n * d),
    (ex.check_frontier, "does not belong", lambda c, g: range(len(c))),
    (ex.check_frontier, "cheap to expensive", lambda c, g: sorted(records(c, g))),
    (ex.check_frontier, "on the frontier", lambda c, g: records(c, g)[:1]),
    (ex.check_frontier, "not what they cost", lambda c, g: [c[i] for i in records(c, g)]),
    (ex.check_frontier, "one too high", lambda c, g: [i + 1 for i in records(c, g)]),
    (ex.check_frontier, "on the frontier", lambda c, g: [min(range(len(g)), key=lambda i: g[i])]),
    (capstone.check_unmasking_order, "`confidence`", UNMASKING_ORDERS["confidence"]),
    (capstone.check_unmasking_order, "`left_to_right`", lambda probs, rng: torch.zeros(probs.shape[:2])),
    (capstone.check_unmasking_order, "`random`", UNMASKING_ORDERS["random"]),
    (capstone.check_unmasking_order, "may show", lambda probs, rng: doubt_of(probs)),
    (capstone.check_unmasking_order, "drawn independently", two_open_questions),
    (capstone.check_unmasking_order, "the best so far", lambda probs, rng: -one_open_question(probs, rng)),
    (capstone.check_unmasking_order, "nats a story", lambda probs, rng: -UNMASKING_ORDERS["left_to_right"](probs, rng)),
    (capstone.check_unmasking_order, "other stories", across_the_batch),
    (capstone.check_unmasking_order, "NaN", lambda probs, rng: (probs * probs.log()).sum(-1)),
    (capstone.check_unmasking_order, "never be revealed", lambda probs, rng: probs.log().amin(-1)),
    (capstone.check_unmasking_order, "one number for every position", lambda probs, rng: doubt_of(probs).argmax(1)),
    (capstone.check_unmasking_order, "yours is list", lambda probs, rng: doubt_of(probs).tolist()),
]
