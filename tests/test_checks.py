"""Every public function gives what it documents, and refuses in one clear message what lies just outside.

The cases stand in cases_for_doors.py. Here: what is asked of each case, properties over drawn shapes, times, types and
seeds, and that no public function is forgotten.
"""

import inspect
import math
import re
from importlib import import_module

import pytest
import torch
from cases_for_doors import ELSEWHERE, INPUTS, INSIDE, ONLY_INSIDE, ONLY_OUTSIDE, OUTSIDE, PROCESSES, ROOMS
from hypothesis import given
from hypothesis import strategies as st
from toys import MASK, MICRO, V, generator, masked_diffusion

import diffkit
from diffkit.evaluation.bounds import sequence_bounds
from diffkit.processes.masked import corrupt, corrupt_count
from diffkit.processes.schedules import CURVES, FAMILIES, get_schedule
from diffkit.random import categorical
from diffkit.sampling.sampler import sample
from diffkit.sampling.unmasking import UNMASKING_ORDERS


def shape_of(answer):
    """What an answer is, in a few words; fails if a number in it is NaN or infinite."""
    if isinstance(answer, torch.Tensor):
        assert answer.dtype == torch.bool or torch.isfinite(answer).all()
        return f"{tuple(answer.shape)} {str(answer.dtype).removeprefix('torch.')}"
    if isinstance(answer, list | tuple):
        return f"[{', '.join(map(shape_of, answer))}]"
    if isinstance(answer, float):
        assert math.isfinite(answer)
    return "None" if answer is None else "{}" if answer == {} else type(answer).__name__


def same(one, other):
    """Equal to the bit; of objects that cannot tell, only of one kind."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and (one == other or type(one).__eq__ is object.__eq__)


def flat(table):
    """The cases of all functions, each under its function's name."""
    return [pytest.param(*case, id=f"{name}-{i}") for name, cases in table.items() for i, case in enumerate(cases)]


@pytest.mark.parametrize("call, shape", flat(INSIDE))
def test_inside_its_domain_a_function_gives_what_it_documents(call, shape):
    """Shape, type, finite; the same again with the same seed; and no argument is changed (torch counts changes)."""
    versions = [given._version for given in INPUTS]
    with torch.no_grad():
        answer, again = call(generator(7)), call(generator(7))
    assert shape_of(answer) == shape and same(answer, again)
    assert [given._version for given in INPUTS] == versions


@pytest.mark.parametrize("call, shows, who", flat(OUTSIDE))
def test_outside_its_domain_a_function_says_so(call, shows, who):
    """No number, and no IndexError from deep inside: an error that begins with who speaks, and shows what came."""
    with pytest.raises((ValueError, TypeError, OSError)) as caught:
        call(generator(7))
    assert re.match(rf"{who}\b", str(caught.value)) and shows in str(caught.value)


# ------------------------------------------------------------------------------------------------------- completeness


def public(room):
    """Names of the functions and classes that a module defines for others; not its records and protocols."""
    module = import_module(f"diffkit.{room}")
    for name, value in vars(module).items():
        value = inspect.unwrap(value) if callable(value) else value
        own = getattr(value, "__module__", "") == module.__name__ and getattr(value, "__name__", "") == name
        is_record = inspect.isclass(value) and (issubclass(value, tuple) or getattr(value, "_is_protocol", False))
        if own and not name.startswith("_") and not is_record and (inspect.isfunction(value) or inspect.isclass(value)):
            yield f"{room}.{name}"


def names_in(reasons):
    return {name for names in reasons.values() for name in names}


def test_no_public_function_is_forgotten():
    """Each is asked inside and outside its domain, or stands in a list with the reason."""
    known = {name for room in ROOMS for name in public(room)}
    elsewhere, only_inside, only_outside = map(names_in, (ELSEWHERE, ONLY_INSIDE, ONLY_OUTSIDE))
    for listed in ({*INSIDE} | only_outside | elsewhere, {*OUTSIDE} | only_inside | elsewhere):
        assert listed ^ known == set(), "new, gone or moved: give it its cases in cases_for_doors.py"
    assert not {*INSIDE} & (only_outside | elsewhere) and not {*OUTSIDE} & (only_inside | elsewhere)


def test_what_the_package_offers_is_among_them():
    homes = {f"{getattr(diffkit, name).__module__.removeprefix('diffkit.')}.{name}" for name in diffkit.__all__}
    assert homes <= {*INSIDE} & {*OUTSIDE}


# --------------------------------------------------------------------------------------------------------- properties

seeds = st.integers(0, 2**31)
sizes = st.integers(0, 4)
WORDS = [v for v in range(V) if v != MASK]


@st.composite
def texts(draw, length=None, least=0):
    """Clean texts (B, L) of the micro vocabulary, without rows or places too, in both types of integer."""
    B, L = draw(st.integers(least, 4)), draw(sizes) if length is None else length
    ids = draw(st.lists(st.lists(st.sampled_from(WORDS), min_size=L, max_size=L), min_size=B, max_size=B))
    return torch.tensor(ids, dtype=draw(st.sampled_from([torch.int64, torch.int32]))).reshape(B, L)


def times_of(T, B, data, whole):
    """(B,) times, both ends among them as often as all between."""
    one = st.integers(1, T) if whole else st.floats(0, T) | st.sampled_from([0.0, 1e-300, float(T)])
    return torch.tensor(data.draw(st.lists(one, min_size=B, max_size=B)), dtype=torch.float64)


@given(st.sampled_from([*CURVES, *FAMILIES]), st.sampled_from([1, 2, 1000, 10**6]), st.data())
def test_a_schedule_stays_between_its_ends(name, T, data):
    schedule = get_schedule(name, T)
    t = times_of(T, 5, data, whole=False).sort().values
    gamma = schedule.gamma(t)
    assert gamma.dtype == torch.float64 and (gamma >= 0).all() and (gamma <= 1).all() and (gamma.diff() >= 0).all()
    assert (schedule.gamma(schedule.time_of(gamma)) - gamma)[gamma > 0].abs().sum() < 1e-9  # geometric leaps from 0
    assert (schedule.dgamma(t) >= 0).all()


@given(texts(), st.data(), seeds)
def test_corruption_keeps_all_it_does_not_hide(x0, data, seed):
    t = times_of(1000, len(x0), data, whole=False)
    before = x0.clone()
    xt, hidden = corrupt(x0, t, schedule=get_schedule("linear"), mask_id=MASK, rng=generator(seed))
    again, _ = corrupt(x0, t, schedule=get_schedule("linear"), mask_id=MASK, rng=generator(seed))
    assert xt.dtype == x0.dtype and xt.shape == hidden.shape == x0.shape and torch.equal(xt, again)
    assert torch.equal(hidden, xt == MASK) and torch.equal(xt[~hidden], before[~hidden]) and torch.equal(x0, before)
    assert not hidden[t == 0].any() and hidden[t == 1000].all()


@given(texts(), st.data(), seeds)
def test_as_many_are_hidden_as_were_asked_for(x0, data, seed):
    B, L = x0.shape
    count = torch.tensor(data.draw(st.lists(st.integers(0, L), min_size=B, max_size=B)), dtype=torch.int64)
    xt, hidden = corrupt_count(x0, count, mask_id=MASK, rng=generator(seed))
    assert torch.equal(hidden.sum(1), count) and torch.equal(xt == MASK, hidden)


@given(
    st.lists(st.floats(0, 1e300) | st.just(0.0), min_size=1, max_size=6),
    st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
    seeds,
)
def test_a_draw_is_an_outcome_with_a_chance_or_an_error(weights, dtype, seed):
    probs = torch.tensor(weights, dtype=torch.float64).to(dtype)
    if probs.double().sum() > 0 and torch.isfinite(probs.double().sum()):
        assert probs[categorical(probs, generator(seed))] > 0
    else:
        with pytest.raises(ValueError, match="categorical: every row needs"):
            categorical(probs, generator(seed))


@given(st.sampled_from(sorted(PROCESSES)), texts(MICRO.length, least=1), st.data(), seeds)
def test_every_process_keeps_what_a_process_promises(name, x0, data, seed):
    """prior, corrupt, loss, bound, step, evidence and decode, with the exact denoiser, at any time up to both ends."""
    process, x0, (B, L) = PROCESSES[name], x0.long(), x0.shape
    t = times_of(process.T, B, data, whole=True)
    with torch.no_grad():
        zt, hit = process.corrupt(x0, t, generator(seed))
        again, _ = process.corrupt(x0, t, generator(seed))
        raw = torch.zeros(B, L, process.head, dtype=torch.float64)
        terms = process.loss(lambda z, t: raw, x0, t, generator(seed))
        nats = process.bound(lambda z, t: raw, x0, torch.rand(B, generator=generator(seed)), generator(seed))
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
def test_texts_are_whole_whatever_the_shape_and_the_steps(order, B, L, steps, seed):
    process = masked_diffusion(get_schedule("cosine", 12))
    uniform = lambda zt, t: torch.zeros(*zt.shape, V, dtype=torch.float64)  # noqa: E731
    made, again = (
        sample(process, uniform, shape=(B, L), steps=steps, rng=generator(seed), order=order) for _ in range(2)
    )
    assert made.shape == (B, L) and torch.equal(made, again) and not (made == MASK).any()
    bounds = sequence_bounds(process, uniform, made, rng=generator(seed), draws=1, batch_size=2)
    assert bounds.shape == (B,) and torch.isfinite(bounds).all()
