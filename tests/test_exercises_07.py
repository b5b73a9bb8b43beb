"""Exercises of notebook 07: the worked solutions pass, and each likely mistake is named."""

import math

import pytest
import torch

from diffkit import exercises


def paired(a, b):
    return (a - b).mean(), (a - b).std() / math.sqrt(len(a))


def blend(counts, shorter):
    kinds = (counts > 0).sum()
    return (counts + kinds * shorter) / (counts.sum() + kinds) if kinds else shorter


def distinct(texts, n):
    grams = [tuple(text[i : i + n]) for text in texts for i in range(len(text) - n + 1)]
    return len(set(grams)) / len(grams)


def variation(counts, probs):
    return (counts / counts.sum() - probs).abs().sum() / 2


CHECKS = {
    exercises.check_paired: paired,
    exercises.check_witten_bell: blend,
    exercises.check_distinct: distinct,
    exercises.check_variation: variation,
}


@pytest.mark.parametrize(("check", "solution"), CHECKS.items())
def test_the_worked_solution_passes(check, solution):
    verdict = check(solution)
    assert verdict.passed, verdict


@pytest.mark.parametrize("check", CHECKS)
def test_an_untouched_stub_and_one_that_raises_are_told_kindly(check):
    assert "Not attempted yet" in check(lambda *_: ...).message
    assert "ZeroDivisionError" in check(lambda *_: 1 / 0).message


def grams_of(texts, n):
    return [tuple(text[i : i + n]) for text in texts for i in range(len(text) - n + 1)]


def each_text_alone(texts, n):
    shares = [len(set(grams_of([text], n))) / len(grams_of([text], n)) for text in texts if len(text) >= n]
    return sum(shares) / len(shares)


WRONG = [
    (exercises.check_paired, lambda a, b: (a - b).mean(), "two numbers"),
    (exercises.check_paired, lambda a, b: (b.mean() - a.mean(), paired(a, b)[1]), "mean of a - b"),
    (exercises.check_paired, lambda a, b: ((a - b).mean(), (a - b).std()), "spread of single stories"),
    (
        exercises.check_paired,
        lambda a, b: ((a - b).mean(), ((a.var() + b.var()) / len(a)).sqrt()),
        "different stories",
    ),
    (exercises.check_paired, lambda a, b: ((a - b).mean(), (a - b).std() / len(a)), "standard error should be"),
    (exercises.check_witten_bell, lambda c, p: c / c.sum(), "infinitely much"),
    (exercises.check_witten_bell, lambda c, p: (c + 1) / (c.sum() + len(c)), "adds one to every count"),
    (exercises.check_witten_bell, lambda c, p: (c + c.sum() * p) / (2 * c.sum()), "DIFFERENT words"),
    (exercises.check_witten_bell, lambda c, p: p, "word 0 should have"),
    (exercises.check_distinct, each_text_alone, "Pool first"),
    (exercises.check_distinct, lambda texts, n: distinct([sum(texts, [])], n), "reach from the end"),
    (exercises.check_distinct, lambda texts, n: len(set(grams_of(texts, n))), "the share should be"),
    (exercises.check_distinct, lambda texts, n: distinct(texts, 1), "the share should be"),
    (exercises.check_variation, lambda c, p: (c / c.sum() - p).abs().sum(), "twice"),
    (exercises.check_variation, lambda c, p: (c / c.sum() - p).abs().max(), "largest single"),
    (exercises.check_variation, lambda c, p: (c / c.sum() - p).sum(), "cancel"),
    (exercises.check_variation, lambda c, p: (c - p).abs().sum() / 2, "shares first"),
    (exercises.check_variation, lambda c, p: torch.zeros(3), "shape"),
]


@pytest.mark.parametrize(("check", "answer", "why"), WRONG)
def test_likely_mistakes_are_named(check, answer, why):
    verdict = check(answer)
    assert not verdict.passed and why in verdict.message, verdict
