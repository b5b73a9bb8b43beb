"""Bounds, gaps and judgements against the enumerated language, scipy and sums by hand."""

import itertools
import math

import pytest
import torch
import toys
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from toys import MASK, MICRO, PROBS, SUBSETS, TALES, TEXTS, L, V, generator, table_denoiser, uniform_denoiser

from diffkit import D3PM, SEDD, BlockDiffusion, Plaid, get_schedule
from diffkit.evaluation.bounds import gap_to_entropy, nelbo, sequence_bounds
from diffkit.evaluation.by_count import error_by_count
from diffkit.evaluation.samples import quality
from diffkit.evaluation.statistics import Estimate, kl_floor, mean_of, wilson

PROCESS = toys.masked_diffusion("cosine")


def exact_denoiser():
    return toys.deduplicated(MICRO.denoiser(PROCESS))


# ---------------------------------------------------------------------------------------------------------- estimates


def test_mean_and_standard_error_are_those_of_scipy():
    values = torch.randn(50, generator=generator())
    mean, error = mean_of(values)
    assert mean == pytest.approx(values.double().numpy().mean())
    assert error == pytest.approx(stats.sem(values.double().numpy()))


def test_estimates_divide_and_print():
    assert Estimate(6.0, 0.5) / -2 == Estimate(-3.0, 0.25)
    assert str(Estimate(23.12345, 0.01)) == "23.1234 ± 0.0100"


@given(st.integers(1, 10_000), st.floats(0, 1))
def test_wilson_is_the_closed_form(n, share):
    hits, z = round(share * n), 1.96
    middle = (hits + z * z / 2) / (n + z * z)
    half = z * math.sqrt(hits * (n - hits) / n + z * z / 4) / (n + z * z)
    assert wilson(hits, n) == pytest.approx((max(0, middle - half), min(1, middle + half)), abs=1e-4)


# -------------------------------------------------------------------------------------------------------------- bound


def test_bounds_are_unbiased():
    """6,000 estimates for one text and a random denoiser, within 5 standard errors of the sum over all masks."""
    denoise = table_denoiser(1)
    for draws in (1, 3):
        found = nelbo(PROCESS, denoise, TEXTS[4].expand(6000, L), rng=generator(), draws=draws)
        assert abs(found.mean - toys.count_bound(denoise, TEXTS[4])) < 5 * found.standard_error


def test_spread_of_the_estimates():
    """One draw leaves the number of masks and their places to chance; L draws visit every number once.

    Both variances enumerated; 4,000 estimates give the standard deviation to 10 percent (over 5 standard errors).
    """
    denoise, x0, counts = table_denoiser(1), TEXTS[4], SUBSETS.sum(1)
    values = [L / k * toys.hidden_losses(denoise, x0)[counts == k] for k in range(1, L + 1)]
    within = torch.stack([of_count.var(correction=0) for of_count in values])
    between = torch.stack([of_count.mean() for of_count in values]).var(correction=0)
    for draws, variance in ((1, within.mean() + between), (L, within.mean() / L)):
        found = sequence_bounds(PROCESS, denoise, x0.expand(4000, L), rng=generator(), draws=draws).std()
        assert found.item() == pytest.approx(variance.sqrt().item(), rel=0.1)


@pytest.mark.parametrize("draws", [2, L])
def test_draws_are_stratified(draws):
    """One from each of `draws` slices of [0, 1): with L draws every number of masks comes exactly once."""
    seen = []

    class Spy(type(PROCESS)):
        def bound(self, denoise, x0, u, rng):
            seen.append(u)
            return super().bound(denoise, x0, u, rng)

    counts = []

    def denoise(zt, t):
        counts.append((zt == MASK).sum(1))
        return uniform_denoiser(zt, t)

    sequence_bounds(Spy(V, MASK, "cosine"), denoise, TEXTS, rng=generator(), draws=draws)
    assert torch.equal((torch.stack(seen) * draws).long(), torch.arange(draws)[:, None].expand(draws, 16))
    if draws == L:
        assert torch.equal(torch.stack(counts), torch.arange(1, L + 1)[:, None].expand(L, 16))


def test_bound_of_the_exact_denoiser_is_the_log_likelihood_on_average():
    """For each text within 5 standard errors of -log p, 200 estimates of 5 draws."""
    bounds = sequence_bounds(
        PROCESS, exact_denoiser(), TEXTS.repeat_interleave(200, 0), rng=generator(), draws=L
    ).reshape(16, 200)
    error = bounds.std(1) / math.sqrt(200)
    assert ((bounds.mean(1) + PROBS.log()).abs() <= 5 * error + 1e-9).all()


def test_a_uniform_denoiser_has_no_variance():
    found = nelbo(PROCESS, uniform_denoiser, TEXTS, rng=generator())
    assert found.mean == pytest.approx(L * math.log(V - 1), abs=1e-10)
    assert found.standard_error == pytest.approx(0, abs=1e-10)


@pytest.mark.parametrize("process", [PROCESS, SEDD(V, MASK), BlockDiffusion(V, MASK, 2), Plaid(V, MASK, width=4)])
def test_the_batch_size_changes_no_number(process):
    """130 texts, two draws each: corrupted alike and computed 300, 64, 50 or 7 at a time."""
    x0, denoise = MICRO.sample(130, generator()), MICRO.denoiser(process)
    whole = sequence_bounds(process, denoise, x0, rng=generator(3), draws=2)
    for batch_size in (300, 50, 7):
        found = sequence_bounds(process, denoise, x0, rng=generator(3), draws=2, batch_size=batch_size)
        torch.testing.assert_close(found, whole, rtol=1e-9, atol=1e-9)
    assert nelbo(process, denoise, x0.int(), rng=generator(3), draws=2) == mean_of(whole)


def timed(zt, t):
    """Exact if the masking rate of its time is the share of masked tokens; else it knows nothing."""
    fits = (PROCESS.schedule.gamma(t).expand(len(zt)) - (zt == MASK).double().mean(1)).abs() < 1e-6
    return torch.where(fits[:, None, None], exact_denoiser()(zt, t.expand(len(zt))), 0.0)


def chain_by_hand(process, denoise, x0, steps):
    """The bound of the chain, a sum over steps and mask patterns; and -log p(x0) of that chain, over all its paths."""
    states, masked = torch.where(SUBSETS, MASK, x0), SUBSETS.sum(1)
    prob, bound = SUBSETS.all(1).double(), 0.0
    times = torch.linspace(process.T, 0, steps + 1, dtype=torch.float64)
    for t, s in itertools.pairwise(times):
        gamma, stay = process.schedule.gamma(t), process.schedule.gamma(s) / process.schedule.gamma(t)
        chance = toys.beliefs(lambda zt, _, t=t: denoise(zt, t), states).gather(
            2, x0.expand(len(states), L)[..., None]
        )[..., 0]
        nats = torch.where(SUBSETS, -chance.log(), 0.0).sum(1)
        bound += (1 - stay) * (gamma**masked * (1 - gamma) ** (L - masked)) @ nats
        before, after = SUBSETS[:, None], SUBSETS[None]
        each = torch.where(after, stay, (1 - stay) * chance[:, None]).where(before, 1.0)
        prob = prob @ (each.prod(-1) * (after <= before).all(-1))
    return bound.item(), -prob[0].log().item()


def test_steps_bound_the_chain_that_is_run():
    """A network with time: its own bound lies below -log p of the 3-step chain, that of the chain above. 5 SE."""
    x0 = TEXTS[4]
    bound, nats = chain_by_hand(PROCESS, timed, x0, 3)
    found = nelbo(PROCESS, timed, x0.expand(2000, L), rng=generator(), steps=3, draws=3)
    assert abs(found.mean - bound) < 5 * found.standard_error and bound > nats
    assert nelbo(PROCESS, timed, x0.expand(100, L), rng=generator(), draws=L).mean < nats - 1
    with pytest.raises(ValueError, match="steps are those of masked diffusion; 'sedd'"):
        nelbo(SEDD(V, MASK), timed, TEXTS, rng=generator(), steps=6)


@pytest.mark.parametrize("how", [{"draws": L}, {"steps": 4, "draws": 8}], ids=["own", "chain"])
def test_a_prompt_costs_nothing(how):
    """The first two tokens given: with the exact denoiser the bound of the rest is its conditional -log p. 5 SE."""
    start = TEXTS[4].clone()
    start[2:] = MASK
    frozen = (start != MASK).expand(600, L)
    truth = MICRO.log_prob(start[None]) - MICRO.log_prob(TEXTS[4:5])
    found = nelbo(PROCESS, exact_denoiser(), TEXTS[4].expand(600, L), rng=generator(), frozen=frozen, **how)
    if how["draws"] == L:
        assert abs(found.mean - truth.item()) < 5 * found.standard_error + 1e-9
    else:  # four steps reveal several tokens at once
        assert truth.item() < found.mean < truth.item() + 1


def wrong_network(process):
    """What a perfect network would say if positions were independent: close to no truth, and no constant either."""
    prior = torch.randn(L, V, generator=generator(), dtype=torch.float64).index_fill(1, torch.tensor([MASK]), -math.inf)
    return lambda zt, t: process.ideal_output((process.log_likelihood(zt, t) + prior).log_softmax(-1), zt, t)


SHORT = get_schedule("linear", 4)
COVERED = [PROCESS, D3PM(V, MASK, "uniform", SHORT), SEDD(V, MASK), BlockDiffusion(V, MASK, 2), Plaid(V, MASK, width=4)]


@pytest.mark.slow
@pytest.mark.parametrize("process", COVERED, ids=lambda process: f"{process.name}")
def test_two_standard_errors_cover_as_often_as_they_should(process):
    """200 bounds of a network that is not exact, each of 50 texts: their mean lies within 95 % of the intervals.

    0.90 to 0.99 are three standard errors to either side. An estimate whose variance is infinite covers too rarely.
    """
    x0 = MICRO.sample(200 * 50, generator(1))
    bounds = sequence_bounds(process, wrong_network(process), x0, rng=generator(2), draws=2).view(200, 50)
    each = [mean_of(some) for some in bounds]
    covered = sum(abs(one.mean - bounds.mean().item()) < 1.96 * one.standard_error for one in each) / 200
    assert 0.90 <= covered <= 0.99


def test_a_bound_that_is_no_number_raises():
    with pytest.raises(FloatingPointError, match="bound of 16 of 16 sequences is not a number"):
        nelbo(PROCESS, lambda zt, t: torch.full((*zt.shape, V), math.nan), TEXTS, rng=generator())
    logits = torch.zeros(V).index_fill(0, TEXTS[4, :1], -math.inf)  # infinity is one: this text is impossible
    assert nelbo(PROCESS, lambda zt, t: logits.expand(*zt.shape, V), TEXTS[4:5], rng=generator()).mean == math.inf


def test_no_gradients_and_no_empty_split():
    found = sequence_bounds(
        PROCESS, lambda zt, t: torch.zeros(*zt.shape, V, requires_grad=True), TEXTS, rng=generator()
    )
    assert not found.requires_grad and found.dtype == torch.float64
    with pytest.raises(ValueError, match="not empty"):
        nelbo(PROCESS, uniform_denoiser, TEXTS[:0], rng=generator())


# ---------------------------------------------------------------------------------------------------------------- gap


@pytest.mark.parametrize("language", [MICRO, TALES], ids=["micro", "tales"])
def test_gap_of_the_exact_denoiser_is_zero(language):
    process = type(PROCESS)(language.vocab_size, language.mask_id)
    gap = gap_to_entropy(process, language.denoiser(process), language, 20, rng=generator())
    assert gap == Estimate(0.0, 0.0)


def test_gap_of_another_denoiser_is_its_exact_excess():
    """Bound minus entropy, both enumerated; within 5 standard errors of 400 stories."""
    denoise = table_denoiser(2)
    truth = sum(p * toys.count_bound(denoise, x0) for p, x0 in zip(PROBS.tolist(), TEXTS, strict=True)) - toys.ENTROPY
    gap = gap_to_entropy(PROCESS, denoise, MICRO, 400, rng=generator())
    assert truth > 1 and abs(gap.mean - truth) < 5 * gap.standard_error
    assert gap == gap_to_entropy(PROCESS, denoise, MICRO, 400, rng=generator())


def test_error_by_count_is_the_enumerated_loss():
    """Loss per hidden token over all texts and all sets of positions, for each count; 4,000 stories, 5 SE."""
    denoise, n = table_denoiser(2), 4000
    rows = error_by_count(PROCESS, denoise, MICRO, counts=range(1, L + 1), n=n, rng=generator())
    model, exact = (
        torch.stack([toys.hidden_losses(who, x0) for x0 in TEXTS]) for who in (denoise, exact_denoiser())
    )  # each (16, 32)
    assert [row.count for row in rows] == [1, 2, 3, 4, 5]
    for row in rows:
        chosen = SUBSETS.sum(1) == row.count
        for found, losses in ((row.model, model), (row.exact, exact)):
            each = losses[:, chosen] / row.count
            mean = (PROBS @ each).mean()
            spread = (PROBS @ (each - mean) ** 2).mean().sqrt() / math.sqrt(n)
            assert abs(found - mean.item()) < 5 * spread.item() + 1e-9
        assert row.gap.mean == pytest.approx(row.model - row.exact) and row.gap.standard_error > 0


def test_error_by_count_of_the_exact_denoiser():
    rows = error_by_count(PROCESS, MICRO.denoiser(PROCESS), MICRO, counts=[1, 5], n=50, rng=generator())
    assert all(row.gap == Estimate(0.0, 0.0) and row.model == row.exact for row in rows)


# ------------------------------------------------------------------------------------------------------------ quality


def test_true_stories_are_judged_good():
    """All valid, log-probability within 5 standard errors of -entropy, plots near the floor of a perfect sampler."""
    n = 2000
    found = quality(TALES, TALES.sample(n, generator()))
    assert found.valid == 1 and found.high == 1 and found.low > 0.99
    spread = TALES.log_prob(TALES.sample(n, generator(1))).std().item() / math.sqrt(n)
    assert abs(found.log_prob + TALES.entropy()) < 5 * spread
    # 2 n KL is nearly chi-square with 131 degrees of freedom; this bound fails once in a million seeds.
    assert 2 * n * found.plot_kl < stats.chi2(131).isf(1e-6)
    assert found.plot_kl_floor == pytest.approx(131 / (2 * n), rel=0.1)


def test_garbage_is_judged_garbage():
    found = quality(MICRO, torch.full((7, L), MICRO.pad_id))
    assert found.valid == 0 == found.low and 0 < found.high < 0.5
    assert found.log_prob == -math.inf and found.plot_kl == math.inf and found.plot_kl_floor == math.inf


def test_quality_by_hand():
    """Three stories of one plot and one that is none."""
    ids = torch.cat([TEXTS[[0, 1, 0]], torch.full((1, L), MICRO.pad_id)])
    found = quality(MICRO, ids)
    assert found.valid == 0.75 and (found.low, found.high) == wilson(3, 4)
    assert found.log_prob == pytest.approx((2 * PROBS[0].log() + PROBS[1].log()).item() / 3)
    assert found.plot_kl == pytest.approx(-math.log(0.3)), "all of one plot, whose probability is 0.3"


@pytest.mark.parametrize("n", [1, 2, 4])
def test_floor_is_the_mean_over_all_outcomes(n):
    """What n true stories show on average, every sequence of plots enumerated."""
    p, mean = MICRO.template_probs.tolist(), 0.0
    for plots in itertools.product(range(4), repeat=n):
        shares = [plots.count(k) / n for k in set(plots)]
        kl = sum(share * math.log(share / p[k]) for share, k in zip(shares, set(plots), strict=True))
        mean += math.prod(p[k] for k in plots) * kl
    assert kl_floor(MICRO.template_probs, n) == pytest.approx(mean, abs=1e-10)


def test_a_canvas_with_masks_is_no_story():
    """Its visible words have a probability, but a sampler that leaves a mask has not written a story."""
    ids = TEXTS[:4].clone()
    ids[0, 0] = MASK
    assert quality(MICRO, ids).valid == 0.75
    assert quality(MICRO, ids).log_prob == pytest.approx(PROBS[1:4].log().mean().item())
