"""Steps against quality, for the exact denoiser and the shipped model, under every reveal rule.

    python benchmarks/sampling_steps.py                       # 512 stories a cell, a few minutes on two cores
    python benchmarks/sampling_steps.py --stories 16 --out /tmp/try.json

With the exact denoiser all that goes wrong is the sampler's doing: tokens revealed together are drawn independently.
What the trained model loses beside it is the model's own. Prints one table, and writes JSON that notebook 06 reads.
A batch of 64 stories is drawn from its own seed, so `--stories 64` gives the first of the eight batches of a full run.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from pathlib import Path

import torch
from torch import Generator, Tensor

from diffkit.diffusion import Denoise, MaskedDiffusion
from diffkit.evaluate import Quality, quality
from diffkit.language import StoryLanguage, load_language
from diffkit.model import PRETRAINED, load_model
from diffkit.sample import RULES, sample

RESULTS = Path(__file__).resolve().parent / "results" / "sampling_steps.json"
STEPS = (4, 8, 12, 16, 24, 48)
BATCH = 64


def draw(process: MaskedDiffusion, denoise: Denoise, shape: tuple[int, int], steps: int, rule: str) -> Tensor:
    """Stories (n, L), each batch of 64 from the seed that is its number."""
    n, L = shape
    return torch.cat(
        [
            sample(process, denoise, shape=(min(BATCH, n - first), L), steps=steps, rule=rule,
                   rng=Generator().manual_seed(first // BATCH))
            for first in range(0, n, BATCH)
        ]
    )  # fmt: skip


def row(language: StoryLanguage, ids: Tensor, **cell: object) -> dict[str, object]:
    """A cell of the table, rounded to four digits; a figure that does not exist (no valid story) is null."""
    measured = quality(language, ids)._asdict()
    return cell | {name: round(x, 4) if abs(x) < float("inf") else None for name, x in measured.items()}


def main() -> None:
    """Fill the table and store it."""
    parser = argparse.ArgumentParser(description="Steps against quality for the exact denoiser and the shipped model.")
    parser.add_argument("--stories", type=int, default=512, help="stories a cell (default: 512)")
    parser.add_argument("--model", default="tales-mdlm", help="shipped name or folder (default: tales-mdlm)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the JSON goes (default: beside this file)")
    arguments = parser.parse_args()
    model, language = load_model(arguments.model), load_language("tales")
    process, started = model.process, time.perf_counter()
    folder = Path(arguments.model) if Path(arguments.model).is_dir() else PRETRAINED / arguments.model
    cells = []
    print(f"{'denoiser':9}{'rule':15}{'steps':>5}  " + "".join(f"{name:>15}" for name in Quality._fields))
    for name, denoise in {"exact": language.denoiser(process), "trained": model}.items():
        for rule in ("ancestral", *RULES):
            for steps in STEPS:
                ids = draw(process, denoise, (arguments.stories, language.length), steps, rule)
                cells.append(row(language, ids, denoiser=name, rule=rule, steps=steps))
                figures = "".join(f"{'-' if x is None else x:>15}" for x in list(cells[-1].values())[3:])
                print(f"{name:9}{rule:15}{steps:5}  {figures}", flush=True)
    settings = {
        "stories": arguments.stories, "batch": BATCH, "seeds": "the number of the batch", "counts": "linear",
        "schedule": process.schedule.name, "entropy_nats": round(language.entropy(), 4),
        "model_sha256": hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest(),
        "torch": torch.__version__,
    }  # fmt: skip
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps({"settings": settings, "cells": cells}, indent=1) + "\n", encoding="utf-8")
    print(f"{time.perf_counter() - started:.0f} s; wrote {arguments.out}")


if __name__ == "__main__":
    main()
