"""Exercises of notebook 01: worked solutions, and likely mistakes with what is said of them."""

import torch

from diffkit.course.exercises.foundations import data as ex


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


def without_the_last(documents, eos, length):
    stream = [i for document in documents for i in [*document, eos]]
    return [stream[i : i + length] for i in range(0, len(stream) - length, length)]


def by_view(documents, eos, length):
    stream = torch.tensor([i for document in documents for i in [*document, eos]])
    return stream[: len(stream) // length * length].view(-1, length)


def weighed(weight, normalised=True):
    """Beliefs from other weights of the texts."""

    def answer(texts, probs, log_evidence):
        L, V = log_evidence.shape
        weights = weight(probs, log_evidence[torch.arange(L), texts])
        weights = weights / weights.sum() if normalised else weights
        return torch.einsum("n,nlv->lv", weights, torch.nn.functional.one_hot(texts, V).double())

    return answer


SOLUTIONS = {
    ex.check_entropy: [entropy, lambda probs: torch.special.entr(probs).sum()],
    ex.check_rule_out: [rule_out, ex.rule_out],
    ex.check_chunks: [chunks, by_view],
    ex.check_beliefs: [ex.beliefs],
}
WRONG = [
    (ex.check_entropy, "MINUS", lambda p: (p * p.log()).sum()),
    (ex.check_entropy, "bits", lambda p: -(p * p.log2()).sum()),
    (ex.check_entropy, "weigh each", lambda p: -p.log().mean()),
    (ex.check_entropy, "so sum", lambda p: -(p * p.log()).mean()),
    (ex.check_entropy, "forgot the weights", lambda p: -p.log().sum()),
    (ex.check_entropy, "probability 0", lambda p: -(p * p.log()).sum()),
    (ex.check_rule_out, "ruled out", lambda texts, p, seen, m: p),
    (ex.check_rule_out, "divide by its sum", lambda texts, p, seen, m: p * ((texts == seen) | (seen == m)).all(1)),
    (ex.check_rule_out, "equally likely", lambda texts, p, seen, m: rule_out(texts, torch.ones_like(p), seen, m)),
    (ex.check_rule_out, "visible ones only", lambda texts, p, seen, m: p * (texts == seen).all(1)),
    (ex.check_chunks, "no EOS", no_eos),
    (ex.check_chunks, "comes before", eos_before),
    (ex.check_chunks, "on its own", each_alone),
    (ex.check_chunks, "Drop the tail", with_tail),
    (ex.check_chunks, "last chunk is missing", without_the_last),
    (ex.check_beliefs, "not equally likely", weighed(lambda p, each: each.sum(1).exp())),
    (ex.check_beliefs, "nothing that was observed", weighed(lambda p, each: p)),
    (ex.check_beliefs, "logs add up", weighed(lambda p, each: p * each.exp().sum(1))),
    (ex.check_beliefs, "sum to 1", weighed(lambda p, each: p * each.sum(1).exp(), normalised=False)),
    (ex.check_beliefs, "its own evidence alone", lambda texts, p, e: e.softmax(1)),
]
