"""Exercises of notebook 01_data."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from diffkit.course.exercises.checks import Wrong, counterexample, exercise, not_these, rows_of, tensor_of
from diffkit.languages.story_language import load_language


@exercise
def check_entropy(entropy: Callable[[Tensor], Tensor]) -> str:
    """entropy(probs) -> nats, (N,) probabilities to one number; impossible outcomes add nothing."""
    rng = Generator().manual_seed(12)
    for N in (2, 5, 16):
        probs = torch.rand(N, generator=rng, dtype=torch.float64).square()
        probs = probs / probs.sum()
        want = torch.special.entr(probs).sum()
        mine = tensor_of(entropy, probs, shape=(), called="the entropy").double()
        not_these(
            mine,
            {
                "the sign: surprise is MINUS log p": -want,
                "that is in bits; nats take the natural logarithm": want / math.log(2),
                "weigh each surprise by its probability, then sum; a plain mean treats all alike": -probs.log().mean(),
                "you take the mean of p log p; the weights p are the mean already, so sum": want / N,
                "you forgot the weights: likely outcomes count more": -probs.log().sum(),
            },
        )
        counterexample(mine[None], want[None], [f"the probabilities {[round(p, 3) for p in probs.tolist()]}"], "it")
    mine = torch.as_tensor(entropy(torch.tensor([0.5, 0.0, 0.5], dtype=torch.float64)))
    if not abs(float(mine) - math.log(2)) < 1e-6:
        raise Wrong(
            f"probability 0 adds nothing, but [0.5, 0, 0.5] gives {float(mine):g}, not 0.693: 0 x log 0 is NaN, so "
            "drop it."
        )
    return "The mean surprise, in nats."


@exercise
def check_rule_out(rule_out: Callable[[Tensor, Tensor, Tensor, int], Tensor]) -> str:
    """rule_out(texts, probs, seen, mask_id) -> p(text | what is seen): (N, L) ids, (N,), (L,) ids with MASK to (N,)."""
    rng = Generator().manual_seed(13)
    for N, L in ((6, 3), (12, 4), (30, 5)):
        texts = torch.randint(2, 5, (N, L), generator=rng).unique(dim=0)
        probs = torch.rand(len(texts), generator=rng, dtype=torch.float64)
        probs = probs / probs.sum()
        seen = texts[0].where(torch.rand(L, generator=rng) < 0.5, 1)
        seen[0], seen[-1] = texts[0, 0], 1
        fits, equal = ((texts == seen) | (seen == 1)).all(1), (texts == seen).all(1)
        mine = tensor_of(rule_out, texts, probs, seen, 1, shape=(len(texts),), called="the posterior").double()
        want = probs * fits / (probs * fits).sum()
        if torch.allclose(mine, want, atol=1e-6):
            continue
        not_these(
            mine,
            {
                "right up to a factor: what is left must sum to 1 again, so divide by its sum": probs * fits,
                "the texts that fit are not equally likely; keep their own probabilities": fits / fits.sum(),
                "nothing was ruled out: set texts that disagree with a visible token to 0": probs,
                "a hidden position agrees with every text; compare the visible ones only": probs * equal,
            },
        )
        if torch.allclose(mine[~fits], torch.zeros(1).double()) and abs(float(mine.sum()) - 1) > 1e-6:
            raise Wrong(f"the posterior should sum to 1, yours sums to {mine.sum():.4f}.")
        cases = [f"the text {text} when {seen.tolist()} is seen (1 hides)" for text in texts.tolist()]
        counterexample(mine, want, cases, "the probability")
    return "Rule out what disagrees, keep the proportions of the rest, and scale to 1: Bayes for a list of texts."


def rule_out(texts: Tensor, probs: Tensor, seen: Tensor, mask_id: int) -> Tensor:
    """p(text | what is seen) for a list of texts: (N, L) ids, (N,), (L,) ids with MASK to (N,)."""
    left = probs * ((texts == seen) | (seen == mask_id)).all(1)
    return left / left.sum()


def beliefs(texts: Tensor, probs: Tensor, log_evidence: Tensor) -> Tensor:
    """p(x_i = v | evidence) for a list of texts: (N, L) ids, (N,), (L, V) log-likelihoods to (L, V)."""
    L, V = log_evidence.shape
    weights = (probs.log() + log_evidence[torch.arange(L), texts].sum(1)).softmax(0)  # (N,)
    return torch.einsum("n,nlv->lv", weights, F.one_hot(texts, V).to(weights))


@exercise
def check_beliefs(mine: Callable[[Tensor, Tensor, Tensor], Tensor]) -> str:
    """beliefs(texts, probs, log_evidence) -> p(x_i = v | evidence): (N, L) ids, (N,), (L, V) to (L, V)."""
    micro, rng = load_language("micro"), Generator().manual_seed(15)
    texts = micro.sample(3000, rng).unique(dim=0)  # all 16
    probs, (L, V) = micro.log_prob(texts).exp(), (micro.length, micro.vocab_size)
    hidden = micro.seen(torch.full((1, L), micro.mask_id))[0]
    noisy = torch.randn(L, V, generator=rng, dtype=torch.float64)
    part = texts[3].clone()
    part[1:3] = micro.mask_id
    for what, evidence in {"noisy": noisy, "part of it seen": micro.seen(part[None])[0], "nothing": hidden}.items():
        want = micro.posterior(evidence[None])[1][0]
        each = evidence[torch.arange(L), texts]  # (N, L)
        shown = F.one_hot(texts, V).double()

        def table(weights: Tensor, shown: Tensor = shown) -> Tensor:
            return torch.einsum("n,nlv->lv", weights / weights.sum(), shown)

        answer = tensor_of(mine, texts, probs, evidence, shape=(L, V), called="the table").double()
        own = evidence.softmax(1)
        if torch.allclose(answer, want, atol=1e-6):
            continue
        not_these(
            answer,
            {
                "the texts are not equally likely to begin with; weigh them by probs": table(each.sum(1).exp()),
                "nothing that was observed enters; a text is more likely where it fits the evidence": table(probs),
                "the evidence is in logs: likelihoods of positions multiply, so their logs add up": table(
                    probs * each.exp().sum(1)
                ),
                "each position was judged by its own evidence alone; a text stands or falls as a whole": own,
                "right up to a factor: the weights of the texts must sum to 1": torch.einsum(
                    "n,nlv->lv", probs * each.sum(1).exp(), shown
                ),
            },
        )
        if not torch.allclose(answer.sum(1), torch.ones(L).double(), atol=1e-6):
            raise Wrong(f"every row is a distribution and sums to 1; yours sum to {answer.sum(1).tolist()}.")
        counterexample(answer.flatten(), want.flatten(), [
            f"evidence: {what}; position {i}, token {v}:" for i in range(L) for v in range(V)], "the probability"
        )  # fmt: skip
    return "Bayes for whole texts, then added up position by position: the exact denoiser of any kind of noise."


@exercise
def check_chunks(chunks: Callable[[list[list[int]], int, int], Any]) -> str:
    """chunks(documents, eos, length) -> chunks of `length` ids from the stream of documents, an EOS after each."""
    rng = Generator().manual_seed(14)
    for eos, length in ((2, 4), (99, 3), (2, 7)):
        sizes = torch.randint(1, 9, (6,), generator=rng).tolist()
        sizes[0] += -(sum(sizes) + 6) % length + (length == 7)  # nothing is left over, but in the last case one token
        documents = [torch.randint(10, 50, (n,), generator=rng).tolist() for n in sizes]
        answer = chunks([list(document) for document in documents], eos, length)
        mine = rows_of(answer, "the chunks")

        def cut(stream: list[int], size: int = length) -> list[list[int]]:
            return [stream[i : i + size] for i in range(0, len(stream) - size + 1, size)]

        want = cut([i for document in documents for i in [*document, eos]])
        slips = {
            "there is no EOS between the documents; without it nobody can tell where one ends": cut(sum(documents, [])),
            "EOS comes after each document; yours comes before": cut([i for d in documents for i in [eos, *d]]),
            "each document was cut on its own and its tail lost; join all into one stream first": [
                chunk for document in documents for chunk in cut([*document, eos])
            ],
        }
        if len(want) > 1 and mine == want[:-1]:
            raise Wrong(f"the last chunk is missing: {want[-1]} is whole. range stops *before* its end, hence the + 1.")
        for why, slip in slips.items():
            if mine == slip and mine != want:
                raise Wrong(f"{why}.")
        odd = [chunk for chunk in mine if len(chunk) != length]
        if odd:
            raise Wrong(
                f"every chunk has {length} tokens, but yours has one of {len(odd[0])}: {odd[0]}. Drop the tail."
            )
        if mine != want:
            raise Wrong(f"{documents} with eos = {eos}, length = {length} should give {want}, yours gives {mine}.")
    return "One stream, an EOS after each document, equal pieces, and only the last tail is dropped."
