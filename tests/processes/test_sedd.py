"""SEDD against its definition over written-out rates, sums over all states, masked diffusion and D3PM."""

import math

import pytest
import torch
from brute_force import DUO, score_bounds, states_of, table_of, texts_of, told, written
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import MASK, MICRO, SUBSETS, TALES, TEXTS, L, V, generator, masked_diffusion, table_denoiser

from diffkit.evaluation.bounds import gap_to_entropy, nelbo, sequence_bounds
from diffkit.processes.d3pm import D3PM
from diffkit.processes.schedules import get_schedule
from diffkit.processes.sedd import SAMPLERS, SEDD, euler, tweedie
from diffkit.sampling.sampler import denoise_frames, sample

PAIRS = [("absorbing", "loglinear"), ("absorbing", "geometric"), ("uniform", "geometric")]
each_pair = pytest.mark.parametrize(("noise", "schedule"), PAIRS)
each_noise = pytest.mark.parametrize("noise", ["absorbing", "uniform"])
WORDS = [v for v in range(V) if v != MASK]
TWO, CHANCE = texts_of(DUO)
DUO_ENTROPY = torch.special.entr(CHANCE).sum().item()


def states(noise, language=DUO):
    return states_of(language, with_mask=noise == "absorbing")


def some_states(noise, seed=0, n=40):
    """Canvases of words, or of words and MASK."""
    symbols = torch.arange(V) if noise == "absorbing" else torch.tensor(WORDS)
    return symbols[torch.randint(0, len(symbols), (n, L), generator=generator(seed))]


def matrices(process, t):
    """exp(sigma R) and R, rows from, columns to, and sigma'(t): all from the definition."""
    size, mask = process.vocab_size, process.mask_id
    limit = [0.0 if v == mask else 1 / (size - 1) for v in range(size)]
    if process.transitions.name == "absorbing":
        limit = [float(v == mask) for v in range(size)]
    rates = torch.tensor(limit, dtype=torch.float64).expand(size, size) - torch.eye(size).double()
    sigma = -torch.log1p(-process.schedule.gamma(t))
    slope = process.schedule.dgamma(t) / (1 - process.schedule.gamma(t))
    return torch.matrix_exp(sigma * rates), rates, slope.item()


# --------------------------------------------------------------------------------------------------- the loss, one time


@each_pair
def test_score_entropy_is_its_definition(noise, schedule):
    """Loops over places and words, for random outputs: rate into z_t times s - r log s + r (log r - 1)."""
    process, x0 = SEDD(V, MASK, noise, schedule), TEXTS[[3, 8]]
    for time in (200.0, 700.0):
        t = torch.full((2,), time, dtype=torch.float64)
        zt, _ = process.corrupt(x0, t, generator(4))
        raw = table_denoiser(2)(zt, t)
        found, s = process.score_entropy(raw, x0, zt, t), process.log_score(raw, zt, t).exp()
        moved, rates, slope = matrices(process, time)
        for b in range(2):
            for i in range(L):
                here, want = int(zt[b, i]), 0.0
                for y in range(V):
                    rate = slope * rates[y, here].item()
                    r = (moved[x0[b, i], y] / moved[x0[b, i], here]).item()
                    if y != here and rate > 0 and not (noise == "uniform" and y == MASK):
                        score = s[b, i, y].item()
                        want += rate * (score - (r * math.log(score) - r * (math.log(r) - 1) if r > 0 else 0))
                assert found[b, i].item() == pytest.approx(want, rel=1e-9, abs=1e-12)


@each_noise
@settings(max_examples=15)
@given(time=st.floats(1, 999), seed=st.integers(0, 30))
def test_it_is_never_negative_and_zero_with_its_gradient_at_the_true_ratio(noise, time, seed):
    process, zt = SEDD(V, MASK, noise, "loglinear"), some_states(noise, seed, 16)
    t, x0 = torch.full((16,), time, dtype=torch.float64), TEXTS
    zt = torch.where(zt == MASK, MASK, zt if noise == "uniform" else x0)
    assert (process.score_entropy(table_denoiser(seed)(zt, t), x0, zt, t) > -1e-9).all()
    known = process.one_hot(x0).log()  # a posterior that knows x_0
    raw = process.ideal_output(known, zt, t).clamp(min=-600).requires_grad_()
    at_best = process.score_entropy(raw, x0, zt, t)
    assert at_best.abs().max() < 1e-7
    assert torch.autograd.grad(at_best.sum(), raw)[0].abs().max() < 1e-7


@pytest.mark.parametrize("schedule", ["linear", "cosine", "geometric"])
def test_normalised_absorbing_scores_are_masked_diffusion(schedule):
    """Token by token, for any belief f: with s = f / (e^sigma - 1) the loss is MDLM's in continuous time.

    It needs the part of the loss without s; and a sum Z of f other than 1 costs (Z - 1 - log Z) / (e^sigma - 1) more.
    """
    process, theirs = SEDD(V, MASK, "absorbing", schedule), masked_diffusion(schedule, weight="continuous")
    zt = torch.where(SUBSETS, MASK, TEXTS[6])
    x0, log_f = TEXTS[6].expand(32, L), theirs.log_probs(table_denoiser(5)(zt, None), zt)
    for time in (1.0, 333.0, 999.0):
        t = torch.full((32,), time, dtype=torch.float64)
        told(theirs, zt)
        want = theirs.loss(lambda zt, t: log_f, x0, t, generator()).diffusion
        raw = log_f + math.log(V - 1)  # zeros are beliefs of 1 / (V - 1)
        torch.testing.assert_close(process.T * process.score_entropy(raw, x0, zt, t), want, atol=1e-9, rtol=1e-9)
        Z, (_, _, slope) = 1.7, matrices(process, time)
        sigma = -torch.log1p(-process.schedule.gamma(time))
        more = process.T * slope * (Z - 1 - math.log(Z)) / torch.expm1(sigma)
        found = process.T * process.score_entropy(raw + math.log(Z), x0, zt, t)
        torch.testing.assert_close(found, want + more * SUBSETS, atol=1e-9, rtol=1e-9)


@each_pair
def test_the_exact_score_is_the_ratio_of_marginals(noise, schedule):
    """p_t(z with y at i) / p_t(z), both summed over the list of texts."""
    process = SEDD(DUO.vocab_size, DUO.mask_id, noise, schedule)
    every, time = states(noise), 450.0
    moved, _, _ = matrices(process, time)
    marginal = sum(p * moved[x, every].prod(-1) for x, p in zip(TWO, CHANCE, strict=True))
    number = {tuple(row): i for i, row in enumerate(every.tolist())}
    t = torch.full((len(every),), time, dtype=torch.float64)
    found = process.log_score(DUO.denoiser(process)(every, t), every, t).exp()
    rate = process.rate_into(every, t)
    for n, row in enumerate(every.tolist()):
        if marginal[n] < 1e-12:
            continue
        for i in range(3):
            for y in [v for v in range(DUO.vocab_size) if v != DUO.mask_id and rate[n, i] > 0]:
                other = number[tuple(row[:i] + [y] + row[i + 1 :])]
                assert found[n, i, y].item() == pytest.approx(
                    (marginal[other] / marginal[n]).item(), rel=1e-7, abs=1e-9
                )


# ------------------------------------------------------------------------------------------------------------ the bound


@each_pair
def test_the_bound_of_the_exact_score_is_the_entropy_on_average(noise, schedule):
    """Prior and start included: quadrature over all noise levels, sums over all states and texts of DUO."""
    process, every = SEDD(DUO.vocab_size, DUO.mask_id, noise, schedule), states(noise)
    bounds = score_bounds(process, DUO.denoiser(process), TWO, every)
    ends = (process.prior_loss(TWO).sum(1) @ CHANCE).item() if schedule == "loglinear" else 0.0
    assert -2e-4 < (bounds @ CHANCE).item() - DUO_ENTROPY < 2e-4 + ends
    if noise == "absorbing":  # not only on average
        assert (bounds + CHANCE.log()).abs().max() < 2e-4 + 1.5 * ends


def worse(process):
    """The exact denoiser, its answers moved a little."""
    exact, table = DUO.denoiser(process), table_of(TWO, DUO.vocab_size, 2)
    return lambda zt, t: exact(zt, t) + 0.3 * table(zt, t)


SHORT = get_schedule("geometric", sigma_min=0.05, sigma_max=2.0)  # starts with noise and stops early: both ends cost


@pytest.mark.parametrize(
    ("noise", "schedule"), [*PAIRS, ("absorbing", SHORT), ("uniform", SHORT), ("absorbing", "quadratic")]
)
def test_estimates_of_the_bound_are_unbiased(noise, schedule):
    """`bound` and `loss` of an imperfect denoiser, 20,000 draws: within 5 standard errors of the integral, 6e-7."""
    process, every, n = SEDD(DUO.vocab_size, DUO.mask_id, noise, schedule), states(noise), 20_000
    denoise, x0, rng = worse(process), TWO[2].expand(20_000, -1), generator(3)
    bounds = score_bounds(process, denoise, TWO, every)
    assert (bounds @ CHANCE).item() > DUO_ENTROPY + 0.01
    u = torch.rand(n, generator=rng, dtype=torch.float64)
    for nats in (process.bound(denoise, x0, u, rng).sum(1), sum(process.loss(denoise, x0, process.T * u, rng)).sum(1)):
        assert abs(nats.mean().item() - bounds[2].item()) < 5 * nats.std().item() / math.sqrt(n)


@each_pair
def test_the_gap_of_the_exact_denoiser_is_zero_and_its_bound_the_log_likelihood(noise, schedule):
    """300 texts of micro and 48 of tales, within 5 standard errors of their exact nats: chance 6e-7 each."""
    for language, n in ((MICRO, 300), (TALES, 48)):
        process = SEDD(language.vocab_size, language.mask_id, noise, schedule)
        denoise, x0 = language.denoiser(process), language.sample(n, generator(2))
        assert gap_to_entropy(process, denoise, language, 4, rng=generator(), draws=1).mean == pytest.approx(
            0, abs=1e-9
        )
        found = sequence_bounds(process, denoise, x0, rng=generator()) + language.log_prob(x0)
        allowed = 0.01 * language.length if schedule == "loglinear" else 0.0  # what its end costs
        assert abs(found.mean().item()) < 5 * found.std().item() / math.sqrt(n) + allowed
    assert nelbo(process, denoise, x0[:4], rng=generator()).mean > 0


# ------------------------------------------------------------------------------------------------------------- sampling


@each_pair
def test_tweedie_with_the_exact_score_is_the_exact_step(noise, schedule):
    """Of one place, the others given: the way back of D3PM with the exact answer, over the same noise."""
    process = SEDD(V, MASK, noise, schedule)
    twin = D3PM(V, MASK, noise, schedule)
    zt, _ = process.corrupt(TEXTS, torch.full((16,), 600.0), generator(1))
    for time, earlier in ((600.0, 400.0), (600.0, 0.0), (999.0, 998.0)):
        t, s = torch.full((16,), time, dtype=torch.float64), torch.full((16,), earlier, dtype=torch.float64)
        found = tweedie(process, MICRO.denoiser(process)(zt, t), zt, t, s)
        want = twin.reverse_probs(MICRO.denoiser(twin)(zt, t), zt, t, s)
        torch.testing.assert_close(found / found.sum(-1, keepdim=True), want, atol=1e-6, rtol=0)
    assert (process.token_probs(MICRO.denoiser(process)(zt, t), zt, t)[..., MASK] == 0).all()


@each_noise
def test_tweedie_is_two_matrix_exponentials(noise):
    process = SEDD(V, MASK, noise, "geometric")
    zt, raw = some_states(noise, 3), torch.rand(40, L, V, generator=generator(5)).double()
    score = process.log_score(raw, zt, 700.0).exp()
    (late, _, _), (early, _, _) = matrices(process, 700.0), matrices(process, 650.0)
    move = torch.linalg.solve(early, late)  # exp(d R)
    want = torch.linalg.solve(move.T, score.mT).mT.clamp(min=0) * move.T[zt]
    found = tweedie(process, raw, zt, torch.full((40,), 700.0), torch.full((40,), 650.0))
    torch.testing.assert_close(found, want, atol=1e-10, rtol=1e-8)


@each_pair
def test_euler_approaches_tweedie(noise, schedule):
    """Half the step, a quarter of the error; for absorbing noise with a linear rate they are one."""
    process, errors = SEDD(V, MASK, noise, schedule), []
    t = torch.full((16,), 600.0, dtype=torch.float64)
    zt, _ = process.corrupt(TEXTS, t, generator(1))
    raw = MICRO.denoiser(process)(zt, t)
    for d in (0.4, 0.2, 0.1):
        first, second = (
            chances / chances.sum(-1, keepdim=True)
            for chances in (step(process, raw, zt, t, t - d) for step in (euler, tweedie))
        )
        errors.append((first - second).abs().max().item())
    if (noise, schedule) == ("absorbing", "loglinear"):
        assert max(errors) < 1e-12
    else:
        assert 3.5 < errors[0] / errors[1] < 4.5 and 3.5 < errors[1] / errors[2] < 4.5


def test_long_euler_steps_give_no_negative_chances():
    """Uniform noise, geometric, 50 steps: towards the end of time the chance to leave would be twice one."""
    process = SEDD(V, MASK, "uniform", "geometric", sampler="euler")
    t, zt = torch.full((16,), 940.0), TEXTS
    leaving = process.rate_into(zt, t) * (V - 2) * 20
    assert leaving.max() > 1.5
    zs, probs = process.step(MICRO.denoiser(process), zt, t, t - 20, generator())
    assert (zs != MASK).all() and probs.isfinite().all()


def way_back(process):
    """p(z_s | z_t) as the sampler draws it, with the exact score: (states, t, s) -> (n, L, V)."""
    denoise = DUO.denoiser(process)

    def reverse_probs(zt, t, s):
        t, s = process.inside(torch.full((len(zt),), t)), torch.full((len(zt),), s, dtype=torch.float64)
        chances = SAMPLERS[process.sampler](process, denoise(zt, t), zt, t, process.before_end(s))
        return chances / chances.sum(-1, keepdim=True)

    return reverse_probs


@each_pair
@pytest.mark.parametrize("sampler", ["tweedie", "euler"])
def test_more_steps_come_closer_to_the_language(noise, schedule, sampler):
    """Exact distribution of the sampler over all texts of DUO, and 20,000 draws of it: chi-square p above 1e-7."""
    process, every = SEDD(DUO.vocab_size, DUO.mask_id, noise, schedule, sampler=sampler), states(noise)
    start = process.possible(process.inside(process.T))[0, 0][every].prod(-1)
    exact, far, n = DUO.log_prob(every).exp() * (every != DUO.mask_id).all(1), [], 20_000
    for steps in (4, 16, 64):
        times = torch.linspace(process.T, 0, steps + 1, dtype=torch.float64).tolist()
        chance = written(way_back(process), start, every, times)
        far.append((chance - exact).abs().sum().item() / 2)
    assert far[0] > far[1] > far[2] and far[2] < 0.06 and 2 < far[1] / far[2] < 8
    chance = written(way_back(process), start, every, [1000.0, 750.0, 500.0, 250.0, 0.0])
    drawn = sample(process, DUO.denoiser(process), shape=(n, 3), steps=4, rng=generator(2))
    powers = DUO.vocab_size ** torch.arange(3)
    counts = torch.bincount(drawn @ powers, minlength=DUO.vocab_size**3)[every @ powers].double()
    common = chance * n > 5
    want, found = (torch.cat([part[common], part[~common].sum()[None]]) for part in (chance * n, counts))
    assert found.sum() == n
    statistic = ((found - want) ** 2 / want.clamp(min=1)).sum()
    assert torch.special.gammaincc(torch.tensor((len(want) - 1) / 2).double(), statistic / 2) > 1e-7


@each_pair
@pytest.mark.parametrize("sampler", ["tweedie", "euler"])
def test_frames_end_in_words_even_in_few_steps(noise, schedule, sampler):
    process = SEDD(V, MASK, noise, schedule, sampler=sampler)
    for denoise in (MICRO.denoiser(process), table_denoiser(1)):
        for steps in (1, 2, 7):
            for frame in denoise_frames(process, denoise, shape=(100, L), steps=steps, rng=generator()):
                assert frame.probs is None or (frame.probs.sum(-1) - 1).abs().max() < 1e-9
                assert frame.probs is None or frame.probs[..., MASK].max() == 0
            assert (frame.tokens != MASK).all()


def test_raw_zeros_know_nothing():
    """Absorbing: 1 / ((e^sigma - 1)(V - 1)) for each word; uniform: 1. The beliefs are uniform in both."""
    t, zt = torch.full((1,), 300.0), torch.tensor([[MASK] * L])
    process = SEDD(V, MASK, "absorbing", "linear")
    want = 0.7 / 0.3 / (V - 1)
    assert process.log_score(torch.zeros(1, L, V), zt, t).exp()[0, 0, WORDS].tolist() == pytest.approx([want] * (V - 1))
    assert process.token_probs(torch.zeros(1, L, V), zt, t)[0, 0, WORDS].tolist() == pytest.approx(
        [1 / (V - 1)] * (V - 1)
    )
    process = SEDD(V, MASK, "uniform", "linear")
    assert process.log_score(torch.zeros(1, L, V), TEXTS[:1], t).exp()[0, 0, WORDS].tolist() == pytest.approx(
        [1] * (V - 1)
    )


# --------------------------------------------------------------------------------------------------- as any other model


def test_mistakes_are_named():
    with pytest.raises(ValueError, match=r"noise must be one of \['absorbing', 'uniform'\], got 'gaussian'"):
        SEDD(V, MASK, "gaussian")
    with pytest.raises(ValueError, match=r"sampler must be one of \['euler', 'tweedie'\], got 'heun'"):
        SEDD(V, MASK, sampler="heun")
