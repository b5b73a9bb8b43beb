"""The best model of each method that is shipped, sampled by its paper's own step and by what was found better.

    python benchmarks/best_models.py               # all of them, half an hour on one core
    python benchmarks/best_models.py tales-plaid   # one of them again

Writes results/best_models.json, which notebook 16 reads. Equal terms are the leaderboard's business, not this table's.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from diffkit.course.experiments.leaderboard import score_samples, steps_of
from diffkit.io import write_json
from diffkit.languages.story_language import load_language
from diffkit.model import load_model

RESULTS = Path(__file__).resolve().parent / "results" / "best_models.json"
SAMPLERS = {  # the paper's own step first
    "tales-ar": ("ancestral",),
    "tales-mdlm": ("ancestral", "random", "confidence"),
    "tales-d3pm-absorbing": ("ancestral",),
    "tales-sedd": ("ancestral",),
    "tales-hybrid": ("ancestral",),
    "tales-d3pm-uniform": ("ancestral",),
    "tales-udlm": ("ancestral",),
    "tales-diffusion-lm": ("ddpm", "ddim"),
    "tales-plaid": ("ddpm", "ddim"),
}
TEXTS, SEED = 256, 781


def main() -> None:
    """Score what is asked for, beside what was stored."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="of models (default: all)")
    names = parser.parse_args().names or [*SAMPLERS]
    if unknown := sorted({*names} - {*SAMPLERS}):
        parser.error(f"there is no row for {', '.join(unknown)}; the rows are {', '.join(SAMPLERS)}")
    torch.set_num_threads(1)
    language = load_language("tales")
    found = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    for name in names:
        model = load_model(name)
        found[name] = [
            score_samples(
                "trained", model.process, model, language, sampler=sampler, steps=steps, n=TEXTS, seed=SEED
            )._asdict()
            for sampler in SAMPLERS[name]
            for steps in steps_of(model.process, language.length)
        ]
        for row in found[name]:
            print(f"{name:22s}{row['sampler']:12s}{row['steps']:3d} calls  {row['valid']:4.0%}", flush=True)
        write_json(RESULTS, {name: found[name] for name in SAMPLERS if name in found})


if __name__ == "__main__":
    main()
