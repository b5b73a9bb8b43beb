"""The main track: record zero with batches of 16 stories, as the ties are learned by steps rather than by tokens."""

from __future__ import annotations

from dataclasses import replace

from diffkit.cli.settings import Setup, build, read_config
from diffkit.paths import CONFIGS
from diffkit.training.config import TrainConfig


def setup(seed: int, text: str) -> tuple[Setup, TrainConfig]:
    run = read_config(CONFIGS / "default.yaml")
    data = replace(run.data, batch_size=16)
    return build(data, run.model, seed), replace(run.train, steps=6000, ema=0.998, validate_every=250)
