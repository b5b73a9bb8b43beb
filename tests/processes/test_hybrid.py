"""Hybrid noise: its two ends, its bound and steps by enumeration, and the two predictions of a token."""

import math

import pytest
import torch
import toys
from brute_force import DUO, score_bounds, states_of, texts_of
from toys import ENTROPY, MASK, MICRO, SUBSETS, TEXTS, L, V, generator, likeness, micro_counts, table_denoiser

from diffkit.evaluation.bounds import sequence_bounds
from diffkit.processes.d3pm import D3PM
from diffkit.processes.hybrid import HybridDiffusion, to_leave_one_out, to_posterior
from diffkit.processes.sedd import SAMPLERS, UDLM, tweedie
from diffkit.sampling.sampler import infill, sample

SHARES = [0.0, 0.1, 0.5, 1.0]
each_share = pytest.mark.parametrize("share", SHARES)
TWO, CHANCE = texts_of(DUO)
EVERY = states_of(DUO, with_mask=True)


def duo(share, **settings):
    return HybridDiffusion(DUO.vocab_size, DUO.mask_id, share, **settings)


def matrix(share, alpha, V=DUO.vocab_size, mask=DUO.mask_id):
    """Keep with probability alpha, or redraw: entry by entry, (V, V)."""
    noise = [(1 - share) if v == mask else share / (V - 1) for v in range(V)]
    return torch.tensor(
        [[alpha * (a == b) + (1 - alpha) * noise[b] for b in range(V)] for a in range(V)], dtype=torch.float64
    )


# -------------------------------------------------------------------------------------------------------- the two ends


@pytest.mark.parametrize(("share", "noise"), [(0.0, "absorbing"), (1.0, "uniform")])
@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_the_ends_are_udlm_bit_for_bit(share, noise, schedule):
    """Draws, losses and steps of the same generator."""
    ours, theirs = HybridDiffusion(V, MASK, share, schedule), UDLM(V, MASK, noise, schedule)
    t = torch.full((16,), 400.0, dtype=torch.float64)
    u, denoise = torch.rand(16, generator=generator()), table_denoiser(2)
    runs = []
    for process in (ours, theirs):
        zt, _ = process.corrupt(TEXTS, t, generator(1))
        terms = process.loss(denoise, TEXTS, t, generator(3))
        step = process.step(denoise, zt, t, t - 200, generator(4))
        runs.append(
            [zt, *terms, process.bound(denoise, TEXTS, u, generator(3)), *step, process.prior(50, L, generator(5))]
        )
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_without_words_it_is_masked_diffusion_to_rounding(schedule):
    """The loss of every pattern of masks, and P(MASK at s), P(word at s) of a masked token."""
    ours, theirs = HybridDiffusion(V, MASK, 0.0, schedule), toys.masked_diffusion(schedule, weight="continuous")
    zt, x0 = torch.where(SUBSETS, MASK, TEXTS[6]), TEXTS[6].expand(32, L)
    raw, t = table_denoiser(5)(zt, None), torch.full((32,), 333.0, dtype=torch.float64)
    nats = theirs.token_loss(lambda zt, t: raw.clone(), x0, zt, t)
    weight = theirs.schedule.dgamma(333.0) / theirs.schedule.gamma(333.0)
    torch.testing.assert_close(ours.score_entropy(raw, x0, zt, t), weight * nats, atol=1e-12, rtol=1e-9)
    law = tweedie(ours, raw, zt, t, t - 200)
    law, stays = law / law.sum(-1, keepdim=True), theirs.stay_masked(333.0, 133.0)
    want = (1 - stays) * theirs.token_probs(raw, zt, t)
    want[..., MASK] = stays
    torch.testing.assert_close(law[SUBSETS], want[SUBSETS], atol=1e-12, rtol=0)


# ------------------------------------------------------------------------------------------- the process by enumeration


@each_share
def test_noise_is_the_matrix_written_out(share):
    """Q(0, t) and Q(s, t), entry by entry; shares of drawn tokens within 5 standard errors, 6e-7 each."""
    process, eye = duo(share), torch.eye(DUO.vocab_size, dtype=torch.float64)[None]
    for s, t in ((0.0, 300.0), (300.0, 750.0)):
        alpha = (1 - t / 1000) / (1 - s / 1000)
        found = process.transitions.marginal(eye, s, t)[0]
        torch.testing.assert_close(found, matrix(share, alpha), atol=1e-15, rtol=0)
        torch.testing.assert_close(
            process.transitions.likelihood(eye, s, t)[0], matrix(share, alpha).T, atol=1e-15, rtol=0
        )
    n, x = 20_000, TWO[0, 0]
    for zt in (
        process.corrupt(torch.full((n, 1), x), 600.0, generator(1))[0],
        process.add_noise(process.corrupt(torch.full((n, 1), x), 200.0, generator(2))[0], 200.0, 600.0, generator(3)),
    ):
        found = torch.bincount(zt.flatten(), minlength=DUO.vocab_size) / n
        want = matrix(share, 0.4)[x]
        assert ((found - want).abs() <= 5.2 * (want * (1 - want) / n).sqrt()).all()


def generalised_bound(share, f, x0, zt, alpha):
    """The integrand as GIDD writes it, times -alpha / alpha' : rate(z) / a(z) (KL(a || m) + a/m - log a/m - 1)."""
    kernel = matrix(share, alpha)
    a, m = kernel[x0], f @ kernel  # (n, L, V)
    here = zt[..., None]
    limit = matrix(share, 0.0)[0]
    x = (a.gather(-1, here) / m.gather(-1, here))[..., 0]
    kl = torch.where(a > 0, a * (a.log() - m.log()), 0.0).sum(-1)
    return limit[zt] / a.gather(-1, here)[..., 0] * (kl + x - x.log() - 1)


@each_share
def test_the_loss_is_the_generalised_bound(share):
    """For every state that a text can become, three texts and two times, with any denoiser."""
    process, denoise = duo(share), table_denoiser_of(DUO)
    for x0, alpha in ((TWO[0], 0.7), (TWO[1], 0.7), (TWO[2], 0.05)):
        t = torch.full((len(EVERY),), 1000 * (1 - alpha), dtype=torch.float64)
        raw = denoise(EVERY, t)
        f = raw.index_fill(-1, torch.tensor([DUO.mask_id]), -torch.inf).softmax(-1)
        found = process.score_entropy(raw, x0.expand_as(EVERY), EVERY, t) * 1000 * alpha
        reached = (matrix(share, alpha)[x0, EVERY] > 0).all(1)
        want = generalised_bound(share, f, x0.expand_as(EVERY), EVERY, alpha)
        torch.testing.assert_close(found[reached], want[reached], atol=1e-10, rtol=1e-9)


def table_denoiser_of(language, seed=0):
    """A denoiser with its own fixed random logits for each state of a small language."""
    table = torch.randn(language.vocab_size**language.length, language.length, language.vocab_size,
                        dtype=torch.float64, generator=generator(seed))  # fmt: skip
    powers = language.vocab_size ** torch.arange(language.length)
    return lambda zt, t: table[zt @ powers]


@each_share
def test_the_exact_denoiser_reaches_the_probability_of_every_text(share):
    """Quadrature over noise levels, sums over all states."""
    bounds = score_bounds(
        duo(share), DUO.denoiser(duo(share)), TWO, EVERY if share < 1 else EVERY[(EVERY != DUO.mask_id).all(1)]
    )
    torch.testing.assert_close(bounds, -CHANCE.log(), atol=5e-4, rtol=0)


def test_the_bound_of_draws_is_the_entropy():
    """On micro, within 5 standard errors: 6e-7."""
    process, x0 = HybridDiffusion(V, MASK, 0.1), MICRO.sample(300, generator(2))
    excess = sequence_bounds(process, MICRO.denoiser(process), x0, rng=generator()) + MICRO.log_prob(x0)
    assert abs(excess.mean().item()) < 5 * excess.std().item() / math.sqrt(300) and ENTROPY > 2


@each_share
@pytest.mark.parametrize("sampler", ["tweedie", "euler"])
def test_the_reverse_step_is_bayes(share, sampler):
    """Of one token: with the exact prediction p(z_s | z_t) is that of the language; the short Euler step nearly is."""
    process = duo(share, sampler=sampler)
    t, s = (700.0, 300.0) if sampler == "tweedie" else (700.0, 699.0)
    times = [torch.full((DUO.vocab_size,), x, dtype=torch.float64) for x in (t, s)]
    prior = torch.rand(DUO.vocab_size, dtype=torch.float64, generator=generator()) * (
        torch.arange(DUO.vocab_size) != DUO.mask_id
    )
    prior = prior / prior.sum()
    zt = torch.arange(DUO.vocab_size)[:, None]
    law = SAMPLERS[sampler](process, prior.log().expand(len(zt), 1, -1), zt, *times)[:, 0]
    law = law / law.sum(-1, keepdim=True)
    at_s = prior @ matrix(share, 1 - s / 1000)  # p(z_s)
    joint = at_s[None] * matrix(share, (1 - t / 1000) / (1 - s / 1000)).T  # [z_t, z_s]
    seen = joint.sum(1) > 0
    want = joint / joint.sum(1, keepdim=True)
    torch.testing.assert_close(law[seen], want[seen], atol=1e-12 if sampler == "tweedie" else 5e-5, rtol=0)


def test_samples_of_the_exact_denoiser_are_the_language():
    """2,000 texts of micro in 64 steps: chi-square over its 16 texts, p above 1e-7."""
    process, n = HybridDiffusion(V, MASK, 0.1), 2000
    counts = micro_counts(sample(process, MICRO.denoiser(process), shape=(n, L), steps=64, rng=generator(1)))
    assert counts[-1] < 0.02 * n and likeness(counts) > 1e-7


# ---------------------------------------------------------------------------------- the two predictions of a token

NOISES = {"uniform": D3PM(V, MASK, "uniform"), "hybrid": HybridDiffusion(V, MASK, 0.2, "cosine"), "udlm": UDLM(V, MASK)}


@pytest.mark.parametrize("name", NOISES)
@pytest.mark.parametrize("time", [1.0, 400.0, 999.0, 1000.0])
def test_predictions_are_converted_in_closed_form(name, time):
    """Against the posterior of micro, its evidence divided out position by position; and back."""
    process, t = NOISES[name], torch.full((16,), time, dtype=torch.float64)
    zt, _ = process.corrupt(TEXTS, t, generator(1))
    evidence = process.log_likelihood(zt, t)
    log_f, words = MICRO.posterior(evidence)[1].log(), torch.arange(V) != MASK
    without = [evidence.index_fill(1, torch.tensor([i]), 0.0) for i in range(L)]
    want = torch.stack([MICRO.posterior(each)[1][:, i] for i, each in enumerate(without)], 1)
    log_r = to_leave_one_out(process, log_f, zt, t)
    torch.testing.assert_close(log_r.exp()[..., words], want[..., words], atol=1e-9, rtol=0)
    assert (log_r[..., MASK] == -torch.inf).all()
    torch.testing.assert_close(to_posterior(process, log_r, zt, t).exp(), log_f.exp(), atol=1e-9, rtol=0)


def test_at_mask_both_predictions_are_one():
    process, t = HybridDiffusion(V, MASK, 0.3), 500.0
    zt = torch.full((1, L), MASK)
    log_f = torch.randn(1, L, V, generator=generator()).double().index_fill(-1, torch.tensor([MASK]), -torch.inf)
    torch.testing.assert_close(to_leave_one_out(process, log_f, zt, t), log_f.log_softmax(-1), atol=1e-12, rtol=0)


# ------------------------------------------------------------------------------------------------ a process like others


def test_mistakes_are_named():
    for share in (-0.1, 1.5, math.nan):
        with pytest.raises(ValueError, match=rf"HybridDiffusion: share.*got {share}"):
            HybridDiffusion(V, MASK, share)
    start = TEXTS.masked_fill(torch.arange(L) > 1, MASK)
    with pytest.raises(ValueError, match="Infilling needs share=0"):
        infill(HybridDiffusion(V, MASK), table_denoiser(), start, steps=3, rng=generator())
    with pytest.raises(ValueError, match="uniform noise never makes"):
        infill(HybridDiffusion(V, MASK, 1.0), table_denoiser(), start, steps=3, rng=generator())
    filled = infill(HybridDiffusion(V, MASK, 0.0), table_denoiser(), start, steps=3, rng=generator())
    assert torch.equal(filled[:, :2], TEXTS[:, :2]) and (filled != MASK).all()
