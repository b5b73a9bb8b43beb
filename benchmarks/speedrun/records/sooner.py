"""The main track: record zero with half the steps; light noise for two fifths of them, all of it a tenth later."""

from __future__ import annotations

from dataclasses import replace

from diffkit.cli.settings import Setup, build, read_config
from diffkit.paths import CONFIGS
from diffkit.training.config import Curriculum, TrainConfig


def setup(seed: int, text: str) -> tuple[Setup, TrainConfig]:
    run = read_config(CONFIGS / "default.yaml")
    curriculum = Curriculum(start=0.25, hold=0.4, ramp=0.1)
    plan = replace(run.train, steps=3000, curriculum=curriculum, ema=0.998, validate_every=100)
    return build(run.data, run.model, seed), plan
