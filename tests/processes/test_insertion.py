"""FlexMDM and Edit Flows: enumerated on `micro`. What noise leaves, the bound, the sampler, as any other process."""

import math

import pytest
import torch
from scipy.stats import chisquare
from toys import ENTROPY, MASK, MICRO, PROBS, TALES, TEXTS, L, V, generator, likeness, micro_counts

from diffkit.cli.settings import DataSettings, ModelSettings, build
from diffkit.course.insertion import ABSENT, HIDDEN, WHOLE, ExactInsertion, enumerated_bound, fates, outcomes
from diffkit.evaluation.bounds import gap_to_entropy, sequence_bounds
from diffkit.processes.insertion import EditFlow, FlexMDM, Shortened
from diffkit.sampling.sampler import infill, noising_frames, sample

EOS, PAD = MICRO.eos_id, MICRO.pad_id
SIZES = (TEXTS == EOS).int().argmax(1)
each_kind = pytest.mark.parametrize("kind", [FlexMDM, EditFlow])


def process(kind, **settings):
    return kind(V, MASK, **settings)


@pytest.fixture(scope="module")
def exact():
    """The exact denoisers, made once."""
    return {kind: ExactInsertion(process(kind), TEXTS, PROBS.log()) for kind in (FlexMDM, EditFlow)}


def chance(kind, gamma):
    """Probabilities of the fates of a token, from the definition: two uniform numbers, for deletion and for masking."""
    masked = -gamma * math.log(gamma) if kind is FlexMDM else 0.0
    return {ABSENT: gamma, HIDDEN: masked, WHOLE: 1 - gamma - masked}


def row_of(words):
    return [*words, EOS] + [PAD] * (L - 1 - len(words))


def shortened(text, fate):
    """By lists, what is left of a text, and where its tokens are or would be: ids, slots."""
    kept = [MASK if f == HIDDEN else w for w, f in zip(text, fate, strict=True) if f != ABSENT]
    slots = [sum(f != ABSENT for f in fate[:i]) for i in range(len(fate))]
    return row_of(kept), slots


def everything(kind, text, gamma):
    """All that noise can make of a text (L,) at a rate: a Shortened of all ways, and their probabilities."""
    n, p = int((text == EOS).int().argmax()), chance(kind, gamma)
    ways = fates(n, kind is FlexMDM)
    states = [shortened(text[:n].tolist(), fate) for fate in ways.tolist()]
    rest = torch.arange(n, L) - n
    slot = torch.stack([torch.cat([torch.tensor(s).long(), rest + sum(f != ABSENT for f in fate)])
                        for (_, s), fate in zip(states, ways.tolist(), strict=True)])  # fmt: skip
    pad = torch.full((len(ways), L - n), WHOLE)
    whole = torch.cat([ways, pad], 1)
    short = Shortened(torch.tensor([z for z, _ in states]), slot, whole == ABSENT, whole == HIDDEN)
    return short, torch.tensor([math.prod(p[f] for f in fate) for fate in ways.tolist()], dtype=torch.float64)


# -------------------------------------------------------------------------------------------------------------- noise


@each_kind
def test_noise_leaves_what_the_definition_says(kind):
    """Chi-square over all fates of a text of four words; p below 1e-7 by chance in one of ten million seeds."""
    model, gamma, n = process(kind), 0.3, 20_000
    text = TEXTS[(SIZES == 4).nonzero()[0, 0]]
    short = model.shorten(text.expand(n, L), 0.0, model.schedule.time_of(gamma), generator())
    want, p = everything(kind, text, gamma)
    codes = lambda s: ((2 * s.absent + 1 * s.masked) * 3 ** torch.arange(L)).sum(1)  # noqa: E731
    known, counts = codes(want), torch.bincount(codes(short), minlength=3**L)
    assert counts[known].sum() == n
    assert chisquare(counts[known].numpy(), (p * n).numpy()).pvalue > 1e-7
    assert all(torch.equal(*pair) for pair in zip(outcomes(model, text), want, strict=True))
    order = known.argsort()
    row = order[torch.searchsorted(known[order], codes(short))]
    assert torch.equal(short.zt, want.zt[row]) and torch.equal(short.slot, want.slot[row])


@each_kind
def test_noise_in_two_steps_is_noise(kind):
    """z_s and then z_t: counts of what is absent and MASK, five standard deviations (a chance of 6e-7)."""
    model, n = process(kind), 40_000
    text = TEXTS[(SIZES == 4).nonzero()[0, 0]].expand(n, L)
    *_, last = noising_frames(model, text, [400.0, 700.0], rng=generator(2))
    p, words = chance(kind, 0.49), 4 * n
    absent = words - int(((last.z != PAD) & (last.z != EOS)).sum())
    for found, share in ((absent, p[ABSENT]), (int((last.z == MASK).sum()), p[HIDDEN])):
        assert abs(found / words - share) < 5 * (share * (1 - share) / words) ** 0.5 + 1e-12


@each_kind
def test_the_ends_are_the_text_and_nothing(kind):
    model = process(kind)
    assert torch.equal(model.corrupt(TEXTS, 0.0, generator())[0], TEXTS)
    empty, hit = model.corrupt(TEXTS, 1000.0, generator())
    assert torch.equal(empty, model.prior(len(TEXTS), L, generator())) and torch.equal(hit.sum(1), SIZES)


# ---------------------------------------------------------------------------------------------------------- the bound


@each_kind
def test_with_the_exact_denoiser_the_bound_is_the_log_likelihood_of_every_text(kind, exact):
    model = process(kind)
    found = [enumerated_bound(model, exact[kind], TEXTS[i]) for i in (0, 5, 15)]
    want = -PROBS[[0, 5, 15]].log()
    assert found == pytest.approx(want.tolist(), abs=2e-6)


@each_kind
@pytest.mark.parametrize("schedule", ["poly", "cosine"])
def test_draws_of_the_bound_have_its_mean(kind, schedule, exact):
    """Whatever the schedule: means of 10,000 draws within 6 standard errors, a chance of 2e-9."""
    model = process(kind, schedule=schedule)
    denoise = ExactInsertion(model, TEXTS, PROBS.log()) if schedule != "poly" else exact[kind]
    tilted = lambda z, t: denoise(z, t).clamp(min=-9) * 0.7  # noqa: E731
    n, text = 10_000, TEXTS[10]
    u = torch.rand(n, generator=generator(3), dtype=torch.float64)
    want = enumerated_bound(model, tilted, text)
    for nats in (
        model.bound(tilted, text.expand(n, L), u, generator(4)).sum(1),
        model.loss(tilted, text.expand(n, L), 1000 * (1 - u), generator(5)).diffusion.sum(1),
    ):
        assert abs(nats.mean().item() - want) < 6 * nats.std().item() / n**0.5
    assert want > -PROBS[10].log().item() + 0.1, "a denoiser that is off costs"


@each_kind
def test_the_gap_of_the_exact_denoiser_is_zero(kind, exact):
    gap = gap_to_entropy(process(kind), exact[kind], MICRO, 1500, rng=generator())
    assert abs(gap.mean) < 5 * gap.standard_error < 0.6
    bounds = sequence_bounds(process(kind), exact[kind], MICRO.sample(1500, generator(7)), rng=generator(8))
    assert abs(bounds.mean() - ENTROPY) < 5 * bounds.std() / 1500**0.5


def test_the_first_answer_is_the_mean_length(exact):
    """On the empty canvas y counts the tokens of a whole text, and later what is likely to be missing still."""
    for kind in (FlexMDM, EditFlow):
        empty = process(kind).prior(3, L, generator())
        gamma = torch.tensor([1.0, 0.25, 1e-9], dtype=torch.float64)
        y = exact[kind](empty, process(kind).schedule.time_of(gamma))[:, 0, -1].exp()
        weight = PROBS * gamma[:, None] ** SIZES
        torch.testing.assert_close(y, (weight * SIZES).sum(1) / weight.sum(1))
        assert y[0].item() == pytest.approx((PROBS * SIZES).sum().item()) and y[2].item() == pytest.approx(2)


def test_frozen_tokens_stay_and_cost_nothing():
    x0, frozen = TEXTS, torch.zeros(len(TEXTS), L, dtype=torch.bool)
    frozen[:, 1] = True
    short = process(FlexMDM).shorten(x0, 0.0, 999.9, generator(), frozen)
    assert (short.zt[:, 0] == x0[:, 1]).all() and not (short.absent | short.masked)[frozen].any()


# ------------------------------------------------------------------------------------------------------------ sampling


@pytest.mark.slow
@each_kind
def test_with_many_steps_the_exact_denoiser_writes_the_language(kind, exact):
    """Chi-square over the 16 texts among those of the language: p below 1e-7 in one of ten million seeds.

    A step of two events at once can leave the language; with 200 steps few do.
    """
    n = 1500
    counts = micro_counts(sample(process(kind), exact[kind], shape=(n, L), steps=200, rng=generator(3)))
    assert counts[-1] < 0.1 * n and likeness(counts) > 1e-7


@each_kind
def test_a_text_is_whole_and_what_was_there_stays_in_order(kind):
    """Any denoiser, however greedy: EOS and PAD end each text, no MASK is left, and the start is a subsequence."""
    model = process(kind)
    greedy = lambda z, t: torch.full((*z.shape, V + 1), 3.0, dtype=torch.float64)  # noqa: E731
    start = TEXTS[SIZES == 2]
    for steps in (1, 3, 10):
        ids = infill(model, greedy, start, steps=steps, rng=generator(steps))
        ends = (ids == EOS).int().argmax(1)
        is_text = torch.arange(L) < ends[:, None]
        assert ((ids == EOS).sum(1) == 1).all() and (ids[torch.arange(L) > ends[:, None]] == PAD).all()
        assert not torch.isin(ids[is_text], torch.tensor([MASK, PAD])).any()
        for row, words in zip(ids.tolist(), start[:, :2].tolist(), strict=True):
            rest = iter(row)
            assert all(word in rest for word in words)


def test_a_start_needs_its_end():
    with pytest.raises(ValueError, match="FlexMDM: a start is a text, EOS and PAD"):
        infill(process(FlexMDM), lambda z, t: None, torch.full((1, L), MASK), steps=1, rng=generator())


# -------------------------------------------------------------------------------------------------- as any other model


def test_mistakes_are_named(tmp_path):
    with pytest.raises(ValueError, match="eos_id and pad_id are ids other than MASK, got 1 and 0"):
        FlexMDM(V, MASK, eos_id=MASK)
    with pytest.raises(ValueError, match="without a jump, but loglinear"):
        EditFlow(V, MASK, schedule="loglinear")
    with pytest.raises(ValueError, match="no evidence about single positions"):
        TALES.denoiser(FlexMDM(TALES.vocab_size, TALES.mask_id))(TALES.sample(1, generator()), 5.0)
    (tmp_path / "a.txt").write_text("".join(f"Day {i}.\n" for i in range(300)), encoding="utf-8")
    TALES.tokenizer.save_pretrained(tmp_path / "words")
    with pytest.raises(ValueError, match="build: EditFlow learns where texts end"):
        build(
            DataSettings(str(tmp_path / "a.txt"), str(tmp_path / "words"), length=8, validation_fraction=0.5),
            ModelSettings("pico", EditFlow),
            0,
        )
