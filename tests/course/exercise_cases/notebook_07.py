"""Exercises of notebook 07: worked solutions, and likely mistakes with what is said of them."""

import math

from diffkit.course.exercises.foundations import evaluation as ex


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
    ex.check_paired: [paired],
    ex.check_witten_bell: [blend],
    ex.check_distinct: [distinct],
    ex.check_variation: [variation],
}


def grams_of(texts, n):
    return [tuple(text[i : i + n]) for text in texts for i in range(len(text) - n + 1)]


def each_text_alone(texts, n):
    shares = [len(set(grams_of([text], n))) / len(grams_of([text], n)) for text in texts if len(text) >= n]
    return sum(shares) / len(shares)


WRONG = [
    (ex.check_paired, "two numbers", lambda a, b: (a - b).mean()),
    (ex.check_paired, "mean of a - b", lambda a, b: (b.mean() - a.mean(), paired(a, b)[1])),
    (ex.check_paired, "spread of single stories", lambda a, b: ((a - b).mean(), (a - b).std())),
    (ex.check_paired, "different stories", lambda a, b: ((a - b).mean(), ((a.var() + b.var()) / len(a)).sqrt())),
    (ex.check_witten_bell, "infinitely much", lambda c, p: c / c.sum()),
    (ex.check_witten_bell, "adds one to every count", lambda c, p: (c + 1) / (c.sum() + len(c))),
    (ex.check_witten_bell, "DIFFERENT words", lambda c, p: (c + c.sum() * p) / (2 * c.sum())),
    (ex.check_distinct, "Pool first", each_text_alone),
    (ex.check_distinct, "reach from the end", lambda texts, n: distinct([sum(texts, [])], n)),
    (ex.check_distinct, "number of different", lambda texts, n: len(set(grams_of(texts, n)))),
    (ex.check_distinct, "single words", lambda texts, n: distinct(texts, 1)),
    (ex.check_variation, "twice", lambda c, p: (c / c.sum() - p).abs().sum()),
    (ex.check_variation, "largest single", lambda c, p: (c / c.sum() - p).abs().max()),
    (ex.check_variation, "cancel", lambda c, p: (c / c.sum() - p).sum()),
    (ex.check_variation, "shares first", lambda c, p: (c - p).abs().sum() / 2),
]
