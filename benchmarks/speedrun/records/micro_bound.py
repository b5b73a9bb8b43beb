"""The exact-count bound as the loss, so that every number of masks counts as the judge counts it; twice the rates."""

from __future__ import annotations

from functools import partial

from diffkit.cli.settings import DataSettings, ModelSettings, Setup, build
from diffkit.processes.masked import MaskedDiffusion
from diffkit.training.config import TrainConfig


def setup(seed: int, text: str) -> tuple[Setup, TrainConfig]:
    data = DataSettings("micro", batch_size=128, validation_sequences=2)
    built = build(data, ModelSettings("pico", partial(MaskedDiffusion, schedule="linear")), seed)
    return built, TrainConfig(
        steps=250, objective="count_bound", optimizer="muon", lr=1e-2, muon_lr=2e-2, warmup=20, decay=0.4, ema=0.99,
        validate_every=25, save_every=250,
    )  # fmt: skip
