"""Exercises of notebook 07: worked solutions, and likely mistakes with what is said of them."""

import math

import torch

from diffkit.course.exercises.foundations import evaluation as exercises


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


SOLUTIONS = {
    exercises.check_paired: [paired],
    exercises.check_witten_bell: [blend],
    exercises.check_distinct: [distinct],
    exercises.check_variation: [variation],
}


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
    (exercises.check_distinct, lambda texts, n: len(set(grams_of(texts, n))), "number of different"),
    (exercises.check_distinct, lambda texts, n: distinct(texts, 1), "single words"),
    (exercises.check_distinct, lambda texts, n: 1 - distinct(texts, n), "the share should be"),
    (exercises.check_variation, lambda c, p: (c / c.sum() - p).abs().sum(), "twice"),
    (exercises.check_variation, lambda c, p: (c / c.sum() - p).abs().max(), "largest single"),
    (exercises.check_variation, lambda c, p: (c / c.sum() - p).sum(), "cancel"),
    (exercises.check_variation, lambda c, p: (c - p).abs().sum() / 2, "shares first"),
    (exercises.check_variation, lambda c, p: torch.zeros(3), "shape"),
]
