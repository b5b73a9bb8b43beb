"""Each block first adds a weighted sum of the nearest positions, so that words know their context before they attend.

A word that must be repeated is found by what stands around it. Attention needs a layer to learn what stands where; five
weights a channel do not. After the "canon layers" of Allen-Zhu 2025 (Physics of language models, part 4.1), both ways.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffkit.cli.settings import Setup, build, read_config
from diffkit.paths import CONFIGS
from diffkit.training.config import TrainConfig

REACH = 2  # positions to each side


class Neighbours(nn.Module):
    """A block of the transformer behind a sum over neighbours, which starts at zero."""

    def __init__(self, block: nn.Module, width: int):
        super().__init__()
        self.block = block
        self.weight = nn.Parameter(torch.zeros(2 * REACH + 1, 1, width))

    def forward(self, x: Tensor, *rest: Any) -> Tensor:
        L, padded = x.shape[1], F.pad(x, (0, 0, REACH, REACH))
        near = sum(weight * padded[:, k : k + L] for k, weight in enumerate(self.weight))
        return self.block(x + near, *rest)


def setup(seed: int, text: str) -> tuple[Setup, TrainConfig]:
    run = read_config(CONFIGS / "default.yaml")
    built = build(run.data, run.model, seed)
    network = built.model.denoiser
    network.blocks = nn.ModuleList(Neighbours(block, network.config.hidden_size) for block in network.blocks)
    return built, replace(run.train, steps=1000, warmup=50, decay=0.5, ema=0.99, validate_every=50)
