"""Exercises of notebook 12: worked solutions, and likely mistakes with what is said of them."""

import math

import torch

from diffkit.course.exercises.methods import d3pm as exercises


def kept(betas):
    return math.prod(1 - beta for beta in betas)


def transition(V, alpha):
    return alpha * torch.eye(V) + (1 - alpha) / V


def posterior(first, second, a, c):
    ways = first[a] * second[:, c]
    return ways / ways.sum()


SOLUTIONS = {
    exercises.check_kept: [kept],
    exercises.check_transition: [transition],
    exercises.check_posterior: [posterior],
}
WRONG = [
    (exercises.check_kept, lambda betas: math.prod(betas), "in every step"),
    (exercises.check_kept, lambda betas: 1 - kept(betas), "at least once"),
    (exercises.check_kept, lambda betas: 1 - sum(betas), "do not add up"),
    (exercises.check_kept, lambda betas: 1 - betas[-1], "yours is"),
    (exercises.check_transition, lambda V, a: a * torch.eye(V) + (1 - a) / (V - 1) * (1 - torch.eye(V)), "its share"),
    (exercises.check_transition, lambda V, a: transition(V, 1 - a), "are swapped"),
    (exercises.check_transition, lambda V, a: torch.eye(V) + (1 - a) / V, "sum to one"),
    (exercises.check_transition, lambda V, a: torch.eye(V), "entry"),
    (exercises.check_transition, lambda V, a: torch.full((V,), 1 / V), "shape"),
    (exercises.check_posterior, lambda q, r, a, c: q[a] * r[:, c], "divide"),
    (exercises.check_posterior, lambda q, r, a, c: q[a] * r[c] / (q[a] @ r[c]), "its column"),
    (exercises.check_posterior, lambda q, r, a, c: q[a], "not used c"),
    (exercises.check_posterior, lambda q, r, a, c: q[:, a] * r[:, c] / (q[:, a] @ r[:, c]), "its row"),
    (exercises.check_posterior, lambda q, r, a, c: torch.ones(len(q)) / len(q), "starts with"),
]
