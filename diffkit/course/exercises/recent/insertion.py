"""Exercises of notebook 20_insertion."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import combinations
from typing import Any

import torch
from torch import Generator, Tensor

from diffkit.course.exercises.checks import Wrong, counterexample, exercise, not_these, read, tensor_of
from diffkit.course.insertion import texts_of
from diffkit.languages.story_language import load_language

Ids = list[int]
MASK = 1


def numbers(n: int, rng: Generator) -> list[float]:
    """n numbers from U[0, 1)."""
    return torch.rand(n, generator=rng, dtype=torch.float64).tolist()


def same_ids(mine: Any, want: Ids, slips: dict[str, Ids], case: str) -> None:
    """Raise Wrong unless the learner's ids are those wanted; slips: what is wrong if they are others."""
    found = read(mine, "the answer").long().tolist()
    for why, slip in slips.items():
        if found == slip != want:
            raise Wrong(f"{why}.")
    if found != want:
        raise Wrong(f"for {case} the answer should be {want}, yours is {found}.")


# ----------------------------------------------------------------------------------------------------------- 1: noise


def shorten(text: Ids, u: list[float], v: list[float], gamma: float, mask: int) -> Ids:
    """What is left of a text at the rate gamma, from two uniform numbers for each token."""
    return [
        mask if first * second < gamma else token
        for token, first, second in zip(text, u, v, strict=True)
        if first >= gamma
    ]


@exercise
def check_shorten(answer: Callable[..., Any]) -> str:
    """answer(text, u, v, gamma, mask) -> the tokens left: absent where u < gamma, MASK where u v < gamma."""
    rng = Generator().manual_seed(0)
    for n, gamma in ((12, 0.3), (9, 0.5), (4, 0.9), (5, 0.0), (3, 1.0), (6, 0.2)):
        text, u, v = [10 + i for i in range(n)], numbers(n, rng), numbers(n, rng)
        rows = [*zip(text, u, v, strict=True)]
        slips = {
            "an absent token leaves no trace, yours leaves a MASK": [
                MASK if a * b < gamma else token for token, a, b in rows
            ],
            "a token is MASK where u v < gamma: it was hidden before it was deleted, so v alone does not tell": [
                MASK if b < gamma else token for token, a, b in rows if a >= gamma
            ],
            "yours deletes what is only hidden; where gamma lies between u v and u there is a MASK": [
                token for token, a, b in rows if a * b >= gamma
            ],
            "the wrong ones are gone: a token is absent where u < gamma": [
                MASK if a * b < gamma else token for token, a, b in rows if a < gamma
            ],
        }
        case = f"u = {[round(each, 2) for each in u]}, v = {[round(each, 2) for each in v]}, gamma = {gamma}"
        same_ids(answer(text, u, v, gamma, MASK), shorten(text, u, v, gamma, MASK), slips, case)
    return "Hidden first, deleted later: with gamma rising, u v is when a token turns into MASK, and u when it goes."


# ------------------------------------------------------------------------------------------------- 2: what is missing


def alignments(text: Ids, state: Ids) -> Iterator[list[int]]:
    """Every way to shorten a text to a state: how many tokens each gap then lacks."""
    for kept in combinations(range(len(text)), len(state)):
        if [text[i] for i in kept] == state:
            ends = [-1, *kept, len(text)]
            yield [b - a - 1 for a, b in zip(ends, ends[1:], strict=False)]


def missing(state: Ids, gamma: float, texts: list[Ids], probs: list[float]) -> Tensor:
    """The expected number of tokens missing from each gap of a state, (n + 1,), tokens deleted at the rate gamma."""
    total, y = 0.0, torch.zeros(len(state) + 1, dtype=torch.float64)
    for text, p in zip(texts, probs, strict=True):
        for lacking in alignments(text, state):
            weight = p * gamma ** len(text)
            total, y = total + weight, y + weight * torch.tensor(lacking)
    return y / total


def micro_words() -> tuple[list[Ids], list[float]]:
    """The texts of `micro` as lists of words, and their probabilities."""
    micro = load_language("micro")
    ids = texts_of(micro)
    return [row[: row.index(micro.eos_id)] for row in ids.tolist()], micro.log_prob(ids).exp().tolist()


def wrong_missing(state: Ids, gamma: float, texts: list[Ids], probs: list[float]) -> dict[str, Tensor]:
    """What likely mistakes give."""
    fits = [(p, text, [*alignments(text, state)]) for text, p in zip(texts, probs, strict=True)]
    fits = [(p, text, ways) for p, text, ways in fits if ways]

    def mean(weigh: Callable[[float, Ids, int], float], ways_of: Callable[[list[Any]], list[Any]]) -> Tensor:
        parts = [(weigh(p, text, len(ways)), way) for p, text, ways in fits for way in ways_of(ways)]
        rows = torch.tensor([way for _, way in parts], dtype=torch.float64)
        weight = torch.tensor([each for each, _ in parts], dtype=torch.float64)
        return weight @ rows / weight.sum()

    right = missing(state, gamma, texts, probs)
    total = sum(p * gamma ** len(text) * len(ways) for p, text, ways in fits)
    found = {
        "a text that can be shortened to the state in two ways counts twice; yours takes one way": mean(
            lambda p, text, n: p * gamma ** len(text), lambda ways: ways[:1]
        ),
        "the rate is missing: a text that lost k tokens has the weight p(x) gamma^k": mean(
            lambda p, text, n: p, lambda ways: ways
        ),
        "the texts are not equally likely": mean(lambda p, text, n: gamma ** len(text), lambda ways: ways),
        "divide by the total weight: it is an expectation": right * total / gamma ** len(state),
    }
    return {why: slip for why, slip in found.items() if not torch.allclose(slip, right, atol=1e-5)}


@exercise
def check_missing(answer: Callable[..., Any]) -> str:
    """answer(state, gamma, texts, probs) -> expected missing tokens of each gap, (n + 1,), by adding up all texts."""
    texts, probs = micro_words()
    own = [([7, 7, 8], 0.5), ([7, 8], 0.3), ([8], 0.2)]
    cases = [([], 0.5, texts, probs), (texts[0][:1], 0.5, texts, probs), (texts[3][1:], 0.2, texts, probs),
             (texts[5], 0.9, texts, probs), ([], 1.0, texts, probs),
             ([7], 0.4, [text for text, _ in own], [p for _, p in own])]  # fmt: skip
    for state, gamma, known, p in cases:
        want = missing(state, gamma, known, p)
        mine = tensor_of(answer, state, gamma, known, p, shape=(len(state) + 1,), called="the answer").double()
        not_these(mine, wrong_missing(state, gamma, known, p))
        counterexample(mine, want, [f"state {state}, gamma {gamma}, gap {g}" for g in range(len(want))], "y")
    return "That is the whole of what an insertion model has to learn: one number for each gap."


# ------------------------------------------------------------------------------------------------------------ 3: a step


def step(
    state: Ids, y: list[float], words: Ids, share: float, u: list[float], w: list[float], mask: int
) -> Ids:  # fmt: skip
    """One step of the sampler: reveal MASK i as words[i] if u[i] < share; a MASK for gap g if w[g] < share y[g]."""
    longer: Ids = []
    for i, token in enumerate(state):
        longer += [mask] * (w[i] < share * y[i])
        longer += [words[i] if token == mask and u[i] < share else token]
    return longer + [mask] * (w[-1] < share * y[-1])


@exercise
def check_step(answer: Callable[..., Any]) -> str:
    """answer(state, y, words, share, u, w, mask) -> the state after one step."""
    rng = Generator().manual_seed(1)
    for n, share in ((4, 0.5), (7, 0.3), (0, 0.6), (5, 1.0), (6, 0.1), (9, 0.4)):
        hidden, u, w = (numbers(n + (i == 2), rng) for i in range(3))
        state = [MASK if each < 0.5 else 10 + i for i, each in enumerate(hidden)]
        y, words = [2 * each for each in numbers(n + 1, rng)], [30 + i for i in range(n)]
        shown = [words[i] if token == MASK and u[i] < share else token for i, token in enumerate(state)]
        new = [w[g] < share * y[g] for g in range(n + 1)]
        behind = sum(([token] + [MASK] * new[i] for i, token in enumerate(shown)), [])
        slips = {
            "gap g is in front of token g; yours puts the new MASK behind it": behind,
            "the last gap, behind all tokens, was forgotten": sum(
                ([MASK] * new[i] + [token] for i, token in enumerate(shown)), []
            ),
            "only a MASK is revealed; a word that stands stays": sum(
                ([MASK] * new[i] + [words[i] if u[i] < share else token] for i, token in enumerate(state)), []
            )
            + [MASK] * new[-1],
            "the chance of an insertion is share times y of that gap": sum(
                ([MASK] * (w[i] < share) + [token] for i, token in enumerate(shown)), []
            )
            + [MASK] * (w[-1] < share),
        }
        case = f"state {state}, share {share}, u {[round(each, 2) for each in u]}, w y {[round(a, 2) for a in w]}"
        same_ids(answer(state, y, words, share, u, w, MASK), step(state, y, words, share, u, w, MASK), slips, case)
    return "Masked diffusion, and a canvas that makes room."


# ------------------------------------------------------------------------------------------------------------ 4: a hole


def hole(before: Ids, after: Ids, log_prob: Callable[[Ids], float], longest: int, mask: int) -> Tensor:
    """p(length of the hole) for lengths 0 to `longest`."""
    nats = [log_prob([*before, *[mask] * k, *after]) for k in range(longest + 1)]
    return torch.tensor(nats, dtype=torch.float64).softmax(0)


@exercise
def check_hole(answer: Callable[..., Any]) -> str:
    """answer(before, after, log_prob, longest, mask) -> p(length), (longest + 1,); log_prob sums over MASK."""
    micro = load_language("micro")
    texts, _ = micro_words()

    def log_prob(words: Ids) -> float:
        row = [*words, micro.eos_id] + [micro.pad_id] * (micro.length - 1 - len(words))
        return float(micro.log_prob(torch.tensor([row])))

    two = sorted({text[0] for text in texts})
    for before, after in (([two[0]], [texts[0][-1]]), ([two[1]], []), ([], [texts[0][-1]])):
        longest = micro.length - 1 - len(before) - len(after)
        want = hole(before, after, log_prob, longest, MASK)
        mine = tensor_of(answer, before, after, log_prob, longest, MASK, shape=(longest + 1,), called="p").double()
        p = torch.tensor([math.exp(log_prob([*before, *[MASK] * k, *after])) for k in range(longest + 1)]).double()
        not_these(mine, {
            "these are probabilities of the text and the length; given the text they must sum to 1": p,
            "those are logarithms; probabilities are asked for": p.log(),
            "MASK already sums over the words of the hole; do not divide by their number": (
                p / (torch.arange(longest + 1) + 1) / (p / (torch.arange(longest + 1) + 1)).sum()),
        })  # fmt: skip
        counterexample(mine, want, [f"before {before}, after {after}, length {k}" for k in range(longest + 1)], "p")
    return "Every length is a canvas of its own, and the language knows how likely each is."
