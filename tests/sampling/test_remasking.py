"""Remasking: plain at r = 0, legal rates, kept marginals, frozen prompts."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from toys import MASK, TEXTS, L, V, generator, masked_diffusion, table_denoiser, uniform_denoiser

from diffkit.course.network_calls import CallCounter
from diffkit.sampling.remasking import (
    Remasking,
    RemaskState,
    cap,
    conf,
    forward_backward,
    loop,
    loop_times,
    remasking,
    rescale,
    stay_masked,
)
from diffkit.sampling.sampler import denoise_frames, last_frame, sample
from diffkit.sampling.skipping import even_times

PROCESS = masked_diffusion("cosine")
TABLE = table_denoiser(seed=5)
RATES = {
    "cap": cap(0.3),
    "rescale": rescale(0.4),
    "conf": conf(0.8),
    "loop": loop(0.3),
    "back and forth": forward_backward(),
}
TIMES = {name: even_times(1000, 12) for name in RATES} | {"loop": loop_times(1000, 16, 500, 6)}
each_rate = pytest.mark.parametrize("name", RATES)


@pytest.mark.parametrize("rate", [cap(0.0), rescale(0.0), conf(0.0), loop(0.5), lambda now: 0.0])
@pytest.mark.parametrize("steps", [1, 5, 100])
def test_without_remasking_it_is_plain_sampling_to_the_bit(rate, steps):
    """Same random stream, same ids at every step. `loop` takes nothing back where time always moves."""
    plain = denoise_frames(PROCESS, TABLE, shape=(32, L), steps=steps, rng=generator(1))
    mine = denoise_frames(Remasking(PROCESS, even_times(1000, steps), rate), TABLE, shape=(32, L), rng=generator(1))
    assert all(torch.equal(a.tokens, b.tokens) for a, b in zip(plain, mine, strict=True))


@given(
    gamma_t=st.floats(1e-3, 1), share=st.floats(0, 1), eta=st.floats(0, 1), seed=st.integers(0, 10**6),
    name=st.sampled_from(sorted(RATES)),
)  # fmt: skip
def test_rates_are_legal_and_keep_the_marginal(gamma_t, share, eta, seed, name):
    """0 <= r <= r_max and a chance to stay masked in [0, 1]; before and after the step gamma is the schedule's."""
    gamma_s = gamma_t * share
    rate = {"cap": cap, "rescale": rescale, "conf": conf, "loop": loop}.get(name)
    rate = rate(eta) if rate else forward_backward()
    rng = generator(seed)
    now = RemaskState(
        1 - gamma_t, 1 - gamma_s, torch.rand(2, L, generator=rng) < 0.5, torch.rand(2, L, generator=rng).double()
    )
    r = torch.as_tensor(rate(now), dtype=torch.float64)
    most = min(1.0, gamma_s / (1 - gamma_t)) if gamma_t < 1 else 1.0
    assert now.r_max == pytest.approx(most) and (r >= 0).all() and (r <= most + 1e-12).all()
    stay = stay_masked(gamma_t, gamma_s, r)
    assert (stay >= -1e-9).all() and (stay <= 1 + 1e-9).all()
    torch.testing.assert_close((1 - gamma_t) * r + gamma_t * stay, torch.full_like(stay, gamma_s), atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", [name for name in RATES if name != "conf"])
def test_the_sampler_keeps_the_share_of_masks(name):
    """20,000 tokens, each a chain of its own under a fixed r: masks are binomial, with the schedule's gamma.

    Two-sided binomial tests, none below 1e-8: fails by chance less than once in a million seeds.
    """
    seen = []
    frames = denoise_frames(
        Remasking(PROCESS, TIMES[name], RATES[name]), uniform_denoiser, shape=(4000, L), rng=generator(2)
    )
    for frame, t in zip(frames, TIMES[name], strict=True):
        hidden, gamma = int((frame.tokens == MASK).sum()), float(PROCESS.schedule.gamma(t))
        assert stats.binomtest(hidden, 4000 * L, gamma).pvalue > 1e-8
        seen.append(frame.tokens)
    taken_back = [((a != MASK) & (b == MASK)).sum().item() for a, b in zip(seen[:-1], seen[1:], strict=True)]
    assert sum(taken_back) > 500 and taken_back[-1] == 0


def test_tokens_are_taken_back_at_the_rate_that_was_asked_for():
    """One step in the middle, r = 0.25: 10,000 visible tokens, two-sided binomial test at 1e-8."""
    times = torch.tensor([1000.0, 500.0, 400.0, 0.0])
    frames = list(
        denoise_frames(Remasking(PROCESS, times, cap(0.25)), uniform_denoiser, shape=(7000, L), rng=generator(3))
    )
    before, after = frames[1].tokens, frames[2].tokens
    visible = before != MASK
    back = int((after[visible] == MASK).sum())
    assert stats.binomtest(back, int(visible.sum()), 0.25).pvalue > 1e-8
    assert torch.equal(before[visible & (after != MASK)], after[visible & (after != MASK)])


def test_doubtful_takes_back_the_unlikely():
    own = torch.tensor([[True, True, False], [False, False, False]])
    now = RemaskState(0.5, 0.6, own, torch.tensor([[0.1, 0.9, 0.0], [0.0, 0.0, 0.0]]).double())
    r = conf(1.0)(now)
    weight = math.exp(-0.1) / (math.exp(-0.1) + math.exp(-0.9))
    want = torch.tensor([[weight, 1 - weight, 0.0], [0.0, 0.0, 0.0]]).double() * 0.8
    torch.testing.assert_close(r, want)


@each_rate
def test_given_tokens_are_never_taken_back_and_all_is_filled(name):
    """Whatever the rate: a prompt stands in every frame, also a complete one."""
    rng = generator(4)
    start = torch.where(torch.rand(16, L, generator=rng) < 0.6, MASK, TEXTS)
    start[0] = TEXTS[0]
    counted = CallCounter(TABLE)
    frames = list(denoise_frames(Remasking(PROCESS, TIMES[name], RATES[name]), counted, start=start, rng=generator(5)))
    for frame in frames:
        assert torch.equal(frame.tokens[start != MASK], start[start != MASK])
    assert (frames[-1].tokens != MASK).all()
    assert counted.heads > (start == MASK).sum()  # something was written more than once


@each_rate
def test_a_single_token_has_the_right_law_whatever_the_rate(name):
    """One place has no parallel error, so remasking must not move its law: chi-square, 8,000 draws, 1e-6."""
    logits = torch.randn(V, generator=generator(6), dtype=torch.float64)
    logits[MASK] = -torch.inf
    sampler = Remasking(PROCESS, TIMES[name], RATES[name])
    frames = denoise_frames(sampler, lambda zt, t: logits.expand(*zt.shape, V), shape=(8000, 1), rng=generator(7))
    counts = torch.bincount(last_frame(frames).tokens[:, 0], minlength=V)
    words = torch.arange(V) != MASK
    assert counts[MASK] == 0
    assert stats.chisquare(counts[words], 8000 * logits.softmax(0)[words]).pvalue > 1e-6


def test_looped_times_stand_still_as_often_as_asked():
    times = loop_times(1000, 20, 250, 5)
    assert len(times) == 21 and times[0] == 1000 and times[-1] == 0
    assert (times.diff() == 0).sum() == 5 and (times == 250).sum() == 6 and (times.diff() <= 0).all()


def test_illegal_settings_are_refused():
    with pytest.raises(ValueError, match="steps left before and after"):
        loop_times(1000, 10, 500, 10)
    for how in ({"rate": "luck"}, {"eta": 1.5}, {"steps": 0}, {"rate": "loop", "steps": 3}):
        with pytest.raises(ValueError, match="remasking: "):
            remasking(PROCESS, **{"steps": 8} | how)


@pytest.mark.parametrize("rate", ["cap", "rescale", "conf", "loop"])
def test_the_factory_is_the_class_with_the_named_rate(rate):
    times = loop_times(1000, 16, 500, 8) if rate == "loop" else even_times(1000, 16)
    rates = {"cap": cap, "rescale": rescale, "conf": conf, "loop": loop}
    drawn = [
        sample(sampler, TABLE, shape=(8, L), rng=generator())
        for sampler in (remasking(PROCESS, steps=16, rate=rate, eta=0.3), Remasking(PROCESS, times, rates[rate](0.3)))
    ]
    assert torch.equal(*drawn) and (drawn[0] != MASK).all()
