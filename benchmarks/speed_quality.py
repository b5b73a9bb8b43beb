"""What speed costs: seconds, rows read and exact quality of every fast sampler, on `tales`.

    python benchmarks/speed_quality.py                       # 256 stories a cell, a quarter of an hour on one core
    python benchmarks/speed_quality.py --stories 16 --out try.json

With the exact denoiser only the sampler can be at fault; its seconds are those of exact inference, and not stored. A
row read is one text in one network call: calls a story, however many share a batch. Prints one table, and writes JSON
that notebook 10 reads.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor

from diffkit.course.block_cache import Blockwise, dual_cache, prefix_cache
from diffkit.course.network_calls import CallCounter, NoChangeCache
from diffkit.evaluation.samples import quality
from diffkit.io import write_json
from diffkit.languages.story_language import StoryLanguage, load_language
from diffkit.model import fingerprint, load_model
from diffkit.processes.base import Denoise
from diffkit.processes.masked import MaskedDiffusion
from diffkit.sampling.parallel import above_threshold, confidence_threshold, entropy_bounded, most_confident
from diffkit.sampling.remasking import Remasking, cap, conf, forward_backward, loop, loop_times, rescale
from diffkit.sampling.sampler import Ancestral, Frame, Sampler, denoise_frames, last_frame
from diffkit.sampling.skipping import FirstHitting, SkipIdle, even_times

RESULTS = Path(__file__).resolve().parent / "results" / "speed_quality.json"
BATCH = 64
Play = Callable[[Denoise, int, Generator], Iterator[Frame]]  # denoiser, stories, rng -> frames


def plain(process: MaskedDiffusion, L: int, steps: int, wrap: Callable = lambda denoise: denoise) -> Play:
    """The loop of notebook 06, every step in full, if not wrapped."""
    sampler = Ancestral(process, even_times(process.T, steps))
    return lambda denoise, n, rng: denoise_frames(sampler, wrap(denoise), shape=(n, L), rng=rng)


def fast(sampler: Sampler, L: int) -> Play:
    """One of the samplers of notebook 10."""
    return lambda denoise, n, rng: denoise_frames(sampler, denoise, shape=(n, L), rng=rng)


def exact_too(process: MaskedDiffusion, L: int) -> dict[tuple[str, str], Play]:
    """(family, setting) -> how it is played, for the cells that the exact denoiser fills as well."""
    T, every = process.T, {}
    for steps in (12, 24, 48, 1000):
        every["lazy", f"{steps} steps"] = fast(SkipIdle(process, even_times(T, steps)), L)
    every["first hitting", f"{L} calls"] = fast(FirstHitting(process), L)
    for c in (0.5, 0.7, 0.9, 0.99):
        every["above a threshold", f"c = {c:g}"] = fast(confidence_threshold(process, c), L)
    for b in (0.0, 0.03, 0.1, 0.3, 1.0):
        every["entropy-bounded", f"{b:g} nats"] = fast(entropy_bounded(process, b), L)
    for steps in (48, 96, 192):
        every["remasking, rescaled", f"{steps} steps"] = fast(Remasking(process, even_times(T, steps), rescale(0.1)), L)
    return every


def exact_only(process: MaskedDiffusion, L: int) -> dict[tuple[str, str], Play]:
    """As many calls of the lazy sampler as 48 steps of remasking make: what 41 calls buy, with no model at fault."""
    return {("lazy", "150 steps"): fast(SkipIdle(process, even_times(process.T, 150)), L)}


def trained_only(process: MaskedDiffusion, L: int) -> dict[tuple[str, str], Play]:
    """The other cells: the same laws in other ways, other rules, and caches that only a network has."""
    T, every = process.T, {}
    for steps in (12, 24, 48):
        every["plain", f"{steps} steps"] = plain(process, L, steps)
    for steps in (48, 1000):
        every["no-change cache", f"{steps} steps"] = plain(process, L, steps, NoChangeCache)
    rates = {"capped": cap(0.05), "doubtful": conf(1.0), "back and forth": forward_backward()}
    for name, rate in rates.items():
        every[f"remasking, {name}", "96 steps"] = fast(Remasking(process, even_times(T, 96), rate), L)
    looped = Remasking(process, loop_times(T, 96, T / 2, 48), loop(0.05))
    every["remasking, looped", "96 steps"] = fast(looped, L)
    for keeps, cache in (
        ("nothing kept", None),
        ("prefix kept", prefix_cache),
        ("prefix and suffix kept", dual_cache),
    ):
        for order, choose in (("one a call", most_confident(1)), ("above 0.9", above_threshold(0.9))):
            every[f"blocks of 16, {keeps}", order] = fast(Blockwise(process, 16, choose, cache), L)
    return every


def fill(play: Play, denoise: Denoise, language: StoryLanguage, stories: int) -> dict[str, Any]:
    """Draw and judge one cell."""
    counted, parts = CallCounter(denoise), []
    clock, processor = time.perf_counter(), time.process_time()
    for seed, first in enumerate(range(0, stories, BATCH)):
        frames = play(counted, min(BATCH, stories - first), Generator().manual_seed(seed))
        parts.append(last_frame(frames).tokens)
    seconds = (time.perf_counter() - clock) / stories, (time.process_time() - processor) / stories
    ids: Tensor = torch.cat(parts)
    row: dict[str, Any] = {
        "rows": counted.rows / stories,
        "heads": counted.heads / stories,
        "seconds": seconds[0],
        "cpu_seconds": seconds[1],
    }
    row |= quality(language, ids)._asdict()
    return {name: round(value, 4) if abs(value) < float("inf") else None for name, value in row.items()}


@torch.no_grad()
def table(stories: int, model_name: str) -> list[dict[str, Any]]:
    """Every cell, printed as it is done."""
    language, model = load_language("tales"), load_model(model_name)
    process, L = model.process, language.length
    both, own, rows = exact_too(process, L), trained_only(process, L), []
    cells = [("trained", model, key, play) for key, play in (own | both).items()]
    exact = both | exact_only(process, L)
    cells += [("exact", language.denoiser(process), key, play) for key, play in exact.items()]
    for who, denoise, (family, setting), play in cells:
        row = {"denoiser": who, "family": family, "setting": setting} | fill(play, denoise, language, stories)
        if who == "exact":
            row["seconds"] = row["cpu_seconds"] = None
        rows.append(row)
        print(*("-" if value is None else value for value in row.values()), sep="\t", flush=True)
    return rows


def main() -> None:
    """Fill the table and store it."""
    parser = argparse.ArgumentParser(description="Seconds, rows read and exact quality of every fast sampler.")
    parser.add_argument("--stories", type=int, default=256, help="stories a cell (default: 256)")
    parser.add_argument("--model", default="tales-mdlm", help="shipped name or folder")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the JSON goes (default: results/)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    started = time.perf_counter()
    settings = {
        "stories": options.stories, "batch": BATCH, "seeds": "the number of the batch, from 0", "threads": 1,
        "torch": torch.__version__.split("+")[0], "entropy_nats": round(load_language("tales").entropy(), 4),
        "model_sha256": fingerprint(options.model),
    }  # fmt: skip
    stored = {"settings": settings, "cells": table(options.stories, options.model)}
    write_json(options.out, stored)
    print(f"{time.perf_counter() - started:.0f} s; wrote {options.out.name}")


if __name__ == "__main__":
    main()
