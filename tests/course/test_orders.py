"""Bounds taken apart: every mask pattern and every order of a small canvas, against what they should add up to."""

import itertools
import math

import pytest
import torch
from torch import Generator
from toys import TALES, TEXTS, L, count_bound, generator, masked_diffusion, table_denoiser

from diffkit.course.orders import mask_patterns, order_bounds, pattern_chances, pattern_losses
from diffkit.languages.story_language import load_language
from diffkit.processes.masked import MaskedDiffusion, discrete_weight
from diffkit.processes.schedules import get_schedule


@pytest.fixture(scope="module")
def micro():
    language = load_language("micro")
    process = MaskedDiffusion(language.vocab_size, language.mask_id, "linear")
    texts = language.sample(400, Generator().manual_seed(0)).unique(dim=0)
    return language, process, texts


def test_patterns_are_all_different_and_refuse_to_explode():
    patterns = mask_patterns(5)
    assert patterns.shape == (32, 5) and len(patterns.unique(dim=0)) == 32
    assert not patterns[0].any() and patterns[-1].all() and patterns[1].tolist() == [True] + [False] * 4
    for length in (0, 13):
        with pytest.raises(ValueError, match="1..12"):
            mask_patterns(length)


@pytest.mark.parametrize("name", ["linear", "cosine", "quadratic"])
def test_chances_add_up_and_mask_gamma_of_each_position(name):
    schedule, t = get_schedule(name, 20), torch.arange(21)
    chances = pattern_chances(schedule, t, 4)
    assert chances.sum(1).tolist() == pytest.approx([1.0] * 21)
    torch.testing.assert_close(chances @ mask_patterns(4).double(), schedule.gamma(t)[:, None].expand(-1, 4))
    assert chances[0, 0] == 1 and chances[-1, -1] == 1


def test_the_exact_denoiser_pays_minus_log_p_for_every_text(micro):
    """Count form of the bound, all 32 patterns: equal for every text, not on average only."""
    language, process, texts = micro
    losses = pattern_losses(process, language.denoiser(process), texts)
    count = mask_patterns(5).sum(1).tolist()
    weight = torch.tensor([1 / (k * math.comb(5, k)) if k else 0.0 for k in count], dtype=torch.float64)
    torch.testing.assert_close(losses @ weight, -language.log_prob(texts))


def test_the_enumerated_bound_is_the_mean_of_drawn_ones(micro):
    language, process, texts = micro
    schedule, denoise = get_schedule("cosine", 8), language.denoiser(process)
    short = MaskedDiffusion(language.vocab_size, language.mask_id, schedule)
    t = torch.arange(1, 9)
    weights = discrete_weight(schedule, t) @ pattern_chances(schedule, t, 5) / 8
    exact = pattern_losses(short, denoise, texts[:1]) @ weights
    rng = Generator().manual_seed(0)
    times = torch.randint(1, 9, (20_000,), generator=rng)
    drawn = short.loss(denoise, texts[:1].expand(20_000, -1), times, rng).diffusion.sum(1).double()
    assert abs(drawn.mean() - exact.item()) < 4 * drawn.std() / math.sqrt(20_000)


def test_the_mean_over_all_orders_is_the_masked_bound():
    """All L! orders of every text of micro, a random denoiser, against sums over all subsets."""
    process, denoise = masked_diffusion(), table_denoiser(4)
    orders = torch.tensor(list(itertools.permutations(range(L))))
    for x0 in TEXTS[:4]:
        nats = order_bounds(process, denoise, x0.expand(len(orders), L), orders)
        assert nats.mean().item() == pytest.approx(count_bound(denoise, x0), rel=1e-9)
        assert nats.std() > 0.1


def test_a_perfect_denoiser_has_one_probability_in_every_order():
    orders = torch.stack([torch.randperm(TALES.length, generator=generator(i)) for i in range(8)])
    process, x0 = MaskedDiffusion(TALES.vocab_size, TALES.mask_id, "linear"), TALES.sample(8, generator())
    nats = order_bounds(process, TALES.denoiser(process), x0, orders)
    torch.testing.assert_close(nats, -TALES.log_prob(x0), atol=1e-9, rtol=1e-9)


def test_an_order_names_every_place_once():
    with pytest.raises(ValueError, match=rf"permutation of 0..{L - 1}"):
        order_bounds(masked_diffusion(), table_denoiser(), TEXTS[:2], torch.zeros(2, L, dtype=torch.long))
