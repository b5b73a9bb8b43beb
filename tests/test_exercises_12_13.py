"""Exercises of notebooks 12 and 13: the worked solutions pass, and each likely mistake is named."""

import math

import pytest
import torch
from exercise_cases import assert_met_kindly, assert_named, assert_passes

from diffkit import exercises


def kept(betas):
    return math.prod(1 - beta for beta in betas)


def transition(V, alpha):
    return alpha * torch.eye(V) + (1 - alpha) / V


def posterior(first, second, a, c):
    ways = first[a] * second[:, c]
    return ways / ways.sum()


def score(p, x):
    return p / p[x]


def score_entropy(s, r):
    return s - r * s.log() + r * (r.log() - 1)


def masking_rate(sigma):
    return -torch.expm1(-sigma)


CHECKS = {
    exercises.check_kept: kept,
    exercises.check_transition: transition,
    exercises.check_posterior: posterior,
    exercises.check_score: score,
    exercises.check_score_entropy: score_entropy,
    exercises.check_masking_rate: masking_rate,
}


@pytest.mark.parametrize(("check", "solution"), CHECKS.items())
def test_the_worked_solution_passes(check, solution):
    assert_passes(check, solution)


WRONG = [
    (exercises.check_kept, lambda betas: math.prod(betas), "in every step"),
    (exercises.check_kept, lambda betas: 1 - kept(betas), "at least once"),
    (exercises.check_kept, lambda betas: 1 - sum(betas), "do not add up"),
    (exercises.check_kept, lambda betas: 1 - betas[-1], "yours is"),
    (exercises.check_transition, lambda V, a: a * torch.eye(V) + (1 - a) / (V - 1) * (1 - torch.eye(V)), "its share"),
    (exercises.check_transition, lambda V, a: transition(V, 1 - a), "changed places"),
    (exercises.check_transition, lambda V, a: torch.eye(V) + (1 - a) / V, "sum to one"),
    (exercises.check_transition, lambda V, a: torch.eye(V), "entry"),
    (exercises.check_transition, lambda V, a: torch.full((V,), 1 / V), "shape"),
    (exercises.check_posterior, lambda q, r, a, c: q[a] * r[:, c], "divide"),
    (exercises.check_posterior, lambda q, r, a, c: q[a] * r[c] / (q[a] @ r[c]), "its column"),
    (exercises.check_posterior, lambda q, r, a, c: q[a], "not used c"),
    (exercises.check_posterior, lambda q, r, a, c: q[:, a] * r[:, c] / (q[:, a] @ r[:, c]), "its row"),
    (exercises.check_posterior, lambda q, r, a, c: torch.ones(len(q)) / len(q), "starts with"),
    (exercises.check_score, lambda p, x: p, "divide by that of x"),
    (exercises.check_score, lambda p, x: p[x] / p, "upside down"),
    (exercises.check_score, lambda p, x: score(p, x).log(), "logarithms"),
    (exercises.check_score, lambda p, x: torch.where(torch.arange(len(p)) == x, 0, score(p, x)), "score of x itself"),
    (exercises.check_score, lambda p, x: p / p.max(), "should be"),
    (exercises.check_score_entropy, lambda s, r: s - r * s.log(), "no bound"),
    (exercises.check_score_entropy, lambda s, r: score_entropy(r, s), "changed places"),
    (exercises.check_score_entropy, lambda s, r: (s - r) ** 2, "squared error"),
    (exercises.check_score_entropy, lambda s, r: s - r * s.log() + r * r.log(), "not r log r"),
    (exercises.check_score_entropy, lambda s, r: s + r, "should be"),
    (exercises.check_masking_rate, lambda sigma: (-sigma).exp(), "survive"),
    (exercises.check_masking_rate, lambda sigma: sigma, "not a chance"),
    (exercises.check_masking_rate, lambda sigma: sigma / (1 + sigma), "multiplies"),
    (exercises.check_masking_rate, lambda sigma: sigma.tanh(), "should be"),
    (exercises.check_masking_rate, lambda sigma: 1 - (-sigma).exp(), "expm1"),
]


@pytest.mark.parametrize(("check", "answer", "says"), WRONG)
def test_a_plausible_mistake_is_named(check, answer, says):
    assert_named(check, answer, says)


@pytest.mark.parametrize("check", CHECKS)
def test_stubs_and_errors_are_met_kindly(check):
    assert_met_kindly(check)
