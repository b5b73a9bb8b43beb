"""The exact-count bound as the loss, so that every number of masks counts as the judge counts it; twice the rates."""

from __future__ import annotations

from diffkit.cli.settings import Setup
from diffkit.training.config import TrainConfig
from records.micro import pico


def setup(seed: int, text: str) -> tuple[Setup, TrainConfig]:
    return pico(seed, 128), TrainConfig(
        steps=250, objective="count_bound", optimizer="muon", lr=1e-2, muon_lr=2e-2, warmup=20, decay=0.4, ema=0.99,
        validate_every=25, save_every=250,
    )  # fmt: skip
