"""Exercises of notebook 00: worked solutions, and likely mistakes with what is said of them."""

import math

import torch

from diffkit.course.exercises.foundations import start_here as ex


def hidden(tokens, mask_id):
    return (tokens == mask_id).sum(1)


def length(ids, eos_id):
    return (ids == eos_id).int().argmax(1)


def cost(places, words):
    return places * math.log(words)


SOLUTIONS = {
    ex.check_hidden_tokens: [hidden, lambda tokens, mask_id: [row.count(mask_id) for row in tokens.tolist()]],
    ex.check_story_length: [length, lambda ids, eos: torch.tensor([row.index(eos) for row in ids.tolist()])],
    ex.check_guess_cost: [cost, lambda places, words: -math.log((1 / words) ** places)],
}
WRONG = [
    (ex.check_hidden_tokens, "that show", lambda tokens, m: (tokens != m).sum(1)),
    (ex.check_hidden_tokens, ".sum(1)", lambda tokens, m: (tokens == m).sum()),
    (ex.check_hidden_tokens, "use mask_id", lambda tokens, m: (tokens == 1).sum(1)),
    (ex.check_hidden_tokens, "share", lambda tokens, m: (tokens == m).double().mean(1)),
    (ex.check_story_length, "one too many", lambda ids, eos: length(ids, eos) + 1),
    (ex.check_story_length, "one too many", lambda ids, eos: (ids != 0).sum(1)),
    (ex.check_story_length, "after the story", lambda ids, eos: (ids == 0).sum(1)),
    (ex.check_story_length, "whole canvas", lambda ids, eos: torch.full((4,), ids.shape[1])),
    (ex.check_story_length, "exactly one EOS", lambda ids, eos: (ids == eos).sum(1)),
    (ex.check_guess_cost, "bits", lambda places, words: places * math.log2(words)),
    (ex.check_guess_cost, "never negative", lambda places, words: -cost(places, words)),
    (ex.check_guess_cost, "add up", lambda places, words: math.log(words)),
    (ex.check_guess_cost, "number of texts", lambda places, words: float(words) ** places),
    (ex.check_guess_cost, "to the power", lambda places, words: math.log(places * words)),
]
