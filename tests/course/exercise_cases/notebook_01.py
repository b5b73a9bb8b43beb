"""Exercises of notebook 01: worked solutions, and likely mistakes with what is said of them."""

import torch

from diffkit.course.exercises.foundations import data as exercises


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


SOLUTIONS = {
    exercises.check_entropy: [entropy, lambda probs: torch.special.entr(probs).sum()],
    exercises.check_rule_out: [rule_out],
    exercises.check_chunks: [chunks, lambda *given: torch.tensor(chunks(*given))],
}
WRONG = [
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
