"""Sample metrics against counting by hand, and against what exact sampling must show."""

import math

import pytest
import torch
from toys import MICRO, PROBS, TALES, TEXTS, generator

from diffkit.evaluation.samples import (
    copied,
    distance,
    distinct_n,
    marginals,
    pair_distance,
    repeated_sentences,
    self_bleu,
    token_entropy,
    until_end,
)

STOP, EOS, PAD = 9, 1, 0
IDS = torch.tensor([[2, 3, 2, 3, EOS, PAD], [2, 3, 4, EOS, PAD, PAD], [5, 5, 5, 5, 5, 5]])


def test_a_text_ends_at_its_first_eos():
    assert until_end(IDS, EOS) == [[2, 3, 2, 3], [2, 3, 4], [5, 5, 5, 5, 5, 5]]


def test_distinct_n_counts_by_hand():
    assert distinct_n(IDS, 1, eos_id=EOS) == 4 / 13  # 2 3 4 5
    assert distinct_n(IDS, 2, eos_id=EOS) == 4 / 10  # 23 32 34 55
    assert distinct_n(IDS, 3, eos_id=EOS) == 4 / 7  # 232 323 234 555
    assert math.isnan(distinct_n(IDS, 7, eos_id=EOS))


def test_token_entropy_is_that_of_the_words_within_a_sample():
    assert token_entropy(IDS, eos_id=EOS) == pytest.approx((math.log(2) + math.log(3) + 0) / 3)


def test_repeated_sentences():
    rows = [[2, 3, STOP, 2, 3, STOP, EOS], [2, 3, STOP, 3, 2, STOP, EOS], [2, STOP, 2, EOS, PAD, PAD, PAD]]
    assert repeated_sentences(torch.tensor(rows), eos_id=EOS, stop_id=STOP) == pytest.approx(1 / 3)


def test_copies_by_chance_are_as_many_as_exact_sampling_shows():
    """The share of fresh stories within a training set of 6 texts is their probability; 5 standard errors, p < 1e-6."""
    training = TEXTS[[0, 1, 2, 3, 4, 5, 0]]
    found = copied(MICRO.sample(4000, generator()), training, MICRO)
    assert found.by_chance == pytest.approx(PROBS[:6].sum().item())
    assert abs(found.share - found.by_chance) < 5 * found.standard_error
    assert copied(TEXTS[:1].expand(10, -1), TEXTS[6:], MICRO).share == 0


def test_distances_are_those_of_the_definition():
    counts, probs = torch.tensor([3, 1, 0]), torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64)
    found = distance(counts, probs)
    assert found.kl == pytest.approx(0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.25))
    assert found.total_variation == pytest.approx(0.25)


def test_floors_are_the_mean_over_perfect_samples():
    """Against 4,000 draws of 20 samples each, within 5 standard errors (p < 1e-6)."""
    probs = torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64)
    draws = torch.multinomial(probs.expand(4000, -1), 20, replacement=True, generator=generator())
    found = [distance(torch.bincount(row, minlength=3), probs) for row in draws]
    for name in ("kl", "total_variation"):
        values = torch.tensor([getattr(one, name) for one in found])
        assert abs(values.mean() - getattr(found[0], f"{name}_floor")) < 5 * values.std() / math.sqrt(len(values))


def test_true_stories_lie_at_the_floor_and_one_story_far_above():
    true = marginals(TALES, TALES.sample(2000, generator()))
    alike = marginals(TALES, TALES.sample(1, generator()).expand(200, -1))
    assert set(true) == {"plot", "ending", "length"}
    with pytest.raises(ValueError, match="no sample is a story"):
        marginals(TALES, torch.zeros(2, TALES.length, dtype=torch.int64))
    for name in true:
        assert true[name].kl < 2 * true[name].kl_floor + 0.005
        assert alike[name].kl > 5 * alike[name].kl_floor and alike[name].total_variation > 0.5


def test_self_bleu_is_full_for_one_text_told_again_and_low_for_strangers():
    same = TALES.sample(1, generator()).expand(4, -1)
    assert self_bleu(same, eos_id=TALES.eos_id) == pytest.approx(100)
    strangers = torch.arange(40).view(4, 10) + 200
    assert self_bleu(strangers, eos_id=TALES.eos_id) < 5
    with pytest.raises(ValueError, match="at least two"):
        self_bleu(same[:1], eos_id=TALES.eos_id)


def test_self_bleu_is_bleu_by_hand():
    """Two texts of six words that share their first five: 5/6, 4/5, 3/4, 2/3 of the n-grams match."""
    a, b = [11, 12, 13, 14, 15, 16], [11, 12, 13, 14, 15, 17]
    want = 100 * (5 / 6 * 4 / 5 * 3 / 4 * 2 / 3) ** 0.25
    assert self_bleu(torch.tensor([a, b]), eos_id=TALES.eos_id) == pytest.approx(want)


def test_pairs_of_slots_are_counted_against_their_exact_joint_distribution():
    """Of 4,000 true stories: KL below three floors (about 63 degrees of freedom; a chance below 1e-9)."""
    ids = TALES.sample(4000, generator(1))
    found = pair_distance(TALES, ids, "hero", "park")
    assert found.kl < 3 * found.kl_floor
    one_hero = ids[ids[:, 0] == ids[ids[:, 0] != TALES.tokenizer.convert_tokens_to_ids("One")][0, 0]]
    assert pair_distance(TALES, one_hero, "hero", "park").kl > 1
