"""The main track: record zero with half the batch, and the light noise of the start given up sooner."""

from __future__ import annotations

from dataclasses import replace

from diffkit.cli.settings import Setup, build, read_config
from diffkit.paths import CONFIGS
from diffkit.training.config import Curriculum, TrainConfig


def setup(seed: int, text: str) -> tuple[Setup, TrainConfig]:
    run = read_config(CONFIGS / "default.yaml")
    plan = replace(run.train, steps=5000, curriculum=Curriculum(start=0.25, hold=0.15, ramp=0.2), ema=0.998)
    return build(replace(run.data, batch_size=32), run.model, seed), replace(plan, validate_every=250)
