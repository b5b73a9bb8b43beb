"""Exercises of notebook 07_evaluation."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

import torch
from torch import Generator, Tensor

from diffkit.course.exercises.checks import Wrong, exercise, not_these, number, number_of, tensor_of


@exercise
def check_paired(paired: Callable[[Tensor, Tensor], Any]) -> str:
    """paired(a, b) -> mean of a - b over the stories, and its standard error, for nats (n,) of two models."""
    rng = Generator().manual_seed(7)
    for n in (50, 200):
        shared = 20 + 5 * torch.randn(n, generator=rng, dtype=torch.float64)
        a = shared + 0.3 + 0.2 * torch.randn(n, generator=rng, dtype=torch.float64)
        b = shared + 0.2 * torch.randn(n, generator=rng, dtype=torch.float64)
        answer = paired(a, b)
        if not (isinstance(answer, tuple) and len(answer) == 2):
            raise Wrong("return two numbers: the mean difference and its standard error.")
        mean, error = (number(part, "each of the two") for part in answer)
        if not math.isclose(mean, float((a - b).mean()), rel_tol=1e-6):
            raise Wrong(f"the mean of a - b is {float((a - b).mean()):.4f}, yours is {mean:.4f}.")
        want = float((a - b).std()) / math.sqrt(n)
        apart = math.sqrt(float(a.var() + b.var()) / n)
        if math.isclose(error, apart, rel_tol=0.02):
            raise Wrong(
                f"{error:.3f} treats the two as if measured on different stories. Take the differences first: what the "
                f"stories share cancels, and {want:.3f} is left."
            )
        if math.isclose(error, float((a - b).std()), rel_tol=0.02):
            raise Wrong("that is the spread of single stories; the mean of n of them varies less, by sqrt(n).")
        if not math.isclose(error, want, rel_tol=0.02):
            raise Wrong(f"the standard error should be {want:.4f}, yours is {error:.4f}.")
    return "The difference is known far better than either number."


@exercise
def check_witten_bell(blend: Callable[[Tensor, Tensor], Any]) -> str:
    """blend(counts, shorter) -> p(v | h) from counts c(h, v) and p(v | h'), both (V,)."""
    rng = Generator().manual_seed(1)
    for seen in (6, 2, 0):
        counts = torch.zeros(8, dtype=torch.float64)
        counts[torch.randperm(8, generator=rng)[:seen]] = torch.randint(1, 9, (seen,), generator=rng).double()
        shorter = torch.rand(8, generator=rng, dtype=torch.float64)
        shorter = shorter / shorter.sum()
        mine = tensor_of(blend, counts, shorter, shape=(8,), called="the blend").double()
        kinds = (counts > 0).sum()
        want = (counts + kinds * shorter) / (counts.sum() + kinds) if seen else shorter
        if seen:
            slips = {
                "words that were never seen after h get nothing, and one of them would cost infinitely much": counts
                / counts.sum(),
                "that adds one to every count; the pseudo-count is N(h) p(v | h')": (counts + 1) / (counts.sum() + 8),
                "the denominator is c(h) + N(h), with N(h) the number of DIFFERENT words seen": (
                    counts + counts.sum() * shorter
                )
                / (2 * counts.sum()),
            }
            not_these(mine, {why: slip for why, slip in slips.items() if not torch.allclose(slip, want, atol=1e-5)})
        if not torch.allclose(mine, want, atol=1e-6):
            raise Wrong(
                f"for counts {counts.int().tolist()} word 0 should have {want[0]:.4f}, yours has {float(mine[0]):.4f}. "
                + ("Nothing was seen, so only the shorter history counts." if not seen else "")
            )
    return "Frequent histories rely on their own counts, rare ones on the shorter history."


@exercise
def check_distinct(distinct: Callable[[list[list[int]], int], Any]) -> str:
    """distinct(texts, n) -> share of different n-grams among all of them; texts are lists of words or ids."""
    dice = random.Random(3)
    for n in (1, 2, 3):
        texts = [[dice.randrange(4) for _ in range(dice.randrange(1, 9))] for _ in range(12)]
        texts.append(texts[0])  # a repeated text
        grams = [tuple(text[i : i + n]) for text in texts for i in range(len(text) - n + 1)]
        mine = number_of(distinct, texts, n, called="the share")
        want = len(set(grams)) / len(grams)
        joined = [word for text in texts for word in text]
        if math.isclose(mine, len(set(grams))) and mine != want:
            raise Wrong("that is the number of different n-grams; divide by the number of all n-grams.")
        if n > 1 and math.isclose(mine, len(set(joined)) / len(joined)):
            raise Wrong(f"that is the share of different single words, but n is {n}.")
        per_text = [[tuple(text[i : i + n]) for i in range(len(text) - n + 1)] for text in texts if len(text) >= n]
        average = sum(len(set(one)) / len(one) for one in per_text) / len(per_text)
        across = [tuple(joined[i : i + n]) for i in range(len(joined) - n + 1)]
        if math.isclose(mine, average, rel_tol=1e-6) and not math.isclose(average, want, rel_tol=1e-6):
            raise Wrong("that averages over texts, so a generator that repeats one text passes. Pool first.")
        if n > 1 and math.isclose(mine, len(set(across)) / len(across), rel_tol=1e-6):
            raise Wrong("some of those n-grams reach from the end of one text into the next.")
        if not math.isclose(mine, want, rel_tol=1e-6):
            raise Wrong(f"for {texts[:3]} ... and n = {n} the share should be {want:.4f}, yours is {mine:.4f}.")
    return "Different n-grams over all n-grams, pooled."


@exercise
def check_variation(variation: Callable[[Tensor, Tensor], Any]) -> str:
    """variation(counts, probs) -> total variation between the frequencies of a sample and exact probabilities."""
    rng = Generator().manual_seed(2)
    for _ in range(4):
        probs = torch.rand(6, generator=rng, dtype=torch.float64)
        probs = probs / probs.sum()
        counts = torch.randint(0, 30, (6,), generator=rng)
        mine = tensor_of(variation, counts, probs, shape=(), called="the total variation").double()
        off = counts / counts.sum() - probs
        slips = {
            "that is twice the total variation: what one outcome has too much, another lacks": off.abs().sum(),
            "that is the largest single difference; total variation adds up all that is too much": off.abs().max(),
            "differences that are not made positive cancel": off.sum(),
            "counts must become shares first": (counts - probs).abs().sum() / 2,
        }
        not_these(mine, slips)
        if abs(mine - off.abs().sum() / 2) > 1e-6:
            raise Wrong(f"it should be {off.abs().sum() / 2:.4f}, yours is {mine:.4f}.")
    return "Half the sum of absolute differences: the share of samples that would have to change."
