"""Exercises of notebook 12: worked solutions, and likely mistakes with what is said of them."""

import math

import torch

from diffkit.course.exercises.methods import d3pm as ex


def kept(betas):
    return math.prod(1 - beta for beta in betas)


def transition(V, alpha):
    return alpha * torch.eye(V) + (1 - alpha) / V


def posterior(first, second, a, c):
    ways = first[a] * second[:, c]
    return ways / ways.sum()


SOLUTIONS = {
    ex.check_kept: [kept],
    ex.check_transition: [transition],
    ex.check_posterior: [posterior],
}
WRONG = [
    (ex.check_kept, "in every step", lambda betas: math.prod(betas)),
    (ex.check_kept, "at least once", lambda betas: 1 - kept(betas)),
    (ex.check_kept, "do not add up", lambda betas: 1 - sum(betas)),
    (ex.check_kept, "yours is", lambda betas: 1 - betas[-1]),
    (ex.check_transition, "its share", lambda V, a: a * torch.eye(V) + (1 - a) / (V - 1) * (1 - torch.eye(V))),
    (ex.check_transition, "are swapped", lambda V, a: transition(V, 1 - a)),
    (ex.check_transition, "sum to one", lambda V, a: torch.eye(V) + (1 - a) / V),
    (ex.check_transition, "entry", lambda V, a: torch.eye(V)),
    (ex.check_posterior, "divide", lambda q, r, a, c: q[a] * r[:, c]),
    (ex.check_posterior, "its column", lambda q, r, a, c: q[a] * r[c] / (q[a] @ r[c])),
    (ex.check_posterior, "not used c", lambda q, r, a, c: q[a]),
    (ex.check_posterior, "its row", lambda q, r, a, c: q[:, a] * r[:, c] / (q[:, a] @ r[:, c])),
    (ex.check_posterior, "starts with", lambda q, r, a, c: torch.ones(len(q)) / len(q)),
]
