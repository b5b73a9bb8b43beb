"""Exercises of notebook 00_start_here."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor

from diffkit.course.exercises.checks import Wrong, counterexample, exercise, not_these, read, tensor_of


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
    """length(ids, eos_id) -> tokens before EOS in each canvas, (B, L) ids to (B,)."""
    rng = Generator().manual_seed(11)
    for eos_id, L in ((2, 8), (5, 12)):
        want = torch.tensor([3, L - 1, 1, L // 2])
        ids = torch.randint(6, 20, (4, L), generator=rng)
        position = torch.arange(L)
        ids = ids.where(position < want[:, None], 0).where(position != want[:, None], eos_id)
        mine = tensor_of(length, ids, eos_id, shape=(4,), called="the lengths")
        not_these(
            mine,
            {
                "one too many: EOS marks the end and is not part of the story": want + 1,
                "you count what comes after the story; the tokens before EOS are asked for": L - want - 1,
                "that is the whole canvas, padding included": torch.full((4,), L),
                "each canvas has exactly one EOS; where does it stand?": torch.ones(4),
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
