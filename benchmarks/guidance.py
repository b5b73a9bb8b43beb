"""Guidance scale against success, diversity and the exact conditional, for networks and for the exact denoiser.

    python benchmarks/guidance.py                        # 256 stories a cell, about a quarter of an hour on one core
    python benchmarks/guidance.py --stories 32 --out try.json

Three ways to ask for an ending: the conditional model guided by itself, tales-mdlm guided by the exact classifier, and
the exact conditional denoiser guided by the exact unconditional one, one token a step. Prints one table, and writes
JSON that notebook 08 reads.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from torch import Generator, Tensor

from diffkit.evaluation.samples import distinct_n
from diffkit.evaluation.statistics import kl_floor, kl_of_counts, wilson
from diffkit.io import write_json
from diffkit.languages.story_language import StoryLanguage, endings, load_language
from diffkit.model import DiffusionModel, fingerprint, load_model
from diffkit.processes.base import Denoise, Process
from diffkit.sampling.guidance import classifier_guided, condition_on, exact_classifier, guide
from diffkit.sampling.sampler import sample

RESULTS = Path(__file__).resolve().parent / "results" / "guidance.json"
ENDINGS = ("lost", "shared")  # a frequent and a rare one
SCALES = (-1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 4.0)
BATCH = 64


def ways(language: StoryLanguage, told: DiffusionModel, plain: DiffusionModel, ending: str) -> dict:
    """For each way to steer, a function of the scale w; a classifier's strength is 1 + w, so that they compare."""
    label, process = language.labels.index(ending), plain.process
    opinion, exact = exact_classifier(language, process, ending), language.denoiser(process)
    return {
        "conditional model": lambda w: condition_on(told, label, w),
        "tales-mdlm and the exact classifier": lambda w: classifier_guided(plain, opinion, 1 + w),
        "exact denoiser": lambda w: guide(language.denoiser(process, ending), exact, w),
    }


def judged(language: StoryLanguage, ids: Tensor, ending: str) -> dict[str, float | None]:
    """Figures of one cell; the plots of the successes are held against the exact conditional."""
    label = language.labels.index(ending)
    right = endings(language, ids) == label
    n, hits = len(ids), int(right.sum())
    probs = language.template_probs * (language.template_labels == label)
    counts = torch.bincount(language.parse(ids[right]), minlength=len(probs)).double()
    kept = probs > 0
    low, high = wilson(hits, n)
    figures = {
        "valid": (language.log_prob(ids) > -torch.inf).double().mean().item(), "success": hits / n, "low": low,
        "high": high, "distinct_2": distinct_n(ids, 2, eos_id=language.eos_id),
        "plot_kl": kl_of_counts(counts[kept], (probs / probs.sum())[kept]) if hits else None,
        "plot_kl_floor": kl_floor((probs / probs.sum())[kept], hits) if hits else None,
    }  # fmt: skip
    return {name: None if value is None else round(value, 4) for name, value in figures.items()}


def draw(process: Process, denoise: Denoise, language: StoryLanguage, stories: int) -> Tensor:
    """Stories in batches, each from a seed of its own."""
    parts, steps = [], language.length
    for seed, first in enumerate(range(0, stories, BATCH)):
        shape, rng = (min(BATCH, stories - first), language.length), Generator().manual_seed(seed)
        parts.append(sample(process, denoise, shape=shape, steps=steps, order="random", rng=rng))
    return torch.cat(parts)


def table(stories: int, model: str) -> list[dict[str, object]]:
    """Draw and judge every cell, printing each as it is done."""
    language, told, plain = load_language("tales"), load_model(model), load_model("tales-mdlm")
    rows: list[dict[str, object]] = []
    for ending in ENDINGS:
        for name, way in ways(language, told, plain, ending).items():
            for scale in SCALES:
                ids = draw(plain.process, way(scale), language, stories)
                rows.append({"ending": ending, "way": name, "scale": scale} | judged(language, ids, ending))
                print(*rows[-1].values(), sep="\t", flush=True)
    return rows


def main() -> None:
    """Fill the table and store it."""
    parser = argparse.ArgumentParser(description="Guidance scale against success, diversity and the exact conditional.")
    parser.add_argument("--stories", type=int, default=256, help="stories a cell (default: 256)")
    parser.add_argument("--model", default="tales-mdlm-conditional", help="shipped name or folder")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the JSON goes (default: results/)")
    options = parser.parse_args()
    started = time.perf_counter()
    settings = {
        "stories": options.stories, "batch": BATCH, "seeds": "the number of the batch, from 0", "rule": "random",
        "torch": torch.__version__.split("+")[0],
        "model_sha256": fingerprint(options.model),
    }  # fmt: skip
    stored = {"settings": settings, "cells": table(options.stories, options.model)}
    write_json(options.out, stored)
    print(f"{time.perf_counter() - started:.0f} s; wrote {options.out}")


if __name__ == "__main__":
    main()
