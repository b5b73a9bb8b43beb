"""Exercises of notebook 07_evaluation."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Generator, Tensor

from diffkit.course.exercises.checks import Wrong, exercise, number, number_of, parts_of, tensor_of
from diffkit.course.orders import mask_patterns, pattern_losses
from diffkit.languages.story_language import load_language
from diffkit.processes.masked import MaskedDiffusion


def two_numbers(answer: Any, what: str) -> list[float]:
    """An answer of two numbers. Raises Wrong if it is none."""
    answer = parts_of(answer)
    if not (isinstance(answer, tuple | list) and len(answer) == 2):
        raise Wrong(f"return two numbers: {what} and its standard error.")
    return [number(part, "each of the two") for part in answer]


@exercise
def check_bound(bound: Callable[..., Any]) -> str:
    """bound(denoise, x0, rng) -> mean and standard error of the bound, with one exact-count draw of masks a text.

    denoise: (B, L) ids with MASK -> (B, L, V) log-probabilities.
    """
    micro, rng = load_language("micro"), Generator().manual_seed(4)
    process = MaskedDiffusion(micro.vocab_size, micro.mask_id, "linear")
    x0, L, V = micro.sample(1500, rng), micro.length, micro.vocab_size
    _check_flat(bound, x0, V, micro.mask_id)
    table = torch.arange(1.0, L + 1, dtype=torch.float64)[:, None] + 2 * torch.arange(L)  # nats by how many, and where

    def from_table(xt: Tensor) -> Tensor:
        hidden = (xt == micro.mask_id).sum(1)
        return -table[(hidden - 1).clamp(min=0)][..., None].expand(-1, -1, V)

    mean, _ = two_numbers(bound(from_table, x0, Generator().manual_seed(5)), "the mean")
    if not abs(mean - table.sum().item() / L) < 1.4:  # five standard errors
        raise Wrong(
            "the number of hidden tokens should be any of 1 to L, equally likely, and so should the set of positions: "
            f"with a loss that depends on both the mean should be {table.sum() / L:.2f}, yours is {mean:.2f}."
        )

    def exact(xt: Tensor) -> Tensor:
        return process.log_probs(micro.denoiser(process)(xt, torch.tensor(0.0)), xt)

    mean, error = two_numbers(bound(exact, x0, Generator().manual_seed(6)), "the mean")
    count = mask_patterns(L).sum(1)
    values = (L / count * pattern_losses(process, micro.denoiser(process), x0))[:, 1:]  # without the empty pattern
    chance = torch.tensor([1 / (L * math.comb(L, int(k))) for k in count[1:]], dtype=torch.float64)
    means = values @ chance
    noise = (values**2 @ chance - means**2).mean()
    if not abs(mean - means.mean()) < 5 * (noise / len(x0)).sqrt():
        raise Wrong(f"with the exact denoiser the mean should be near {means.mean():.2f} nats, yours is {mean:.2f}.")
    want = ((noise + means.var()) / len(x0)).sqrt().item()
    if math.isclose(error, want * math.sqrt(len(x0)), rel_tol=0.15):
        raise Wrong("that is the spread of single texts; the mean of n of them varies less, by sqrt(n).")
    if math.isclose(error, want / math.sqrt(L), rel_tol=0.15):
        raise Wrong("that divides by sqrt(n L), as if tokens were independent. Tokens of a text share a mask: "
                    "the sample is one of n texts.")  # fmt: skip
    if not math.isclose(error, want, rel_tol=0.15):
        raise Wrong(
            f"for one draw a text the standard error should be near {want:.3f}, yours is {error:.3f}. Draw the number "
            "of hidden tokens itself; a rate per text has the right mean and a larger spread."
        )
    return "Unbiased, and honest about its luck: the sum over hidden tokens, times L / k, one number a text."


def _check_flat(bound: Callable[..., Any], x0: Tensor, V: int, mask_id: int) -> None:
    """A denoiser that knows nothing costs L log(V - 1) nats under every mask: no spread at all."""
    flat = torch.full((V,), -math.log(V - 1), dtype=torch.float64)
    flat[mask_id] = -torch.inf
    answer = bound(lambda xt: flat.expand(*xt.shape, V), x0, Generator().manual_seed(4))
    mean, error = two_numbers(answer, "the mean")
    L, nats = x0.shape[1], math.log(V - 1)
    if math.isnan(mean) or math.isinf(mean):
        raise Wrong("the mean is not finite. Is a text left without a hidden token, so that its weight is L / 0?")
    for wrong, why in (
        (
            nats,
            "that is nats per token: the bound of a text is a sum, of which the loss of k tokens is the share k / L",
        ),
        (nats * (L + 1) / 2, "the weight L / k is missing: k of L tokens were hidden, and the bound is about all"),
    ):
        if abs(mean - wrong) < 0.5:
            raise Wrong(f"{why}.")
    if 0 < abs(mean - L * nats) - 1e-6 < 6 * error:
        raise Wrong(
            f"right on average, but where each mask costs the same, {L * nats:.3f}, yours spreads by {error:.3f}: was "
            "a rate drawn, not the number of hidden tokens?"
        )
    if not abs(mean - L * nats) < 1e-6 * L * nats:
        raise Wrong(
            f"if every word is equally likely, each mask costs L log(V - 1) = {L * nats:.3f}; yours {mean:.3f}."
        )
    if not abs(error) < 1e-6:
        raise Wrong(f"if every word is equally likely, all masks cost the same; your standard error is {error:.3f}.")


@exercise
def check_paired(paired: Callable[[Tensor, Tensor], Any]) -> str:
    """paired(a, b) -> mean of a - b over the stories, and its standard error, for nats (n,) of two models."""
    rng = Generator().manual_seed(7)
    for n in (50, 200):
        shared = 20 + 5 * torch.randn(n, generator=rng, dtype=torch.float64)
        a = shared + 0.3 + 0.2 * torch.randn(n, generator=rng, dtype=torch.float64)
        b = shared + 0.2 * torch.randn(n, generator=rng, dtype=torch.float64)
        mean, error = two_numbers(paired(a, b), "the mean difference")
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


def expected_distinct(texts: list[list[int]], n: int, size: int) -> float:
    """Expected share of different n-grams among `size` of all n-grams of the texts, drawn without replacement.

    Comparable between sets of different size, which distinct-n is not. Source: rarefaction (Hurlbert 1971).
    """
    grams = Counter(tuple(text[i : i + n]) for text in texts for i in range(len(text) - n + 1))
    total = grams.total()
    absent = (math.comb(total - count, size) / math.comb(total, size) for count in grams.values())
    return sum(1 - missed for missed in absent) / size


@exercise
def check_distinct(distinct: Callable[[list[list[int]], int, int], Any]) -> str:
    """distinct(texts, n, size) -> expected share of different n-grams among `size` of them; texts are lists of ids."""
    dice = random.Random(3)
    for n, size in ((1, 20), (2, 15), (3, 10), (2, 1), (2, None)):
        texts = [[dice.randrange(4) for _ in range(dice.randrange(1, 9))] for _ in range(12)]
        texts.append(texts[0])  # a repeated text
        grams = [tuple(text[i : i + n]) for text in texts for i in range(len(text) - n + 1)]
        size = size or len(grams)
        mine = number_of(distinct, texts, n, size, called="the share")
        want, counts = expected_distinct(texts, n, size), Counter(grams).values()
        joined = [word for text in texts for word in text]
        across = [joined[i : i + n] for i in range(len(joined) - n + 1)]
        per_text = [text for text in texts if len(text) >= n]
        slips = {
            "that is the share among all n-grams, which falls as samples are added; take `size` of them": len(counts)
            / len(grams),
            "that is the number of different n-grams; divide by `size`": want * size,
            "that draws the n-grams with replacement: C(N - c, size) / C(N, size) is the chance to miss all c copies":
            sum(1 - (1 - c / len(grams)) ** size for c in counts) / size,
            "all different n-grams over `size`: not all of them are among those that are drawn": len(counts) / size,
            "that averages over texts, so a generator that repeats one text passes. Pool first":
            sum(len(set(pairwise(text) if n == 2 else text)) / max(1, len(text) - n + 1) for text in per_text)
            / len(per_text),
        }  # fmt: skip
        if n > 1 and len(across) >= size:
            slips["some of those n-grams reach from the end of one text into the next"] = expected_distinct(
                [joined], n, size
            )
        for why, slip in slips.items():
            if math.isclose(mine, slip, rel_tol=1e-6) and not math.isclose(slip, want, rel_tol=1e-6):
                raise Wrong(f"{why}.")
        if not math.isclose(mine, want, rel_tol=1e-6):
            raise Wrong(f"for {texts[:3]} ..., n = {n} and size = {size} it should be {want:.4f}, yours is {mine:.4f}.")
    return "Pooled, within texts, and at one size: now two sets of samples can be compared."


def most_liked(stories: Tensor, nats: Callable[[Tensor], Tensor], n: int) -> Tensor:
    """The n of (N, L) stories that a judge finds most probable, best of N."""
    return stories[nats(stories).argsort()[:n]]


@exercise
def check_fool(fool: Callable[..., Any]) -> str:
    """fool(stories, nats, n) -> (n, L) different valid stories that a judge likes better than true ones."""
    tales, n = load_language("tales"), 16
    stories = tales.sample(128, Generator().manual_seed(11))
    mine = tensor_of(fool, stories, lambda ids: -tales.log_prob(ids), n, shape=(n, tales.length), called="the stories")
    if ((mine != mine.round()) | (mine < 0) | (mine >= tales.vocab_size)).any():
        raise Wrong(f"the stories hold ids, whole numbers from 0 to {tales.vocab_size - 1}; yours hold others.")
    mine = mine.long()
    log_p, different = tales.log_prob(mine), len(mine.unique(dim=0))
    if not log_p.isfinite().all():
        raise Wrong(f"only {int(log_p.isfinite().sum())} of {n} are stories of the language: *valid* would notice.")
    if different < n:
        raise Wrong(f"only {different} of {n} are different: distinct-n would notice.")
    better = float(log_p.mean() - tales.log_prob(stories).mean())
    if better < -2:
        raise Wrong(f"the judge likes yours less than true stories, by {-better:.1f} nats. Its nats are costs.")
    if better < 2:
        raise Wrong(f"the judge likes yours better than true stories by {better:.1f} nats only; 2 are in reach.")
    return f"{better:.1f} nats better than the truth, all valid, all different. What would notice?"
