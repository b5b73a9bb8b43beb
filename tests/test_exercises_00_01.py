"""Exercises of notebooks 00 and 01: the worked solutions pass, and each likely mistake is named."""

import math

import pytest
import torch
from exercise_cases import assert_met_kindly, assert_named, assert_passes

from diffkit import exercises


def hidden(tokens, mask_id):
    return (tokens == mask_id).sum(1)


def length(ids, eos_id):
    return (ids == eos_id).int().argmax(1)


def cost(places, words):
    return places * math.log(words)


def entropy(probs):
    possible = probs[probs > 0]
    return -(possible * possible.log()).sum()


def rule_out(texts, probs, seen, mask_id):
    fits = ((texts == seen) | (seen == mask_id)).all(1)
    left = probs * fits
    return left / left.sum()


def chunks(documents, eos, length):
    stream = [i for document in documents for i in [*document, eos]]
    return [stream[i : i + length] for i in range(0, len(stream) - length + 1, length)]


def each_alone(documents, eos, length):
    return [chunk for document in documents for chunk in chunks([document], eos, length)]


def no_eos(documents, eos, length):
    stream = sum(documents, [])
    return [stream[i : i + length] for i in range(0, len(stream) - length + 1, length)]


def eos_before(documents, eos, length):
    stream = [i for document in documents for i in [eos, *document]]
    return [stream[i : i + length] for i in range(0, len(stream) - length + 1, length)]


def with_tail(documents, eos, length):
    stream = [i for document in documents for i in [*document, eos]]
    return [stream[i : i + length] for i in range(0, len(stream), length)]


SOLUTIONS = [
    (exercises.check_hidden_tokens, hidden),
    (exercises.check_hidden_tokens, lambda tokens, mask_id: [row.count(mask_id) for row in tokens.tolist()]),
    (exercises.check_story_length, length),
    (exercises.check_story_length, lambda ids, eos: torch.tensor([row.index(eos) for row in ids.tolist()])),
    (exercises.check_guess_cost, cost),
    (exercises.check_guess_cost, lambda places, words: -math.log((1 / words) ** places)),
    (exercises.check_entropy, entropy),
    (exercises.check_entropy, lambda probs: torch.special.entr(probs).sum()),
    (exercises.check_rule_out, rule_out),
    (exercises.check_chunks, chunks),
    (exercises.check_chunks, lambda *given: torch.tensor(chunks(*given))),
]


@pytest.mark.parametrize(("check", "solution"), SOLUTIONS)
def test_the_worked_solution_passes(check, solution):
    assert_passes(check, solution)


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
    (exercises.check_entropy, lambda p: (p * p.log()).sum(), "MINUS"),
    (exercises.check_entropy, lambda p: -(p * p.log2()).sum(), "bits"),
    (exercises.check_entropy, lambda p: -p.log().mean(), "weigh each"),
    (exercises.check_entropy, lambda p: -(p * p.log()).mean(), "so sum"),
    (exercises.check_entropy, lambda p: -p.log().sum(), "forgot the weights"),
    (exercises.check_entropy, lambda p: -(p * p.log()).sum(), "probability 0"),
    (exercises.check_rule_out, lambda texts, p, seen, m: p, "ruled out"),
    (
        exercises.check_rule_out,
        lambda texts, p, seen, m: p * ((texts == seen) | (seen == m)).all(1),
        "divide by its sum",
    ),
    (
        exercises.check_rule_out,
        lambda texts, p, seen, m: rule_out(texts, torch.ones_like(p), seen, m),
        "equally likely",
    ),
    (exercises.check_rule_out, lambda texts, p, seen, m: p * (texts == seen).all(1), "visible ones only"),
    (exercises.check_rule_out, lambda texts, p, seen, m: rule_out(texts, p.square(), seen, m), "should be"),
    (exercises.check_chunks, no_eos, "no EOS"),
    (exercises.check_chunks, eos_before, "comes before"),
    (exercises.check_chunks, each_alone, "on its own"),
    (exercises.check_chunks, with_tail, "Drop the tail"),
    (exercises.check_chunks, lambda d, eos, n: chunks(d, eos, n)[:-1], "should give"),
]


@pytest.mark.parametrize(("check", "answer", "says"), WRONG)
def test_a_plausible_mistake_is_named(check, answer, says):
    assert_named(check, answer, says)


@pytest.mark.parametrize("check", sorted({check for check, _ in SOLUTIONS}, key=lambda check: check.__name__))
def test_stubs_and_errors_are_met_kindly(check):
    assert_met_kindly(check)
