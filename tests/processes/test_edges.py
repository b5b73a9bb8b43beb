"""All token processes where numbers get small, where ids or times come in another form, and where tokens are given."""

import math

import pytest
import torch
from brute_force import told
from toys import MASK, MICRO, PROBS, TEXTS, L, V, generator, table_denoiser, uniform_denoiser

from diffkit.processes.autoregressive import Autoregressive
from diffkit.processes.block import BlockDiffusion
from diffkit.processes.d3pm import D3PM
from diffkit.processes.gaussian.plaid import Plaid
from diffkit.processes.hybrid import HybridDiffusion
from diffkit.processes.masked import MaskedDiffusion, continuous_weight, discrete_weight
from diffkit.processes.schedules import get_schedule
from diffkit.processes.sedd import SEDD, UDLM, euler, tweedie
from diffkit.sampling.sampler import infill, noising_frames

LATE = ["linear", "cosine", "quadratic", "maskgit_cosine", "cosine_sq", "vp_linear"]
# A process of each kind, small enough for exact sums: name -> (vocab_size, mask_id) -> process
MAKE = {
    "mdlm": lambda V, mask: MaskedDiffusion(V, mask, "linear"),
    "continuous": lambda V, mask: MaskedDiffusion(V, mask, "linear", weight="continuous"),
    "d3pm-absorbing": lambda V, mask: D3PM(V, mask, "absorbing", get_schedule("linear", 20)),
    "d3pm-uniform": lambda V, mask: D3PM(V, mask, "uniform", get_schedule("linear", 20)),
    "sedd-absorbing": lambda V, mask: SEDD(V, mask, "absorbing", "linear"),
    "sedd-uniform": lambda V, mask: SEDD(V, mask, "uniform", "geometric"),
    "udlm-absorbing": lambda V, mask: UDLM(V, mask, "absorbing", "linear"),
    "udlm-uniform": lambda V, mask: UDLM(V, mask),
    "hybrid": HybridDiffusion,
    "autoregressive": Autoregressive,
    "block": lambda V, mask: BlockDiffusion(V, mask, 2),
}
each = pytest.mark.parametrize("name", MAKE)


def net(process, seed=0):
    """A denoiser with random answers; it reads a text of any length, and rounds nothing."""
    table = torch.randn(V, V, dtype=torch.float64, generator=generator(seed))
    return lambda zt, t: table[zt[:, : L if process.name == "block" else None]]


# ------------------------------------------------------------------------------- near both ends of time


@pytest.mark.parametrize("bits", [10, 20, 30, 40])
def test_alpha_keeps_its_digits_near_the_end(bits):
    """1 - gamma at tau = 1 - 2^-bits, which a float holds exactly, by the sine of what is left."""
    left = 2.0**-bits
    want = {
        "linear": left, "cosine": math.sin(math.pi / 2 * left), "quadratic": left**2,
        "maskgit_cosine": 2 * math.sin(math.pi / 4 * left) ** 2, "cosine_sq": math.sin(math.pi / 2 * left) ** 2,
        "log": -math.log1p(-left / 2) / math.log(2), "poly": left * (2 - left),
        "vp_linear": math.exp(-(20 - left * (20 - 1e-4))), "loglinear": left + 1e-3 * (1 - left),
    }  # fmt: skip
    for name, value in want.items():
        assert get_schedule(name, 1).alpha(1 - left).item() == pytest.approx(value, rel=1e-12), name
        assert get_schedule(name, 1).kept(0.5, 1 - left).item() == pytest.approx(
            value / get_schedule(name, 1).alpha(0.5).item(), rel=1e-12
        )


def reverse_of(process, raw, zt, t, s):
    """p(z_s | z_t), (B, L, V)."""
    t, s = (process.before_end(torch.full((len(zt),), time, dtype=torch.float64)) for time in (t, s))
    weights = process.reverse_probs(raw, zt, t, s) if isinstance(process, D3PM) else tweedie(process, raw, zt, t, s)
    return weights / weights.sum(-1, keepdim=True)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("schedule", LATE)
@pytest.mark.parametrize("kind", [D3PM, SEDD, UDLM])
def test_a_step_from_the_end_reveals_what_the_schedule_says(kind, schedule, dtype):
    """P(MASK at s | MASK at T) = gamma(s), a token of it f; with uniform noise alpha f + gamma uniform."""
    curve = get_schedule(schedule, sigma_max=50.0) if schedule == "vp_linear" else get_schedule(schedule)
    logits = torch.randn(1, 3, V, generator=generator())
    logits[..., MASK] = -torch.inf
    f, raw = logits.double().softmax(-1), logits.log_softmax(-1) + math.log(V - 1)
    tokens = (torch.arange(V) != MASK) / (V - 1)
    for s in (0.0, 100.0, 600.0, 999.0):
        process = kind(V, MASK, "absorbing", curve, dtype=dtype)
        found = reverse_of(process, raw, torch.full((1, 3), MASK), 1000.0, s).double()
        gamma, alpha = curve.gamma(s), curve.alpha(s)
        torch.testing.assert_close(found, f * alpha + gamma * (torch.arange(V) == MASK), atol=3e-6, rtol=0)
        if (kind is D3PM and alpha > 1e-8) or (kind is UDLM and s <= 100):  # not by SEDD
            process = kind(V, MASK, "uniform", curve, dtype=dtype)
            found = reverse_of(process, raw, TEXTS[:1, :3], 1000.0, s).double()
            atol = 1e-6 if dtype == torch.float64 else 5e-3
            torch.testing.assert_close(found, f * alpha + gamma * tokens, atol=atol, rtol=0)


@pytest.mark.parametrize("schedule", LATE)
@pytest.mark.parametrize("kind", [D3PM, SEDD, UDLM])
def test_losses_and_infilling_are_numbers_at_the_end(kind, schedule):
    process = kind(V, MASK, "absorbing", schedule)
    assert torch.stack(process.loss(table_denoiser(), TEXTS, 1000, generator())).isfinite().all()
    start = TEXTS.masked_fill(torch.arange(L) > 1, MASK)
    filled = infill(process, table_denoiser(), start, steps=3, rng=generator())
    assert torch.equal(filled[:, :2], TEXTS[:, :2]) and (filled != MASK).all()
    noisy = kind(V, MASK, "uniform", schedule)
    nats = torch.stack(noisy.loss(table_denoiser(), TEXTS, 1000, generator()))
    assert nats.isfinite().all() and nats.max() < 1e5
    if noisy.end < 999.999:  # the chain has ended
        assert kind is D3PM or (nats[0] == 0).all()


def test_where_alpha_is_lost_in_gamma_the_chain_is_still_masked_diffusion():
    """vp_linear up to sigma = 50: T (alpha_s - alpha_t) / gamma_t times the loss of each token, all of them masked."""
    curve = get_schedule("vp_linear", sigma_max=50.0)
    process = D3PM(V, MASK, "absorbing", curve)
    for t in (500, 900, 1000):
        terms = process.terms(torch.zeros(1, L, V), TEXTS[:1], torch.full((1, L), MASK), torch.tensor([t]))
        want = 1000 * (curve.alpha(t - 1) - curve.alpha(t)).item() * math.log(V - 1)
        assert sum(terms)[0].tolist() == pytest.approx([want] * L, rel=1e-6, abs=1e-12)


@pytest.mark.parametrize("schedule", [("loglinear", {"eps": 0.2}), ("geometric", {"sigma_min": 0.5, "sigma_max": 2.0})])
def test_the_continuous_bound_pays_for_jumps_of_gamma(schedule):
    """A denoiser that knows nothing costs log(V - 1) a token, whatever the schedule: within 5 standard errors, 6e-7."""
    process = MaskedDiffusion(V, MASK, get_schedule(schedule[0], **schedule[1]), weight="continuous")
    n = 4000
    t = 1000 * (torch.arange(n, dtype=torch.float64) + 0.5) / n
    nats = sum(process.loss(uniform_denoiser, TEXTS[:1].expand(n, L), t, generator())).sum(1)
    assert abs(nats.mean().item() - L * math.log(V - 1)) < 5 * nats.std().item() / math.sqrt(n)


def test_a_rate_too_small_for_a_float_has_the_weight_of_its_limit():
    """tau^120 at the first steps: gamma_s / gamma_t is 0 to the last digit, so everything is revealed."""
    schedule, t = get_schedule("poly", power=120.0), torch.tensor([1, 2])
    assert discrete_weight(schedule, t).tolist() == [1000, 1000]
    assert continuous_weight(schedule, t).isfinite().all()
    assert MaskedDiffusion(V, MASK, schedule).stay_masked(t, t - 1).tolist() == [0, 0]


@pytest.mark.parametrize(
    "process", [UDLM(V, MASK), HybridDiffusion(V, MASK), SEDD(V, MASK), SEDD(V, MASK, "uniform", "linear")]
)
def test_estimates_at_little_noise_have_a_finite_variance(process):
    """Chance of one token hit, times its loss squared, as u falls to 0: it must fall, too, not grow as 1 / u."""
    zt, moments = TEXTS[:1].clone(), []
    zt[0, 1] = MASK if process.noise == "absorbing" else zt[0, 0]
    told(process, zt)
    for u in (1e-1, 1e-2):
        times = []
        denoise = lambda zt, t, times=times: times.append(t) or uniform_denoiser(zt, t)  # noqa: E731
        nats = process.bound(denoise, TEXTS[:1], torch.tensor([u], dtype=torch.float64), generator())
        moments.append((process.schedule.rate(times[0]) * nats.sum().square()).item())
    assert moments[1] < moments[0]


# ------------------------------------------------------------------------------- forms of ids and of times


@each
def test_ids_of_int32_and_a_single_time_give_the_same_numbers(name):
    process = MAKE[name](V, MASK)
    denoise, T, whole = net(process), process.T, torch.full((16,), process.T // 2)
    zt = process.corrupt(TEXTS, T, generator())[0]
    for t in (whole, T // 2, T / 2, torch.tensor(T // 2)):
        for x0, z in ((TEXTS, zt), (TEXTS.int(), zt.int())):
            ask = (denoise, x0, t, generator(1)), (denoise, TEXTS, whole, generator(1))
            assert all(torch.equal(a, b) for a, b in zip(*(process.loss(*how) for how in ask), strict=True))
            step = (process.step(denoise, *how, 0, generator(2)) for how in ((z, t), (zt, whole)))
            assert all(torch.equal(a, b) for a, b in zip(*step, strict=True))
            assert torch.equal(process.corrupt(x0, t, generator(3))[0], process.corrupt(TEXTS, whole, generator(3))[0])
            both = torch.cat([x0, x0], 1) if name == "block" else z
            assert torch.equal(process.log_likelihood(both, t), process.log_likelihood(both.long(), whole))
    u = torch.rand(16, generator=generator(4))
    bounds = [process.bound(denoise, x0, u, generator(5)) for x0 in (TEXTS, TEXTS.int())]
    assert torch.equal(*bounds)


@each
def test_a_denoiser_with_another_number_of_columns_raises(name):
    process = MAKE[name](V, MASK)
    start = process.prior(2, L, generator())
    for columns in (V - 1, V + 1):
        wide = lambda zt, t, n=columns: torch.zeros(len(zt), L, n)  # noqa: E731
        with pytest.raises(ValueError, match=f"returned {columns} columns, expected {V}"):
            process.step(wide, start, process.T, 0, generator())
        with pytest.raises(ValueError, match=f"returned {columns} columns, expected {V}"):
            process.bound(wide, TEXTS, torch.rand(16, generator=generator()), generator())


@each
def test_an_empty_batch_is_a_batch(name):
    process, none = MAKE[name](V, MASK), TEXTS[:0]
    assert process.bound(net(process), none, torch.rand(0), generator()).shape == (0, L)
    assert sum(process.loss(net(process), none, torch.rand(0), generator())).shape == (0, L)
    assert process.step(net(process), none, process.T, 0, generator()).zs.shape == (0, L)


@pytest.mark.parametrize("name", ["mdlm", "autoregressive", "block"])
def test_noise_on_the_way_there_adds_up(name):
    """Masks stay, and are as many as drawn at once: within 5 standard errors of a share, 6e-7."""
    process, n = MAKE[name](V, MASK), 4000
    frames = list(noising_frames(process, TEXTS[:1].expand(n, L), [0.0, 300.0, 700.0, 1000.0], rng=generator(5)))
    assert torch.equal(frames[0].z, TEXTS[:1].expand(n, L)) and (frames[3].z == MASK).all()
    assert ((frames[1].z != MASK) | (frames[2].z == MASK)).all()
    for frame in frames[1:3]:
        want = (process.corrupt(TEXTS[:1].expand(20 * n, L), frame.t, generator())[0] == MASK).double().mean(0)
        found = (frame.z == MASK).double().mean(0)
        assert ((found - want).abs() <= 5.2 * (want * (1 - want) / n).sqrt() + 1e-9).all()


# ------------------------------------------------------------------------------- tokens that are given


@each
def test_given_tokens_cost_nothing_and_the_bound_is_that_of_the_others(name):
    """The first two tokens given: within 5 standard errors of -log p(rest | first two), 6e-7, or above it."""
    process, n = MAKE[name](V, MASK), 2000
    x0 = TEXTS[6].expand(n, L)
    frozen = (torch.arange(L) < 2).expand(n, L)
    exact, seen = MICRO.denoiser(process), []

    def watched(zt, t):
        seen.append((zt[:, :2] == x0[: len(zt), :2]).all())
        return exact(zt, t)

    want = (PROBS[(TEXTS[:, :2] == x0[0, :2]).all(1)].sum() / PROBS[6]).log().item()
    u = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    t = u * process.T if name in ("continuous", "mdlm") or "d3pm" not in name else (u * process.T).ceil()
    losses = sum(process.loss(watched, x0, t, generator(1), frozen))
    for nats in (process.bound(watched, x0, u, generator(2), frozen=frozen), losses):
        assert (nats[:, :2] == 0).all()
        excess, error = nats.sum(1).mean().item() - want, 5 * nats.sum(1).std().item() / math.sqrt(n) + 1e-6
        exact_one = not any(noise in name for noise in ("uniform", "hybrid", "d3pm"))  # the given words look like noise
        assert -error < excess < error + (0.01 if exact_one else 2.0)
    assert all(seen) or name == "autoregressive"
    assert (process.bound(exact, x0, u, generator(), torch.ones_like(frozen)) == 0).all()


def test_embeddings_cannot_be_given():
    process = Plaid(V, MASK)
    with pytest.raises(ValueError, match="frozen tokens need"):
        process.bound(MICRO.denoiser(process), TEXTS, torch.rand(16), generator(), torch.ones(16, L, dtype=torch.bool))


# ------------------------------------------------------------------------------- which token, and when it changes


@pytest.mark.parametrize("noise", ["absorbing", "uniform"])
def test_other_token_logits_leave_the_rate_of_a_score(noise):
    """P(z_s = z_t) stays, with the law of the new logits for the tokens that z_t turns into."""
    process = SEDD(V, MASK, noise, "loglinear", sampler="euler")
    zt = torch.full((1, 4), MASK) if noise == "absorbing" else TEXTS[:1, :4]
    raw, other = torch.randn(2, 1, 4, V, generator=generator(), dtype=torch.float64)
    t, s = torch.tensor([600.0]), torch.tensor([598.0])
    law = process.token_logits(other, zt).softmax(-1)
    changed = process.with_token_logits(raw, zt, law.log())
    for sampler in (euler, tweedie) if noise == "absorbing" else (euler,):
        before, after = (sampler(process, each, zt, t, s) for each in (raw, changed))
        before, after = before / before.sum(-1, keepdim=True), after / after.sum(-1, keepdim=True)
        stay = before.gather(-1, zt[..., None])
        torch.testing.assert_close(after.gather(-1, zt[..., None]), stay, atol=1e-12, rtol=0)
        want = law * (1 - stay) + process.one_hot(zt) * stay
        torch.testing.assert_close(after, want, atol=1e-12, rtol=0)
    nothing = torch.full_like(raw, -torch.inf)
    assert (process.with_token_logits(nothing, zt, nothing) == -torch.inf).all()


@each
def test_the_same_token_logits_change_nothing(name):
    process = MAKE[name](V, MASK)
    zt = process.corrupt(TEXTS, process.T // 2, generator())[0]
    raw = torch.randn(16, L, V, generator=generator(), dtype=torch.float64)
    again = process.with_token_logits(raw, zt, process.token_logits(raw, zt))
    if name in ("autoregressive", "block"):
        return
    t = process.T // 2
    torch.testing.assert_close(process.token_probs(again, zt, t), process.token_probs(raw, zt, t), atol=1e-12, rtol=0)
