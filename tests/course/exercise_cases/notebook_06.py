"""Exercises of notebook 06: worked solutions, and likely mistakes with what is said of them."""

import math

import torch

from diffkit.course.exercises.foundations import sampling as ex


def counts(masked, steps):
    return [masked // steps + (step < masked % steps) for step in range(steps)]


def counts_late_first(masked, steps):
    return [masked * (step + 1) // steps - masked * step // steps for step in range(steps)]


def tempered(probs, temperature):
    return (probs.log() / temperature).softmax(0)


def nucleus(probs, p):
    ranked, order = probs.sort(descending=True)
    ranked[ranked.cumsum(0) - ranked >= p] = 0
    return torch.zeros_like(probs).scatter(0, order, ranked / ranked.sum())


def agree(probs, places):
    return (probs**places).sum()


SOLUTIONS = {
    ex.check_reveal_counts: [counts, counts_late_first],
    ex.check_tempered: [tempered, lambda p, t: p ** (1 / t) / (p ** (1 / t)).sum()],
    ex.check_nucleus: [nucleus],
    ex.check_agree: [agree, lambda probs, places: float(agree(probs, places))],
}


def cut(probs, p, keep):
    ranked, order = probs.sort(descending=True)
    kept = torch.zeros_like(probs).scatter(0, order, ranked * keep(ranked, p))
    return kept / kept.sum().clamp(min=1e-9)


def at_least_one(ranked, p):
    return (ranked.cumsum(0) <= p) | (ranked == ranked[0])


WRONG = [
    (ex.check_reveal_counts, "stay masked for ever", lambda n, s: [n // s] * s),
    (ex.check_reveal_counts, "more than there are", lambda n, s: [math.ceil(n / s)] * s),
    (ex.check_reveal_counts, "whole number", lambda n, s: [n / s] * s),
    (ex.check_reveal_counts, "uneven", lambda n, s: [n // s] * (s - 1) + [n - n // s * (s - 1)]),
    (ex.check_reveal_counts, "one for each step", lambda n, s: [1] * n),
    (ex.check_tempered, "divide their logarithms", lambda p, t: p / t / (p / t).sum()),
    (ex.check_tempered, "flattens", lambda p, t: p**t / (p**t).sum()),
    (ex.check_tempered, "softmax of probabilities", lambda p, t: (p / t).softmax(0)),
    (ex.check_tempered, "add up to 1", lambda p, t: p ** (1 / t)),
    (ex.check_tempered, "becomes", lambda p, t: ((p + 0.1).log() / t).softmax(0)),
    (ex.check_nucleus, "crosses the line is missing", lambda q, p: cut(q, p, at_least_one)),
    (ex.check_nucleus, "sorted", lambda q, p: nucleus(q, p).sort(descending=True).values),
    (ex.check_nucleus, "add up to 1", lambda q, p: q * (nucleus(q, p) > 0)),
    (ex.check_nucleus, "running sum", lambda q, p: cut(q, p, lambda ranked, p: ranked >= p)),
    (ex.check_nucleus, "are kept", lambda q, p: cut(q, p, lambda ranked, p: ranked >= ranked[4])),
    (ex.check_agree, "likeliest word alone", lambda q, k: q.max() ** k),
    (ex.check_agree, "equally likely", lambda q, k: torch.tensor(1 / len(q)) ** (k - 1)),
    (ex.check_agree, "do not all agree", lambda q, k: 1 - (q**k).sum()),
    (ex.check_agree, "two positions", lambda q, k: (q**2).sum()),
]
