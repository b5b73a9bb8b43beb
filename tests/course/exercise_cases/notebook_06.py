"""Exercises of notebook 06: worked solutions, and likely mistakes with what is said of them."""

import math

import torch

from diffkit.course.exercises.foundations import sampling as exercises


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
    exercises.check_reveal_counts: [counts, counts_late_first],
    exercises.check_tempered: [tempered, lambda p, t: p ** (1 / t) / (p ** (1 / t)).sum()],
    exercises.check_nucleus: [nucleus],
    exercises.check_agree: [agree, lambda probs, places: float(agree(probs, places))],
}


def cut(probs, p, keep):
    ranked, order = probs.sort(descending=True)
    kept = torch.zeros_like(probs).scatter(0, order, ranked * keep(ranked, p))
    return kept / kept.sum().clamp(min=1e-9)


def at_least_one(ranked, p):
    return (ranked.cumsum(0) <= p) | (ranked == ranked[0])


WRONG = [
    (exercises.check_reveal_counts, lambda n, s: [n // s] * s, "stay masked for ever"),
    (exercises.check_reveal_counts, lambda n, s: [math.ceil(n / s)] * s, "more than there are"),
    (exercises.check_reveal_counts, lambda n, s: [n / s] * s, "whole number"),
    (exercises.check_reveal_counts, lambda n, s: [n // s] * (s - 1) + [n - n // s * (s - 1)], "uneven"),
    (exercises.check_reveal_counts, lambda n, s: [1] * n, "one for each step"),
    (exercises.check_tempered, lambda p, t: p / t / (p / t).sum(), "divide their logarithms"),
    (exercises.check_tempered, lambda p, t: p**t / (p**t).sum(), "flattens"),
    (exercises.check_tempered, lambda p, t: (p / t).softmax(0), "softmax of probabilities"),
    (exercises.check_tempered, lambda p, t: p ** (1 / t), "add up to 1"),
    (exercises.check_tempered, lambda p, t: ((p + 0.1).log() / t).softmax(0), "becomes"),
    (exercises.check_tempered, lambda p, t: (p.log() / t).softmax(0)[None], "shape"),
    (exercises.check_nucleus, lambda q, p: cut(q, p, at_least_one), "crosses the line is missing"),
    (exercises.check_nucleus, lambda q, p: nucleus(q, p).sort(descending=True).values, "sorted"),
    (exercises.check_nucleus, lambda q, p: q * (nucleus(q, p) > 0), "add up to 1"),
    (exercises.check_nucleus, lambda q, p: cut(q, p, lambda ranked, p: ranked >= p), "running sum"),
    (exercises.check_nucleus, lambda q, p: cut(q, p, lambda ranked, p: ranked >= ranked[4]), "are kept"),
    (exercises.check_agree, lambda q, k: q.max() ** k, "likeliest word alone"),
    (exercises.check_agree, lambda q, k: torch.tensor(1 / len(q)) ** (k - 1), "equally likely"),
    (exercises.check_agree, lambda q, k: 1 - (q**k).sum(), "do not all agree"),
    (exercises.check_agree, lambda q, k: (q**2).sum(), "two positions"),
    (exercises.check_agree, lambda q, k: q**k, "shape"),
]
