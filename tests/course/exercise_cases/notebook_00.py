"""Exercises of notebook 00: worked solutions, and likely mistakes with what is said of them."""

import math

import torch

from diffkit.course.exercises.foundations import start_here as exercises


def hidden(tokens, mask_id):
    return (tokens == mask_id).sum(1)


def length(ids, eos_id):
    return (ids == eos_id).int().argmax(1)


def cost(places, words):
    return places * math.log(words)


SOLUTIONS = {
    exercises.check_hidden_tokens: [hidden, lambda tokens, mask_id: [row.count(mask_id) for row in tokens.tolist()]],
    exercises.check_story_length: [length, lambda ids, eos: torch.tensor([row.index(eos) for row in ids.tolist()])],
    exercises.check_guess_cost: [cost, lambda places, words: -math.log((1 / words) ** places)],
}
WRONG = [
    (exercises.check_hidden_tokens, lambda tokens, m: (tokens != m).sum(1), "that show"),
    (exercises.check_hidden_tokens, lambda tokens, m: (tokens == m).sum(), ".sum(1)"),
    (exercises.check_hidden_tokens, lambda tokens, m: (tokens == 1).sum(1), "use mask_id"),
    (exercises.check_hidden_tokens, lambda tokens, m: (tokens == m).double().mean(1), "share"),
    (exercises.check_hidden_tokens, lambda tokens, m: (tokens == m).sum(0), "shape"),
    (exercises.check_hidden_tokens, lambda tokens, m: hidden(tokens, m) + 1, "should be"),
    (exercises.check_story_length, lambda ids, eos: length(ids, eos) + 1, "one too many"),
    (exercises.check_story_length, lambda ids, eos: (ids != 0).sum(1), "one too many"),
    (exercises.check_story_length, lambda ids, eos: (ids == 0).sum(1), "after the story"),
    (exercises.check_story_length, lambda ids, eos: torch.full((4,), ids.shape[1]), "whole canvas"),
    (exercises.check_story_length, lambda ids, eos: (ids == eos).sum(1), "exactly one EOS"),
    (exercises.check_story_length, lambda ids, eos: (ids == 0).int().argmax(1), "should be"),
    (exercises.check_guess_cost, lambda places, words: places * math.log2(words), "bits"),
    (exercises.check_guess_cost, lambda places, words: -cost(places, words), "never negative"),
    (exercises.check_guess_cost, lambda places, words: math.log(words), "add up"),
    (exercises.check_guess_cost, lambda places, words: float(words) ** places, "number of texts"),
    (exercises.check_guess_cost, lambda places, words: math.log(places * words), "to the power"),
    (exercises.check_guess_cost, lambda places, words: cost(places, words + 1), "should be"),
]
