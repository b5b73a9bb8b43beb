"""Guidance against Bayes' rule, a classifier asked word by word, and the exact conditional language."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from toys import MASK, MICRO, TALES, TEXTS, L, V, generator

from diffkit.course.orders import mask_patterns
from diffkit.model import build_model
from diffkit.network.conditioning import Conditioned
from diffkit.processes.d3pm import D3PM
from diffkit.processes.masked import MaskedDiffusion
from diffkit.processes.sedd import SEDD, UDLM
from diffkit.sampling.guidance import MIN_LOG_PROB, classifier_guided, condition_on, exact_classifier, guide
from diffkit.sampling.logits import filtered
from diffkit.sampling.sampler import denoise_frames, sample

PROCESS = MaskedDiffusion(V, MASK, "linear")
TIME = torch.tensor(500.0)


def random_denoiser(seed):
    logits = torch.randn(L, V, generator=generator(seed), dtype=torch.float64)
    logits[:, MASK] = -torch.inf
    return lambda zt, t: logits[: zt.shape[1]].expand(*zt.shape, V)


def states():
    """Every partly hidden story of micro, (N, L)."""
    stories = MICRO.sample(400, generator()).unique(dim=0)
    hidden = mask_patterns(L)
    return torch.where(hidden[None], MASK, stories[:, None]).flatten(0, 1).unique(dim=0)


@given(st.floats(-2, 6), st.integers(0, 20))
def test_guided_beliefs_are_the_product_of_powers(scale, seed):
    told, untold = random_denoiser(seed), random_denoiser(seed + 100)
    zt = torch.full((1, L), MASK)
    p, q = (denoise(zt, TIME).softmax(-1) for denoise in (told, untold))
    product = torch.where(p > 0, p ** (1 + scale) * q.clamp(min=1e-300) ** -scale, 0.0)
    want = product / product.sum(-1, keepdim=True)
    assert torch.allclose(guide(told, untold, scale)(zt, TIME).softmax(-1), want, atol=1e-9)


@pytest.mark.parametrize("scale", [1.0, -0.5])
def test_a_token_that_only_the_unconditional_prediction_excludes_gives_no_nan(scale):
    """Its log-probability counts as MIN_LOG_PROB; without that, infinite logits and NaN probabilities."""
    log_p = torch.tensor([0.5, 0.5, 0.0], dtype=torch.float64).log()
    log_q = torch.tensor([0.0, 0.5, 0.5], dtype=torch.float64).log()
    log_p, log_q = (torch.cat([x, torch.tensor([-torch.inf], dtype=torch.float64)]) for x in (log_p, log_q))
    guided = guide(lambda zt, t: log_p.expand(1, L, 4), lambda zt, t: log_q.expand(1, L, 4), scale)
    probs = guided(torch.full((1, L), 3), TIME).softmax(-1)  # MASK is 3
    want = (1 + scale) * log_p[:2] - scale * torch.tensor([MIN_LOG_PROB, math.log(0.5)], dtype=torch.float64)
    torch.testing.assert_close(probs[0, 0, :2], want.softmax(0))
    assert (probs[..., 2:] == 0).all()


def test_guidance_passes_on_where_logits_are_needed():
    told, untold, zt = random_denoiser(0), random_denoiser(1), torch.full((2, L), MASK)
    where = torch.rand(2, L, generator=generator()) < 0.5
    for guided in (guide(told, untold, 1.5), classifier_guided(told, untold, 2.0)):
        assert torch.equal(guided(zt, TIME, where), guided(zt, TIME)[where])


@given(st.floats(0.1, 4), st.floats(-5, 5))
def test_constants_added_to_logits_change_nothing(scale, constant):
    told, untold = random_denoiser(0), random_denoiser(1)
    zt = torch.full((1, L), MASK)
    moved = guide(lambda z, t: told(z, t) + constant, lambda z, t: untold(z, t) - 2 * constant, scale)
    assert torch.allclose(moved(zt, TIME).softmax(-1), guide(told, untold, scale)(zt, TIME).softmax(-1), atol=1e-9)


def test_scale_zero_draws_the_very_tokens_of_conditional_sampling():
    torch.manual_seed(0)
    model = build_model(
        PROCESS, {"hidden_size": 16, "num_layers": 1, "num_heads": 2}, max_length=L, labels=len(MICRO.labels)
    ).eval()
    torch.nn.init.normal_(model.denoiser.label_embedding.weight, generator=generator())
    draws = [
        sample(PROCESS, denoise, shape=(16, L), steps=L, rng=generator(3))
        for denoise in (condition_on(model, 1, 0.0), Conditioned(model, 1))
    ]
    assert torch.equal(*draws) and guide(model, PROCESS, -1) is PROCESS
    guided = sample(PROCESS, condition_on(model, 1, 5.0), shape=(16, L), steps=L, rng=generator(3))
    assert not torch.equal(guided, draws[0])


@pytest.mark.parametrize("label", MICRO.labels)
def test_the_exact_classifier_is_right_for_every_word_everywhere(label):
    """Asked word by word: put it there, and compare the exact probabilities of the canvas, label or no label."""
    zt = states()
    opinions = exact_classifier(MICRO, PROCESS, label)(zt, TIME)
    prior = torch.exp(MICRO._template_prior(None))[MICRO.template_labels == MICRO.labels.index(label)].sum().log()
    asked = 0
    for i in range(L):
        for v in range(V):
            trial = zt.clone()
            trial[:, i] = v
            possible = (zt[:, i] == MASK) & (MICRO.log_prob(trial) > -torch.inf) & (trial[:, i] != MASK)
            if possible.any():
                seen = MICRO.seen(trial[possible])
                want = prior + MICRO.posterior(seen, label)[0] - MICRO.posterior(seen)[0]
                assert torch.allclose(opinions[possible, i, v].exp(), want.exp(), atol=1e-9)
                asked += int(possible.sum())
    assert asked > 100


@pytest.mark.parametrize("label", MICRO.labels)
def test_classifier_guidance_of_the_exact_denoiser_is_the_exact_conditional_denoiser(label):
    zt = states()
    zt = zt[MICRO.posterior(MICRO.seen(zt), label)[0] > -torch.inf]
    guided = classifier_guided(MICRO.denoiser(PROCESS), exact_classifier(MICRO, PROCESS, label), 1.0)
    got, want = (PROCESS.log_probs(d(zt, TIME), zt).exp() for d in (guided, MICRO.denoiser(PROCESS, label)))
    assert torch.allclose(got, want, atol=1e-9)


def test_a_classifier_without_an_opinion_changes_nothing():
    """A state that no story fits: its belief stays as it was."""
    nonsense = torch.full((1, TALES.length), TALES.pad_id)
    nonsense[0, 0] = TALES.mask_id
    process = MaskedDiffusion(TALES.vocab_size, TALES.mask_id, "linear")
    plain = TALES.denoiser(process)
    guided = classifier_guided(plain, exact_classifier(TALES, process, "kept"), 2.0)
    assert torch.allclose(guided(nonsense, TIME).softmax(-1), plain(nonsense, TIME).softmax(-1))


@pytest.mark.parametrize("scale", [0.5, 3.0])
def test_the_guided_exact_denoiser_tells_stories_with_the_label(scale):
    process = MaskedDiffusion(TALES.vocab_size, TALES.mask_id, "linear")
    guided = guide(TALES.denoiser(process, "shared"), TALES.denoiser(process), scale)
    ids = sample(process, guided, shape=(8, TALES.length), steps=TALES.length, order="random", rng=generator())
    assert (TALES.log_prob(ids) > -torch.inf).all()
    assert (TALES.template_labels[TALES.parse(ids)] == TALES.labels.index("shared")).all()


def test_following_needs_a_label_that_the_model_knows():
    plain = build_model(PROCESS, {"hidden_size": 16, "num_layers": 1, "num_heads": 2}, max_length=L)
    with pytest.raises(ValueError, match="trained without labels"):
        condition_on(plain, 0)
    model = build_model(PROCESS, {"hidden_size": 16, "num_layers": 1, "num_heads": 2}, max_length=L, labels=2)
    with pytest.raises(ValueError, match=r"label must be a whole number in 0\.\.1, got 2"):
        condition_on(model, 2)


# ----------------------------------------------------------------- which token is changed, and never whether or when

ABSORBING = [PROCESS, D3PM(V, MASK), SEDD(V, MASK), SEDD(V, MASK, sampler="euler"), UDLM(V, MASK, "absorbing")]
CHANGES = {
    "guidance 0.001": lambda p, q, process: guide(p, q, 0.001),
    "guidance 2": lambda p, q, process: guide(p, q, 2.0),
    "guidance -0.5": lambda p, q, process: guide(p, q, -0.5),
    "classifier": lambda p, q, process: classifier_guided(p, lambda zt, t: q(zt, t).log_softmax(-1), 3.0),
    "temperature 0.5": lambda p, q, process: filtered(p, temperature=0.5, process=process),
    "temperature 0": lambda p, q, process: filtered(p, temperature=0.0, process=process),
    "top-k": lambda p, q, process: filtered(p, top_k=2, process=process),
    "top-p": lambda p, q, process: filtered(p, top_p=0.6, process=process),
}
TILTED = {
    "guidance 0.001": lambda p, q: p**1.001 / q**0.001,
    "guidance 2": lambda p, q: p**3 / q**2,
    "guidance -0.5": lambda p, q: (p * q) ** 0.5,
    "classifier": lambda p, q: p * q**3,
    "temperature 0.5": lambda p, q: p**2,
    "temperature 0": lambda p, q: (p == p.max()).double(),
    "top-k": lambda p, q: p * (p >= p.topk(2).values[-1]),
    "top-p": lambda p, q: p * (p.sort(descending=True).values.cumsum(0) - p.sort(descending=True).values < 0.6)[
        p.argsort(descending=True).argsort()
    ],
}  # fmt: skip


@pytest.mark.parametrize("process", ABSORBING, ids=lambda p: f"{p.name} {getattr(p, 'sampler', '')}")
@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_the_predictions_leaves_the_time_of_each_reveal_alone(process, change):
    """The mask stays as likely as before, and a token that is revealed follows the tilted law.

    20,000 positions: a binomial test against an unchanged step and a chi-square, each failing once in a million seeds.
    """
    p, q = random_denoiser(0), random_denoiser(1)
    if process.name == "sedd":  # a learned score: its sum is not that of any distribution
        p, q = (lambda zt, t, d=d: d(zt, t) + 0.7 for d in (p, q))
    zt, t, s = torch.full((20_000, 1), MASK), TIME.expand(20_000), torch.tensor(300.0).expand(20_000)
    plain = process.step(p, zt, t, s, generator(2)).zs[:, 0]
    zs = process.step(CHANGES[change](p, q, process), zt, t, s, generator(3)).zs[:, 0]
    stays = [int((z == MASK).sum()) for z in (plain, zs)]
    assert 2000 < stays[0] < 19_000
    assert stats.chi2_contingency([[n, 20_000 - n] for n in stays]).pvalue > 1e-6
    tokens = torch.arange(V) != MASK
    want = TILTED[change](
        *(d(zt[:1], TIME)[0, 0].softmax(-1)[tokens] for d in (random_denoiser(0), random_denoiser(1)))
    )
    counts = torch.bincount(zs[zs != MASK], minlength=V)[tokens]
    assert (counts[want == 0] == 0).all()
    counts, want = counts[want > 0], want[want > 0]
    assert len(want) == 1 or stats.chisquare(counts, counts.sum() * want / want.sum()).pvalue > 1e-6


@pytest.mark.parametrize("change", CHANGES)
def test_uniform_scores_keep_the_rate_of_change(change):
    """SEDD with uniform noise: all scores but that of the token itself sum to what they did."""
    process, p, q = SEDD(V, MASK, "uniform"), random_denoiser(0), random_denoiser(1)
    zt = TEXTS[:8]
    plain, changed = (process.log_score(d(zt, TIME), zt, TIME).exp() for d in (p, CHANGES[change](p, q, process)))
    torch.testing.assert_close(changed.sum(-1), plain.sum(-1))
    torch.testing.assert_close(changed.gather(-1, zt[..., None]), torch.ones_like(changed[..., :1]))


def test_guided_sedd_reveals_as_many_tokens_as_its_schedule_says():
    """Stories under the exact scores: half of the masks at half time, binomial within 5.5 standard deviations.

    Guidance that took log scores for logits left 47 of 48 masked until the last step, and no story was valid.
    """
    process = SEDD(TALES.vocab_size, TALES.mask_id)
    guided = guide(TALES.denoiser(process, "kept"), TALES.denoiser(process), 0.5)
    frames = list(denoise_frames(process, guided, shape=(4, TALES.length), steps=8, rng=generator()))
    left = (frames[4].tokens == TALES.mask_id).sum()
    assert abs(left - 2 * TALES.length) < 5.5 * TALES.length**0.5


@pytest.mark.parametrize("scale", [math.nan, math.inf, 1e7, -1e300])
def test_a_scale_that_overflows_is_refused(scale):
    for guided in (guide, classifier_guided):
        with pytest.raises(ValueError, match="the scale must lie within"):
            guided(random_denoiser(0), random_denoiser(1), scale)
