"""The short track, record zero: a pico network on `micro` with the rates of notebook 05, without its curriculum."""

from __future__ import annotations

from functools import partial

from diffkit.cli.settings import DataSettings, ModelSettings, Setup, build
from diffkit.processes.masked import MaskedDiffusion
from diffkit.training.config import TrainConfig


def pico(seed: int, batch_size: int) -> Setup:
    data = DataSettings("micro", batch_size=batch_size, validation_sequences=2)
    return build(data, ModelSettings("pico", partial(MaskedDiffusion, schedule="linear")), seed)


def setup(seed: int, text: str) -> tuple[Setup, TrainConfig]:
    return pico(seed, 64), TrainConfig(
        steps=1500, objective="count_cross_entropy", optimizer="muon", lr=3e-3, muon_lr=1e-2, warmup=100, decay=0.4,
        ema=0.99, validate_every=50, save_every=1500,
    )  # fmt: skip
