"""The small network that notebook 18 trains on `micro`."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor, nn

from diffkit.course.experiments.live import descend
from diffkit.languages.story_language import StoryLanguage

Loss = Callable[[nn.Module, Tensor, Generator], Tensor]  # (network, x0, rng) -> one number


def small_network(inputs: int, language: StoryLanguage, width: int = 192) -> nn.Module:
    """Three layers without attention, (B, inputs) numbers to (B, L, V) logits: enough for texts of five tokens."""
    torch.manual_seed(0)
    L, V = language.length, language.vocab_size
    layers = [nn.Linear(inputs, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, L * V)]
    return nn.Sequential(*layers, nn.Unflatten(1, (L, V)))


def train(network: nn.Module, loss: Loss, language: StoryLanguage, steps: int, lr: float = 3e-3) -> list[float]:
    """Adam on batches of 128 texts, the learning rate rising, then falling to zero; the loss of every step."""
    rng = Generator().manual_seed(8)
    texts = language.sample(8192, rng)

    def of_a_batch() -> Tensor:
        return loss(network, texts[torch.randint(len(texts), (128,), generator=rng)], rng)

    return [*descend(network, of_a_batch, steps=steps, lr=lr, betas=(0.9, 0.999), clip=1.0)]
