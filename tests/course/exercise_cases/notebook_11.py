"""Exercises of notebook 11: worked solutions, and likely mistakes with what is said of them."""

import math

import torch

from diffkit.course.exercises.methods import capstone
from diffkit.course.exercises.methods import scaling as exercises
from diffkit.course.experiments.scaling import frontier
from diffkit.sampling.unmasking import UNMASKING_ORDERS, rounded


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
    exercises.check_exponent: [exponent],
    exercises.check_compute: [compute],
    exercises.check_frontier: [records, frontier],
    capstone.check_unmasking_order: [one_open_question, lambda probs, rng: one_open_question(probs, rng) / 2 + 3],
}


WRONG = [
    (exercises.check_exponent, lambda x, y: -exponent(x, y), "sign"),
    (exercises.check_exponent, lambda x, y: (y[1] - y[0]) / (x[1] - x[0]), "logarithms"),
    (exercises.check_exponent, lambda x, y: 1 / exponent(x, y), "turned round"),
    (exercises.check_exponent, lambda x, y: exponent(x, y) + 0.1, "yours is"),
    (exercises.check_compute, lambda n, d: 2 * n * d, "forward pass alone"),
    (exercises.check_compute, lambda n, d: n * d, "a multiplication and an addition"),
    (exercises.check_compute, lambda n, d: 4 * n * d, "forward pass comes on top"),
    (exercises.check_compute, lambda n, d: 6 * n, "multiply the two"),
    (exercises.check_compute, lambda n, d: 6 * (n + d), "do not add"),
    (exercises.check_compute, lambda n, d: 5 * n * d, "yours is"),
    (exercises.check_frontier, lambda c, g: range(len(c)), "does not belong"),
    (exercises.check_frontier, lambda c, g: sorted(records(c, g)), "cheap to expensive"),
    (exercises.check_frontier, lambda c, g: records(c, g)[:1], "on the frontier"),
    (exercises.check_frontier, lambda c, g: [c[i] for i in records(c, g)], "not what they cost"),
    (exercises.check_frontier, lambda c, g: [i + 1 for i in records(c, g)], "one too high"),
    (exercises.check_frontier, lambda c, g: [min(range(len(g)), key=lambda i: g[i])], "on the frontier"),
    (capstone.check_unmasking_order, UNMASKING_ORDERS["confidence"], "`confidence`"),
    (capstone.check_unmasking_order, lambda probs, rng: torch.zeros(probs.shape[:2]), "`left_to_right`"),
    (capstone.check_unmasking_order, UNMASKING_ORDERS["random"], "`random`"),
    (capstone.check_unmasking_order, lambda probs, rng: doubt_of(probs), "may show"),
    (capstone.check_unmasking_order, two_open_questions, "drawn independently"),
    (capstone.check_unmasking_order, lambda probs, rng: -one_open_question(probs, rng), "the best so far"),
    (
        capstone.check_unmasking_order,
        lambda probs, rng: -UNMASKING_ORDERS["left_to_right"](probs, rng),
        "nats a story",
    ),
    (capstone.check_unmasking_order, across_the_batch, "other stories"),
    (capstone.check_unmasking_order, lambda probs, rng: (probs * probs.log()).sum(-1), "NaN"),
    (capstone.check_unmasking_order, lambda probs, rng: probs.log().amin(-1), "never be revealed"),
    (capstone.check_unmasking_order, lambda probs, rng: doubt_of(probs).argmax(1), "one number for every position"),
    (capstone.check_unmasking_order, lambda probs, rng: doubt_of(probs).tolist(), "yours is list"),
]
