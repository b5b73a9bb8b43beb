"""Exercises of notebook 09: worked solutions, and likely mistakes with what is said of them."""

import torch

from diffkit.course.exercises.methods import variable_length as exercises


def length(ids, eos):
    is_end = ids == eos
    return torch.where(is_end.any(1), is_end.int().argmax(1), ids.shape[1])


def belief(probs, eos):
    return probs[:, eos] / probs[:, eos].sum()


def sees(L, block):
    number = torch.arange(L) // block
    return number[:, None] >= number


SOLUTIONS = {
    exercises.check_length: [length, lambda ids, eos: ((ids == eos).cumsum(1) == 0).sum(1)],
    exercises.check_length_probs: [belief],
    exercises.check_sees: [sees],
}


def coins(probs, eos):
    p = probs[:, eos]
    chance = torch.cat([torch.ones(1), (1 - p).cumprod(0)[:-1]]) * p
    return chance / chance.sum()


def last_end(ids, eos):
    is_end = ids == eos
    return torch.where(is_end.any(1), ids.shape[1] - 1 - is_end.flip(1).int().argmax(1), ids.shape[1])


WRONG = [
    (exercises.check_length, lambda ids, eos: length(ids, eos) + 1, "does not belong"),
    (exercises.check_length, lambda ids, eos: (ids == eos).int().argmax(1), "argmax"),
    (exercises.check_length, lambda ids, eos: (ids != eos).sum(1), "no EOS"),
    (exercises.check_length, last_end, "last EOS"),
    (exercises.check_length, lambda ids, eos: length(ids, eos).clamp(max=4), "should be"),
    (exercises.check_length, lambda ids, eos: 3, "shape"),
    (exercises.check_length_probs, lambda p, eos: p[:, eos], "does not sum to 1"),
    (exercises.check_length_probs, lambda p, eos: p[:, eos].softmax(0), "softmax"),
    (exercises.check_length_probs, coins, "coin tosses"),
    (exercises.check_length_probs, lambda p, eos: p[:, 0] / p[:, 0].sum(), "should have"),
    (exercises.check_length_probs, lambda p, eos: p, "shape"),
    (exercises.check_sees, lambda L, b: sees(L, b).T, "transposed"),
    (exercises.check_sees, lambda L, b: torch.ones(L, L).tril(), "whole block"),
    (exercises.check_sees, lambda L, b: sees(L, b) & sees(L, b).T, "not only its own"),
    (exercises.check_sees, lambda L, b: ~sees(L, b).T, "own block as well"),
    (exercises.check_sees, lambda L, b: torch.ones(L, L), "later blocks"),
    (exercises.check_sees, lambda L, b: sees(L, b + 1), "does position"),
]  # fmt: skip
