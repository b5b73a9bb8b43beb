"""Steps against quality, for the exact denoiser and the shipped model, under every reveal rule.

    python benchmarks/sampling_steps.py                       # 512 stories a cell, a few minutes on two cores
    python benchmarks/sampling_steps.py --stories 16 --out try.json

With the exact denoiser all that goes wrong is the sampler's doing: tokens revealed together are drawn independently;
it is also drawn from with other plans of how many tokens a step, and with filters, at 16 steps in random order.
What the trained model loses beside it is the model's own. Prints one table, and writes JSON that notebook 06 reads.
Every batch of 64 stories is drawn from a seed of its own, on one thread; there is one worker for each core.
"""

from __future__ import annotations

import argparse
import os
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from diffkit.evaluation.samples import Quality, quality
from diffkit.io import write_json
from diffkit.languages.story_language import load_language
from diffkit.model import fingerprint, load_model
from diffkit.processes.schedules import get_schedule
from diffkit.sampling.sampler import sample
from diffkit.sampling.unmasking import UNMASKING_ORDERS

RESULTS = Path(__file__).resolve().parent / "results" / "sampling_steps.json"
STEPS = (4, 8, 12, 16, 24, 48)
BATCH = 64
DENOISERS: dict[str, object] = {}  # of one worker: "exact" and "trained"


class Cell(NamedTuple):
    """One row of the table."""

    denoiser: str
    order: str
    steps: int
    counts: str = "linear"  # the schedule of how many masks are left
    filters: tuple[tuple[str, float], ...] = ()  # temperature, top_k, top_p


PLANS = [Cell("exact", "random", 16, counts) for counts in ("cosine", "maskgit_cosine", "quadratic")]
FILTERS = [
    Cell("exact", "random", 16, "quadratic", (each,)) for each in (("temperature", 0.0), ("top_k", 2), ("top_p", 0.5))
]


def prepare(model: str) -> None:
    """What a worker does first."""
    torch.set_num_threads(1)
    trained = load_model(model)
    DENOISERS.update(trained=trained, exact=load_language("tales").denoiser(trained.process))


def draw(cell: Cell, seed: int, stories: int) -> Tensor:
    """One batch of stories, (stories, L)."""
    process, shape = DENOISERS["trained"].process, (stories, load_language("tales").length)  # type: ignore[attr-defined]
    denoise, rng = DENOISERS[cell.denoiser], Generator().manual_seed(seed)
    how = {"steps": cell.steps, "order": cell.order, "counts": get_schedule(cell.counts), **dict(cell.filters)}
    return sample(process, denoise, shape=shape, rng=rng, **how)  # type: ignore[arg-type]


def judged(cell: Cell, ids: Tensor) -> dict[str, object]:
    """A row with its figures, four digits; a figure that does not exist (no story was valid) is null."""
    figures = quality(load_language("tales"), ids)._asdict()
    valid = ids[load_language("tales").parse(ids) >= 0]
    settings = cell._asdict() | {"filters": dict(cell.filters), "words": len(valid.unique())}
    return settings | {name: round(x, 4) if abs(x) < float("inf") else None for name, x in figures.items()}


def table(stories: int, model: str) -> list[dict[str, object]]:
    """Draw and judge every cell, printing each as it is done."""
    orders = ("ancestral", *UNMASKING_ORDERS)
    cells = [Cell(who, order, n) for who in ("exact", "trained") for order in orders for n in STEPS]
    cells += PLANS + FILTERS
    sizes = [min(BATCH, stories - first) for first in range(0, stories, BATCH)]
    rows = []
    print(f"{'denoiser':9}{'order':15}{'steps':>5}" + "".join(f"{name:>15}" for name in Quality._fields))
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn"), prepare, (model,)) as pool:
        drawn = [[pool.submit(draw, cell, seed, size) for seed, size in enumerate(sizes)] for cell in cells]
        for cell, batches in zip(cells, drawn, strict=True):
            rows.append(judged(cell, torch.cat([batch.result() for batch in batches])))
            figures = "".join(f"{'-' if rows[-1][name] is None else rows[-1][name]:>15}" for name in Quality._fields)
            print(f"{cell.denoiser:9}{cell.order:15}{cell.steps:5}{figures}", flush=True)
    return rows


def main() -> None:
    """Fill the table and store it."""
    parser = argparse.ArgumentParser(description="Steps against quality for the exact denoiser and the shipped model.")
    parser.add_argument("--stories", type=int, default=512, help="stories a cell (default: 512)")
    parser.add_argument("--model", default="tales-mdlm", help="shipped name or folder (default: tales-mdlm)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the JSON goes (default: results/)")
    arguments = parser.parse_args()
    started = time.perf_counter()
    settings = {
        "stories": arguments.stories, "batch": BATCH, "seeds": "the number of the batch, from 0",
        "schedule": load_model(arguments.model).process.schedule.name, "torch": torch.__version__,
        "entropy_nats": round(load_language("tales").entropy(), 4), "model_sha256": fingerprint(arguments.model),
    }  # fmt: skip
    stored = {"settings": settings, "cells": table(arguments.stories, arguments.model)}
    write_json(arguments.out, stored)
    print(f"{time.perf_counter() - started:.0f} s; wrote {arguments.out}")


if __name__ == "__main__":
    main()
