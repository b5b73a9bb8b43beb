"""Transitions against matrices written out entry by entry, and against matrix exponentials."""

import itertools

import pytest
import torch
from brute_force import one_step, travel
from hypothesis import given
from hypothesis import strategies as st
from toys import MASK, MICRO, TEXTS, L, V, generator, table_denoiser

from diffkit.processes.d3pm import D3PM
from diffkit.processes.schedules import get_schedule
from diffkit.processes.sedd import SEDD
from diffkit.processes.transitions import TRANSITIONS, divergence, get_transitions, leave_one_out
from diffkit.sampling.sampler import infill

KINDS = sorted(TRANSITIONS)
each_kind = pytest.mark.parametrize("noise", KINDS)
each_mixing = pytest.mark.parametrize("noise", ["absorbing", "uniform"])
EYE = torch.eye(V, dtype=torch.float64)[None]  # one text whose place v holds word v: its rows are those of the matrix


def rows(seed, B=3):
    """Random distributions, (B, L, V)."""
    return torch.rand(B, L, V, dtype=torch.float64, generator=generator(seed)).softmax(-1)


@each_kind
@pytest.mark.parametrize("schedule", ["linear", "cosine", "quadratic"])
def test_closed_forms_are_products_of_one_step_matrices(noise, schedule):
    """For all whole s < t of a chain of 6 steps; rows sum to one, and pull is the same matrix from the other side."""
    process = D3PM(V, MASK, noise, get_schedule(schedule, 6))
    made = process.transitions
    starts = range(V) if noise == "absorbing" else [v for v in range(V) if v != MASK]  # the rows that are ever used
    for s, t in itertools.combinations(range(7), 2):
        torch.testing.assert_close(
            made.marginal(EYE, s, t)[0, starts], travel(process, s, t)[starts], atol=1e-12, rtol=0
        )
        torch.testing.assert_close(made.likelihood(EYE, s, t)[0].T, made.marginal(EYE, s, t)[0], atol=1e-12, rtol=0)
        torch.testing.assert_close(made.marginal(EYE, s, t)[0].sum(-1), torch.ones(V).double(), atol=1e-12, rtol=0)


@each_kind
def test_the_last_marginal_is_the_limit(noise):
    """Exactly, for uniform and absorbing noise; nearly, for a Gaussian wide enough."""
    made = get_transitions(noise, V, MASK, get_schedule("linear", 50))
    words = [v for v in range(V) if v != MASK]
    error = (made.marginal(EYE, 0, 50)[0, words] - made.limit()).abs().max().item()
    assert error == 0 if noise != "gaussian" else 1e-9 < error < 0.05
    assert made.limit().sum().item() == pytest.approx(1, abs=1e-15)


def test_with_the_linear_schedule_beta_is_one_over_what_is_left():
    process = D3PM(V, MASK, "absorbing", get_schedule("linear", 9))
    for t in range(1, 10):
        assert one_step(process, t)[0, MASK].item() == pytest.approx(1 / (9 - t + 1), abs=1e-12)


@each_mixing
@given(times=st.lists(st.floats(0, 999.99), min_size=3, max_size=3), seed=st.integers(0, 50))
def test_moves_compose(noise, times, seed):
    made, p = get_transitions(noise, V, MASK, "cosine"), rows(seed)
    r, s, t = sorted(times)
    torch.testing.assert_close(made.marginal(made.marginal(p, r, s), s, t), made.marginal(p, r, t), atol=1e-12, rtol=0)
    torch.testing.assert_close(
        made.likelihood(made.likelihood(p, s, t), r, s), made.likelihood(p, r, t), atol=1e-12, rtol=0
    )


@each_kind
@given(s=st.integers(0, 7), d=st.integers(1, 7), seed=st.integers(0, 50))
def test_push_and_pull_are_adjoint(noise, s, d, seed):
    made, p, f = get_transitions(noise, V, MASK, get_schedule("linear", 15)), rows(seed), rows(seed + 100)
    both = [(made.marginal(p, s, s + d) * f).sum(-1), (p * made.likelihood(f, s, s + d)).sum(-1)]
    torch.testing.assert_close(*both, atol=1e-12, rtol=0)


@each_kind
def test_rows_have_their_own_times(noise):
    made, p = get_transitions(noise, V, MASK, get_schedule("linear", 15)), rows(0)
    s, t = torch.tensor([1, 3, 1]), torch.tensor([2, 9, 15])
    for act in (made.marginal, made.likelihood):
        one_by_one = torch.cat([act(p[i : i + 1], s[i], t[i]) for i in range(3)])
        torch.testing.assert_close(act(p, s, t), one_by_one, atol=1e-14, rtol=0)


@each_mixing
def test_mixing_is_the_exponential_of_its_rates(noise):
    """exp(sigma R) with R = 1 limit^T - I and sigma = -log(1 - gamma)."""
    made = get_transitions(noise, V, MASK, "geometric")
    rates = made.limit().expand(V, V) - torch.eye(V).double()
    for t in (1.0, 300.0, 700.0, 900.0):
        sigma = -torch.log1p(-made.schedule.gamma(t))
        torch.testing.assert_close(made.marginal(EYE, 0, t)[0], torch.matrix_exp(sigma * rates), atol=1e-12, rtol=0)


def test_gaussian_steps_are_short_symmetric_and_leave_mask_alone():
    made = get_transitions("gaussian", V, MASK, get_schedule("linear", 20), beta_first=0.01, beta_last=0.3)
    step, words = made.one_step(10), [v for v in range(V) if v != MASK]
    assert torch.equal(step, step.T) and step[MASK, MASK] == 1 and (step >= 0).all()
    first = step[words[0], words]
    assert (first[:-1] > first[1:]).all(), "the farther, the rarer"
    assert made.one_step(20)[words[0], words[1]] > first[1], "later steps are wider"


def test_gaussian_rounds_times_without_merging_steps():
    """A sampler of T - 1 steps meets times such as 2.5 and 1.4; whole ones next to each other stay apart."""
    made = get_transitions("gaussian", V, MASK, get_schedule("linear", 20))
    times = torch.linspace(20, 0, 20, dtype=torch.float64)
    rounded = [made.marginal(EYE, float(s), float(t))[0, 0, 0].item() for t, s in itertools.pairwise(times)]
    assert all(stay < 1 for stay in rounded)
    assert torch.equal(made.marginal(EYE, 1.6, 4.4), made.marginal(EYE, 2, 4))


def test_the_own_word_is_divided_out():
    """p(x | own, others) ~ p(x | others) p(own | x), undone; a word that the own evidence excludes stays out."""
    others, own = rows(3), rows(4)
    own[..., 2] = 0
    both = (others * own) / (others * own).sum(-1, keepdim=True)
    found = leave_one_out(both.log(), own.log()).softmax(-1)
    want = others.clone()
    want[..., 2] = 0
    torch.testing.assert_close(found, want / want.sum(-1, keepdim=True), atol=1e-12, rtol=0)
    nothing = torch.full((1, 1, V), -torch.inf)
    assert leave_one_out(nothing, nothing).softmax(-1).isfinite().all()


def test_divergence_knows_zero_and_infinity():
    q = torch.tensor([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0], [0.5, 0.5, 0.0]], dtype=torch.float64)
    p = torch.tensor([[0.25, 0.75, 0.0], [1.0, 0.0, 0.0], [1.0, 0.0, 0.0]], dtype=torch.float64, requires_grad=True)
    found = divergence(q, p)
    want = torch.distributions.kl_divergence(
        torch.distributions.Categorical(q[0, :2]), torch.distributions.Categorical(p[0, :2])
    )
    assert found[0].item() == pytest.approx(want.item(), abs=1e-12) and found[1] == 0 and found[2] == torch.inf
    found[:2].sum().backward()
    assert p.grad[:2].isfinite().all()


def test_bad_noise_is_refused():
    for arguments, message in (
        (("masked", V, MASK), "masked"), (("uniform", V, V), "8"), (("gaussian", 30_522, 103), "smaller T"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            get_transitions(*arguments, "linear")
    with pytest.raises(ValueError, match="-1"):
        get_transitions("gaussian", V, MASK, "linear", beta_first=-1)
    ends = D3PM(V, MASK, schedule="linear").before_end(torch.tensor([5.0, 1000.0]))
    assert ends.tolist() == [5.0, 1000 * (1 - 1e-9)]


@pytest.mark.parametrize("kind", [D3PM, SEDD])
@pytest.mark.parametrize("noise", ["uniform", "absorbing"])
def test_tables_in_float32_agree(kind, noise):
    """Losses and predictions; the probabilities of a step are rounded, not changed."""
    full, half = kind(V, MASK, noise), kind(V, MASK, noise, dtype=torch.float32)
    logits, t = torch.randn(16, L, V, generator=generator()), torch.full((16,), 400)
    pair = [torch.stack(p.loss(lambda zt, t: logits, TEXTS, t, generator(1))) for p in (full, half)]
    assert pair[1].dtype == torch.float32
    torch.testing.assert_close(pair[1].double(), pair[0], rtol=1e-3, atol=1e-3)
    zt, _ = full.corrupt(TEXTS, t, generator(2))
    probs = [p.token_probs(logits, zt, t) for p in (full, half)]
    torch.testing.assert_close(probs[1].double(), probs[0], rtol=1e-5, atol=1e-6)


# ---------------------------------------------------------------------------- what D3PM and SEDD have alike

each_process = pytest.mark.parametrize("process", [D3PM, SEDD])


@each_process
def test_blanks_are_filled_by_absorbing_noise_only(process):
    absorbing = process(V, MASK, "absorbing")
    start = TEXTS.repeat(50, 1)
    hidden = torch.rand(start.shape, generator=generator(1)) < 0.5
    start = start.masked_fill(hidden, MASK)
    filled = infill(absorbing, MICRO.denoiser(absorbing), start, steps=30, rng=generator())
    assert torch.equal(filled[~hidden], start[~hidden]) and (filled != MASK).all()
    with pytest.raises(ValueError, match="needs a process with MASK"):
        infill(process(V, MASK, "uniform"), table_denoiser(), start, steps=3, rng=generator())
