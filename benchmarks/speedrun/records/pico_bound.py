"""A pico network on `tales` with what is the record on `micro`: the exact-count bound, twice the rates, batches of 128.

Many short steps of a small network buy more than few of a large one (notebook 11).
"""

from __future__ import annotations

from dataclasses import replace

from diffkit.cli.settings import Setup, build, read_config
from diffkit.paths import CONFIGS
from diffkit.training.config import TrainConfig


def setup(seed: int, text: str) -> tuple[Setup, TrainConfig]:
    run = read_config(CONFIGS / "leaderboard" / "mdlm.yaml")
    return build(replace(run.data, batch_size=128), run.model, seed), TrainConfig(
        steps=3000, objective="count_bound", optimizer="muon", lr=1e-2, muon_lr=2e-2, warmup=50, decay=0.5, ema=0.998,
        validate_every=250, save_every=3000,
    )  # fmt: skip
