"""Exercises of notebook 08_infilling_guidance."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Generator, Tensor

from diffkit.course.exercises.checks import Wrong, counterexample, exercise, not_these, tensor_of
from diffkit.languages.story_language import load_language


@exercise
def check_filling(log_p_filling: Callable[[Tensor, Tensor], Any]) -> str:
    """log_p_filling(canvas, filled) -> exact log p(missing | given) of each filling, (n, L) and (n, L) to (n,)."""
    tales, rng = load_language("tales"), Generator().manual_seed(3)
    filled = tales.sample(5, rng)
    canvas = torch.where(torch.rand(filled.shape, generator=rng) < 0.4, tales.mask_id, filled)
    mine = tensor_of(log_p_filling, canvas, filled, shape=(5,), called="the log-probabilities").double()
    given, whole = tales.log_prob(canvas), tales.log_prob(filled)
    slips = {
        "that is the log-probability of the whole text; subtract that of what was given": whole,
        "the sign is wrong: a probability of at most 1 has a logarithm of at most 0": given - whole,
        "that is the log-probability of what was given; what is asked is the rest": given,
        "a ratio of probabilities is a difference of logarithms": whole / given,
        "those are probabilities; return their logarithm": (whole - given).exp(),
    }
    not_these(mine, slips)
    counterexample(mine, whole - given, tales.decode(canvas), "log p(missing | given)")
    return "p(missing | given) = p(all) / p(given), and the language knows both."


@exercise
def check_guided(guided: Callable[[Tensor, Tensor, float], Any]) -> str:
    """guided(conditional, unconditional, w) -> guided probabilities (V,), from the log-probabilities (V,) of both."""
    for seed, w in ((1, 1.0), (2, 0.5), (3, 3.0), (4, 0.0)):
        rng = Generator().manual_seed(seed)
        with_label, without = (torch.randn(6, generator=rng, dtype=torch.float64).log_softmax(0) for _ in range(2))
        mine = tensor_of(guided, with_label, without, w, shape=(6,), called="the guided distribution").double()
        push = (1 + w) * with_label - w * without
        slips = {
            "w multiplies the wrong prediction: that pushes away from the label": (1 + w) * without - w * with_label,
            "that mixes the two predictions; guidance extrapolates beyond the conditional one": with_label
            + w * without,
            "that counts from one: at w = 0 the label would be ignored. Here w = 0 follows the label as it was "
            "learned": w * with_label + (1 - w) * without,
        }
        slips = {why: slip.softmax(0) for why, slip in slips.items()}
        slips["the powers are right, but they do not add up to 1; normalise again"] = push.exp()
        slips["those are logits; return probabilities"] = push
        want = push.softmax(0)
        not_these(mine, {why: slip for why, slip in slips.items() if not torch.allclose(slip, want, atol=1e-5)})
        if (mine - want).abs().max() > 1e-5:
            i = int((mine - want).abs().argmax())
            raise Wrong(f"at w = {w} word {i} should have probability {want[i]:.4f}, yours has {mine[i]:.4f}.")
    return "Conditional to the power 1 + w, over unconditional to the power w, normalised again."


@exercise
def check_bayes(posterior: Callable[[Tensor, Tensor], Any]) -> str:
    """posterior(prior, likelihood) -> p(word | text, label), from p(word | text) and p(label | text, word), (V,)."""
    for seed in (1, 2, 3):
        rng = Generator().manual_seed(seed)
        prior, likelihood = torch.rand(5, generator=rng).double().softmax(0), torch.rand(5, generator=rng).double()
        likelihood[seed] = 0
        mine = tensor_of(posterior, prior, likelihood, shape=(5,), called="the posterior").double()
        want = prior * likelihood / (prior * likelihood).sum()
        slips = {
            "the product is right; divide by its sum, which is p(label | text)": prior * likelihood,
            "prior and likelihood are multiplied, not added": (prior + likelihood) / (prior + likelihood).sum(),
            "p(word | text) is missing: that is the likelihood alone": likelihood / likelihood.sum(),
            "a softmax of probabilities; multiply and normalise": (prior * likelihood).softmax(0),
        }
        not_these(mine, slips)
        if (mine - want).abs().max() > 1e-5:
            i = int((mine - want).abs().argmax())
            raise Wrong(
                f"word {i} with prior {prior[i]:.3f} and likelihood {likelihood[i]:.3f} should get {want[i]:.4f}, "
                f"yours gets {mine[i]:.4f}."
            )
    return "Bayes' rule; a word that excludes the label gets nothing."
