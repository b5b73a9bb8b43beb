"""UDLM: SEDD's bound with scores made from beliefs, against its closed form, D3PM, SEDD and masked diffusion."""

import math

import pytest
import torch
import toys
from brute_force import DUO, score_bounds, states_of, texts_of, told
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import MASK, MICRO, SUBSETS, TALES, TEXTS, L, V, generator, likeness, random_texts, table_denoiser

from diffkit.evaluation.bounds import sequence_bounds
from diffkit.processes.d3pm import D3PM
from diffkit.processes.schedules import get_schedule
from diffkit.processes.sedd import SEDD, UDLM
from diffkit.sampling.sampler import sample

WORDS = [v for v in range(V) if v != MASK]
TWO, CHANCE = texts_of(DUO)
DUO_ENTROPY = torch.special.entr(CHANCE).sum().item()


@settings(max_examples=15)
@given(time=st.floats(1, 999), seed=st.integers(0, 30))
def test_the_integrand_is_the_papers_closed_form(time, seed):
    """alpha' / (K alpha) [K / x_z - K / f_z - sum_j x_j / x_z log(f_z x_j / (f_j x_z))]."""
    process, zt, K = UDLM(V, MASK), random_texts(16, seed), V - 1
    t = torch.full((16,), time, dtype=torch.float64)
    raw = table_denoiser(seed)(zt, t)
    alpha = 1 - time / 1000
    clean = process.one_hot(TEXTS)[..., WORDS]
    belief = raw[..., WORDS].softmax(-1)
    x, f = (K * alpha * p + 1 - alpha for p in (clean, belief))
    here = torch.tensor([WORDS.index(v) for v in zt.flatten().tolist()]).reshape(zt.shape)[..., None]
    x_z, f_z = x.gather(-1, here), f.gather(-1, here)
    last = (x / x_z * (f_z * x / (f * x_z)).log()).sum(-1)
    want = -1e-3 / (K * alpha) * (K / x_z[..., 0] - K / f_z[..., 0] - last)  # alpha' = -1 / T
    torch.testing.assert_close(process.score_entropy(raw, TEXTS, zt, t), want, atol=1e-9, rtol=1e-7)


def test_it_is_the_limit_of_d3pm_for_many_steps():
    """T times the divergence of one step, joint form: the difference halves as steps double."""
    zt, far = random_texts(16), []
    raw = table_denoiser(3)(zt, None)
    process = UDLM(V, MASK)
    want = process.T * process.score_entropy(raw, TEXTS, zt, torch.full((16,), 400.0, dtype=torch.float64))
    for T in (1000, 2000, 4000):
        chain = D3PM(V, MASK, "uniform", get_schedule("linear", T))
        found = chain.terms(raw, TEXTS, zt, torch.full((16,), 0.4 * T)).diffusion
        far.append((found - want).abs().max().item())
    assert 1.8 < far[0] / far[1] < 2.2 and 1.8 < far[1] / far[2] < 2.2 and far[2] < 0.01 * want.max()


@pytest.mark.parametrize("schedule", ["linear", "cosine", "geometric"])
def test_with_absorbing_noise_it_is_masked_diffusion(schedule):
    """Token by token, and for any logits: no normaliser is to be learned, unlike SEDD's."""
    process, theirs = UDLM(V, MASK, "absorbing", schedule), toys.masked_diffusion(schedule, weight="continuous")
    zt, x0 = torch.where(SUBSETS, MASK, TEXTS[6]), TEXTS[6].expand(32, L)
    raw = table_denoiser(5)(zt, None)
    for time in (1.0, 333.0, 999.0):
        t = torch.full((32,), time, dtype=torch.float64)
        told(theirs, zt)
        want = theirs.loss(lambda zt, t: raw.clone(), x0, t, generator()).diffusion
        found = process.T * process.score_entropy(raw + 0.7, x0, zt, t)
        torch.testing.assert_close(found, want.double(), atol=1e-9, rtol=1e-6)


def test_the_exact_belief_gives_the_exact_score():
    """Where both are defined, UDLM's score of the exact answer is SEDD's."""
    ours, theirs = UDLM(V, MASK), SEDD(V, MASK, "uniform", "linear")
    zt, t = random_texts(40), torch.full((40,), 300.0, dtype=torch.float64)
    found, want = (p.log_score(MICRO.denoiser(p)(zt, t), zt, t).exp()[..., WORDS] for p in (ours, theirs))
    torch.testing.assert_close(found, want, atol=1e-9, rtol=1e-6)


def test_the_bound_of_the_exact_belief_is_the_entropy():
    """Quadrature over noise levels, sums over all states and texts of DUO; and micro and tales by draws.

    The draws: within 5 standard errors, chance 6e-7 each.
    """
    process = UDLM(DUO.vocab_size, DUO.mask_id)
    bounds = score_bounds(process, DUO.denoiser(process), TWO, states_of(DUO, with_mask=False))
    assert abs((bounds @ CHANCE).item() - DUO_ENTROPY) < 2e-4
    for language, n in ((MICRO, 300), (TALES, 48)):
        process = UDLM(language.vocab_size, language.mask_id)
        x0 = language.sample(n, generator(2))
        bounds = sequence_bounds(process, language.denoiser(process), x0, rng=generator())
        found = bounds + language.log_prob(x0)
        assert abs(found.mean().item()) < 5 * found.std().item() / math.sqrt(n)


def test_samples_of_the_exact_belief_are_the_language():
    """1,500 texts of micro in 128 steps: chi-square over its 16 texts and the rest, p above 1e-7."""
    process, n = UDLM(V, MASK), 1500
    counts = toys.micro_counts(sample(process, MICRO.denoiser(process), shape=(n, L), steps=128, rng=generator(1)))
    assert counts[-1] < 0.03 * n and likeness(counts) > 1e-7  # 128 steps still let a few odd words through


def test_mistakes_are_named():
    with pytest.raises(ValueError, match=r"UDLM: noise must be one of \['absorbing', 'uniform'\], got 'gaussian'"):
        UDLM(V, MASK, "gaussian")
