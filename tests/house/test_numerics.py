"""The same answer in another precision, on other threads, in another order and in another process.

Each tolerance stands beside its reason; what was measured is in docs/maintainers/promises.md, "Numbers".
"""

import copy
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import mpmath
import pytest
import torch
from toys import MASK, MICRO, TALES, L, V, generator, masked_diffusion

from diffkit.evaluation.bounds import sequence_bounds
from diffkit.model import load_model
from diffkit.processes.d3pm import D3PM
from diffkit.processes.gaussian.diffusion_lm import DiffusionLM
from diffkit.processes.gaussian.plaid import Plaid
from diffkit.processes.hybrid import HybridDiffusion
from diffkit.processes.masked import corrupt
from diffkit.processes.schedules import get_schedule
from diffkit.processes.sedd import SEDD, UDLM
from diffkit.sampling.sampler import infill, sample

STORIES = TALES.sample(24, generator(1))


@pytest.fixture(scope="module")
def network():
    return load_model("tales-mdlm")


@pytest.fixture(scope="module")
def canvases(network):
    """Stories from hardly hidden to all hidden, (24, 48)."""
    return network.process.corrupt(STORIES, torch.linspace(10, 1000, len(STORIES)), generator(2))[0]


@torch.no_grad()
def asked(denoise, canvases):
    return denoise(canvases, torch.zeros(len(canvases)))


def variation(one, other):
    """Total variation between the beliefs of two tables of logits, the largest over places."""
    return ((one.double().softmax(-1) - other.double().softmax(-1)).abs().sum(-1) / 2).max().item()


def bounds(denoise, process):
    return sequence_bounds(process, denoise, STORIES, rng=generator(3), draws=1)


def in_bfloat16(network):
    """A model cast to bfloat16, and one that computes in it (autocast)."""

    def cast(*asked, **more):
        with torch.autocast("cpu", torch.bfloat16):
            return network(*asked, **more)

    return {"weights": copy.deepcopy(network).bfloat16(), "autocast": cast}


# ---------------------------------------------------------------------------------------------------------- precision


def test_float32_is_near_float64(network, canvases):
    """Some hundred roundings of 2^-24 in a row, of logits up to 25: a millionth of them."""
    exact = copy.deepcopy(network).double()
    found, want = asked(network, canvases), asked(exact, canvases)
    seen = torch.isfinite(want)
    assert torch.equal(seen, torch.isfinite(found))
    assert (found - want)[seen].abs().max() < 1e-4 and variation(found, want) < 2e-5
    gap = bounds(network, network.process) - bounds(exact, network.process)
    assert gap.abs().max() < 1e-3  # nats a story


def test_evidence_in_float32_is_added_in_float64():
    """Certain evidence, 0 and -inf, is the same in both types; of noisy evidence only its own rounding is left."""
    seen = MICRO.seen(torch.tensor([[MASK] * L, [4, MASK, 2, 0, 0]]))
    for one, other in zip(MICRO.posterior(seen), MICRO.posterior(seen.float()), strict=True):
        assert torch.equal(one, other)
    noisy = torch.randn(8, TALES.length, TALES.vocab_size, dtype=torch.float64, generator=generator()) * 5
    (log_p, probs), (log_p_32, probs_32) = TALES.posterior(noisy), TALES.posterior(noisy.float())
    assert (log_p - log_p_32).abs().max() < 1e-4 and (probs - probs_32).abs().max() < 1e-4


GAMMA = {  # as on paper, of tau; mpmath computes them with 50 digits
    "linear": lambda tau: tau,
    "cosine": lambda tau: 1 - mpmath.cos(mpmath.pi / 2 * tau),
    "quadratic": lambda tau: 1 - (1 - tau) ** 2,
    "maskgit_cosine": lambda tau: mpmath.cos(mpmath.pi / 2 * (1 - tau)),
    "cosine_sq": lambda tau: mpmath.sin(mpmath.pi / 2 * tau) ** 2,
    "log": lambda tau: mpmath.log(1 + tau, 2),
    "poly": lambda tau: tau**2,
    "loglinear": lambda tau: (1 - mpmath.mpf(1e-3)) * tau,
    "geometric": lambda tau: 1 - mpmath.exp(-mpmath.mpf(1e-4) * (mpmath.mpf(20.0) / mpmath.mpf(1e-4)) ** tau),
    "vp_linear": lambda tau: 1 - mpmath.exp(-(mpmath.mpf(1e-4) + (20 - mpmath.mpf(1e-4)) * tau)),
}


@pytest.mark.parametrize("name", GAMMA)
def test_schedules_keep_their_digits_near_both_ends(name):
    """Relative to gamma and its slope near 0, where weights divide by gamma; absolute near T, where 1 - gamma counts.

    1 - t/T loses digits as 2^-53 over what is left, so a slope that ends at 0 is held to an absolute error there.
    """
    schedule, worst = get_schedule(name), [0.0, 0.0]
    with mpmath.workdps(50):
        for t in (1e-9, 1e-6, 1e-3, 1.0, 500.0, 999.0, 1000 - 1e-3, 1000 - 1e-9):
            tau, step = mpmath.mpf(t) / 1000, mpmath.mpf(10) ** -25
            gamma, slope = GAMMA[name](tau), (GAMMA[name](tau + step) - GAMMA[name](tau - step)) / (2 * step) / 1000
            found, rise = float(schedule.gamma(t)), float(schedule.dgamma(t))
            worst[0] = max(worst[0], float(abs(found - gamma) / gamma))
            worst[1] = max(worst[1], float(abs(rise - slope) / max(slope, mpmath.mpf(1e-3) if t > 500 else 0)))
    assert worst[0] < 1e-12 and worst[1] < 1e-12


PROCESSES = {
    "mdlm": masked_diffusion(), "continuous": masked_diffusion("cosine", weight="continuous"),
    "d3pm": D3PM(V, MASK, "uniform"), "sedd": SEDD(V, MASK), "sedd-uniform": SEDD(V, MASK, "uniform", "geometric"),
    "udlm": UDLM(V, MASK), "hybrid": HybridDiffusion(V, MASK),
    "diffusion_lm": DiffusionLM(V, MASK, width=4), "plaid": Plaid(V, MASK, width=4),
}  # fmt: skip


@pytest.mark.parametrize("name", PROCESSES)
def test_a_loss_of_float32_outputs_is_near_that_of_float64(name):
    """All add in float64 what the network says, but for the masked loss, which has the network's type, 2^-22 off."""
    process, x0 = PROCESSES[name], MICRO.sample(64, generator(1))
    t = torch.tensor([1.0, 2, 500, 999, 1000]).repeat(13)[:64]
    raw = torch.randn(64, L, process.network.head, generator=generator(2)) * 5
    with torch.no_grad():
        found, want = (
            torch.stack(process.loss(lambda z, t: out, x0, t, generator(3))).sum(0).double()  # noqa: B023
            for out in (raw, raw.double())
        )
    gap = ((found - want).abs() / want.abs().clamp(min=1)).max()
    assert gap < 2e-6 if name in ("mdlm", "continuous") else gap == 0


def test_bfloat16_believes_nearly_the_same(network, canvases):
    """Eight bits: logits of 25 are rounded to 0.06, and errors of four layers add up. No belief moves by 0.1."""
    for rough in in_bfloat16(network).values():
        found, want = asked(rough, canvases), asked(network, canvases)
        seen = torch.isfinite(want)
        assert torch.equal(seen, torch.isfinite(found))
        assert (found - want)[seen].abs().max() < 1 and variation(found, want) < 0.1
        gap = bounds(rough, network.process) - bounds(network, network.process)
        assert abs(gap.mean()) < 0.2 and gap.abs().max() < 2  # nats a story of 21


@pytest.mark.slow
def test_bfloat16_fills_in_as_well(network):
    """Twelve hidden words of each story, three at a time: as many are right, and nearly all the same."""
    hidden = torch.rand(STORIES.shape, generator=generator(6)).argsort(1) < 12
    start = torch.where(hidden, MASK, STORIES)[:16]

    def filled(denoise):
        return infill(network.process, denoise, start, steps=4, rng=generator(4), order="confidence")

    def valid(ids):
        return (TALES.log_prob(ids) > -torch.inf).sum()

    want = filled(network)
    for rough in in_bfloat16(network).values():
        found = filled(rough)
        assert (found == want)[hidden[:16]].double().mean() > 0.9 and valid(found) >= valid(want) - 3


# -------------------------------------------------------------------------------------------------- threads and order


@pytest.fixture
def threads():
    """Sets the number of threads, and puts it back."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_one_thread_and_two_give_the_same(network, canvases, threads):
    """Sums may be split elsewhere, which moves the last bits; a token moves only if its draw is at a tie."""
    made = {}
    for number in (1, 2):
        threads(number)
        made[number] = (
            asked(network, canvases),
            sample(network.process, network, shape=(4, 48), steps=8, rng=generator(5)),
        )
    seen = torch.isfinite(made[1][0])
    assert (made[1][0] - made[2][0])[seen].abs().max() < 1e-4
    assert torch.equal(made[1][1], made[2][1])


def test_a_row_does_not_depend_on_its_neighbours(network, canvases):
    """The exact language to the bit; a network to rounding, as matrix products are cut up by the size of a batch."""
    order = torch.randperm(len(canvases), generator=generator())
    evidence = TALES.seen(canvases)
    log_p, probs = TALES.posterior(evidence)
    log_p_moved, probs_moved = TALES.posterior(evidence[order])
    assert torch.equal(log_p[order], log_p_moved) and torch.equal(probs[order], probs_moved)
    assert torch.equal(TALES.log_prob(STORIES)[order], TALES.log_prob(STORIES[order]))
    alone = [TALES.posterior(row[None]) for row in evidence[:4]]
    gap = max(
        (one[0] - log_p[i]).abs().max().item() + (one[1] - probs[i]).abs().max().item() for i, one in enumerate(alone)
    )
    assert gap < 1e-12
    logits = asked(network, canvases)
    seen = torch.isfinite(logits)
    assert (asked(network, canvases[order]) - logits[order])[seen[order]].abs().max() < 1e-4
    one = torch.cat([asked(network, row[None]) for row in canvases])
    assert (one - logits)[seen].abs().max() < 1e-4


# -------------------------------------------------------------------------------------------------------- new process


def digest():
    """One number for stories, masks and texts of four methods that come from a seed."""
    rng = generator(11)
    made = [TALES.sample(8, rng)]
    made.append(corrupt(made[0], 500.0, schedule=get_schedule("cosine"), mask_id=TALES.mask_id, rng=rng)[0])
    for name in ("pico-mdlm", "pico-d3pm-uniform", "pico-sedd-absorbing", "pico-plaid"):
        model = load_model(name)
        made.append(sample(model.process, model, shape=(2, 48), steps=4, rng=rng))
    return hashlib.sha256(torch.cat(made).numpy().tobytes()).hexdigest()


@pytest.mark.slow
def test_a_seed_gives_the_same_texts_in_a_new_process():
    """PYTHONHASHSEED, which decides the order of sets of strings, is another there."""
    done = subprocess.run(
        [sys.executable, "-c", "from test_numerics import digest; print(digest())"],
        capture_output=True, text=True, check=True, cwd=Path(__file__).parent,
        env=os.environ | {"PYTHONHASHSEED": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert done.stdout.split()[-1] == digest()
