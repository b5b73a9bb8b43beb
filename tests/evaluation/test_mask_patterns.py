"""Every mask pattern of a small canvas: the enumeration against what it should add up to (evaluate.py)."""

import math

import pytest
import torch
from torch import Generator

from diffkit.evaluation.orders import mask_patterns, pattern_chances, pattern_losses
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
    for L in (0, 13):
        with pytest.raises(ValueError, match="1..12"):
            mask_patterns(L)


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
