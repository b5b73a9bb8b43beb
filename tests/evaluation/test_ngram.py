"""Counting models against counts made by hand."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from toys import MASK, MICRO, TALES, L, V, generator

from diffkit.evaluation.bounds import gap_to_entropy, nelbo
from diffkit.evaluation.ngram import NGram, seen_windows
from diffkit.processes.autoregressive import Autoregressive
from diffkit.sampling.sampler import sample

PROCESS = Autoregressive(V, MASK)
SEEN = MICRO.sample(40, generator())


def by_hand(texts, history, order):
    """p(next word | history), straight from the definition, as a dictionary."""
    if order == 0:
        return {v: 1 / (V - 1) for v in range(V) if v != MASK}
    shorter = by_hand(texts, history, order - 1)
    n = order - 1
    followers = []
    for text in texts:
        whole = [MASK] * n + text
        followers += [whole[i + n] for i in range(len(text)) if whole[i : i + n] == history[len(history) - n :]]
    kinds = len(set(followers))
    if not kinds:
        return shorter
    return {v: (followers.count(v) + kinds * shorter[v]) / (len(followers) + kinds) for v in shorter}


@pytest.mark.parametrize("order", [0, 1, 2, 3, 4])
def test_probabilities_are_those_of_the_definition(order):
    model = NGram(SEEN, order, vocab_size=V, mask_id=MASK)
    x0 = torch.randint(0, V, (6, L), generator=generator(1))
    x0[x0 == MASK] = 0
    found = model(PROCESS.shifted(x0), 0.0).exp()
    for b, i in itertools.product(range(len(x0)), range(L)):
        want = by_hand(SEEN.tolist(), [MASK] * 4 + x0[b, :i].tolist(), order)
        assert found[b, i].tolist() == pytest.approx([want.get(v, 0.0) for v in range(V)], abs=1e-12)


@given(st.integers(0, 5), st.integers(1, 30), st.integers(0, 50))
def test_every_conditional_sums_to_one_without_mask(order, n, seed):
    model = NGram(MICRO.sample(n, generator(seed)), order, vocab_size=V, mask_id=MASK)
    probs = model(PROCESS.shifted(MICRO.sample(5, generator(seed + 1))), 0.0).exp()
    assert (probs.sum(-1) - 1).abs().max() < 1e-12 and (probs[..., MASK] == 0).all()


def test_uniform_pays_the_logarithm_of_the_vocabulary():
    model = NGram(SEEN, 0, vocab_size=V, mask_id=MASK)
    assert nelbo(PROCESS, model, SEEN, rng=generator()).mean == pytest.approx(L * math.log(V - 1))


def test_longer_histories_come_closer_to_the_truth_and_never_reach_it():
    """On fresh stories; the slots that tie distant sentences are out of reach of any short history."""
    process = Autoregressive(TALES.vocab_size, TALES.mask_id)
    counted = TALES.sample(2000, generator())
    words = {"vocab_size": TALES.vocab_size, "mask_id": TALES.mask_id}
    x0 = TALES.sample(200, generator(1))
    exact = -TALES.log_prob(x0).mean().item()
    nats = [nelbo(process, NGram(counted, n, **words), x0, rng=generator()).mean for n in range(4)]
    assert nats == sorted(nats, reverse=True)
    assert nats[-1] > exact + 5


def test_it_writes_like_any_other_model():
    model = NGram(SEEN, 3, vocab_size=V, mask_id=MASK)
    drawn = sample(PROCESS, model, shape=(50, L), steps=L, rng=generator(2))
    assert (drawn != MASK).all()
    assert 0 < gap_to_entropy(PROCESS, model, MICRO, 200, rng=generator()).mean < 2


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="5 tokens of 30522 do not fit"):
        NGram(torch.zeros(2, 5, dtype=torch.long), 5, vocab_size=30522, mask_id=0)


@given(seed=st.integers(0, 2**31), n=st.integers(1, 5))
def test_seen_windows_are_those_found_by_looking(seed, n):
    rng = generator(seed)
    ids, stream = torch.randint(0, 3, (3, 9), generator=rng), torch.randint(0, 3, (25,), generator=rng).tolist()
    known = {tuple(stream[i : i + n]) for i in range(len(stream) - n + 1)}
    windows = [tuple(row[i : i + n]) for row in ids.tolist() for i in range(len(row) - n + 1)]
    want = sum(window in known for window in windows) / len(windows)
    assert seen_windows(ids, torch.tensor(stream), n) == pytest.approx(want)
