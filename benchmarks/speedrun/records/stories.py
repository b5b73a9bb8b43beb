"""Real text: network, vocabulary and rates of the shipped model (configs/tinystories-mdlm.yaml), from fresh weights."""

from __future__ import annotations

from dataclasses import replace

from diffkit.cli.settings import Setup, build, read_config
from diffkit.paths import CONFIGS, PRETRAINED
from diffkit.training.config import TrainConfig


def setup(seed: int, text: str) -> tuple[Setup, TrainConfig]:
    run = read_config(CONFIGS / "tinystories-mdlm.yaml")
    data = replace(run.data, corpus=text, tokenizer=str(PRETRAINED / "tinystories-mdlm"))
    return build(data, replace(run.model, init=""), seed), replace(run.train, steps=2500, validate_every=100)
