"""Steering points in space, against Bayes' rule and the exact conditional."""

import math

import pytest
import torch
from toys import LABELS, MASK, MICRO, PROBS, TEXTS, L, V, generator

from diffkit.course.embedding_guidance import ReplacementInfilling, exact_log_classifier, gradient_guided
from diffkit.processes.gaussian.diffusion_lm import DiffusionLM
from diffkit.processes.gaussian.plaid import Plaid
from diffkit.sampling.sampler import denoise_frames, last_frame, sample


def made(method):
    process = method(V, MASK)
    with torch.no_grad():
        process.words.copy_(2 * torch.randn(process.words.shape, generator=generator()))
    return process


@pytest.mark.parametrize("time", [50.0, 300.0, 800.0])
def test_a_push_of_strength_one_is_bayes_rule(time):
    """E[x | z, label] = E[x | z] + sigma^2 / alpha grad log p(label | z), exactly (Tweedie)."""
    process, t = made(DiffusionLM), torch.full((20,), time, dtype=torch.float64)
    zt = process.diffuse(MICRO.sample(20, generator(1)), t, generator(2)).detach()
    for label in MICRO.labels:
        found = gradient_guided(process, MICRO.denoiser(process), exact_log_classifier(MICRO, process, label), 1.0)(
            zt, t
        )
        torch.testing.assert_close(found, MICRO.denoiser(process, label)(zt, t), atol=1e-6, rtol=1e-6)


def test_pushed_texts_end_as_asked():
    process, label = made(DiffusionLM), MICRO.labels[-1]
    guided = gradient_guided(process, MICRO.denoiser(process), exact_log_classifier(MICRO, process, label), 1.0)
    drawn = sample(process, guided, shape=(300, L), steps=40, rng=generator(3))
    ends = {tuple(row): end for row, end in zip(TEXTS.tolist(), LABELS, strict=True)}
    found = [ends.get(tuple(row)) for row in drawn.tolist()]
    assert sum(end == label for end in found) > 0.9 * len(found)
    share = sum(p for p, end in zip(PROBS.tolist(), LABELS, strict=True) if end == label)
    assert share < 0.7  # it would not have come by itself


@pytest.mark.parametrize("method", [DiffusionLM, Plaid])
def test_known_words_stay_and_the_rest_fits(method):
    process, x0 = made(method), MICRO.sample(300, generator(4))
    start = torch.where(torch.arange(L) < 2, x0, MASK)
    frames = denoise_frames(
        ReplacementInfilling(process, start), MICRO.denoiser(process), shape=(300, L), steps=100, rng=generator(5)
    )
    filled = last_frame(frames).tokens
    assert torch.equal(filled[:, :2], x0[:, :2])
    assert (MICRO.log_prob(filled) > -math.inf).double().mean() > 0.9


def test_mistakes_are_named():
    process = made(Plaid)
    with pytest.raises(ValueError, match="it takes classifier_guided"):
        gradient_guided(process, MICRO.denoiser(process), exact_log_classifier(MICRO, process, MICRO.labels[0]), 1.0)
