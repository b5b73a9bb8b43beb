"""Train the models of real stories in one go: a vocabulary, left to right, masked, block by block.

    make quickstart                                                     # TinyStories, on the device there is
    python scripts/train_stories.py STORIES.txt --minutes 9             # a text of your own, by the clock
    python scripts/train_stories.py STORIES.txt --steps 2 --size pico --batch 8   # shows that every stage runs

The masked model starts from the weights of the left-to-right one, and the block model from those of the masked one.
Every stage is measured for a few steps first; the minutes, of training alone, are shared out among the stages and say
how many steps each makes. A finished stage is not repeated, and an unfinished one goes on from its last checkpoint.
On a CPU the network is that of the shipped model and a batch 32 sequences.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from accelerate import Accelerator

from diffkit.cli.generate import sample
from diffkit.cli.settings import Config, build, learn_tokenizer, read_config
from diffkit.cli.train import train
from diffkit.io import write_json
from diffkit.training.trainer import fit

CONFIGS = Path(__file__).resolve().parents[1] / "configs" / "stories"
SHARES = {"ar": 0.2, "mdlm": 0.6, "block": 0.2}  # of the time
WARM_UP, MEASURED = 12, 20  # steps that are not timed (compilation), and steps that are
PIECES = 8192
MINUTES = {"cuda": 10, "cpu": 240}  # of training, where nothing else is asked for
ON_A_CPU: dict[str, Any] = {"hidden_size": 192, "num_layers": 5, "num_heads": 6, "tied": True}  # 3.8 million parameters


def settings(stage: str, options: argparse.Namespace) -> Config:
    """The settings of a stage's config file, for this text, this folder and this device."""
    run, folder = read_config(CONFIGS / f"{stage}.yaml"), options.out
    has_gpu = torch.cuda.is_available()
    data = replace(run.data, corpus=str(options.text), tokenizer=str(folder / "words"))
    model = replace(run.model, init=str(folder / Path(run.model.init).name) if run.model.init else "")
    if options.batch or not has_gpu:
        size = options.batch or 32
        data = replace(data, batch_size=size, validation_sequences=min(size * 8, data.validation_sequences))
    if options.size or not has_gpu:
        model = replace(model, size=options.size or ON_A_CPU)
    return Config(data, model, replace(run.train, precision="bf16" if has_gpu else "no", compile=has_gpu))


def seconds_a_step(run: Config) -> float:
    """Median seconds of a training step here, compilation left out."""
    setup, config = build(run.data, run.model, run.train.seed), replace(run.train, steps=WARM_UP + MEASURED)
    accelerator = Accelerator(mixed_precision=config.precision)
    records = fit(setup.model, setup.batches, config, accelerator=accelerator, label_of=setup.label_of)
    tokens = run.data.batch_size * run.data.length
    return tokens / median([record.tokens_per_second for record in records][WARM_UP:])


def planned_steps(run: Config, stage: str, options: argparse.Namespace) -> int:
    """Steps of a stage: as asked for, as planned when the stage began, or as many as fit into its share of the time."""
    plan = options.out / "plan.json"
    steps = json.loads(plan.read_text(encoding="utf-8")) if plan.is_file() else {}
    if stage not in steps:
        if not (wanted := options.steps):
            seconds = seconds_a_step(run)
            wanted = max(1, int(60 * options.minutes * SHARES[stage] / seconds))
            print(
                f"{stage}: {1000 * seconds:.0f} ms a step here, so {wanted:,} steps in "
                f"{options.minutes * SHARES[stage]:.0f} minutes.", flush=True,
            )  # fmt: skip
        write_json(plan, steps | {stage: wanted})
        return wanted
    return int(steps[stage])


def train_stage(stage: str, options: argparse.Namespace) -> None:
    """Train one model, and write three stories with it."""
    folder, started = options.out / stage, time.perf_counter()
    run = settings(stage, options)
    steps = planned_steps(run, stage, options)
    if not (folder / "config.json").is_file():
        warmup = min(run.train.warmup, steps // 10)
        config = replace(
            run.train, steps=steps, warmup=warmup, save_every=max(1, steps // 8), validate_every=max(1, steps // 8)
        )
        train(run.data, run.model, config, out=str(folder), resume=True)
    tokens = steps * run.data.batch_size * run.data.length
    print(f"{stage}: {tokens / 1e6:,.1f} million tokens, {time.perf_counter() - started:.0f} s in all.", flush=True)
    sample(model=str(folder), n=3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "text", nargs="?", default="tinystories",
        help="a text file, stories separated by lines <|endoftext|>; or the name of a corpus (default: tinystories)",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, default=Path("runs/stories"), help="folder of all that is made")
    parser.add_argument(
        "--minutes", type=float, default=MINUTES["cuda" if torch.cuda.is_available() else "cpu"],
        help="of training, all stages together (default: %(default)s on this device)",
    )  # fmt: skip
    parser.add_argument("--steps", type=int, default=0, help="of every stage, instead of minutes")
    parser.add_argument("--size", default="", help="a size by name, instead of that of the configs")
    parser.add_argument("--batch", type=int, default=0, help="sequences in a batch, instead of those of the configs")
    parser.add_argument("--stages", nargs="+", choices=SHARES, default=[*SHARES])
    options = parser.parse_args()
    torch.set_float32_matmul_precision("high")
    budget = f"{options.steps:,} steps a stage" if options.steps else f"about {options.minutes:g} minutes of training"
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "the CPU"
    print(f"On {device}: {budget} for {', '.join(options.stages)}; stop it at any time and go on later.", flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    if not (options.out / "words").is_dir():
        run = read_config(CONFIGS / "ar.yaml")
        learn_tokenizer(replace(run.data, corpus=str(options.text)), run.train.seed, options.out / "words", PIECES)
    for stage in options.stages:
        train_stage(stage, options)


if __name__ == "__main__":
    main()
