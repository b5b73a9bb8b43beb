"""Exercises of notebook 13: worked solutions, and likely mistakes with what is said of them."""

import torch

from diffkit.course.exercises.methods import sedd as exercises


def score(p, x):
    return p / p[x]


def score_entropy(s, r):
    return s - r * s.log() + r * (r.log() - 1)


def masking_rate(sigma):
    return -torch.expm1(-sigma)


SOLUTIONS = {
    exercises.check_score: [score],
    exercises.check_score_entropy: [score_entropy],
    exercises.check_masking_rate: [masking_rate],
}
WRONG = [
    (exercises.check_score, lambda p, x: p, "divide by that of x"),
    (exercises.check_score, lambda p, x: p[x] / p, "upside down"),
    (exercises.check_score, lambda p, x: score(p, x).log(), "logarithms"),
    (exercises.check_score, lambda p, x: torch.where(torch.arange(len(p)) == x, 0, score(p, x)), "score of x itself"),
    (exercises.check_score, lambda p, x: p / p.max(), "should be"),
    (exercises.check_score_entropy, lambda s, r: s - r * s.log(), "no bound"),
    (exercises.check_score_entropy, lambda s, r: score_entropy(r, s), "are swapped"),
    (exercises.check_score_entropy, lambda s, r: (s - r) ** 2, "squared error"),
    (exercises.check_score_entropy, lambda s, r: s - r * s.log() + r * r.log(), "not r log r"),
    (exercises.check_score_entropy, lambda s, r: s + r, "should be"),
    (exercises.check_masking_rate, lambda sigma: (-sigma).exp(), "survive"),
    (exercises.check_masking_rate, lambda sigma: sigma, "not a chance"),
    (exercises.check_masking_rate, lambda sigma: sigma / (1 + sigma), "multiplies"),
    (exercises.check_masking_rate, lambda sigma: sigma.tanh(), "should be"),
    (exercises.check_masking_rate, lambda sigma: 1 - (-sigma).exp(), "expm1"),
]
