"""Tokens a second of `fit` on one GPU: tiny on texts of 128 tokens in bfloat16, eager and with train.compile.

    python benchmarks/gpu.py                            # batches of 128 and 512 texts
    python benchmarks/gpu.py --device cpu --steps 2     # no measurement: shows that the script runs

Whole steps as `diffkit train` makes them: batches, optimizer, average and log included; the median over the steps.
Prints a table, writes JSON.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import median

import torch
from accelerate import Accelerator
from torch import Generator, Tensor
from training import RESULTS, SETUPS, Setup, our_model, write_results

from diffkit.data.batches import StoryBatches
from diffkit.training.config import TrainConfig
from diffkit.training.trainer import fit

STEPS_OF_CONFIG = 50_000  # configs/tiny.yaml
UNTIMED = 10  # first steps: compilation, and memory that is later reused


class RandomTexts:
    """Texts of random ids: what a step costs does not depend on what it reads."""

    def __init__(self, setup: Setup):
        self.setup = setup

    def sample(self, n: int, rng: Generator, label: str | None = None) -> Tensor:
        return torch.randint(self.setup.mask_id + 1, self.setup.V, (n, self.setup.L), generator=rng)


def speed(setup: Setup, B: int, compiled: bool, device: str, steps: int) -> float:
    """Median tokens a second of `fit` over its steps, the first UNTIMED left out."""
    torch.manual_seed(0)
    config = TrainConfig(steps=steps + UNTIMED, precision="bf16", compile=compiled)
    batches, accelerator = StoryBatches(RandomTexts(setup), B, 0), Accelerator(cpu=device == "cpu")
    records = fit(our_model(setup), batches, config, accelerator=accelerator)
    return median([record.tokens_per_second for record in records][UNTIMED:])


def main() -> None:
    """Measure every batch size, eager and compiled, and store the table; without a GPU say so and stop."""
    parser = argparse.ArgumentParser(description="Training steps of tiny on one GPU.")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--size", choices=SETUPS, default="tiny")
    parser.add_argument("--steps", type=int, default=100, help="measured steps")
    parser.add_argument("--batch", type=int, nargs="+", default=[128, 512], help="texts in a batch")
    parser.add_argument("--out", type=Path, default=RESULTS / "gpu.json", help="where the JSON goes")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        print("benchmarks/gpu.py: no CUDA device here, nothing measured (--device cpu --steps 2 shows that it runs).")
        return
    torch.set_float32_matmul_precision("high")
    setup, rows = SETUPS[options.size], []
    for B in options.batch:
        for compiled in (False, True) if options.device == "cuda" else (False,):
            rate = speed(setup, B, compiled, options.device, options.steps)
            minutes = STEPS_OF_CONFIG * B * setup.L / rate / 60
            name = "train.compile" if compiled else "eager"
            rows.append({"batch": B, "way": name, "tokens_a_second": rate, "minutes_for_50000_steps": minutes})
            print(f"batch {B:4}  {name:14}{rate:14,.0f} tokens/s{minutes:9,.1f} minutes for 50,000 steps")
    if options.device == "cuda":
        settings = {"gpu": torch.cuda.get_device_name(), "cuda": torch.version.cuda, "precision": "bfloat16"}
        write_results(options.out, settings | {"size": options.size, "length": setup.L, "steps": options.steps}, rows)


if __name__ == "__main__":
    main()
