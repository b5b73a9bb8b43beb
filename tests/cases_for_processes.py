"""What test_several_processes.py runs on one process, itself, and on two.

accelerate launch --config_file configs/accelerate/two-cpus.yaml tests/cases_for_processes.py FOLDER
"""

import json
import os
import signal
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from accelerate import Accelerator

from diffkit import D3PM, BlockDiffusion, DiffusionLM, MaskedDiffusion, Plaid
from diffkit.cli import main as commands
from diffkit.cli.settings import DataSettings, ModelSettings, build
from diffkit.training.config import TrainConfig
from diffkit.training.trainer import fit

STEPS = 6
SETTINGS = TrainConfig(steps=STEPS, warmup=2, lr=3e-3, ema=0.9, save_every=3, validate_every=3)
MASKED = ModelSettings("pico", partial(MaskedDiffusion, schedule="linear"))
# name: (model, training); each way to pool a batch, each optimizer, and all that draws at random
CASES = {
    "cross_entropy": (MASKED, SETTINGS),
    "bf16": (MASKED, replace(SETTINGS, precision="bf16")),
    "accumulated": (MASKED, replace(SETTINGS, accumulate=2)),
    "count_cross_entropy": (MASKED, replace(SETTINGS, objective="count_cross_entropy", optimizer="muon")),
    "sequence_mean": (MASKED, replace(SETTINGS, objective="sequence_mean", times="uniform")),
    "labelled": (replace(MASKED, conditional=True), replace(SETTINGS, drop_label=0.5)),
    "block": (replace(MASKED, process=BlockDiffusion), replace(SETTINGS, objective="bound")),
    "d3pm": (
        ModelSettings("pico", partial(D3PM, noise="uniform"), time="adaln"),
        replace(SETTINGS, objective="hybrid"),
    ),
    "diffusion_lm": (replace(MASKED, process=DiffusionLM), replace(SETTINGS, objective="end_to_end")),
    "plaid": (ModelSettings("pico", partial(Plaid, self_conditioned=True)), replace(SETTINGS, objective="likelihood")),
    "sharded": (MASKED, replace(SETTINGS, shard=True)),
    "sharded_muon": (MASKED, replace(SETTINGS, shard=True, optimizer="muon")),
}


def command(folder):
    """The words of a command that trains in four steps."""
    return f"train --config configs/default.yaml --model.size pico --train.steps 4 --out {folder}".split()


class Seen:
    """Batches that remember what they served."""

    def __init__(self, batches):
        self.batches, self.rows = batches, []

    def __getattr__(self, name):
        return getattr(self.batches, name)

    def __iter__(self):
        return self

    def __next__(self):
        self.rows.append(next(self.batches))
        return self.rows[-1]


def run(name, folder, accelerator, resume=False, stop_at=0):
    """Train a case; what came out of it, as plain numbers. After step `stop_at` the last process is asked to end."""
    model, settings = CASES[name]
    shop = build(DataSettings("tales", batch_size=16, validation_sequences=8), model, settings.seed)
    read = []  # the rows that this process's network was shown
    shop.model.denoiser.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0].flatten(1)[:, 0].tolist()))
    seen = Seen(shop.batches)
    records = []
    for record in fit(
        shop.model, seen, settings, folder=folder, resume=resume, validate=shop.validate, accelerator=accelerator,
        label_of=shop.label_of,
    ):  # fmt: skip
        records.append(record)
        if record.step == stop_at and accelerator.process_index == accelerator.num_processes - 1:
            os.kill(os.getpid(), signal.SIGTERM)
    return {
        "losses": [record.loss for record in records],
        "norms": [record.grad_norm for record in records],
        "validation": [record.validation for record in records if record.validation is not None],
        "weights": [float(value.double().norm()) for value in shop.model.state_dict().values()],
        "rows": [len(rows) for rows in read],
        "tokens": int(sum(rows.numel() for rows in seen.rows)),
    }


def main(folder):
    """All cases one after the other; each process writes what it saw."""
    accelerator = Accelerator(cpu=True)
    found = {name: run(name, folder / name, accelerator) for name in CASES}
    for name in ("cross_entropy", "sharded", "sharded_muon"):
        found[f"{name}, from one"] = run(name, folder / "one" / name, accelerator, resume=True)
    found["stopped"] = run("cross_entropy", folder / "stopped", accelerator, stop_at=2)
    (folder / f"process-{accelerator.process_index}.json").write_text(json.dumps(found))
    assert commands.main(command(folder / "command")) == 0
    accelerator.end_training()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
