"""D3PM against Bayes over matrices written out, sums over all states, and masked diffusion."""

import math

import brute_force
import pytest
import torch
from brute_force import DUO, prior_chances, t_step_bound, table_of, travel, true_reverse, written
from hypothesis import given
from hypothesis import strategies as st
from toys import MASK, MICRO, PROBS, SUBSETS, TALES, TEXTS, L, V, generator, masked_diffusion, table_denoiser

from diffkit.evaluation.bounds import gap_to_entropy, nelbo, sequence_bounds
from diffkit.processes.d3pm import D3PM, REVERSES
from diffkit.processes.schedules import get_schedule
from diffkit.sampling.sampler import denoise_frames, noising_frames, sample
from diffkit.training.losses import bound, hybrid

KINDS = ["absorbing", "gaussian", "uniform"]
each_kind = pytest.mark.parametrize("noise", KINDS)
each_reverse = pytest.mark.parametrize("reverse", sorted(REVERSES))
TWO, CHANCE = brute_force.texts_of(DUO)  # the 6 texts of DUO and their probabilities
DUO_ENTROPY = torch.special.entr(CHANCE).sum().item()


def chain(noise, T=3, language=DUO, schedule="linear", **settings):
    return D3PM(language.vocab_size, language.mask_id, noise, get_schedule(schedule, T), **settings)


def states(noise, language=DUO):
    return brute_force.states_of(language, with_mask=noise == "absorbing")


def way_back(process, denoise):
    """p(x_s | x_t) as the package makes it, for the brute-force sums: (states, t, s) -> (n, L, V)."""
    return lambda zt, t, s: process.reverse_probs(
        denoise(zt, torch.full((len(zt),), t)), zt, torch.full((len(zt),), t), torch.full((len(zt),), s)
    )


# ----------------------------------------------------------------------------------------------------------- posterior


@each_kind
def test_the_posterior_is_bayes_for_every_pair_of_times(noise):
    process = chain(noise, T=5, language=MICRO)
    clean = [v for v in range(V) if v != MASK]
    a, c = torch.meshgrid(torch.tensor(clean), torch.arange(V), indexing="ij")  # every clean and every later token
    for t in range(1, 6):
        for s in range(t):
            want = brute_force.bayes(process, s, t)[clean]
            found = process.posterior(process.one_hot(a), c, torch.tensor(t), torch.tensor(s))
            reached = travel(process, 0, t)[clean] > 0
            torch.testing.assert_close(found[reached], want[reached], atol=1e-12, rtol=0)
            assert (found.sum(-1)[reached] - 1).abs().max() < 1e-12


def test_the_uniform_posterior_has_a_closed_form():
    """arXiv:2412.10193, written out for K words; times need not be whole."""
    process, K = D3PM(V, MASK, "uniform", "cosine"), V - 1
    t, s = torch.tensor([700.5]), torch.tensor([333.3])
    at, before = 1 - process.schedule.gamma(t), 1 - process.schedule.gamma(s)
    x, z = process.one_hot(TEXTS[:1]), process.one_hot(TEXTS[5:6])
    ratio, words = at / before, (torch.arange(V) != MASK).double()
    want = K * at * x * z + (ratio - at) * z + (before - at) * x + (1 - ratio) * (1 - before) * words / K
    want = want / (K * at * (x * z).sum(-1, keepdim=True) + 1 - at)
    torch.testing.assert_close(process.posterior(x, TEXTS[5:6], t, s), want, atol=1e-14, rtol=0)


@each_kind
@given(s=st.integers(0, 8), d=st.integers(1, 6), seed=st.integers(0, 20))
def test_steps_back_keep_the_marginals(noise, s, d, seed):
    """Averaged over z_t ~ q(z_t | x_0), q(z_s | z_t, x_0) is q(z_s | x_0); rows sum to one."""
    process = chain(noise, T=15, language=MICRO, schedule="cosine")
    x0 = TEXTS[seed % 16].expand(V, L)
    zt = torch.arange(V)[:, None].expand(V, L)  # every token at every place
    t = torch.full((V,), s + d)
    back = process.posterior(process.one_hot(x0), zt, t, t - d)
    weight = process.transitions.marginal(process.one_hot(x0), 0, t)[0].T  # (V, L)
    found = (weight[..., None] * back).nan_to_num(0.0).sum(0)
    torch.testing.assert_close(found, process.transitions.marginal(process.one_hot(x0), 0, s)[0], atol=1e-12, rtol=0)


@each_kind
def test_corrupt_draws_the_marginal(noise):
    """100,000 rows, each of 40 shares within 6 standard errors: chance of failing under 1e-7 for a fresh seed."""
    process, n = chain(noise, T=10, language=MICRO), 100_000
    x0 = TEXTS[11].expand(n, L)
    zt, hit = process.corrupt(x0, torch.full((n,), 4), generator())
    assert torch.equal(hit, zt != x0)
    want = travel(process, 0, 4)[TEXTS[11]]
    share = torch.nn.functional.one_hot(zt, V).double().mean(0)
    assert ((share - want).abs() <= 6 * (want * (1 - want) / n).clamp(min=0).sqrt() + 1e-12).all()


# ------------------------------------------------------------------------------------------------- two ways to be exact


@each_kind
@each_reverse
def test_the_exact_denoiser_makes_the_true_way_back(noise, reverse):
    """p(x_s[i] | x_t) of the language, from a list of its texts: by either form with the answer that it wants."""
    process = chain(noise, T=5, reverse=reverse)
    found = way_back(process, DUO.denoiser(process))
    for t, s in ((1, 0), (3, 2), (4, 1), (5, 0)):
        want = true_reverse(process, DUO, states(noise), s, t)
        possible = want.sum((1, 2)) > 0  # canvases that some text can lead to
        torch.testing.assert_close(found(states(noise)[possible], t, s), want[possible], atol=1e-8, rtol=0)


def test_each_form_is_wrong_with_the_other_ones_answer():
    """The posterior put into the joint form counts z_t[i] twice, and the answer of the others never, in the mixture."""
    joint, mixture = (chain("uniform", T=5, reverse=name) for name in ("joint", "mixture"))
    want = true_reverse(joint, DUO, states("uniform"), 2, 3)
    for process, other in ((joint, mixture), (mixture, joint)):
        found = way_back(process, DUO.denoiser(other))(states("uniform"), 3, 2)
        assert (found - want).abs().max() > 0.1


def test_the_forms_agree_on_masks():
    """With any answer: where z_t is MASK it says nothing, and where it is a word nothing is left to say."""
    joint, mixture = (D3PM(V, MASK, "absorbing", reverse=name) for name in ("joint", "mixture"))
    zt = torch.where(SUBSETS, MASK, TEXTS[4])
    logits, t, s = table_denoiser()(zt, None), torch.tensor(600), torch.tensor(200)
    torch.testing.assert_close(
        joint.reverse_probs(logits, zt, t, s), mixture.reverse_probs(logits, zt, t, s), atol=1e-12, rtol=0
    )


# --------------------------------------------------------------------------------------------------------------- bound


@each_kind
@each_reverse
@pytest.mark.parametrize("T", [1, 3])
def test_the_bound_is_the_sum_of_divergences_and_bounds_the_likelihood(noise, reverse, T):
    """For a random denoiser: the loss over all times and states is the definition, and >= the exact -log p."""
    process, every = chain(noise, T, reverse=reverse), states(noise)
    denoise = table_of(every, DUO.vocab_size, seed=T)
    back = way_back(process, denoise)
    chance = written(back, prior_chances(process, every), every, range(T, -1, -1))
    assert chance.sum().item() == pytest.approx(1, abs=1e-10)
    for x0 in TWO:
        value = t_step_bound(chain(noise, T, reverse=reverse), denoise, x0, every)
        assert value == pytest.approx(brute_force.t_step_bound_by_definition(process, back, x0, every), abs=1e-9)
        slack = value + chance[(every == x0).all(1)].log().item()
        assert slack > -1e-9 and (slack > 1e-3 or T == 1)


def test_absorbing_noise_is_masked_diffusion():
    """Term by term: same states, same denoiser, same nats, at the first step, the last and between; three schedules."""
    hidden = SUBSETS.repeat(16, 1)
    x0 = TEXTS.repeat_interleave(32, 0)
    zt, denoise = torch.where(hidden, MASK, x0), table_denoiser(3)
    for schedule in ("linear", "cosine", "quadratic"):
        ours, theirs = D3PM(V, MASK, "absorbing", schedule), masked_diffusion(schedule)
        for process in (ours, theirs):
            process.corrupt = lambda clean, t, rng: (zt, hidden)
        for time in (1, 2, 500, 999):
            t = torch.full((len(x0),), time)
            first, second = (sum(process.loss(denoise, x0, t, generator())) for process in (ours, theirs))
            torch.testing.assert_close(first, second, atol=1e-9, rtol=1e-9)


@each_kind
def test_the_exact_denoiser_loses_only_what_steps_in_parallel_cost(noise):
    """On all texts of DUO: bound >= entropy, and what is above falls as one over the number of steps."""
    excess = []
    for T in (1, 4, 16):
        process = chain(noise, T, beta_first=8 / T, beta_last=8 / T) if noise == "gaussian" else chain(noise, T)
        denoise = DUO.denoiser(process)
        value = [t_step_bound(process, denoise, x0, states(noise)) for x0 in TWO]
        excess.append(torch.tensor(value) @ CHANCE.float() - DUO_ENTROPY)
    assert excess[0] > excess[1] > excess[2] > -1e-6
    if noise != "gaussian":
        assert 3 < excess[1] / excess[2] < 5


def test_on_micro_the_exact_denoiser_reaches_the_best_bound_there_is():
    """All 16,807 canvases of words and 3 steps of uniform noise: the package against Bayes over the list of texts."""
    process, every = chain("uniform", 3, MICRO), states("uniform", MICRO)
    best = [true_reverse(process, MICRO, every, t - 1, t) for t in (1, 2, 3)]
    denoise = MICRO.denoiser(process)
    answers = {t: denoise(every, torch.full((len(every),), t)) for t in (1, 2, 3)}
    for x0 in TEXTS[::5]:
        value = t_step_bound(chain("uniform", 3, MICRO), lambda zt, t: answers[int(t[0])], x0, every)
        want = brute_force.t_step_bound_by_definition(process, lambda zt, t, s: best[t - 1], x0, every)
        assert value == pytest.approx(want, abs=1e-8)


@each_kind
def test_evaluation_is_unbiased_and_takes_each_step_once(noise):
    """sequence_bounds with T draws is the loop over all steps: 3,000 texts, within 5 standard errors, chance 6e-7."""
    process, every = chain(noise, 4), states(noise)
    denoise, n = table_of(every, DUO.vocab_size), 3000
    found = sequence_bounds(process, denoise, TWO[1].expand(n, -1), rng=generator(), draws=4)
    want = t_step_bound(chain(noise, 4), denoise, TWO[1], every)
    assert abs(found.mean().item() - want) < 5 * found.std().item() / math.sqrt(n)


@each_kind
@pytest.mark.parametrize("language", [MICRO, TALES], ids=["micro", "tales"])
def test_the_gap_of_the_exact_denoiser_is_zero_and_its_bound_near_the_entropy(noise, language):
    """The bound of 200 texts within 5 standard errors of their exact nats (chance 6e-7): T = 1000 costs little."""
    T = 50 if noise == "gaussian" else 200
    process = D3PM(language.vocab_size, language.mask_id, noise, get_schedule("linear", T))
    x0 = language.sample(200 if language is MICRO else 60, generator(2))
    denoise = language.denoiser(process)
    assert gap_to_entropy(process, denoise, language, 4, rng=generator(), draws=1).mean == pytest.approx(0, abs=1e-9)
    if noise == "gaussian":  # nearly all of its nats are in the first step, which four draws seldom meet
        return
    found = sequence_bounds(process, denoise, x0, rng=generator()) + language.log_prob(x0)
    allowed = 0.02 if language is MICRO else 1.5  # nats a text that steps in parallel may cost
    assert -5 * found.std() / math.sqrt(len(x0)) < found.mean() < allowed + 5 * found.std() / math.sqrt(len(x0))
    assert nelbo(process, denoise, x0, rng=generator()).mean > 0


# ----------------------------------------------------------------------------------------------------------- objectives


def test_hybrid_is_the_bound_plus_a_share_of_the_cross_entropy():
    x0, t, denoise = TEXTS, torch.arange(1, 17) * 60, table_denoiser()
    values = [
        hybrid(D3PM(V, MASK, "uniform", auxiliary=weight), denoise, x0, t, generator(5)).item() for weight in (0, 1, 2)
    ]
    assert values[0] == pytest.approx(bound(D3PM(V, MASK, "uniform"), denoise, x0, t, generator(5)).item(), rel=1e-12)
    assert values[2] - values[1] == pytest.approx(values[1] - values[0], rel=1e-9) and values[1] > values[0]


def test_both_parts_of_hybrid_want_the_same_answer_and_the_papers_do_not():
    """Uniform noise, joint form: at the exact answer the mean gradient vanishes, but not that of -log f(x_0)."""
    process, every = chain("uniform", T=6), states("uniform")
    t = torch.full((len(every),), 3)
    logits = DUO.denoiser(process)(every, t).clamp(min=-30).requires_grad_()
    ours = paper = kl = 0
    for x0, p in zip(TWO, CHANCE, strict=True):
        weight = p * travel(process, 0, 3)[x0, every].prod(-1)
        clean = x0.expand_as(every)
        ours = ours + weight @ process.cross_entropy(logits, clean, every, t).sum(1)
        kl = kl + weight @ process.terms(logits, clean, every, t).diffusion.sum(1)
        paper = paper - weight @ process.log_probs(logits).gather(-1, clean[..., None])[..., 0].sum(1)
    slopes = [
        torch.autograd.grad(value, logits, retain_graph=True)[0].abs().sum().item() for value in (ours, kl, paper)
    ]
    assert slopes[0] < 1e-6 and slopes[1] < 1e-6 and slopes[2] > 0.1


# ------------------------------------------------------------------------------------------------------------- sampling


@each_kind
@pytest.mark.parametrize("steps", [1, 4])
def test_the_sampler_writes_what_its_chain_writes(noise, steps):
    """Against the exact distribution of the chain, all texts: 20,000 samples, chi-square p above 1e-7."""
    process, every, n = chain(noise, 20), states(noise), 20_000
    denoise = DUO.denoiser(process)
    times = torch.linspace(20, 0, steps + 1, dtype=torch.float64).tolist()
    chance = written(way_back(process, denoise), prior_chances(process, every), every, times)
    drawn = sample(process, denoise, shape=(n, 3), steps=steps, rng=generator(2))
    powers = DUO.vocab_size ** torch.arange(3)
    counts = torch.bincount(drawn @ powers, minlength=DUO.vocab_size**3)[every @ powers].double()
    assert counts.sum() == n
    common = chance * n > 5
    want = torch.cat([chance[common], chance[~common].sum()[None]]) * n
    found = torch.cat([counts[common], counts[~common].sum()[None]])
    statistic = ((found - want) ** 2 / want.clamp(min=1e-9)).sum()
    degrees = torch.tensor(float(len(want) - 1))
    assert torch.special.gammaincc(degrees / 2, statistic.float() / 2) > 1e-7


@each_kind
def test_more_steps_come_closer_to_the_language(noise):
    process = chain(noise, 64, **({"beta_first": 0.05, "beta_last": 0.2} if noise == "gaussian" else {}))
    back, every = way_back(process, DUO.denoiser(process)), states(noise)
    far = []
    for steps in (1, 4, 16):
        times = torch.linspace(64, 0, steps + 1, dtype=torch.float64).tolist()
        chance = written(back, prior_chances(process, every), every, times)
        exact = DUO.log_prob(every).exp() * (every != DUO.mask_id).all(1)
        far.append((chance - exact).abs().sum().item() / 2)
    assert far[0] > far[1] > far[2] and far[2] < 0.05


@each_kind
@each_reverse
def test_frames_end_in_words_even_in_few_steps(noise, reverse):
    """Steps so long that no story fits what they make; beliefs stay distributions without MASK."""
    process = D3PM(V, MASK, noise, get_schedule("linear", 40), reverse=reverse)
    for steps in (1, 2, 7):
        for frame in denoise_frames(process, MICRO.denoiser(process), shape=(200, L), steps=steps, rng=generator()):
            assert frame.probs is None or (frame.probs.sum(-1) - 1).abs().max() < 1e-9
            assert frame.probs is None or frame.probs[..., MASK].max() == 0
        assert (frame.tokens != MASK).all()


# --------------------------------------------------------------------------------------------------- as any other model


def test_mistakes_are_named():
    with pytest.raises(ValueError, match=r"reverse must be one of \['joint', 'mixture'\], got 'both'"):
        D3PM(V, MASK, reverse="both")
    assert PROBS.sum().item() == pytest.approx(1)


@pytest.mark.parametrize("noise", ["uniform", "absorbing"])
def test_noise_on_the_way_there_adds_up(noise):
    """Kept words after two steps are as many as after one: five standard errors of a share, 6e-7."""
    process, n = D3PM(V, MASK, noise), 4000
    frames = list(noising_frames(process, TEXTS[:1].expand(n, L), [0.0, 300.0, 700.0], rng=generator(5)))
    assert torch.equal(frames[0].tokens, TEXTS[:1].expand(n, L))
    for frame in frames[1:]:
        want = process.transitions.marginal(process.one_hot(TEXTS[:1]), 0, frame.t)[0]  # (L, V)
        found = process.one_hot(frame.tokens).mean(0)
        assert ((found - want).abs() <= 5 * (want * (1 - want) / n).sqrt() + 1e-12).all()
    if noise == "absorbing":  # what is hidden stays hidden
        assert ((frames[1].tokens != MASK) | (frames[2].tokens == MASK)).all()
