"""Exercises of notebook 09_variable_length."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Generator, Tensor

from diffkit.course.exercises.checks import Wrong, counterexample, exercise, not_these, tensor_of
from diffkit.network.attention import block_causal_mask


@exercise
def check_length(length: Callable[[Tensor, int], Any]) -> str:
    """length(ids, eos) -> tokens before the first EOS of each row, (n, L) to (n,); L where there is none."""
    for seed in (1, 2, 3):
        ids = torch.randint(0, 6, (7, 9), generator=Generator().manual_seed(seed))
        ids[0], ids[1, 0], ids[2] = 1, 5, torch.tensor([1, 2, 5, 5, 5, 3, 1, 1, 1])
        mine = tensor_of(length, ids, 5, shape=(7,), called="the lengths").double()
        rows = [row.index(5) if 5 in row else 9 for row in ids.tolist()]
        want = torch.tensor(rows).double()
        slips = {
            "EOS itself does not belong to the text": want + 1,
            "that is the last EOS of a row; the first one ends the text": torch.tensor(
                [8 - row[::-1].index(5) if 5 in row else 9 for row in ids.tolist()]
            ).double(),
            "a row without an EOS is a whole canvas long; `argmax` of all zeros is 0": torch.where(
                want == 9, 0.0, want
            ),
            "that counts the tokens that are no EOS, those behind it too": (ids != 5).sum(1).double(),
        }
        not_these(mine, {why: slip for why, slip in slips.items() if not torch.equal(slip, want)})
        counterexample(mine, want, ids.tolist(), "the length")
    return "Up to the first EOS, and not counting it."


@exercise
def check_length_probs(length_probs: Callable[[Tensor, int], Any]) -> str:
    """length_probs(probs, eos) -> p(length), (L,), summing to 1, from the predictions (L, V) for one canvas."""
    for seed in (1, 2):
        probs = torch.randn(6, 5, generator=Generator().manual_seed(seed), dtype=torch.float64).softmax(-1)
        mine = tensor_of(length_probs, probs, 3, shape=(6,), called="p(length)").double()
        column = probs[:, 3]
        survival = torch.cat([torch.ones(1).double(), (1 - column).cumprod(0)[:-1]])
        slips = {
            "that is the right column, but it does not sum to 1; normalise it": column,
            "a softmax of probabilities; divide by their sum": column.softmax(0),
            "that treats positions as independent coin tosses, one after the other. They are not: the prediction at "
            "each position accounts for there being one EOS": survival * column / (survival * column).sum(),
        }
        not_these(mine, slips)
        if (mine - column / column.sum()).abs().max() > 1e-6:
            i = int((mine - column / column.sum()).abs().argmax())
            raise Wrong(f"length {i} should have {column[i] / column.sum():.4f}, yours has {mine[i]:.4f}.")
    return "EOS is at position n exactly if the text has n tokens: the column is the answer."


@exercise
def check_sees(sees: Callable[[int, int], Any]) -> str:
    """sees(L, block) -> which positions attend to which in a network with blocks, (L, L) bool: row i sees column j."""
    for L, block in ((6, 2), (7, 3), (4, 1), (5, 5)):
        mine = tensor_of(sees, L, block, shape=(L, L), called="the mask").bool()
        want = block_causal_mask(L, 0, block)
        number = torch.arange(L) // block
        slips = {
            "that is transposed: a position sees the blocks before it, not those behind": want.T,
            "a position must see its whole block, tokens to its right included": torch.ones(L, L).tril().bool(),
            "a position sees the earlier blocks too, not only its own": number[:, None] == number,
            "a position must see its own block as well": number[:, None] > number,
            "no position may see later blocks": torch.ones(L, L).bool(),
        }
        slips = {why: slip for why, slip in slips.items() if not torch.equal(slip, want)}
        not_these(mine, slips)
        if not torch.equal(mine, want):
            i, j = (mine != want).nonzero()[0].tolist()
            raise Wrong(
                f"with L = {L} and blocks of {block}, does position {i} see position {j}? It should be {want[i, j]}."
            )
    return "Its own block and all before it: blocks of one are causal, a single block sees everything."
