"""Schedules against closed forms and autograd; corruption against binomial counts and against every subset."""

import itertools
import math
import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from toys import generator

from diffkit.processes.curves import CURVES, FAMILIES
from diffkit.processes.masked import corrupt, corrupt_count
from diffkit.processes.schedules import get_schedule

# Every schedule, families with more than one setting. (name, parameters)
ALL = [
    *((name, {}) for name in [*CURVES, *FAMILIES]),
    ("poly", {"power": 0.5}),
    ("poly", {"power": 3.0}),
    ("loglinear", {"eps": 0.2}),
    ("geometric", {"sigma_min": 1e-3, "sigma_max": 5.0}),
]
each = pytest.mark.parametrize(("name", "parameters"), ALL, ids=lambda value: str(value))

# gamma(tau) as the papers write it, in plain Python.
FORMULAS = {
    "linear": lambda tau: tau,
    "cosine": lambda tau: 1 - math.cos(math.pi * tau / 2),
    "quadratic": lambda tau: 1 - (1 - tau) ** 2,
    "maskgit_cosine": lambda tau: math.sin(math.pi * tau / 2),
    "cosine_sq": lambda tau: math.sin(math.pi * tau / 2) ** 2,
    "log": lambda tau: math.log2(1 + tau),
    "poly": lambda tau, power=2.0: tau**power,
    "loglinear": lambda tau, eps=1e-3: 1 - math.exp(math.log(1 - (1 - eps) * tau)),
    "geometric": lambda tau, sigma_min=1e-4, sigma_max=20.0: 1 - math.exp(-(sigma_min ** (1 - tau)) * sigma_max**tau),
    "vp_linear": lambda tau, sigma_min=1e-4, sigma_max=20.0: 1 - math.exp(-(sigma_min + tau * (sigma_max - sigma_min))),
}
INSIDE = torch.linspace(0.01, 0.99, 99, dtype=torch.float64)


# ---------------------------------------------------------------------------------------------------------- schedules


@each
def test_formula(name, parameters):
    gamma = get_schedule(name, 200, **parameters).gamma(200 * INSIDE)
    want = [FORMULAS[name](tau, **parameters) for tau in INSIDE.tolist()]
    assert gamma.dtype == torch.float64 and gamma.tolist() == pytest.approx(want, abs=1e-12)


@each
@pytest.mark.parametrize("T", [1, 7, 1000])
def test_endpoints_are_exact(name, parameters, T):
    """Not 6e-17 or 1 - eps: the bound would be infinite, and samplers would leave masks."""
    schedule = get_schedule(name, T, **parameters)
    assert schedule.gamma(0) == 0 and schedule.gamma(T) == 1
    assert schedule.gamma(torch.tensor([0, T])).tolist() == [0.0, 1.0]


@each
def test_masking_only_grows(name, parameters):
    schedule = get_schedule(name, **parameters)
    gamma = schedule.gamma(torch.linspace(0, 1000, 20_001, dtype=torch.float64))
    assert (gamma.diff() >= 0).all() and (schedule.gamma(torch.arange(1001)).diff() > 0).all()
    assert gamma.min() == 0 and gamma.max() == 1


@each
def test_slope_is_the_derivative(name, parameters):
    """By autograd through the formula, and by central differences of gamma itself, per unit of t."""
    schedule, t = get_schedule(name, 50, **parameters), 50 * INSIDE
    tau = INSIDE.clone().requires_grad_()
    (slope,) = torch.autograd.grad(schedule.curve.rate(tau).sum(), tau)
    torch.testing.assert_close(schedule.dgamma(t), slope / 50, atol=1e-12, rtol=1e-10)
    h = 1e-4
    torch.testing.assert_close(
        schedule.dgamma(t), (schedule.gamma(t + h) - schedule.gamma(t - h)) / (2 * h), atol=1e-8, rtol=1e-6
    )


@each
@given(gamma=st.floats(0, 1))
def test_time_of_inverts_gamma(name, parameters, gamma):
    """The rate comes back wherever the schedule reaches it: those with a floor or a ceiling jump there."""
    schedule = get_schedule(name, **parameters)
    t = schedule.time_of(gamma)
    before, after = schedule.gamma((t - 1e-7).clamp(min=0)), schedule.gamma(t)
    assert before - 1e-9 <= gamma <= after + 1e-9
    if name in CURVES or name == "poly":
        assert schedule.gamma(t).item() == pytest.approx(gamma, abs=1e-9)


def test_time_of_whole_rates_and_shapes():
    times = get_schedule("linear").time_of(torch.tensor([[0.0, 0.25], [0.5, 1.0]]))
    torch.testing.assert_close(times, 1000 * torch.tensor([[0.0, 0.25], [0.5, 1.0]], dtype=torch.float64))


def test_cosines_are_mirror_images():
    """Two schedules of the same name in the literature: MaskGIT's hides early, ours late."""
    ours, theirs = get_schedule("cosine"), get_schedule("maskgit_cosine")
    t = torch.arange(1001)
    torch.testing.assert_close(theirs.gamma(t), 1 - ours.gamma(1000 - t), atol=1e-14, rtol=0)


@pytest.mark.parametrize("t", [1e-9, 1e-6, 1e-3, 1.0])
def test_cosine_keeps_its_digits_near_zero(t):
    """gamma' / gamma is (pi / 2) cot(pi tau / 4) also where 1 - cos(x) would round to nothing."""
    schedule = get_schedule("cosine")
    want = math.pi / 2 / math.tan(math.pi * t / 4000) / 1000
    assert (schedule.dgamma(t) / schedule.gamma(t)).item() == pytest.approx(want, rel=1e-9)


def test_log_linear_warns_and_is_quadratic():
    with pytest.warns(UserWarning, match="two meanings"):
        alias = get_schedule("log-linear", 10)
    assert alias.name == "quadratic"
    assert torch.equal(alias.gamma(torch.arange(11)), get_schedule("quadratic", 10).gamma(torch.arange(11)))


def test_loglinear_without_hyphen_is_linear_up_to_eps():
    """The name of the papers: no warning, and for every eps the weight is exactly 1 / tau."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        schedule = get_schedule("loglinear", eps=0.2)
    torch.testing.assert_close(schedule.gamma(1000 * INSIDE), 0.8 * INSIDE)
    torch.testing.assert_close(1000 * schedule.dgamma(1000 * INSIDE) / schedule.gamma(1000 * INSIDE), 1 / INSIDE)


@pytest.mark.parametrize(
    ("name", "T", "parameters", "message"),
    [
        ("sigmoid", 1000, {}, "the schedules are .*'cosine'.*got 'sigmoid'"),
        ("poly", 10, {"eps": 0.1}, r"has the parameters \['power'\], got \['eps'\]"),
        ("poly", 10, {"power": 0.0}, "must be positive"),
        ("poly", 10, {"power": math.nan}, "must be positive"),
        ("loglinear", 10, {"eps": 1.5}, "eps"),
        ("geometric", 10, {"sigma_min": 2.0, "sigma_max": 1.0}, "sigma_min"),
        ("vp_linear", 10, {"sigma_min": 2.0, "sigma_max": 1.0}, "sigma_min"),
    ],
)
def test_schedules_that_cannot_be_raise(name, T, parameters, message):
    with pytest.raises(ValueError, match=message):
        get_schedule(name, T, **parameters)


@pytest.mark.parametrize("method", ["gamma", "dgamma"])
@pytest.mark.parametrize("t", [-1, 1000.5, torch.tensor([3.0, -1e-9]), torch.tensor([5000])])
def test_times_outside_the_axis_raise(method, t):
    with pytest.raises(ValueError, match=r"t must lie in \[0, 1000\]"):
        getattr(get_schedule("cosine"), method)(t)


@pytest.mark.parametrize("method", ["gamma", "dgamma", "time_of"])
def test_times_that_are_no_numbers_raise(method):
    ask = getattr(get_schedule("cosine"), method)
    with pytest.raises(ValueError, match="nan"):
        ask(math.nan)
    with pytest.raises(TypeError, match="real number"):
        ask(torch.tensor([True]))
    with pytest.raises(TypeError, match="real number"):
        ask(torch.tensor([1j]))


@pytest.mark.parametrize("gamma", [-0.1, 1.1, math.inf])
def test_rates_outside_the_unit_interval_raise(gamma):
    with pytest.raises(ValueError, match=r"lie in \[0, 1\]"):
        get_schedule("cosine").time_of(gamma)


# --------------------------------------------------------------------------------------------------------- corruption

MASK = 1


def text(B, L):
    return torch.arange(B * L).reshape(B, L) % 5 + 2


def hide(x0, t, seed=0, **how):
    how = {"schedule": get_schedule("cosine"), "mask_id": MASK} | how
    return corrupt(x0, t, rng=generator(seed), **how)


@each
def test_rate_of_masks(name, parameters):
    """40,000 tokens at each of three times: within 5 standard errors; chance of failing 6e-7 for a fresh seed."""
    schedule, x0, n = get_schedule(name, **parameters), text(400, 100), 40_000
    for t in (100, 500, 900):
        gamma = schedule.gamma(t).item()
        _, is_masked = hide(x0, t, seed=t, schedule=schedule)
        assert abs(is_masked.double().mean() - gamma) < 5 * math.sqrt(gamma * (1 - gamma) / n) + 1e-4


def test_rate_is_per_row():
    t = torch.tensor([0.0, 1000.0, 500.0])
    _, is_masked = hide(text(3, 5000), t)
    rates = is_masked.double().mean(1)
    assert rates[0] == 0 and rates[1] == 1
    assert abs(rates[2] - (1 - math.cos(math.pi / 4))) < 5 * math.sqrt(0.25 / 5000)


@given(seed=st.integers(0, 10**6), B=st.integers(1, 4), L=st.integers(1, 9), t=st.floats(0, 1000), freeze=st.booleans())
def test_what_corrupt_may_do(seed, B, L, t, freeze):
    """MASK exactly where it says so, nothing else changes, frozen tokens stay, the text given is left alone."""
    x0 = text(B, L)
    frozen = torch.rand(B, L, generator=generator(seed)) < 0.5 if freeze else None
    xt, is_masked = hide(x0, t, seed, frozen=frozen)
    assert xt.dtype == torch.int64 and is_masked.dtype == torch.bool
    assert torch.equal(is_masked, xt == MASK)
    assert torch.equal(xt[~is_masked], x0[~is_masked])
    assert frozen is None or not (is_masked & frozen).any()
    assert torch.equal(x0, text(B, L))


def test_ends_of_time_and_seeds():
    x0 = text(3, 50)
    assert torch.equal(hide(x0, 0)[0], x0) and hide(x0, 1000)[1].all()
    assert torch.equal(hide(x0, 500, 1)[0], hide(x0, 500, 1)[0])
    assert not torch.equal(hide(x0, 500, 1)[0], hide(x0, 500, 2)[0])
    assert torch.equal(hide(x0, 500, 1)[0], hide(x0, torch.full((3,), 500), 1)[0]), "one time, or one for each row"


@pytest.mark.parametrize("count", range(5))
def test_every_subset_of_a_count_is_equally_likely(count):
    """Chi-square over all subsets of 5 positions, 20,000 rows; fails by chance once in a million seeds."""
    _, is_masked = corrupt_count(text(20_000, 5), count, mask_id=MASK, rng=generator(count))
    assert (is_masked.sum(1) == count).all()
    seen = torch.bincount(is_masked.long() @ 2 ** torch.arange(5), minlength=32)
    subsets = [sum(2**i for i in chosen) for chosen in itertools.combinations(range(5), count)]
    assert seen[subsets].sum() == 20_000
    assert len(subsets) == 1 or stats.chisquare(seen[subsets]).pvalue > 1e-6


@given(seed=st.integers(0, 10**6), B=st.integers(1, 4), L=st.integers(1, 9), share=st.floats(0, 1))
def test_counts_per_row_with_frozen_positions(seed, B, L, share):
    rng = generator(seed)
    frozen = torch.rand(B, L, generator=rng) < 0.4
    count = ((~frozen).sum(1) * share).long()
    x0 = text(B, L)
    xt, is_masked = corrupt_count(x0, count, mask_id=MASK, rng=rng, frozen=frozen)
    assert torch.equal(is_masked.sum(1), count) and not (is_masked & frozen).any()
    assert torch.equal(xt, torch.where(is_masked, MASK, x0))


@pytest.mark.parametrize("count", [-1, 6, torch.tensor([2, 6])])
def test_counts_that_do_not_fit_raise(count):
    with pytest.raises(ValueError, match="fewer free positions"):
        corrupt_count(text(2, 5), count, mask_id=MASK, rng=generator())


@pytest.mark.parametrize(
    ("x0", "t", "how", "error", "message"),
    [
        (text(2, 3).float(), 5, {}, TypeError, "integer token ids"),
        (text(2, 3) > 3, 5, {}, TypeError, "integer token ids"),
        (text(2, 3)[0], 5, {}, ValueError, r"must be \(B, L\)"),
        (text(2, 3), torch.tensor([1.0, 2.0, 3.0]), {}, ValueError, r"one number or \(2,\)"),
        (text(2, 3), torch.ones(2, 3), {}, ValueError, r"one number or \(2,\)"),
        (text(2, 3), math.nan, {}, ValueError, "nan"),
        (text(2, 3), 1001, {}, ValueError, "must lie in"),
        (text(2, 3), torch.tensor([-1, 5]), {}, ValueError, "must lie in"),
        (text(2, 3), 5, {"frozen": torch.zeros(2, 4, dtype=torch.bool)}, ValueError, "frozen bool"),
        (text(2, 3), 5, {"frozen": torch.zeros(2, 3)}, ValueError, "frozen bool"),
        (torch.tensor([[2, MASK]]), 5, {}, ValueError, "holds MASK"),
    ],
)
def test_calls_that_make_no_sense_raise(x0, t, how, error, message):
    with pytest.raises(error, match=message):
        hide(x0, t, **how)
    if "t" not in message and "one number" not in message and "lie in" not in message and "nan" not in message:
        with pytest.raises(error, match=message):
            corrupt_count(x0, 1, mask_id=MASK, rng=generator(), **how)
