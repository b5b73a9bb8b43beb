"""The front door: every name of `diffkit` refuses what lies outside its domain, and keeps its promises inside it.

The table holds what is refused, with the value that the error must show. The properties hold for any drawn shape, time,
type and seed.
"""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from toys import MASK, MICRO, TEXTS, L, V, generator, masked_diffusion

import diffkit
from diffkit.evaluation.bounds import sequence_bounds
from diffkit.processes.curves import CURVES, FAMILIES
from diffkit.processes.masked import corrupt_count
from diffkit.random import categorical
from diffkit.sampling.unmasking import UNMASKING_ORDERS

NAN, INF = math.nan, math.inf
X0 = TEXTS[[0, 5, 9]].clone()  # (3, L)
CANVAS = X0.clone()
CANVAS[:, 1:4] = MASK
IS_MASKED = CANVAS == MASK
BEYOND, BELOW = X0.clone(), X0.clone()
BEYOND[0, 0], BELOW[0, 0] = V, -1  # ids outside the vocabulary
TIMES = torch.tensor([1.0, 500.0, 1000.0])
LINEAR = diffkit.get_schedule("linear")
PROCESSES = {
    "mdlm": masked_diffusion(), "continuous": masked_diffusion(weight="continuous"),
    "d3pm": diffkit.D3PM(V, MASK, "uniform"),
    "d3pm-gaussian": diffkit.D3PM(V, MASK, "gaussian", diffkit.get_schedule("linear", 20)),
    "sedd": diffkit.SEDD(V, MASK), "udlm": diffkit.UDLM(V, MASK), "hybrid": diffkit.HybridDiffusion(V, MASK),
    "diffusion_lm": diffkit.DiffusionLM(V, MASK, width=4),
    "plaid": diffkit.Plaid(V, MASK, width=4),
}  # fmt: skip
MDLM, UNIFORM, PLAID = (PROCESSES[name] for name in ("mdlm", "d3pm", "plaid"))
EXACT = MICRO.denoiser(MDLM)


def network(labels=0):
    torch.manual_seed(0)
    return diffkit.build_model(MDLM, "pico", labels=labels, max_length=L).eval()


def corrupt(x0=X0, t=5, rng=None, **settings):
    return diffkit.corrupt(x0, t, schedule=LINEAR, mask_id=MASK, rng=rng or generator(), **settings)


def sample(process=MDLM, shape=(1, L), steps=2, rng=None, **settings):
    return diffkit.sample(process, EXACT, shape=shape, steps=steps, rng=rng or generator(), **settings)


def nelbo(x0, process=MDLM, **settings):
    return diffkit.nelbo(process, EXACT, x0, rng=generator(), **settings)


# name: the call, and the value that its error shows unless it names the function
REFUSED = [
    ("load_language", lambda: diffkit.load_language("tale"), "'tale'"),
    ("sample", lambda: MICRO.sample(-1, generator()), "-1"),
    ("sample", lambda: MICRO.sample(1, generator(), label="sad"), "'sad'"),
    ("sample", lambda: MICRO.sample(2, 7), "int"),
    ("log_prob", lambda: MICRO.log_prob(X0.double()), "float64"),
    ("log_prob", lambda: MICRO.log_prob(X0[0]), "(5,)"),
    ("log_prob", lambda: MICRO.log_prob(X0[:, :4]), "(3, 4)"),
    ("log_prob", lambda: MICRO.log_prob(BEYOND), "8"),
    ("posterior", lambda: MICRO.posterior(torch.zeros(2, L, V + 1)), "(2, 5, 9)"),
    ("posterior", lambda: MICRO.posterior(torch.full((2, L, V), NAN)), "nan"),
    ("denoiser", lambda: MICRO.denoiser(MDLM, "sad"), "'sad'"),
    ("get_schedule", lambda: diffkit.get_schedule("linea"), "'linea'"),
    ("get_schedule", lambda: diffkit.get_schedule("linear", 0), "0"),
    ("get_schedule", lambda: diffkit.get_schedule("linear", 1.5), "1.5"),
    ("get_schedule", lambda: diffkit.get_schedule("linear", power=2), "power"),
    ("gamma", lambda: LINEAR.gamma(-1e-9), "-1e-09"),
    ("gamma", lambda: LINEAR.gamma(1000.001), "1000"),
    ("gamma", lambda: LINEAR.gamma(torch.tensor([1.0, NAN])), "nan"),
    ("corrupt", lambda: corrupt(X0.double()), "float64"),
    ("corrupt", lambda: corrupt(X0[0]), "(5,)"),
    ("corrupt", lambda: corrupt(CANVAS), "MASK"),
    ("corrupt", lambda: corrupt(t=TIMES[:2]), "(2,)"),
    ("corrupt", lambda: corrupt(t=1001), "1001"),
    ("corrupt", lambda: corrupt(rng=7), "int"),
    ("corrupt", lambda: corrupt(frozen=IS_MASKED[:1]), "(1, 5)"),
    ("MaskedDiffusion", lambda: diffkit.MaskedDiffusion(V, V), "8"),
    ("MaskedDiffusion", lambda: diffkit.MaskedDiffusion(V, MASK, weight="discret"), "'discret'"),
    ("D3PM", lambda: diffkit.D3PM(V, -1), "-1"),
    ("D3PM", lambda: diffkit.D3PM(V, MASK, "unifrom"), "'unifrom'"),
    ("SEDD", lambda: diffkit.SEDD(V, MASK, "gaussian"), "'gaussian'"),
    ("UDLM", lambda: diffkit.UDLM(V, MASK, sampler="leap"), "'leap'"),
    ("DiffusionLM", lambda: diffkit.DiffusionLM(V, MASK, width=0), "0"),
    ("Plaid", lambda: diffkit.Plaid(V, MASK, sampler="ddps"), "'ddps'"),
    ("build_model", lambda: diffkit.build_model(MDLM, "picco"), "'picco'"),
    ("build_model", lambda: diffkit.build_model(MDLM, "pico", hidden_size=15), "15"),
    ("load_model", lambda: diffkit.load_model("no-such-model"), "no-such-model"),
    ("DiffusionModel", lambda: network()(X0.double(), 3), "float64"),
    ("DiffusionModel", lambda: network()(X0[0], 3), "(5,)"),
    ("DiffusionModel", lambda: network()(torch.cat([X0, X0], 1), 3), "10"),
    ("DiffusionModel", lambda: network()(X0, 3, label=torch.tensor([0, 1, 2])), "label"),
    ("DiffusionModel", lambda: network(labels=2)(X0, 3, label=torch.tensor([0, 1])), "label"),
    *(
        ("TrainConfig", lambda wrong=wrong: diffkit.TrainConfig(**wrong), next(iter(wrong)))
        for wrong in (
            {"objective": "nelbo"}, {"times": "even"}, {"optimizer": "sgd"}, {"precision": "fp16"}, {"steps": 0},
            {"lr": NAN}, {"clip": 0.0}, {"warmup": -1}, {"decay": 1.1}, {"ema": 1.0}, {"drop_label": -0.1},
        )
    ),
    *(("denoise_frames", lambda n=n: sample(steps=n), str(n)) for n in (0, -1, 1.5, 1001, NAN)),
    *(("denoise_frames", lambda shape=shape: sample(shape=shape), str(shape)) for shape in ((0, L), (1, -1), (L,))),
    ("denoise_frames", lambda: sample(order="confident"), "'confident'"),
    ("denoise_frames", lambda: sample(UNIFORM, order="margin"), "'margin'"),
    ("denoise_frames", lambda: sample(rng=7), "int"),
    ("with_temperature", lambda: sample(temperature=-0.1), "-0.1"),
    ("with_top_k", lambda: sample(top_k=0), "0"),
    ("with_top_p", lambda: sample(top_p=1.1), "1.1"),
    ("infill", lambda: diffkit.infill(MDLM, EXACT, BELOW, steps=2, rng=generator()), "-1"),
    ("infill", lambda: diffkit.infill(MDLM, EXACT, X0[0], steps=2, rng=generator()), "(5,)"),
    ("infill", lambda: diffkit.infill(UNIFORM, EXACT, CANVAS, steps=2, rng=generator()), "MASK"),
    ("confidence_threshold", lambda: diffkit.confidence_threshold(MDLM, 1.1), "1.1"),
    ("entropy_bounded", lambda: diffkit.entropy_bounded(MDLM, -0.1), "-0.1"),
    ("nelbo", lambda: nelbo(X0[:0]), "(0, 5)"),
    ("nelbo", lambda: nelbo(CANVAS), "MASK"),
    ("nelbo", lambda: nelbo(BEYOND), "8"),
    ("nelbo", lambda: nelbo(X0, draws=0), "0"),
    ("error_by_count",
     lambda: diffkit.error_by_count(MDLM, EXACT, MICRO, counts=[L + 1], n=2, rng=generator()), "6"),
    ("gap_to_entropy", lambda: diffkit.gap_to_entropy(MDLM, EXACT, MICRO, 0, rng=generator()), "0"),
]  # fmt: skip


@pytest.mark.parametrize("name, call, shown", [pytest.param(*case, id=f"{case[0]}-{case[2]}") for case in REFUSED])
def test_what_lies_outside_the_domain_is_refused(name, call, shown):
    """No number, and no IndexError from deep inside: an error that names the function, or shows what it was given."""
    with pytest.raises((ValueError, TypeError, OSError)) as caught:
        call()
    assert name in str(caught.value) or shown.lower() in str(caught.value).lower()


# --------------------------------------------------------------------------------------------------------- properties

seeds = st.integers(0, 2**31)
TOKENS = [v for v in range(V) if v != MASK]


@st.composite
def texts(draw, length=None, least=0):
    """Clean texts (B, L) of the micro vocabulary, without rows or columns too, in both integer types."""
    B, L = draw(st.integers(least, 4)), draw(st.integers(0, 4)) if length is None else length
    ids = draw(st.lists(st.lists(st.sampled_from(TOKENS), min_size=L, max_size=L), min_size=B, max_size=B))
    return torch.tensor(ids, dtype=draw(st.sampled_from([torch.int64, torch.int32]))).reshape(B, L)


def times_of(T, B, data, whole):
    """(B,) times, both ends among them as often as all between."""
    one = st.integers(1, T) if whole else st.floats(0, T) | st.sampled_from([0.0, 1e-300, float(T)])
    return torch.tensor(data.draw(st.lists(one, min_size=B, max_size=B)), dtype=torch.float64)


@given(st.sampled_from([*CURVES, *FAMILIES]), st.sampled_from([1, 2, 1000, 10**6]), st.data())
def test_a_schedule_grows_from_zero_to_one(name, T, data):
    schedule = diffkit.get_schedule(name, T)
    t = times_of(T, 5, data, whole=False).sort().values
    gamma = schedule.gamma(t)
    assert gamma.dtype == torch.float64 and (gamma >= 0).all() and (gamma <= 1).all() and (gamma.diff() >= 0).all()
    assert (schedule.gamma(schedule.time_of(gamma)) - gamma)[t > 1e-9 * T].abs().sum() < 1e-9  # geometric jumps at 0
    assert (schedule.dgamma(t) >= 0).all()


@given(texts(), st.data(), seeds)
def test_corruption_keeps_all_it_does_not_mask(x0, data, seed):
    t, before = times_of(1000, len(x0), data, whole=False), x0.clone()
    xt, is_masked = corrupt(x0, t, generator(seed))
    again, _ = corrupt(x0, t, generator(seed))
    assert xt.dtype == x0.dtype and xt.shape == is_masked.shape == x0.shape and torch.equal(xt, again)
    assert torch.equal(is_masked, xt == MASK) and torch.equal(xt[~is_masked], x0[~is_masked])
    assert torch.equal(x0, before) and not is_masked[t == 0].any() and is_masked[t == 1000].all()


@given(texts(), st.data(), seeds)
def test_as_many_are_masked_as_were_asked_for(x0, data, seed):
    B, L = x0.shape
    count = torch.tensor(data.draw(st.lists(st.integers(0, L), min_size=B, max_size=B)), dtype=torch.int64)
    xt, is_masked = corrupt_count(x0, count, mask_id=MASK, rng=generator(seed))
    assert torch.equal(is_masked.sum(1), count) and torch.equal(xt == MASK, is_masked)


@given(
    st.lists(st.floats(0, 1e300) | st.just(0.0), min_size=1, max_size=6).filter(any),
    st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
    seeds,
)
def test_a_draw_is_an_outcome_with_a_chance(weights, dtype, seed):
    probs = torch.tensor(weights, dtype=torch.float64).to(dtype)
    if probs.double().sum() > 0 and torch.isfinite(probs.double().sum()):
        assert probs[categorical(probs, generator(seed))] > 0


@given(st.sampled_from(sorted(PROCESSES)), texts(MICRO.length, least=1), st.data(), seeds)
def test_every_process_keeps_what_a_process_promises(name, x0, data, seed):
    """prior, corrupt, loss, bound, step, log_likelihood and decode, with the exact denoiser, at any time in (0, T]."""
    process, x0, (B, L) = PROCESSES[name], x0.long(), x0.shape
    t = times_of(process.T, B, data, whole=True)
    zeros = lambda z, t, where=None: torch.zeros(B, L, process.network.head).double()[... if where is None else where]  # noqa: E731
    with torch.no_grad():
        zt, hit = process.corrupt(x0, t, generator(seed))
        again, _ = process.corrupt(x0, t, generator(seed))
        terms = process.loss(zeros, x0, t, generator(seed))
        nats = process.bound(zeros, x0, torch.rand(B, generator=generator(seed)), generator(seed))
        zs, probs = process.step(MICRO.denoiser(process), zt, t, t * data.draw(st.sampled_from([0, 0.5])), generator())
    assert torch.equal(zt, again) and hit.shape == (B, L) and hit.dtype == torch.bool
    assert zs.shape == zt.shape == process.prior(B, L, generator(seed)).shape
    assert process.log_likelihood(zt, t).shape == probs.shape == (B, L, V)
    assert (probs.sum(-1) - 1).abs().max() < 1e-9 and not probs[..., MASK].any()
    for part in (*terms, nats):
        assert part.shape == (B, L) and torch.isfinite(part).all() and (part > -1e-9).all()
    tokens = process.decode(zs)
    assert tokens.shape == (B, L) and tokens.dtype == torch.int64 and 0 <= tokens.min() and tokens.max() < V


@given(
    st.sampled_from(["ancestral", *UNMASKING_ORDERS]), st.integers(1, 3), st.integers(1, 6), st.integers(1, 12), seeds
)
def test_samples_are_whole_whatever_the_shape_and_the_steps(order, B, L, steps, seed):
    process = masked_diffusion(diffkit.get_schedule("cosine", 12))
    uniform = lambda zt, t: torch.zeros(*zt.shape, V, dtype=torch.float64)  # noqa: E731
    made, again = (
        diffkit.sample(process, uniform, shape=(B, L), steps=steps, rng=generator(seed), order=order) for _ in range(2)
    )
    assert made.shape == (B, L) and torch.equal(made, again) and not (made == MASK).any()
    bounds = sequence_bounds(process, uniform, made, rng=generator(seed), draws=1, batch_size=2)
    assert bounds.shape == (B,) and torch.isfinite(bounds).all()
