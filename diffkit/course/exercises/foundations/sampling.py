"""Exercises of notebook 06_sampling."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Generator, Tensor

from diffkit.course.exercises.checks import Wrong, exercise, not_these, tensor_of


@exercise
def check_reveal_counts(counts: Callable[[int, int], Any]) -> str:
    """counts(masked, steps) -> how many tokens to reveal at each step: whole numbers, as even as can be."""
    for masked, steps in ((48, 12), (48, 7), (5, 8), (1, 3), (0, 4), (13, 13), (37, 5)):
        mine = list(counts(masked, steps))
        where = f"{masked} masks in {steps} steps"
        if len(mine) != steps:
            raise Wrong(f"{where}: the list has {len(mine)} entries, one for each step are needed.")
        if any(n != int(n) or n < 0 for n in mine):
            raise Wrong(f"{where}: {mine} holds something that is not a whole number of tokens, 0 or more.")
        if sum(mine) < masked:
            raise Wrong(f"{where}: {mine} reveals {sum(mine)}; {masked - sum(mine)} would stay masked for ever.")
        if sum(mine) > masked:
            raise Wrong(f"{where}: {mine} reveals {sum(mine)}, more than there are. Rounding up at every step?")
        if max(mine) - min(mine) > 1:
            raise Wrong(f"{where}: {mine} is uneven; no step should reveal over one token more than another.")
    return "Nothing is left over and no step is crowded."


@exercise
def check_tempered(tempered: Callable[[Tensor, float], Any]) -> str:
    """tempered(probs, temperature) -> the distribution sharpened or flattened, (V,) to (V,); temperature > 0."""
    rng = Generator().manual_seed(3)
    for temperature in (0.5, 2.0, 0.8):
        probs = torch.rand(6, generator=rng, dtype=torch.float64).softmax(0) ** 2
        probs[2] = 0
        probs = probs / probs.sum()
        mine = tensor_of(tempered, probs, temperature, shape=(6,), called="the tempered distribution").double()
        power = probs ** (1 / temperature)
        backwards = probs**temperature
        slips = {
            "dividing probabilities changes nothing once they are normalised; divide their logarithms": probs,
            "that flattens where it should sharpen: the power is 1 / temperature": backwards / backwards.sum(),
            "that is a softmax of probabilities; it needs their logarithms": (probs / temperature).softmax(0),
            "the powers are right, but they do not add up to 1 any more": power,
        }
        not_these(mine, slips)
        want = power / power.sum()
        if (mine - want).abs().max() > 1e-5:
            i = int((mine - want).abs().argmax())
            raise Wrong(
                f"at temperature {temperature} probability {probs[i]:.3f} becomes {want[i]:.3f}, yours {mine[i]:.3f}."
            )
    return "p to the power 1 / temperature, normalised again; what was impossible stays impossible."


@exercise
def check_nucleus(nucleus: Callable[[Tensor, float], Any]) -> str:
    """nucleus(probs, p) -> top-p: the distribution with its tail cut off, (V,) to (V,), tokens in their old order."""
    for size in (3, 1, 5, 8):
        probs = torch.randn(8, generator=Generator().manual_seed(size), dtype=torch.float64).softmax(0)
        ranked, order = probs.sort(descending=True)
        p = 1.0 if size == 8 else round(float(ranked[:size].sum() - ranked[size - 1] / 2), 4)
        mine = tensor_of(nucleus, probs, p, shape=(8,), called="the nucleus").double()
        want = probs * torch.zeros(8).bool().scatter(0, order[:size], True)
        short = probs * torch.zeros(8).bool().scatter(0, order[: max(1, size - 1)], True)
        slips = {
            "the right tokens are kept, but they do not add up to 1": want,
            "you return the tokens sorted; put each back at its own index (scatter, or compare with the last kept "
            "probability)": (want / want.sum()).sort(descending=True).values,
            "the token that crosses the line is missing. Keep it: the kept mass must reach p": short / short.sum(),
            "that keeps tokens whose own probability reaches p; it is their running sum that counts": (
                probs * (probs >= p) / (probs * (probs >= p)).sum().clamp(min=1e-9)
            ),
        }  # fmt: skip
        slips = {why: slip for why, slip in slips.items() if not torch.allclose(slip, want / want.sum(), atol=1e-5)}
        not_these(mine, slips)
        if (mine - want / want.sum()).abs().max() > 1e-5:
            raise Wrong(
                f"from {[round(float(q), 3) for q in probs]} and p = {p}, {size} tokens are kept; "
                f"you keep {int((mine > 0).sum())}, with a sum of {float(mine.sum()):.3f}."
            )
    return "The smallest set that reaches p, the token that crosses the line included."


@exercise
def check_agree(agree: Callable[[Tensor, int], Any]) -> str:
    """agree(probs, positions) -> chance that `positions` independent draws from probs (V,) are all the same token."""
    for seed, positions in ((8, 2), (9, 3), (10, 1)):
        probs = (2 * torch.randn(5, generator=Generator().manual_seed(seed), dtype=torch.float64)).softmax(0)
        mine = tensor_of(agree, probs, positions, shape=(), called="the chance").double()
        want = (probs**positions).sum()
        slips = {
            "that holds only if all words are equally likely": torch.tensor(1 / 5).double() ** (positions - 1),
            "that is the chance for the likeliest word alone; any common word will do": probs.max() ** positions,
            "that is the chance that they do not all agree": 1 - want,
            "that is the answer for two positions, whatever their number": (probs**2).sum(),
        }
        not_these(mine, {why: slip for why, slip in slips.items() if abs(float(slip - want)) > 1e-4})
        if abs(float(mine - want)) > 1e-5:
            raise Wrong(f"{positions} draws from {[round(float(q), 3) for q in probs]} agree with {want:.4f}, "
                        f"yours is {float(mine):.4f}.")  # fmt: skip
    return "Each word v wins p(v) to the power of the number of positions; the tokens exclude each other, so add."
