"""Samplers: exact laws on `micro`, and promises that hold for every denoiser, rule, prompt and number of steps."""

import math

import pytest
import torch
import toys
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from toys import MASK, MICRO, PROBS, TALES, TEXTS, L, V, beliefs, generator, masked_diffusion, micro_counts

from diffkit.course.network_calls import CallCounter
from diffkit.data.tokenizer import canvas_from_text
from diffkit.processes.autoregressive import Autoregressive
from diffkit.processes.block import BlockDiffusion
from diffkit.processes.d3pm import D3PM
from diffkit.processes.gaussian.diffusion_lm import DiffusionLM
from diffkit.processes.hybrid import HybridDiffusion
from diffkit.processes.schedules import get_schedule
from diffkit.processes.sedd import SEDD, UDLM
from diffkit.sampling.logits import filtered
from diffkit.sampling.sampler import denoise_frames, infill, last_frame, noising_frames, sample
from diffkit.sampling.unmasking import UNMASKING_ORDERS

PROCESS = masked_diffusion()
each_rule = pytest.mark.parametrize("order", UNMASKING_ORDERS)
EVERY_RULE = ["ancestral", *UNMASKING_ORDERS]


def exact_denoiser():
    return toys.deduplicated(MICRO.denoiser(PROCESS))


# --------------------------------------------------------------------------------------------------------- exact laws


@each_rule
def test_one_token_a_step_is_exact_under_every_rule(order):
    """With the exact denoiser: chi-square over the 16 texts, 8,000 draws, fails by chance once in a million seeds."""
    ids = sample(PROCESS, exact_denoiser(), shape=(8000, L), steps=L, rng=generator(1), order=order)
    counts = micro_counts(ids)
    assert counts[16] == 0, "not a text of the language"
    assert stats.chisquare(counts[:16], 8000 * PROBS).pvalue > 1e-6


def ancestral_probs(steps, schedule="linear", denoise=None):
    """Exact probability of each text under the ancestral sampler."""
    process = masked_diffusion(schedule)
    times = torch.linspace(1000, 0, steps + 1, dtype=torch.float64)
    stays = [process.stay_masked(t[None], s[None]).item() for t, s in zip(times[:-1], times[1:], strict=True)]
    return torch.tensor([toys.chain_prob(denoise or exact_denoiser(), x0, stays) for x0 in TEXTS], dtype=torch.float64)


def total_variation(probs):
    """Between the language and a sampler that writes its texts with `probs` and something else with the rest."""
    return ((probs - PROBS).abs().sum().item() + 1 - probs.sum().item()) / 2


def test_ancestral_error_falls_as_one_over_the_steps():
    """Tokens revealed together are drawn independently; exact propagation, no sampling."""
    errors = [total_variation(ancestral_probs(steps)) for steps in (1, 2, 4, 8, 16, 32, 64)]
    assert errors == sorted(errors, reverse=True) and errors[0] > 0.3
    assert errors[-2] / errors[-1] == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize(("schedule", "steps"), [("linear", 1), ("linear", 3), ("cosine", 4)])
def test_ancestral_sampler_follows_its_exact_law(schedule, steps):
    """Few steps, so far from the language: chi-square over 16 texts and "other"; fails once in a million seeds."""
    process, probs = masked_diffusion(schedule), ancestral_probs(steps, schedule)
    ids = sample(process, exact_denoiser(), shape=(8000, L), steps=steps, rng=generator(2))
    want = torch.cat([probs, 1 - probs.sum(0, keepdim=True)])
    assert stats.chisquare(micro_counts(ids), 8000 * want).pvalue > 1e-6
    assert stats.chisquare(micro_counts(ids)[:16], micro_counts(ids)[:16].sum() * PROBS).pvalue < 1e-6


@pytest.mark.parametrize("order", EVERY_RULE)
def test_infilling_draws_from_the_exact_conditional(order):
    """One word given, in the middle: chi-square against the table, fails by chance once in a million seeds.

    Ancestral reveals two tokens at once now and then: with 60 steps, too seldom to show in 1,000 texts.
    """
    steps, n = (60, 1000) if order == "ancestral" else (L, 6000)
    vocab = MICRO.tokenizer.get_vocab()
    start = torch.tensor([[MASK, vocab["ran"], MASK, MASK, MASK]]).expand(n, L)
    fits = (TEXTS[:, 1] == vocab["ran"]).double() * PROBS
    counts = micro_counts(infill(PROCESS, exact_denoiser(), start, steps=steps, rng=generator(3), order=order))
    assert (counts[16] == 0 or order == "ancestral") and (counts[:16][fits == 0] == 0).all()
    seen = counts[:16][fits > 0]
    assert stats.chisquare(seen, seen.sum() * fits[fits > 0] / fits.sum()).pvalue > 1e-6


# ------------------------------------------------------------------------------- promises that hold for any denoiser


@given(
    seed=st.integers(0, 10**6),
    order=st.sampled_from(EVERY_RULE),
    steps=st.integers(1, 12),
    hidden=st.floats(0, 1),
    temperature=st.sampled_from([0.0, 0.5, 1.0, 3.0]),
    top_k=st.sampled_from([None, 1, 3]),
    top_p=st.sampled_from([None, 0.3, 1.0]),
)
def test_nothing_stays_hidden_and_what_was_given_stays(seed, order, steps, hidden, temperature, top_k, top_p):
    """Any prompt, rule, filter and number of steps; and a token once revealed is never changed."""
    rng = generator(seed)
    start = TEXTS[torch.randint(0, 16, (3,), generator=rng)]
    start = torch.where(torch.rand(3, L, generator=rng) < hidden, MASK, start)
    given_start = start.clone()
    how = {"order": order, "temperature": temperature, "top_k": top_k, "top_p": top_p, "keep_probs": True}
    frames = list(denoise_frames(PROCESS, TABLE, start=start, steps=steps, rng=rng, **how))
    assert [frame.step for frame in frames] == list(range(steps + 1))
    assert frames[0].t == 1000 and frames[0].probs is None and frames[-1].t == 0
    for before, after in zip(frames[:-1], frames[1:], strict=True):
        visible = before.tokens != MASK
        assert torch.equal(after.tokens[visible], before.tokens[visible])
        torch.testing.assert_close(after.probs.sum(-1), torch.ones(3, L, dtype=torch.float64), atol=1e-9, rtol=0)
        drawn = (after.tokens != MASK) & ~visible
        assert (after.probs.gather(2, after.tokens[..., None])[..., 0][drawn] > 0).all()
    assert (frames[-1].tokens != MASK).all()
    assert torch.equal(start, given_start)


TABLE = toys.table_denoiser(0, sharpness=2.0)


@each_rule
@settings(max_examples=15)
@given(masks=st.integers(0, 40), steps=st.integers(1, 50), seed=st.integers(0, 10**6))
def test_counts_are_shared_out_evenly(order, masks, steps, seed):
    """Each step reveals masks // steps tokens, the first masks % steps of them one more; also with steps > masks."""
    start = torch.full((2, 40), MASK)
    start[0, masks:] = 4
    left = [
        int((frame.tokens[0] == MASK).sum())
        for frame in denoise_frames(PROCESS, flat, start=start, steps=steps, rng=generator(seed), order=order)
    ]
    revealed = [before - after for before, after in zip(left[:-1], left[1:], strict=True)]
    assert revealed == [masks // steps + (j < masks % steps) for j in range(steps)]


def flat(zt, t):
    return torch.zeros(*zt.shape, V)


def test_counts_may_follow_another_schedule():
    """The share of masks left is that of the schedule, rounded down."""
    cosine = get_schedule("maskgit_cosine")
    frames = denoise_frames(PROCESS, flat, shape=(1, 100), steps=5, rng=generator(), order="random", counts=cosine)
    left = [int((frame.tokens == MASK).sum()) for frame in frames]
    want = [100 * cosine.gamma(t).item() for t in (1000, 800, 600, 400, 200, 0)]
    assert all(0 <= exact - count < 3 for exact, count in zip(want, left, strict=True)), left


@pytest.mark.parametrize("order", EVERY_RULE)
def test_same_seed_same_text(order):
    first, again, other = (
        sample(PROCESS, TABLE, shape=(20, L), steps=3, rng=generator(seed), order=order) for seed in (1, 1, 2)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)


# --------------------------------------------------------------------------------------------------------- the rules


@pytest.mark.parametrize("order", EVERY_RULE)
def test_logits_are_computed_only_where_they_are_needed(order):
    """At what is revealed, where an order looks at no prediction; else at what is masked."""
    counted = CallCounter(TABLE)
    frames = list(denoise_frames(PROCESS, counted, shape=(4, 5), steps=5, rng=generator(), order=order))
    masks = [int((frame.tokens == MASK).sum()) for frame in frames]
    assert counted.heads == (masks[0] if order in ("ancestral", "random", "left_to_right") else sum(masks))
    assert all(frame.probs is None for frame in frames)


@each_rule
def test_a_score_of_ones_own_writes_what_the_order_of_that_name_writes(order):
    """A user's function is given the whole table; same tokens, though the shipped order asked for less."""
    score = UNMASKING_ORDERS[order]
    how = {"shape": (16, L), "steps": 3}
    named = sample(PROCESS, TABLE, rng=generator(), order=order, **how)
    assert torch.equal(named, sample(PROCESS, TABLE, rng=generator(), order=lambda p, rng: score(p, rng), **how))


def test_what_the_rules_prefer():
    """Three positions whose order differs from rule to rule."""
    probs = torch.tensor([[[0.6, 0.4, 0.0], [0.55, 0.25, 0.2], [0.5, 0.5, 0.0]]], dtype=torch.float64)
    order = {
        name: order(probs, generator()).argsort(descending=True)[0].tolist() for name, order in UNMASKING_ORDERS.items()
    }
    assert order["confidence"] == [0, 1, 2]
    assert order["margin"] == [1, 0, 2]
    assert order["entropy"] == [0, 2, 1]
    assert order["left_to_right"] == [0, 1, 2]


def test_random_order_is_uniform():
    """First of 5 positions in 10,000 rows: chi-square, fails by chance once in a million seeds."""
    first = UNMASKING_ORDERS["random"](torch.ones(10_000, 5, 2), generator()).argmax(1)
    assert stats.chisquare(torch.bincount(first, minlength=5)).pvalue > 1e-6


@pytest.mark.parametrize("order", ["confidence", "margin", "entropy", "left_to_right"])
def test_ties_go_to_the_lower_position(order):
    noisy = torch.zeros(1, L, V, dtype=torch.float64) + 1e-13 * torch.arange(L)[:, None]  # rounding noise
    frames = denoise_frames(PROCESS, lambda zt, t: noisy, shape=(1, L), steps=L, rng=generator(), order=order)
    hidden = [(frame.tokens[0] == MASK).tolist() for frame in frames]
    assert hidden == [[False] * i + [True] * (L - i) for i in range(L + 1)]


# ------------------------------------------------------------------------------------------------------------ filters


def kept_by(logits, **how):
    """Tokens that are left of a row of logits, and what the filters made of it."""
    found = filtered(lambda zt, t: torch.tensor([[logits]], dtype=torch.float64), **how)(None, None)[0, 0]
    return (found > -torch.inf).nonzero()[:, 0].tolist(), found


@given(
    st.lists(st.one_of(st.floats(-20, 20), st.sampled_from([0.0, 1.0])), min_size=2, max_size=8),
    st.integers(1, 10),
    st.floats(0.01, 1),
)
def test_filters_against_plain_python(logits, k, p):
    """Top-k keeps k, the lower id among equals; top-p the shortest list that reaches p, the crossing token included."""
    ranked = sorted(range(len(logits)), key=lambda i: (-logits[i], i))
    kept, found = kept_by(logits, top_k=k)
    assert kept == sorted(ranked[:k]) and all(found[i] == logits[i] for i in kept)

    probs = torch.tensor(logits, dtype=torch.float64).softmax(0).tolist()
    kept, _ = kept_by(logits, top_p=p)
    assert kept == sorted(ranked[: len(kept)]) and kept
    assert sum(probs[i] for i in kept) >= p - 1e-9
    assert sum(probs[i] for i in ranked[: len(kept) - 1]) < p + 1e-9


@pytest.mark.parametrize(("p", "kept"), [(0.5, [0]), (0.75, [0, 1]), (0.500001, [0, 1]), (1.0, [0, 1, 2])])
def test_a_set_that_reaches_p_exactly_is_large_enough(p, kept):
    """Probabilities 1/2, 1/4, 1/4, exact in binary; the token that crosses the line is kept."""
    logits = torch.tensor([2.0, 1.0, 1.0], dtype=torch.float64).log2().mul(math.log(2)).tolist()
    assert torch.tensor(logits, dtype=torch.float64).softmax(0).tolist() == [0.5, 0.25, 0.25]
    assert kept_by(logits, top_p=p)[0] == kept


@pytest.mark.parametrize("how", [{"temperature": 0.7}, {"top_k": 2}, {"top_p": 0.6}])
@pytest.mark.parametrize("process", [None, PROCESS, SEDD(V, MASK)], ids=["logits", "masked", "sedd"])
def test_filters_pass_on_where_logits_are_needed(how, process):
    counted, zt, t = CallCounter(TABLE), TEXTS[:4], torch.ones(4)
    where = torch.rand(4, L, generator=generator()) < 0.4
    some, whole = (filtered(denoise, **how, process=process) for denoise in (counted, TABLE))
    assert torch.equal(some(zt, t, where), whole(zt, t)[where]) and counted.heads == where.sum()


@pytest.mark.parametrize("temperature", [0.25, 4.0])
def test_temperature_is_a_power_of_the_probabilities(temperature):
    logits = [0.3, -1.0, 2.0]
    probs = torch.tensor(logits, dtype=torch.float64).softmax(0) ** (1 / temperature)
    torch.testing.assert_close(kept_by(logits, temperature=temperature)[1].softmax(0), probs / probs.sum())


@pytest.mark.parametrize("temperature", [1e-30, 1e-40, 1e-50, 5e-324])
def test_a_temperature_near_zero_is_its_limit(temperature):
    """In single precision such a divisor is 0, and the logits were infinite or NaN."""
    coldest = filtered(lambda zt, t: TABLE(zt, t).float(), temperature=temperature)
    zt = torch.full((4, L), MASK)
    assert torch.equal(coldest(zt, None).softmax(-1) == 1, filtered(TABLE, temperature=0)(zt, None).softmax(-1) == 1)
    ids = sample(PROCESS, TABLE, shape=(4, L), steps=3, rng=generator(), order="random", temperature=temperature)
    assert torch.equal(ids, sample(PROCESS, TABLE, shape=(4, L), steps=3, rng=generator(), order="random", top_k=1))


def test_temperature_comes_first_then_k_then_p():
    """Hot predictions are flat: of the three tokens that top-k leaves, top-p 0.6 needs two; cold, it needs one."""
    logits = torch.tensor([0.6, 0.2, 0.15, 0.05], dtype=torch.float64).log().tolist()
    for temperature, count in ((100.0, 2), (0.1, 1)):
        assert len(kept_by(logits, temperature=temperature, top_k=3, top_p=0.6)[0]) == count
    assert filtered(TABLE) is TABLE


@pytest.mark.parametrize("how", [{"temperature": 0.0}, {"top_k": 1}, {"top_p": 0.5}, {"top_k": 2, "top_p": 0.5}])
def test_filters_never_count_mask(how):
    """A network may say anything about MASK; filters apply to the predictions of tokens."""

    def saying(value):
        return lambda zt, t: TABLE(zt, t).index_fill(-1, torch.tensor(MASK), value)

    how |= {"shape": (8, L), "steps": 3, "order": "random", "keep_probs": True}
    loud, silent = (
        last_frame(denoise_frames(PROCESS, saying(value), rng=generator(), **how)) for value in (50.0, -math.inf)
    )
    assert torch.equal(loud.tokens, silent.tokens) and torch.equal(loud.probs, silent.probs)


def test_the_exact_denoiser_can_be_filtered():
    """Its beliefs hold zeros: no NaN; at temperature 0 the result is the likeliest text, left to right."""
    text = sample(
        PROCESS, exact_denoiser(), shape=(2, L), steps=L, rng=generator(), order="left_to_right", temperature=0
    )
    state = torch.full((1, L), MASK)
    for i in range(L):
        state[0, i] = beliefs(exact_denoiser(), state)[0, i].argmax()
    assert torch.equal(text, state.expand(2, L))


# ------------------------------------------------------------------------------------------------------------- frames


def test_frames_come_one_at_a_time():
    """Leaving the loop early stops the work; gradients are off inside the sampler, not in the loop that reads it."""
    calls, wanted = [], []

    def denoise(zt, t):
        calls.append(t)
        wanted.append(torch.is_grad_enabled())
        return TABLE(zt, t)

    for frame in denoise_frames(PROCESS, denoise, shape=(1, L), steps=5, rng=generator(), order="random"):
        assert torch.is_grad_enabled()
        if frame.step == 2:
            break
    assert len(calls) == 2 and wanted == [False, False]
    assert [t.item() for t in calls] == [1000, 800]


def test_no_dropout_while_sampling():
    class Network(torch.nn.Module):
        def forward(self, zt, t):
            assert not self.training
            return TABLE(zt, t)

    network = Network().train()
    sample(PROCESS, network, shape=(1, L), steps=2, rng=generator())
    assert network.training
    frames = denoise_frames(PROCESS, network, shape=(1, L), steps=2, rng=generator())
    next(frames)
    frames.close()
    assert network.training
    sample(PROCESS, network.eval(), shape=(1, L), steps=2, rng=generator())
    assert not network.training


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({}, "either shape"),
        ({"shape": (1, L), "start": TEXTS}, "either shape"),
        ({"shape": (1, L), "steps": 0}, r"whole number in 1..1000, got 0"),
        ({"shape": (1, L), "steps": 1001}, r"whole number in 1..1000, got 1001"),
        ({"shape": (1, L), "steps": 2.5}, r"whole number in 1..1000, got 2.5"),
        ({"shape": (1, L), "steps": None}, "needs steps="),
        ({"shape": (1, L), "order": "luck"}, r"orders are \['ancestral', 'confidence'.*got 'luck'"),
        ({"shape": (1, L), "temperature": -1.0}, "temperature must be 0 or more, got -1"),
        ({"shape": (1, L), "top_k": 0}, "k must be a whole number of at least 1, got 0"),
        ({"shape": (1, L), "top_p": 0.0}, r"p is a share of probability in \(0, 1\], got 0"),
        ({"shape": (1, L), "top_p": 1.5}, r"p is a share of probability in \(0, 1\], got 1.5"),
    ],
)
def test_calls_that_make_no_sense_raise(how, message):
    with pytest.raises(ValueError, match=message):
        next(denoise_frames(PROCESS, TABLE, **({"steps": 2, "rng": generator()} | how)))


ABSORBING = [PROCESS, D3PM(V, MASK), SEDD(V, MASK), Autoregressive(V, MASK), BlockDiffusion(V, MASK, 2)]
TOKEN_PROCESSES = [
    *ABSORBING,
    D3PM(V, MASK, "uniform"),
    SEDD(V, MASK, "uniform"),
    UDLM(V, MASK),
    HybridDiffusion(V, MASK),
]


@pytest.mark.parametrize("order", EVERY_RULE)
@pytest.mark.parametrize("extra", [-1, 1])
def test_a_denoiser_of_another_width_is_named(order, extra):
    """A column more was drawn as an id that does not exist."""
    for process in TOKEN_PROCESSES if order == "ancestral" else [PROCESS]:
        wide = process_denoiser(process, V + extra)
        with pytest.raises(ValueError, match=f"returned {V + extra} columns, expected {V}"):
            sample(process, wide, shape=(2, L), steps=2, rng=generator(), order=order)


def process_denoiser(process, width=V):
    """Equal logits of so many tokens, for each position that a process predicts."""
    streams = 2 if process.network.block else 1
    return lambda zt, t: torch.zeros(len(zt), zt.shape[1] // streams, width, dtype=torch.float64)


@pytest.mark.parametrize("process", ABSORBING)
def test_int32_ids_are_filled_in_as_int64_ones(process):
    start = torch.where(torch.arange(L) % 2 == 0, MASK, TEXTS)
    ids = [infill(process, process_denoiser(process), z, steps=2, rng=generator()) for z in (start, start.int())]
    assert torch.equal(*ids) and ids[1].dtype == torch.int64 and (ids[1] != MASK).all()


@pytest.mark.parametrize("process", [*TOKEN_PROCESSES, DiffusionLM(V, MASK)])
def test_noise_comes_as_one_path(process):
    """Each state is made of the one before: where MASK is the noise it stays. int32 ids too."""
    times = [0.0, 200.0, 500.0, 900.0, 1000.0]
    frames = list(noising_frames(process, TEXTS.int(), times, rng=generator()))
    assert [frame.t for frame in frames] == times and torch.equal(frames[0].tokens, TEXTS)
    hidden = torch.stack([frame.tokens == MASK for frame in frames])
    if not isinstance(process, HybridDiffusion):  # there a MASK may turn into a word
        assert not (hidden[:-1] & ~hidden[1:]).any()
    if process in ABSORBING:
        assert hidden[-1].all() and 0.1 < hidden[2].double().mean() < 0.9


@pytest.mark.parametrize("shape", [(0, L), (2, 0)])
def test_an_empty_canvas_is_named(shape):
    for canvas in ({"shape": shape}, {"start": torch.zeros(shape, dtype=torch.long)}):
        with pytest.raises(ValueError, match="whole number of at least 1, got 0"):
            sample(PROCESS, TABLE, steps=2, rng=generator(), **canvas)


def test_a_denoiser_that_says_nan_is_named():
    with pytest.raises(ValueError, match="NaN"):
        sample(PROCESS, lambda zt, t: TABLE(zt, t) * torch.nan, shape=(1, L), steps=1, rng=generator())


def test_a_story_is_completed_exactly():
    """The exact denoiser on tales: a prompt is kept and every result is a story of the language."""
    canvas = canvas_from_text("One rainy morning Leo ___ to the park.", TALES.tokenizer, TALES.length)
    process = type(PROCESS)(TALES.vocab_size, TALES.mask_id)
    ids = infill(process, TALES.denoiser(process), canvas.expand(3, -1), steps=48, rng=generator(), order="random")
    assert (TALES.log_prob(ids) > -torch.inf).all()
    assert torch.equal(ids[canvas.expand(3, -1) != MASK], canvas.expand(3, -1)[canvas.expand(3, -1) != MASK])
