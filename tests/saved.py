"""A process as any other: it trains by the loop of all, and is saved and loaded as one folder."""

import json

import torch
from toys import MICRO, TEXTS, generator

from diffkit.cli.settings import DataSettings, ModelSettings, build
from diffkit.evaluation.bounds import gap_to_entropy
from diffkit.model import load_model, quiet
from diffkit.training.config import TrainConfig
from diffkit.training.trainer import fit


def trained_and_loaded(kind, folder):
    """A pico model of a process after 60 steps on `micro`, by score entropy: (process in training, process loaded).

    The gap falls by 5 standard errors; settings and outputs come back as they were.
    """
    shop = build(DataSettings("micro", batch_size=32, validation_sequences=64), ModelSettings("pico", kind, "adaln"), 0)
    train = TrainConfig(steps=60, objective="score_entropy", lr=3e-3, warmup=10, ema=0.0, optimizer="muon")
    before = gap_to_entropy(shop.model.process, shop.model, MICRO, 200, rng=generator())
    assert all(record.step for record in fit(shop.model, shop.batches, train))
    gap = gap_to_entropy(shop.model.process, shop.model, MICRO, 200, rng=generator())
    assert gap.mean < before.mean - 5 * before.standard_error
    with quiet():
        shop.model.save_pretrained(folder)
    again = load_model(folder)
    assert again.process.settings() == json.loads(json.dumps(shop.model.process.settings()))
    assert torch.equal(again(TEXTS, 3.0), shop.model(TEXTS, 3.0))
    return shop.model.process, again.process
