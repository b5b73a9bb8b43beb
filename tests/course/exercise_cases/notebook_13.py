"""Exercises of notebook 13: worked solutions, and likely mistakes with what is said of them."""

import torch

from diffkit.course.exercises.methods import sedd as ex


def score(p, x):
    return p / p[x]


def score_entropy(s, r):
    return s - r * s.log() + r * (r.log() - 1)


def masking_rate(sigma):
    return -torch.expm1(-sigma)


SOLUTIONS = {
    ex.check_score: [score],
    ex.check_score_entropy: [score_entropy],
    ex.check_masking_rate: [masking_rate],
}
WRONG = [
    (ex.check_score, "divide by that of x", lambda p, x: p),
    (ex.check_score, "upside down", lambda p, x: p[x] / p),
    (ex.check_score, "logarithms", lambda p, x: score(p, x).log()),
    (ex.check_score, "score of x itself", lambda p, x: torch.where(torch.arange(len(p)) == x, 0, score(p, x))),
    (ex.check_score_entropy, "no bound", lambda s, r: s - r * s.log()),
    (ex.check_score_entropy, "are swapped", lambda s, r: score_entropy(r, s)),
    (ex.check_score_entropy, "squared error", lambda s, r: (s - r) ** 2),
    (ex.check_score_entropy, "not r log r", lambda s, r: s - r * s.log() + r * r.log()),
    (ex.check_masking_rate, "survive", lambda sigma: (-sigma).exp()),
    (ex.check_masking_rate, "not a chance", lambda sigma: sigma),
    (ex.check_masking_rate, "multiplies", lambda sigma: sigma / (1 + sigma)),
    (ex.check_masking_rate, "expm1", lambda sigma: 1 - (-sigma).exp()),
]
