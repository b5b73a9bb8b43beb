"""Infilling: what is given stays, the conditional bound is exact on average, fillings are judged by enumeration."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from toys import MASK, MICRO, TALES, L, V, generator

from diffkit.course.infilling import conditional_bounds, conditional_gap, judge_fillings
from diffkit.data.tokenizer import canvas_from_text
from diffkit.evaluation.statistics import mean_of
from diffkit.processes.autoregressive import Autoregressive
from diffkit.processes.masked import MaskedDiffusion
from diffkit.sampling.sampler import infill
from diffkit.sampling.unmasking import UNMASKING_ORDERS

PROCESS = MaskedDiffusion(V, MASK, "linear")


def noise_denoiser(zt, t):
    """Beliefs that depend on nothing, different at every place."""
    return torch.randn(L, V, generator=generator(5)).expand(len(zt), L, V)


@given(
    st.integers(0, 10_000),
    st.sampled_from(["ancestral", *UNMASKING_ORDERS]),
    st.integers(1, L),
    st.sampled_from([0.0, 0.7, 1.0]),
)
def test_what_is_given_is_never_changed(seed, order, steps, temperature):
    rng = generator(seed)
    canvas = MICRO.sample(4, rng)
    hidden = torch.rand(canvas.shape, generator=rng) < 0.6
    start = torch.where(hidden, MASK, canvas)
    how = {"order": order, "temperature": temperature}
    filled = infill(PROCESS, noise_denoiser, start, steps=steps, rng=rng, **how)
    assert torch.equal(filled[~hidden], canvas[~hidden])
    assert not (filled == MASK).any()


@given(st.integers(0, 10_000))
def test_the_twin_keeps_what_is_given_too(seed):
    rng, process = generator(seed), Autoregressive(V, MASK)
    canvas = MICRO.sample(3, rng)
    hidden = torch.rand(canvas.shape, generator=rng) < 0.5
    filled = infill(process, noise_denoiser, torch.where(hidden, MASK, canvas), steps=3, rng=rng)
    assert torch.equal(filled[~hidden], canvas[~hidden]) and not (filled == MASK).any()


def test_exact_filling_follows_the_exact_conditional():
    """One token a step with the exact denoiser: frequencies of whole fillings against p(missing | given), chi-square.

    20,000 fillings; with at most 15 degrees of freedom a value over 75 has a chance below 1e-8.
    """
    start = MICRO.sample(1, generator(2)).clone()
    start[0, [0, 2, 3]] = MASK
    stories = MICRO.sample(2000, generator(1)).unique(dim=0)
    fits = (stories == start)[:, start[0] != MASK].all(1)
    probs = (MICRO.log_prob(stories[fits]) - MICRO.log_prob(start)).exp()
    assert probs.sum() == pytest.approx(1, abs=1e-9) and len(probs) > 1
    filled = infill(
        PROCESS, MICRO.denoiser(PROCESS), start.expand(20_000, -1), steps=3, order="random", rng=generator(3)
    )
    counts = torch.stack([(filled == story).all(1).sum() for story in stories[fits]]).double()
    assert counts.sum() == 20_000
    assert ((counts - 20_000 * probs) ** 2 / (20_000 * probs)).sum() < 75


def test_the_conditional_bound_of_the_exact_denoiser_is_exact_on_average():
    """Every story of tales here, a third of it missing; paired per text, six standard errors: a chance of 2e-9."""
    process = MaskedDiffusion(TALES.vocab_size, TALES.mask_id, "linear")
    x0 = TALES.sample(96, generator(1))
    missing = torch.rand(x0.shape, generator=generator(2)) < 1 / 3
    exact = TALES.log_prob(torch.where(missing, TALES.mask_id, x0)) - TALES.log_prob(x0)
    bounds = conditional_bounds(process, TALES.denoiser(process), x0, missing, rng=generator(3), draws=8)
    off = mean_of(bounds - exact)
    assert abs(off.mean) < 6 * off.standard_error and off.standard_error < 0.3
    gap = conditional_gap(process, TALES.denoiser(process), TALES, x0[:8], missing[:8], rng=generator(4))
    assert gap.mean == 0


def test_a_single_missing_token_has_its_cross_entropy():
    x0 = MICRO.sample(5, generator())
    missing = torch.zeros_like(x0, dtype=torch.bool)
    missing[:, 1] = True
    got = conditional_bounds(PROCESS, noise_denoiser, x0, missing, rng=generator(), draws=1)
    logits = noise_denoiser(x0, None).double()[:, 1].index_fill(-1, torch.tensor([MASK]), -torch.inf)
    assert torch.allclose(got, -logits.log_softmax(-1).gather(1, x0[:, 1:2])[:, 0], atol=1e-6)


def test_fillings_are_judged_against_the_exact_conditional():
    original = TALES.sample(6, generator(4))
    canvas = original.clone()
    canvas[:, 3:9] = TALES.mask_id
    judged = judge_fillings(TALES, canvas, original, original)
    assert judged.kept and judged.valid == 1 and judged.accuracy == 1 and 0 < judged.best_accuracy < 1
    assert judged.log_p == pytest.approx((TALES.log_prob(original) - TALES.log_prob(canvas)).mean().item())
    changed = original.clone()
    changed[0, 0] = TALES.pad_id  # a given token
    worse = judge_fillings(TALES, canvas, changed, original)
    assert not worse.kept and worse.valid == pytest.approx(5 / 6)
    assert judge_fillings(TALES, canvas, canvas, original).log_p == -math.inf, "a canvas with masks is not filled"


def test_the_best_guess_is_right_as_often_as_it_says():
    """Accuracy of the most likely token over 2,000 stories against its mean probability: six standard errors, 2e-9."""
    original = TALES.sample(500, generator(5))
    canvas = original.clone()
    canvas[:, 5] = TALES.mask_id
    _, probs = TALES.posterior(TALES.seen(canvas))
    judged = judge_fillings(TALES, canvas, torch.where(canvas == TALES.mask_id, probs.argmax(-1), canvas), original)
    assert abs(judged.accuracy - judged.best_accuracy) < 6 * math.sqrt(0.25 / 500)


@pytest.mark.parametrize(
    "text, blanks", [("One ___ day", 1), ("One ___{3} day", 3), ("___{2} One ____ day ___", 4), ("___{12}", 12)]
)
def test_blanks_of_one_and_of_several_tokens(text, blanks):
    canvas = canvas_from_text(text, TALES.tokenizer, TALES.length, complete=True)
    assert int((canvas == TALES.mask_id).sum()) == blanks
    assert canvas[0, -1] == TALES.pad_id
