"""The autoregressive twin: exact against the language, normalised by enumeration, and the same text from its cache."""

import itertools
from functools import partial

import pytest
import torch
import toys
from hypothesis import given
from hypothesis import strategies as st
from toys import MASK, MICRO, PROBS, TALES, TEXTS, L, V, generator, likeness, micro_counts, random_texts

from diffkit.evaluation.bounds import gap_to_entropy, nelbo, sequence_bounds
from diffkit.network.cache import KeyValueCache
from diffkit.processes.autoregressive import Autoregressive
from diffkit.sampling.sampler import infill, sample

PROCESS = Autoregressive(V, MASK)


network = partial(toys.moved_network, PROCESS)


# ---------------------------------------------------------------------------------------------------------- likelihood


@pytest.mark.parametrize("language", [MICRO, TALES], ids=["micro", "tales"])
def test_with_the_exact_denoiser_the_bound_is_the_log_likelihood_of_every_text(language):
    process = Autoregressive(language.vocab_size, language.mask_id)
    x0 = TEXTS if language is MICRO else language.sample(8, generator())
    found = sequence_bounds(process, language.denoiser(process), x0, rng=generator())
    torch.testing.assert_close(found, -language.log_prob(x0), rtol=0, atol=1e-9)


def test_the_exact_conditionals_are_those_of_the_texts_that_fit():
    """p(x_i | x_<i) of micro, from a list of its 16 texts."""
    beliefs = MICRO.denoiser(PROCESS)(PROCESS.shifted(TEXTS), torch.zeros(len(TEXTS))).exp()
    for b, i in itertools.product(range(len(TEXTS)), range(L)):
        fits = (TEXTS[:, :i] == TEXTS[b, :i]).all(1)
        want = torch.zeros(V, dtype=torch.float64).index_add_(0, TEXTS[fits, i], PROBS[fits]) / PROBS[fits].sum()
        torch.testing.assert_close(beliefs[b, i], want, rtol=0, atol=1e-12)


def test_a_network_gives_probabilities_that_sum_to_one_over_all_sequences():
    words = [v for v in range(V) if v != MASK]
    everything = torch.tensor(list(itertools.product(words, repeat=L)))
    nats = PROCESS.bound(network(), everything, torch.zeros(len(everything)), generator()).sum(1)
    assert (-nats).exp().sum().item() == pytest.approx(1, abs=1e-9)


def test_no_token_is_predicted_from_itself_or_from_what_follows():
    model, x0 = network(), random_texts(4)
    want = PROCESS.log_probs(model, x0, torch.zeros(4))
    for j in range(L):
        changed = x0.clone()
        changed[:, j] = torch.where(x0[:, j] == 0, 2, 0)
        found = PROCESS.log_probs(model, changed, torch.zeros(4))
        assert torch.equal(found[:, : j + 1], want[:, : j + 1])
        assert j == L - 1 or not torch.equal(found[:, j + 1], want[:, j + 1])


def test_the_bound_is_one_number_and_needs_one_draw():
    model, calls = network(), []

    def counted(xt, t):
        calls.append(len(xt))
        return model(xt, t)

    first = nelbo(PROCESS, counted, random_texts(40), rng=generator(1), draws=4, batch_size=16)
    assert first.mean == pytest.approx(nelbo(PROCESS, model, random_texts(40), rng=generator(2)).mean, rel=1e-12)
    assert calls == [16, 16, 8], "each text is read once"


def test_loss_and_bound_agree_whatever_the_time():
    x0, model = random_texts(6), network()
    losses = [sum(PROCESS.loss(model, x0, torch.full((6,), t), generator())) for t in (1, 500, 1000)]
    assert all(torch.equal(loss, PROCESS.bound(model, x0, torch.rand(6), generator())) for loss in losses)


def test_the_gap_of_the_exact_denoiser_is_zero():
    gap = gap_to_entropy(PROCESS, MICRO.denoiser(PROCESS), MICRO, 30, rng=generator())
    assert gap.mean == pytest.approx(0, abs=1e-12)


# ------------------------------------------------------------------------------------------------------------ sampling


@given(st.floats(0, 1000), st.integers(0, 20))
def test_time_hides_the_end_of_a_text(t, seed):
    x0 = random_texts(3, seed)
    xt, is_masked = PROCESS.corrupt(x0, torch.full((3,), t), generator())
    hidden = int(is_masked[0].sum())
    assert hidden - 1 < t / 1000 * L <= hidden + 1e-9
    assert torch.equal(xt[:, : L - hidden], x0[:, : L - hidden]) and (xt[:, L - hidden :] == MASK).all()
    assert torch.equal(is_masked, xt == MASK)


def test_the_exact_denoiser_writes_the_language():
    """Chi-square over all 16 texts; p below 1e-7 by chance in one of ten million seeds."""
    n = 3000
    drawn = sample(PROCESS, MICRO.denoiser(PROCESS), shape=(n, L), steps=L, rng=generator(3))
    counts = micro_counts(drawn)
    assert counts[-1] == 0 and likeness(counts) > 1e-7


def test_the_cache_changes_no_logit():
    model, x0 = network(), random_texts(5)
    whole, cache, parts = model(x0, 0.0), KeyValueCache(), []
    for piece in x0.split([1, 2, L - 3], 1):
        parts.append(model(piece, 0.0, cache=cache))
    assert len(cache) == L
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("settings", [{}, {"rotary": False}, {"time": "adaln"}], ids=str)
@pytest.mark.parametrize("steps", [1, 2, L])
def test_the_cache_writes_the_same_text(steps, settings):
    model, start = network(**settings), torch.full((40, L), MASK)
    slow = infill(PROCESS, lambda z, t: model(z, t), start, steps=steps, rng=generator(4))
    assert torch.equal(infill(PROCESS, model, start, steps=steps, rng=generator(4)), slow)
    assert (slow != MASK).all()


def test_what_is_given_is_kept():
    start = random_texts(30, 5)
    hidden = torch.rand(30, L, generator=generator(6)) < 0.5
    start = start.masked_fill(hidden, MASK)
    filled = infill(PROCESS, network(), start, steps=3, rng=generator())
    assert torch.equal(filled[~hidden], start[~hidden]) and (filled != MASK).all()


def test_it_cannot_see_to_the_right():
    """What is drawn for a blank does not depend on the words behind it: the handicap of a left-to-right model."""
    start, other = random_texts(50, 7), random_texts(50, 8)
    start[:, 0] = other[:, 0] = MASK
    first = infill(PROCESS, network(), start, steps=1, rng=generator(9))
    second = infill(PROCESS, network(), other, steps=1, rng=generator(9))
    assert torch.equal(first[:, 0], second[:, 0])


# -------------------------------------------------------------------------------------------------- as any other model


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="mask_id must be one of the 5 ids, got 5"):
        Autoregressive(5, 5)
    with pytest.raises(ValueError, match="'confidence' is for masked diffusion; Autoregressive"):
        sample(PROCESS, network(), shape=(1, L), steps=1, rng=generator(), order="confidence")
    with pytest.raises(ValueError, match="a cache needs a network that is causal"):
        network(causal=False)(TEXTS, 0.0, cache=KeyValueCache())
    cache = KeyValueCache()
    network_ = network()
    network_(TEXTS, 0.0, cache=cache)
    with pytest.raises(ValueError, match=f"at most {L} tokens .* got {L + 1}"):
        network_(TEXTS[:, :1], 0.0, cache=cache)
