"""Words as points, small enough to look at: a circle of words, a bound's parts, how far it is above the truth."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from diffkit.evaluation.bounds import sequence_bounds
from diffkit.evaluation.statistics import Estimate, mean_of
from diffkit.languages.story_language import StoryLanguage
from diffkit.processes.base import Denoise
from diffkit.processes.gaussian.diffusion_lm import DiffusionLM
from diffkit.processes.gaussian.embedding_diffusion import EmbeddingDiffusion


def words_on_a_circle(language: StoryLanguage, order: Sequence[str], radius: float = 2.9) -> DiffusionLM:
    """Diffusion-LM in a plane: these words at equal distances around the origin, the others at it."""
    process = DiffusionLM(language.vocab_size, language.mask_id, width=2, sampler="ddim", clamp=0.0)
    process.requires_grad_(False).words.zero_()
    for k, word in enumerate(order):
        angle = 2 * math.pi * k / len(order) + 0.4
        where = language.tokenizer.convert_tokens_to_ids(word)
        process.words[where] = radius * torch.tensor([math.cos(angle), math.sin(angle)])
    return process


@torch.no_grad()
def parts_of_bound(process: EmbeddingDiffusion, denoise: Denoise, x0: Tensor, rng: Generator) -> list[float]:
    """Reconstruction, steps and prior of a chain with whole times, each time asked of every text: nats a text."""
    total = torch.zeros(3, dtype=torch.float64)
    for t in range(1, process.T + 1):
        terms = process.loss(denoise, x0, torch.full((len(x0),), float(t), dtype=torch.float64), rng)
        total += torch.stack([nats.sum(1).mean() for nats in (terms.reconstruction, terms.diffusion, terms.prior)])
    return (total / process.T).tolist()


@torch.no_grad()
def above_truth(
    process: EmbeddingDiffusion, denoise: Denoise, language: StoryLanguage, n: int, *, draws: int = 16
) -> Estimate:
    """The bound of n fresh texts above their -log p: nats a text."""
    x0 = language.sample(n, Generator().manual_seed(8))
    bounds = sequence_bounds(process, denoise, x0, rng=Generator().manual_seed(9), draws=draws)
    return mean_of(bounds + language.log_prob(x0))
