"""Record zero: what notebook 05 and `diffkit train` do (configs/default.yaml), with twice the steps."""

from __future__ import annotations

from dataclasses import replace

from diffkit.cli.settings import Setup, build, read_config
from diffkit.paths import CONFIGS
from diffkit.training.config import TrainConfig


def setup(seed: int, text: str) -> tuple[Setup, TrainConfig]:
    run = read_config(CONFIGS / "default.yaml")
    return build(run.data, run.model, seed), replace(run.train, steps=6000, validate_every=250)
