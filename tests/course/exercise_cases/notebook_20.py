"""Exercises of notebook 20: worked solutions, and likely mistakes with what is said of them."""

import math

import numpy as np
import torch

from diffkit.course.exercises.recent import insertion as ex


def shorten_by_tensors(text, u, v, gamma, mask):
    u, v = torch.tensor(u).double(), torch.tensor(v).double()
    return torch.where(u * v < gamma, mask, torch.tensor(text))[u >= gamma]


def missing_by_recursion(state, gamma, texts, probs):
    """All ways, token by token."""

    def ways(text, state):
        if not state:
            return [[len(text)]]
        found = []
        for i, token in enumerate(text):
            if token == state[0]:
                found += [[i, *rest] for rest in ways(text[i + 1 :], state[1:])]
        return found

    rows = [(p * gamma ** len(text), way) for text, p in zip(texts, probs, strict=True) for way in ways(text, state)]
    weight = torch.tensor([w for w, _ in rows]).double()
    return (weight / weight.sum()) @ torch.tensor([way for _, way in rows]).double()


def step(state, y, words, share, u, w, mask):
    out = []
    for i in range(len(state)):
        if w[i] < share * y[i]:
            out.append(mask)
        out.append(words[i] if state[i] == mask and u[i] < share else state[i])
    if w[len(state)] < share * y[len(state)]:
        out.append(mask)
    return out


def as_array(answer):
    return lambda *given: np.array(answer(*given))


SOLUTIONS = {
    ex.check_shorten: [ex.shorten, shorten_by_tensors, as_array(ex.shorten)],
    ex.check_missing: [ex.missing, missing_by_recursion],
    ex.check_step: [ex.step, step, as_array(step)],
    ex.check_hole: [ex.hole],
}


def left_as_mask(text, u, v, gamma, mask):
    return [mask if a * b < gamma else token for token, a, b in zip(text, u, v, strict=True)]


def by_v(text, u, v, gamma, mask):
    return [mask if b < gamma else token for token, a, b in zip(text, u, v, strict=True) if a >= gamma]


def all_hit_are_gone(text, u, v, gamma, mask):
    return [token for token, a, b in zip(text, u, v, strict=True) if a * b >= gamma]


def the_others(text, u, v, gamma, mask):
    return [mask if a * b < gamma else token for token, a, b in zip(text, u, v, strict=True) if a < gamma]


def one_way(state, gamma, texts, probs):
    """The first alignment only."""
    total, y = 0.0, torch.zeros(len(state) + 1).double()
    for text, p in zip(texts, probs, strict=True):
        for lacking in [*ex.alignments(text, state)][:1]:
            total, y = total + p * gamma ** len(text), y + p * gamma ** len(text) * torch.tensor(lacking)
    return y / total


def not_divided(state, gamma, texts, probs):
    weights = [
        p * gamma ** (len(text) - len(state)) * len([*ex.alignments(text, state)])
        for text, p in zip(texts, probs, strict=True)
    ]
    return ex.missing(state, gamma, texts, probs) * sum(weights)


def behind(state, y, words, share, u, w, mask):
    out = []
    for i, token in enumerate(state):
        out += [words[i] if token == mask and u[i] < share else token] + [mask] * (w[i] < share * y[i])
    return out


def overwrites(state, y, words, share, u, w, mask):
    shown = [words[i] if u[i] < share else token for i, token in enumerate(state)]
    return step(shown, y, shown, share, [9.0] * len(u), w, mask)


def without_last_gap(state, y, words, share, u, w, mask):
    return step(state, y, words, share, u, [*w[:-1], 9.0], mask)


def without_y(state, y, words, share, u, w, mask):
    return step(state, [1.0] * len(y), words, share, u, w, mask)


def logarithms(before, after, log_prob, longest, mask):
    return [log_prob(before + [mask] * k + after) for k in range(longest + 1)]


def joint(before, after, log_prob, longest, mask):
    return [math.exp(nats) for nats in logarithms(before, after, log_prob, longest, mask)]


def by_length(before, after, log_prob, longest, mask):
    p = [each / (k + 1) for k, each in enumerate(joint(before, after, log_prob, longest, mask))]
    return [each / sum(p) for each in p]


WRONG = [
    (ex.check_shorten, "leaves no trace", left_as_mask),
    (ex.check_shorten, "v alone", by_v),
    (ex.check_shorten, "only hidden", all_hit_are_gone),
    (ex.check_shorten, "wrong ones are gone", the_others),
    (ex.check_shorten, "should be", lambda text, u, v, gamma, mask: list(text)),
    (ex.check_missing, "counts twice", one_way),
    (ex.check_missing, "the rate is missing", lambda state, gamma, x, p: ex.missing(state, 1.0, x, p)),
    (ex.check_missing, "not equally likely", lambda state, gamma, x, p: ex.missing(state, gamma, x, [1.0] * len(p))),
    (ex.check_missing, "divide by the total", not_divided),
    (ex.check_step, "in front of token g", behind),
    (ex.check_step, "was forgotten", without_last_gap),
    (ex.check_step, "a word that stands", overwrites),
    (ex.check_step, "share times y", without_y),
    (ex.check_hole, "must sum to 1", joint),
    (ex.check_hole, "logarithms", logarithms),
    (ex.check_hole, "do not divide", by_length),
    (ex.check_hole, "should be", lambda before, after, log_prob, longest, mask: [1 / (longest + 1)] * (longest + 1)),
]
