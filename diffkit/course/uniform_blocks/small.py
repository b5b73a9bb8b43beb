"""The small network that notebook 18 trains on `micro`, and its training loop."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor, nn

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
    optimizer, rng, losses = torch.optim.Adam(network.parameters(), lr=lr), Generator().manual_seed(8), []
    texts = language.sample(8192, rng)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = lr * min(1.0, (step + 1) / 20) * (1 - step / steps)
        nats = loss(network, texts[torch.randint(len(texts), (128,), generator=rng)], rng)
        optimizer.zero_grad()
        nats.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        losses.append(nats.item())
    return losses
