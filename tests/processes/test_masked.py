"""Masked diffusion against sums over everything: all mask patterns, all times, all texts of `micro`."""

import inspect
import math

import numpy
import pytest
import torch
import toys
from hypothesis import given
from hypothesis import strategies as st
from toys import MASK, MICRO, SUBSETS, TEXTS, L, V, beliefs, count_bound, generator, masked_diffusion, table_denoiser

from diffkit.model import build_model
from diffkit.processes import PROCESSES
from diffkit.processes.base import Process, as_denoiser
from diffkit.processes.masked import MaskedDiffusion, corrupt, corrupt_count
from diffkit.processes.schedules import get_schedule
from diffkit.training.losses import OBJECTIVES, cross_entropy, sequence_mean

SIZES = SUBSETS.sum(1)
SCHEDULES = ["linear", "cosine", "quadratic", "maskgit_cosine"]
each_schedule = pytest.mark.parametrize("schedule", SCHEDULES)


def exact_denoiser():
    return MICRO.denoiser(masked_diffusion())


def chances(gamma):
    """Probability of every mask pattern at these masking rates, (n,) to (n, 32)."""
    gamma = torch.as_tensor(gamma, dtype=torch.float64)[:, None]
    return gamma**SIZES * (1 - gamma) ** (L - SIZES)


def losses_through(process, denoise, x0, times):
    """What process.loss says of one text for each time and each mask pattern, (n, 32): corrupt is told what to hide."""
    n = len(times)
    hidden = SUBSETS.repeat(n, 1)
    process.corrupt = lambda clean, t, rng: (torch.where(hidden, MASK, clean), hidden)
    terms = process.loss(denoise, x0.expand(n * 32, L), times.repeat_interleave(32), generator())
    assert all(term.shape == (n * 32, L) for term in terms)
    assert (terms.reconstruction == 0).all() and (terms.prior == 0).all()
    return sum(terms).sum(1).reshape(n, 32)


def discrete_bound(process, denoise, x0):
    """The T-step bound, every time and every pattern of masks enumerated, through the package's own loss."""
    t = torch.arange(1, process.T + 1)
    return (chances(process.schedule.gamma(t)) * losses_through(process, denoise, x0, t)).sum().item() / process.T


def continuous_bound(process, denoise, x0, nodes=60):
    """The bound in continuous time: Gauss-Legendre quadrature over t of the package's own loss."""
    tau, weight = (torch.from_numpy(values) for values in numpy.polynomial.legendre.leggauss(nodes))
    t = (tau + 1) / 2 * process.T
    values = (chances(process.schedule.gamma(t)) * losses_through(process, denoise, x0, t)).sum(1)
    return (weight / 2 @ values).item()


def by_divergences(schedule, denoise, x0):
    """The T-step bound as it is defined: KL between true and modelled steps back, over V outcomes per position."""
    states = torch.where(SUBSETS, MASK, x0)
    belief = beliefs(denoise, states)  # (32, L, V)
    total = 0.0
    for t in range(1, schedule.T + 1):
        now, before = (schedule.gamma(float(time)).item() for time in (t, t - 1))
        stay = before / now
        truth = (1 - stay) * torch.nn.functional.one_hot(x0, V).double() + stay * one_hot_mask()  # (L, V)
        guess = (1 - stay) * belief + stay * one_hot_mask()
        kl = (torch.special.xlogy(truth, truth) - torch.special.xlogy(truth, guess)).sum(-1)  # (32, L)
        total += (chances([now])[0] * torch.where(SUBSETS, kl, 0.0).sum(1)).sum().item()
    return total


def one_hot_mask():
    return torch.nn.functional.one_hot(torch.tensor(MASK), V).double()


# -------------------------------------------------------------------------------------------------------------- bound


@each_schedule
@pytest.mark.parametrize("T", [1, 2, 4])
def test_discrete_bound_is_the_sum_of_divergences_and_bounds_the_likelihood(schedule, T):
    """For a random denoiser: the enumerated loss equals the definition, and is no less than the exact -log p."""
    denoise = table_denoiser(seed=T)
    process = masked_diffusion(get_schedule(schedule, T))
    times = torch.arange(T, -1, -1)
    stays = [process.stay_masked(t[None], s[None]).item() for t, s in zip(times[:-1], times[1:], strict=True)]
    for x0 in TEXTS[::3]:
        bound = discrete_bound(process, denoise, x0)
        assert bound == pytest.approx(by_divergences(process.schedule, denoise, x0), abs=1e-10)
        slack = bound + math.log(toys.chain_prob(denoise, x0, stays))
        assert slack == pytest.approx(0, abs=1e-10) if T == 1 else slack > 1e-3


def test_one_step_is_one_parallel_guess():
    """T = 1: the bound of the exact denoiser exceeds the entropy by the total correlation of the positions."""
    process = masked_diffusion(get_schedule("linear", 1))
    mean = sum(
        p * discrete_bound(process, exact_denoiser(), x0) for p, x0 in zip(toys.PROBS.tolist(), TEXTS, strict=True)
    )
    shares = torch.einsum("k,klv->lv", toys.PROBS, torch.nn.functional.one_hot(TEXTS, V).double())
    assert mean == pytest.approx(torch.special.entr(shares).sum().item(), abs=1e-10)
    assert mean > toys.ENTROPY + 0.5


@each_schedule
def test_continuous_bound_is_the_count_form(schedule):
    """Whatever the schedule: it is substituted away when the denoiser ignores time."""
    denoise, x0 = table_denoiser(), TEXTS[5]
    bound = continuous_bound(masked_diffusion(schedule, weight="continuous"), denoise, x0)
    assert bound == pytest.approx(count_bound(denoise, x0), abs=1e-8)


def test_discrete_bounds_depend_on_the_schedule():
    denoise, x0 = table_denoiser(), TEXTS[5]
    bounds = [discrete_bound(masked_diffusion(get_schedule(name, 4)), denoise, x0) for name in SCHEDULES]
    assert all(abs(a - b) > 1e-3 for i, a in enumerate(bounds) for b in bounds[:i])


def test_discrete_bound_approaches_the_continuous_one_as_one_over_T():
    denoise, x0 = table_denoiser(), TEXTS[5]
    limit = count_bound(denoise, x0)
    far, near = (discrete_bound(masked_diffusion(get_schedule("cosine", T)), denoise, x0) - limit for T in (64, 256))
    assert far / near == pytest.approx(4, abs=0.1)


def test_bound_of_the_exact_denoiser_is_the_log_likelihood_of_every_text(monkeypatch):
    """Not only on average: for each of the 16 texts, over all masks of all sizes, through count_loss."""
    process, denoise = masked_diffusion("cosine"), exact_denoiser()
    some = SIZES > 0
    for x0, log_p in zip(TEXTS, MICRO.log_prob(TEXTS).tolist(), strict=True):
        losses = count_losses(monkeypatch, process, denoise, x0)[some]
        bound = sum(losses[SIZES[some] == k].mean().item() for k in range(1, L + 1)) / L
        assert bound == pytest.approx(-log_p, abs=1e-10)


def count_losses(monkeypatch, process, denoise, x0):
    """count_loss of one text under each mask pattern, (32,); zero for the pattern that hides nothing."""

    def every_subset(_, clean, count, rng, frozen=None):
        assert torch.equal(count, SIZES[1:])
        return torch.where(SUBSETS[1:], MASK, clean), SUBSETS[1:]

    monkeypatch.setattr(MaskedDiffusion, "corrupt_count", every_subset)
    losses = process.count_loss(denoise, x0.expand(31, L), SIZES[1:], generator()).sum(1)
    return torch.cat([losses.new_zeros(1), losses])


@each_schedule
def test_count_form_ignores_the_schedule(monkeypatch, schedule):
    denoise, x0 = table_denoiser(3), TEXTS[2]
    losses = count_losses(monkeypatch, masked_diffusion(schedule), denoise, x0)
    bound = sum(losses[SIZES == k].mean().item() for k in range(1, L + 1)) / L
    assert bound == pytest.approx(count_bound(denoise, x0), abs=1e-10)


def test_count_loss_shows_the_time_of_its_rate():
    """A denoiser with time is asked at the t where the schedule hides this share."""
    process, asked = masked_diffusion("cosine"), []
    process.count_loss(
        lambda zt, t: asked.append(t) or toys.uniform_denoiser(zt, t), TEXTS, torch.full((16,), 2), generator()
    )
    assert process.schedule.gamma(asked[0]).tolist() == pytest.approx([0.4] * 16)


def test_a_uniform_denoiser_costs_log_of_the_words_that_are_left():
    """MASK is never an answer, so V - 1 ids share the belief: L ln(V - 1), for every draw of the count estimator."""
    process, rng = masked_diffusion(), generator()
    for count in range(1, L + 1):
        nats = process.count_loss(toys.uniform_denoiser, TEXTS, torch.full((16,), count), rng).sum(1)
        assert nats.tolist() == pytest.approx([L * math.log(V - 1)] * 16, abs=1e-12)
    for T in (1, 4):
        process = masked_diffusion(get_schedule("cosine", T))
        assert discrete_bound(process, toys.uniform_denoiser, TEXTS[0]) == pytest.approx(L * math.log(V - 1), abs=1e-10)


def test_both_estimators_agree_with_the_exact_bound_on_average():
    """40,000 draws each, within 5 standard errors of the enumerated value; chance of failing 6e-7 for a fresh seed."""
    denoise, rng, n = table_denoiser(1), generator(0), 40_000
    x0 = TEXTS[7].expand(n, L)
    process = masked_diffusion(get_schedule("linear", 8))
    by_time = sum(process.loss(denoise, x0, torch.randint(1, 9, (n,), generator=rng), rng)).sum(1)
    by_count = process.count_loss(denoise, x0, torch.randint(1, L + 1, (n,), generator=rng), rng).sum(1)
    for nats, want in (
        (by_time, discrete_bound(process, denoise, TEXTS[7])),
        (by_count, count_bound(denoise, TEXTS[7])),
    ):
        assert abs(nats.mean().item() - want) < 5 * nats.std().item() / math.sqrt(n)
    assert by_count.var() < by_time.var()


# ----------------------------------------------------------------------------------------------- the simple objective


def test_masked_cross_entropy_is_no_bound():
    """The pooled mean over masked tokens weights a pattern by its size, the bound by one over it.

    Exact over all patterns, with t uniform and the linear schedule, so that every count is as likely as any other.
    The mean within each sequence, by contrast, is the bound per token when rows without masks are left out.
    """
    denoise, x0 = table_denoiser(5), TEXTS[9]
    losses = toys.hidden_losses(denoise, x0)
    total = [losses[SIZES == k].mean().item() for k in range(L + 1)]  # summed loss with k hidden
    pooled = sum(total) / sum(range(L + 1))
    per_token = count_bound(denoise, x0) / L
    assert abs(pooled - per_token) > 0.05
    assert sum(total[k] / k for k in range(1, L + 1)) / L == pytest.approx(per_token, abs=1e-12)

    # The objectives themselves, in one large batch; of a row the standard deviation is under 1.2, so that 0.015 is
    # over 5 standard errors: chance of failing 6e-7 for a fresh seed. Whole times add an error of about 1 / T.
    process, n = masked_diffusion(), 200_000
    t = torch.arange(n) % 1000 + 1
    rows = x0.expand(n, L)
    assert cross_entropy(process, denoise, rows, t, generator(1)).item() == pytest.approx(pooled, abs=0.015)
    assert sequence_mean(process, denoise, rows, t, generator(1)).item() == pytest.approx(per_token, abs=0.015)


def test_pooled_mean_depends_on_the_batch_size():
    """One row at a time it is the mean within a sequence; in large batches it is not."""
    denoise, process = table_denoiser(2), masked_diffusion()
    rng, t = generator(4), torch.tensor([500])
    alone = [cross_entropy(process, denoise, TEXTS[9:10], t, rng).item() for _ in range(200)]
    rng = generator(4)
    means = [sequence_mean(process, denoise, TEXTS[9:10], t, rng).item() for _ in range(200)]
    assert alone == pytest.approx(means, abs=1e-12)


# --------------------------------------------------------------------------------------------------------------- SUBS


def test_beliefs_never_say_mask_and_copy_what_is_visible():
    process = masked_diffusion()
    zt = torch.where(SUBSETS, MASK, TEXTS[3])
    probs = process.log_probs(table_denoiser()(zt, torch.ones(32)), zt).exp()
    assert (probs[..., MASK] == 0).all()
    assert torch.equal(probs[~SUBSETS], torch.nn.functional.one_hot(zt, V)[~SUBSETS].double())
    torch.testing.assert_close(probs.sum(-1), torch.ones(32, L, dtype=torch.float64), atol=1e-12, rtol=0)
    torch.testing.assert_close(probs[SUBSETS], beliefs(table_denoiser(), zt)[SUBSETS], atol=1e-12, rtol=0)


@pytest.mark.parametrize("weight", ["discrete", "continuous"])
def test_visible_rows_and_the_mask_column_get_no_gradient(weight):
    process = masked_diffusion(weight=weight)
    logits = torch.randn(16, L, V, generator=generator()).requires_grad_()
    hidden = []

    def denoise(zt, t):
        hidden.append(zt == MASK)
        return logits

    sum(process.loss(denoise, TEXTS, torch.full((16,), 400), generator())).sum().backward()
    assert hidden[0].any() and not hidden[0].all()
    assert (logits.grad[~hidden[0]] == 0).all() and (logits.grad[..., MASK] == 0).all()
    assert (logits.grad[hidden[0]] != 0).any(-1).all()


def test_a_constant_added_to_a_row_changes_nothing():
    process, shift = masked_diffusion(), torch.randn(L, 1, dtype=torch.float64, generator=generator())
    table = table_denoiser()
    first, second = (
        process.count_loss(denoise, TEXTS, torch.full((16,), 3), generator())
        for denoise in (table, lambda zt, t: table(zt, t) + shift)
    )
    torch.testing.assert_close(first, second, atol=1e-12, rtol=0)


def test_loss_is_float32_at_least():
    logits = torch.zeros(16, L, V, dtype=torch.bfloat16)
    nats = masked_diffusion().count_loss(lambda zt, t: logits, TEXTS, torch.full((16,), L), generator())
    assert nats.dtype == torch.float32
    assert nats.sum(1).tolist() == pytest.approx([L * math.log(V - 1)] * 16, rel=1e-6)


def test_rows_do_not_look_at_each_other():
    """Eight batches of one equal one batch of eight, in any order, when the masks are the same."""
    process, denoise = masked_diffusion(), table_denoiser()
    xt, _ = corrupt_count(TEXTS, 3, mask_id=MASK, rng=generator())
    t = torch.full((16,), 600)
    whole = process.token_loss(denoise, TEXTS, xt, t)
    alone = [process.token_loss(denoise, TEXTS[i : i + 1], xt[i : i + 1], t[:1]) for i in range(16)]
    assert torch.equal(whole, torch.cat(alone))
    assert torch.equal(whole.flip(0), process.token_loss(denoise, TEXTS.flip(0), xt.flip(0), t))


def test_a_denoiser_passes_through_and_a_function_is_computed_in_full():
    def chooser(zt, t, where=None):
        full = table_denoiser()(zt, t)
        return full if where is None else full[where]

    where, t = torch.rand(16, L, generator=generator()) < 0.5, torch.ones(16)
    assert (
        as_denoiser(chooser) is chooser and as_denoiser(network := build_model(masked_diffusion(), "pico")) is network
    )
    assert torch.equal(as_denoiser(table_denoiser())(TEXTS, t, where), table_denoiser()(TEXTS, t)[where])
    assert torch.equal(as_denoiser(table_denoiser())(TEXTS, t), table_denoiser()(TEXTS, t))


# ------------------------------------------------------------------------------------------------- posterior and step


@each_schedule
@given(times=st.lists(st.floats(0, 1000), min_size=3, max_size=3, unique=True))
def test_the_way_back_composes(schedule, times):
    """From t to s to r is the same as from t to r at once, so steps may be skipped."""
    r, s, t = (torch.tensor([time], dtype=torch.float64) for time in sorted(times))
    process = masked_diffusion(schedule)
    if process.schedule.gamma(s) > 0:
        parts = process.stay_masked(t, s) * process.stay_masked(s, r)
        torch.testing.assert_close(parts, process.stay_masked(t, r), atol=1e-12, rtol=1e-12)


@each_schedule
def test_stay_masked_is_bayes_on_the_chain(schedule):
    """Against products of one-step transition matrices (kept, MASK) on a chain of 12 steps, for every s < t."""
    process = masked_diffusion(get_schedule(schedule, 12))
    gamma = process.schedule.gamma(torch.arange(13))
    step = [(gamma[i] - gamma[i - 1]) / (1 - gamma[i - 1]) for i in range(1, 13)]
    matrix = [torch.tensor([[1 - beta, beta], [0, 1]], dtype=torch.float64) for beta in step]

    def travel(a, b):
        return torch.linalg.multi_dot([torch.eye(2, dtype=torch.float64), *matrix[a:b], torch.eye(2).double()])

    for t in range(1, 13):
        for s in range(t):
            bayes = travel(0, s)[0, 1] * travel(s, t)[1, 1] / travel(0, t)[0, 1]
            assert process.stay_masked(torch.tensor([t]), torch.tensor([s])).item() == pytest.approx(
                bayes.item(), abs=1e-12
            )
        assert process.stay_masked(torch.tensor([t]), torch.tensor([0])) == 0


def test_a_step_reveals_the_planned_share_and_draws_from_the_beliefs():
    """20,000 rows, within 5 standard errors; what is visible never changes, and nothing becomes MASK."""
    process, denoise, n = masked_diffusion("cosine"), table_denoiser(), 20_000
    state = torch.tensor([[4, MASK, MASK, 6, MASK]])
    zt, t, s = state.expand(n, L), torch.full((n,), 700.0), torch.full((n,), 400.0)
    zs, probs = process.step(denoise, zt, t, s, generator())
    stay = process.stay_masked(t[:1], s[:1]).item()
    hidden = state[0] == MASK
    kept = (zs[:, hidden] == MASK).double().mean(0)
    assert ((kept - stay).abs() < 5 * math.sqrt(stay * (1 - stay) / n)).all()
    assert torch.equal(zs[:, ~hidden], zt[:, ~hidden])
    want = beliefs(denoise, state)[0]
    torch.testing.assert_close(probs, want.expand_as(probs).where(hidden[:, None], probs), atol=1e-12, rtol=0)
    for i in hidden.nonzero()[:, 0].tolist():
        drawn = zs[zs[:, i] != MASK, i]
        share = torch.bincount(drawn, minlength=V) / len(drawn)
        assert ((share - want[i]).abs() <= 5 * (want[i] * (1 - want[i]) / len(drawn)).sqrt()).all()


def test_the_last_step_reveals_everything():
    process = masked_diffusion()
    start = process.prior(50, L, generator())
    assert start.shape == (50, L) and (start == MASK).all()
    zs, _ = process.step(table_denoiser(), start, torch.full((50,), 1.0), torch.zeros(50), generator())
    assert (zs != MASK).all() and torch.equal(process.decode(zs), zs)


# ----------------------------------------------------------------------------------------------------------- protocol


def test_evidence_and_raw_make_the_exact_denoiser():
    process = masked_diffusion()
    zt = torch.where(SUBSETS, MASK, TEXTS[0])
    assert torch.equal(process.log_likelihood(zt, torch.ones(32)), MICRO.seen(zt))
    log_p = torch.randn(32, L, V, generator=generator()).log_softmax(-1)
    assert process.ideal_output(log_p, zt, torch.ones(32)) is log_p


@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
def test_every_process_brings_what_process_leaves_open(process):
    methods = {name: item for name, item in vars(Process).items() if inspect.isfunction(item) and name[0] != "_"}
    left_open = {name for name, item in methods.items() if "NotImplementedError" in inspect.getsource(item)}
    if process.step is not Process.step and process.name in ("autoregressive", "block"):
        left_open -= {"reverse_step", "token_probs"}  # several network calls in a step
    for name in left_open:
        assert getattr(process, name) is not getattr(Process, name), name
    assert process.objectives and {*process.objectives} <= {*OBJECTIVES}


def test_bad_settings_raise():
    with pytest.raises(ValueError, match="mask_id must be one of the 8 ids, got 8"):
        MaskedDiffusion(V, V)
    with pytest.raises(ValueError, match=r"weight must be one of \['continuous', 'discrete'\], got 'mean'"):
        MaskedDiffusion(V, MASK, weight="mean")


def test_frozen_positions_stay_and_all_others_are_masked_at_the_end():
    x0 = TEXTS[:2]
    frozen = torch.rand(x0.shape, generator=generator()) < 0.5
    xt, is_masked = corrupt(x0, 1000, schedule=get_schedule("linear"), mask_id=MASK, rng=generator(), frozen=frozen)
    assert torch.equal(is_masked, ~frozen) and torch.equal(xt, torch.where(frozen, x0, MASK))
    for seed in range(20):  # with a number of masks
        _, is_masked = corrupt_count(x0, 1, mask_id=MASK, rng=generator(seed), frozen=frozen)
        assert (is_masked.sum(1) == 1).all() and not (is_masked & frozen).any()


def test_the_quantiles_of_the_bound_are_all_counts():
    counts = []

    def denoise(zt, t):
        counts.extend((zt == MASK).sum(1).tolist())
        return torch.zeros(*zt.shape, V)

    masked_diffusion().bound(denoise, TEXTS[:1].expand(L, -1), (torch.arange(L) + 0.5) / L, generator())
    assert counts == [*range(1, L + 1)]
