"""Exercises of notebook 00_start_here."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor

from diffkit.course.exercises.checks import Wrong, counterexample, exercise, not_these, read, tensor_of
from diffkit.languages.story_language import load_language


def count_hidden(tokens: Tensor, mask_id: int) -> Tensor:
    """How many tokens of each text are hidden: (B, L) ids to (B,)."""
    return (tokens == mask_id).sum(1)


def story_length(ids: Tensor, eos_id: int) -> Tensor:
    """Tokens before EOS in each canvas, all L without one: (B, L) ids to (B,)."""
    return ((ids == eos_id).cumsum(1) == 0).sum(1)


@exercise
def check_hidden_tokens(hidden: Callable[[Tensor, int], Tensor]) -> str:
    """hidden(tokens, mask_id) -> how many tokens of each text are hidden, (B, L) ids to (B,)."""
    rng = Generator().manual_seed(10)
    for mask_id, B, L in ((1, 4, 6), (7, 3, 9)):
        tokens = torch.randint(0, 9, (B, L), generator=rng)
        tokens[0], tokens[1], tokens[2, :2] = mask_id, mask_id - 1, mask_id
        is_masked = tokens == mask_id
        if read(hidden(tokens, mask_id), "the counts").ndim == 0:
            raise Wrong(f"that is one number for all {B} texts together; sum over the positions of each: .sum(1).")
        mine = tensor_of(hidden, tokens, mask_id, shape=(B,), called="the counts")
        want = is_masked.sum(1)
        if torch.equal(mine, want):
            continue
        not_these(
            mine,
            {
                "you count the tokens that show; the hidden ones are those equal to mask_id": L - want,
                "that is the share of hidden tokens; the number is asked for": want / L,
                "you add up ids; compare with mask_id first, then count": want * mask_id,
                "you count the id 1, but this time MASK has another id; use mask_id": (tokens == 1).sum(1),
            },
        )
        counterexample(mine, want, [f"{row} with mask_id = {mask_id}" for row in tokens.tolist()], "the count")
    return "One comparison, one sum over the positions."


@exercise
def check_story_length(length: Callable[[Tensor, int], Tensor]) -> str:
    """length(ids, eos_id) -> tokens before EOS in each canvas, all L without one: (B, L) ids to (B,)."""
    rng = Generator().manual_seed(11)
    for eos_id, L in ((2, 8), (5, 12)):
        want = torch.tensor([3, L - 1, 0, L // 2, L])
        ids = torch.randint(6, 20, (5, L), generator=rng)
        position = torch.arange(L)
        ids = ids.where(position < want[:, None], 0).where(position != want[:, None], eos_id)
        mine = tensor_of(length, ids, eos_id, shape=(5,), called="the lengths")
        finished = torch.arange(5) < 4
        not_these(
            mine,
            {
                "one too many: EOS marks the end and is not part of the story": want + finished.int(),
                "one too many; in a canvas without EOS, too": want + 1,
                "you count what comes after the story; the tokens before EOS are asked for": (L - want - 1).clamp(
                    min=0
                ),
                "that is the whole canvas, padding included": torch.full((5,), L),
                "a canvas has at most one EOS; where does it stand?": finished.int(),
                "the last canvas has no EOS yet: all of its tokens belong to the story, but argmax of nothing is 0": (
                    want * finished
                ),
            },
        )
        counterexample(mine, want, [f"{row} with eos_id = {eos_id}" for row in ids.tolist()], "the length")
    return "Positions count from 0, so the index of EOS is the number of tokens before it."


@exercise
def check_guess_cost(cost: Callable[[int, int], float]) -> str:
    """cost(positions, words) -> nats paid for guessing `positions` tokens, each evenly among `words`."""
    cases = [(1, 2), (1, 100), (7, 10), (5, 166), (3, 1)]
    mine = torch.stack([tensor_of(cost, *case, shape=(), called="the cost").double() for case in cases])
    positions, words = torch.tensor(cases, dtype=torch.float64).T
    not_these(
        mine,
        {
            "the cost is minus the log of the probability, and so never negative": -positions * words.log(),
            "that is in bits; nats take the natural logarithm, math.log": positions * words.log2(),
            "that is the cost of one token; the costs of independent guesses add up": words.log(),
            "that is a number of texts; its logarithm is the cost": words**positions,
            "you use a logarithm to base 10; nats take the natural one, math.log": positions * words.log10(),
            "that is log(positions x words); the probability is (1 / words) to the power positions": (
                positions * words
            ).log(),
        },
    )
    counterexample(mine, positions * words.log(), [f"{p} positions and {w} words" for p, w in cases], "the cost")
    return "Probabilities multiply, so costs in nats add: positions x ln(words)."


def unmask(predict: Callable[[Tensor], Tensor], length: int, mask_id: int, rng: Generator) -> Tensor:
    """Write (length,) ids from nothing, one position at a time in random order; predict: (L,) ids to (L, V)."""
    x = torch.full((length,), mask_id)
    for i in torch.randperm(length, generator=rng).tolist():
        x[i] = torch.multinomial(predict(x)[i], 1, generator=rng)
    return x


WHY = "Draw one token, at its own row of the prediction, and ask predict again before the next."


@exercise
def check_unmask(write: Callable[[Callable[[Tensor], Tensor], int, int, Generator], Tensor]) -> str:
    """write(predict, length, mask_id, rng) -> a text of the language that predict knows, (L,) ids, right in law."""
    micro = load_language("micro")
    L, mask_id, probs_of = micro.length, micro.mask_id, {}

    def predict(x: Tensor) -> Tensor:
        seen = tuple(torch.as_tensor(x).tolist())
        if seen not in probs_of:
            log_p, probs = micro.posterior(micro.seen(torch.tensor([seen])))
            if log_p.isneginf():
                raise Wrong(f"you made {list(seen)} (MASK is {mask_id}), which no text of the language fits. {WHY}")
            probs_of[seen] = probs[0]
        return probs_of[seen].clone()

    def text(seed: int) -> Tensor:
        answer = tensor_of(write, predict, L, mask_id, Generator().manual_seed(seed), shape=(L,), called="the text")
        return answer.long() if bool((answer == answer.long()).all()) else answer.new_full((L,), -1).long()

    texts = torch.stack([text(seed) for seed in range(400)])
    if (texts == mask_id).any():
        raise Wrong("some positions are still hidden at the end; visit every one of them.")
    if any(not torch.equal(text(seed), texts[seed]) for seed in range(20)):
        raise Wrong("the same seed gives two different texts. Hand rng on to every draw: generator=rng.")
    if (texts == texts[0]).all():
        raise Wrong("all seeds give the same text. Draw from the probabilities; do not take the likeliest token.")
    possible = ((texts >= 0) & (texts < micro.vocab_size)).all(1)
    log_p = micro.log_prob(texts.clamp(0, micro.vocab_size - 1)).where(possible, -torch.inf)
    if log_p.isneginf().any():
        raise Wrong(f"one of your texts is {texts[int(log_p.argmin())].tolist()}, which the language cannot say. {WHY}")
    found, counts = texts.unique(dim=0, return_counts=True)
    want = micro.log_prob(found).exp() * len(texts)
    missed = len(texts) - float(want.sum())
    statistic = ((counts - want) ** 2 / want).sum() + missed
    if torch.special.gammaincc(torch.tensor(15 / 2).double(), statistic / 2) < 1e-7:
        worst = int(((counts - want) ** 2 / want).argmax())
        raise Wrong(
            f"every text is possible, but some come too often: {found[worst].tolist()} came {int(counts[worst])} times "
            f"of {len(texts)}, and should about {want[worst]:.0f} times. Draw with the probabilities as they are."
        )
    return "That is a sampler: one token at a time it draws from the language itself, in any order."
