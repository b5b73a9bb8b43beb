"""Exercises of notebook 09: worked solutions, and likely mistakes with what is said of them."""

import torch

from diffkit.course.exercises.methods import variable_length as ex


def length(ids, eos):
    is_end = ids == eos
    return torch.where(is_end.any(1), is_end.int().argmax(1), ids.shape[1])


def belief(probs, eos):
    return probs[:, eos] / probs[:, eos].sum()


def sees(L, block):
    number = torch.arange(L) // block
    return number[:, None] >= number


SOLUTIONS = {
    ex.check_length: [length, lambda ids, eos: ((ids == eos).cumsum(1) == 0).sum(1)],
    ex.check_length_probs: [belief],
    ex.check_sees: [sees],
}


def coins(probs, eos):
    p = probs[:, eos]
    chance = torch.cat([torch.ones(1), (1 - p).cumprod(0)[:-1]]) * p
    return chance / chance.sum()


def last_end(ids, eos):
    is_end = ids == eos
    return torch.where(is_end.any(1), ids.shape[1] - 1 - is_end.flip(1).int().argmax(1), ids.shape[1])


WRONG = [
    (ex.check_length, "does not belong", lambda ids, eos: length(ids, eos) + 1),
    (ex.check_length, "argmax", lambda ids, eos: (ids == eos).int().argmax(1)),
    (ex.check_length, "no EOS", lambda ids, eos: (ids != eos).sum(1)),
    (ex.check_length, "last EOS", last_end),
    (ex.check_length_probs, "does not sum to 1", lambda p, eos: p[:, eos]),
    (ex.check_length_probs, "softmax", lambda p, eos: p[:, eos].softmax(0)),
    (ex.check_length_probs, "coin tosses", coins),
    (ex.check_sees, "transposed", lambda L, b: sees(L, b).T),
    (ex.check_sees, "whole block", lambda L, b: torch.ones(L, L).tril()),
    (ex.check_sees, "not only its own", lambda L, b: sees(L, b) & sees(L, b).T),
    (ex.check_sees, "own block as well", lambda L, b: ~sees(L, b).T),
    (ex.check_sees, "later blocks", lambda L, b: torch.ones(L, L)),
    (ex.check_sees, "does position", lambda L, b: sees(L, b + 1)),
]
