"""Start from a left-to-right model or from fresh weights: the gap to the entropy of `tales` at equal steps.

    nice python benchmarks/adaptation.py                # 18 runs; stop it and go on later
    nice python benchmarks/adaptation.py --model pico-autoregressive --batch 16 --steps 120 --every 40 --stories 32
    python benchmarks/adaptation.py --steps 4 --every 2 --seeds 1 --out try.json

Masked diffusion from fresh weights, from a left-to-right model at its own position, shifted, and shifted with an
annealed attention mask; block diffusion from fresh weights and from that model. Within a process all runs see the same
stories and masks of their seed, minimise the same loss at the same rates, and are judged by their averaged weights
against the exact denoiser, on the same stories with the same masks. The file is written after each run; a run that is
there is skipped.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch

from diffkit.course.experiments.adaptation import adapted_model, logit_shift, stories_gap
from diffkit.data.batches import StoryBatches
from diffkit.io import write_json
from diffkit.languages.story_language import load_language
from diffkit.model import DiffusionModel, fingerprint
from diffkit.processes.base import Process
from diffkit.processes.block import BlockDiffusion
from diffkit.processes.masked import MaskedDiffusion
from diffkit.training.config import TrainConfig
from diffkit.training.trainer import fit

RESULTS = Path(__file__).resolve().parent / "results" / "adaptation.json"
ANNEAL = 40  # steps until the attention is full
STARTS: dict[str, tuple[str, str, dict[str, Any]]] = {  # process, objective, how the network is made
    "fresh": ("masked", "count_cross_entropy", {"fresh": True}),
    "own position": ("masked", "count_cross_entropy", {}),
    "shifted": ("masked", "count_cross_entropy", {"shift": logit_shift}),
    "shifted, annealed": ("masked", "count_cross_entropy", {"shift": logit_shift, "anneal": ANNEAL}),
    "blocks, fresh": ("block", "bound", {"fresh": True}),
    "blocks, own position": ("block", "bound", {}),
}
TALES = load_language("tales")
PROCESSES: dict[str, Callable[[], Process]] = {
    "masked": lambda: MaskedDiffusion(TALES.vocab_size, TALES.mask_id, "linear"),
    "block": lambda: BlockDiffusion(TALES.vocab_size, TALES.mask_id, block=8),
}


def start(name: str, seed: int, model: str) -> DiffusionModel:
    """The model at step 0."""
    process, _, how = STARTS[name]
    torch.manual_seed(seed)
    return adapted_model(PROCESSES[process](), model, **how)


def run(name: str, seed: int, args: argparse.Namespace, gap: Callable[[DiffusionModel], float]) -> list[dict[str, Any]]:
    """Train from one start and judge it at step 0 and every `every` steps."""
    config = TrainConfig(
        steps=args.steps, objective=STARTS[name][1], optimizer="muon", lr=3e-3, muon_lr=1e-2, weight_decay=0.0,
        warmup=20, ema=0.95, validate_every=args.every, seed=seed,
    )  # fmt: skip
    model, began = start(name, seed, args.model), time.process_time()
    rows = [{"start": name, "seed": seed, "step": 0, "gap": round(gap(model.eval()), 4)}]
    for record in fit(model, StoryBatches(TALES, args.batch, seed), config, validate=gap):
        if record.validation is not None:
            rows.append({"start": name, "seed": seed, "step": record.step, "gap": round(record.validation, 4)})
    print(rows[-1], f"{time.process_time() - began:.0f} s", flush=True)
    if rows[-1]["step"] < args.steps:  # `fit` ends quietly when it is asked to stop
        raise SystemExit("stopped before the end: this run is not stored")
    return rows


def main() -> None:
    """Masked diffusion before blocks, all starts of a seed before the next seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tales-ar", help="the left-to-right model to start from")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--every", type=int, default=50, help="steps between two judgements")
    parser.add_argument("--batch", type=int, default=64, help="stories")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--stories", type=int, default=96, help="to judge on")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = json.loads(args.out.read_text(encoding="utf-8"))["rows"] if args.out.exists() else []
    gap_of = cache(lambda process: stories_gap(PROCESSES[process](), TALES, args.stories, 2024))
    setting = {"model": args.model, "steps": args.steps, "batch": args.batch, "stories": args.stories, "anneal": ANNEAL,
               "sha256": fingerprint(args.model), "torch": torch.__version__}  # fmt: skip
    order = [(kind, seed, name) for kind in PROCESSES for seed in range(args.seeds) for name in STARTS]
    for process, seed, name in order:
        if process == STARTS[name][0] and not any((row["start"], row["seed"]) == (name, seed) for row in rows):
            rows += run(name, seed, args, gap_of(process))
            write_json(args.out, {"setting": setting, "rows": rows})


if __name__ == "__main__":
    main()
