"""Evaluate a shipped model and write its card: README.md and evaluation.json beside the weights. Takes minutes."""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path

import torch

from diffkit.diffusion import MaskedDiffusion
from diffkit.evaluate import error_by_count, gap_to_entropy, nelbo, quality
from diffkit.language import load_language
from diffkit.model import PRETRAINED, load_model, parameter_count
from diffkit.sample import sample

SEQUENCES, SAMPLES, STEPS = 1024, 512, (48, 24, 12)  # samples come in batches of 64

KINDS = {
    "mdlm": "A masked diffusion model (MDLM)",
    "autoregressive": "An autoregressive model, the twin of tales-mdlm that writes from left to right,",
}
CARD = """---
license: mit
library_name: diffkit
pipeline_tag: text-generation
---
# {name}

{kind} of the story language `{language}`: {parameters:,} parameters, {megabytes:.1f} MB. It ships
with the course so that every notebook works offline. Load it with `diffkit.load_model("{name}")`; the tokenizer
lies in the same folder.

## Data

Fresh stories of `{language}`, drawn by `StoryBatches`. None is held back: the distribution itself is known.
{stories:,} stories, {tokens:,} tokens with padding.

## Training

{config}: {steps:,} steps of 64 stories, {minutes:.0f} minutes on {machine}. What was tried before,
and how this run went, is in EXPERIMENTS.md; the curve is `training.jsonl` (one record a line). The weights are an
exponential average, as the configs say.

## Evaluation

All numbers by `scripts/write_model_card.py`, exact counterparts beside them. PAD and EOS count as tokens, {length} to
a story.

| | model | exact |
|---|---|---|
| {bound_name}, nats per token | {bound:.4f} ± {bound_se:.4f} | {entropy:.4f} (entropy) |
| gap to the entropy, nats per token, paired over {sequences:,} stories | **{gap:.4f} ± {gap_se:.4f}** | 0 |
{quality_rows}
{error_table}
## Limits

It knows {words} words and stories of one shape; it is a teaching instrument, not a writer. A gap of {story_gap:.2f}
nats a *story* still allows some to break a promise made a sentence earlier: the share of valid samples says how many.
"""

ERRORS = """
Loss per hidden token, nats:

| hidden tokens | model | exact | gap |
|---|---|---|---|
"""


def evaluate(name: str) -> dict:
    """All figures of the card as plain numbers."""
    model = load_model(name)
    language, process = load_language(model.config.language), model.process
    rng, L = torch.Generator().manual_seed(2), language.length
    bound = nelbo(process, model, language.sample(SEQUENCES, rng), rng=rng) / L
    gap = gap_to_entropy(process, model, language, SEQUENCES, rng=rng) / L
    counts, all_steps, found = [], (L,), {}
    if isinstance(process, MaskedDiffusion):  # from left to right, fewer steps would change nothing
        shown, all_steps = (1, 4, 8, 16, 24, 32, 40, 44, 47, 48), STEPS
        counts = error_by_count(process, model, language, counts=shown, n=512, rng=rng)
    for steps in all_steps:
        how = {"shape": (64, L), "steps": steps, "rng": rng, "rule": process.default_rule}
        parts = [sample(process, model, **how) for _ in range(SAMPLES // 64)]  # type: ignore[arg-type]
        found[steps] = quality(language, torch.cat(parts))
    return {
        "name": name, "process": process.settings()["name"], "language": model.config.language, "length": L,
        "words": language.vocab_size - 4,
        "parameters": parameter_count(model), "entropy": language.entropy() / L,
        "megabytes": sum(file.stat().st_size for file in (PRETRAINED / name).iterdir()) / 1e6, "sequences": SEQUENCES,
        "bound": bound.mean, "bound_se": bound.standard_error, "gap": gap.mean, "gap_se": gap.standard_error,
        "story_gap": gap.mean * L, "samples": SAMPLES,
        "quality": {steps: q._asdict() for steps, q in found.items()},
        "by_count": [row._asdict() for row in counts],
    }  # fmt: skip


def card(results: dict, config: str, machine: str) -> str:
    """The card as Markdown."""
    records = [json.loads(line) for line in (PRETRAINED / results["name"] / "training.jsonl").open(encoding="utf-8")]
    steps, exact = records[-1]["step"], results["process"] == "autoregressive"
    order = "" if exact else ", random order"
    quality_rows = "\n".join(
        f"| valid stories of {results['samples']}, {n} steps{order} | "
        f"{q['valid']:.1%} ({q['low']:.1%} to {q['high']:.1%}) | |"
        for n, q in results["quality"].items()
    )
    error_rows = "".join(
        f"| {row['count']} | {row['model']:.4f} | {row['exact']:.4f} | {row['gap'][0]:.4f} ± {row['gap'][1]:.4f} |\n"
        for row in results["by_count"]
    )
    return CARD.format(
        **results, config=config, machine=machine, steps=steps, minutes=records[-1]["seconds"] / 60, stories=64 * steps,
        tokens=64 * steps * results["length"], quality_rows=quality_rows, kind=KINDS[results["process"]],
        bound_name="negative log-likelihood" if exact else "bound on the negative log-likelihood",
        error_table=ERRORS + error_rows if error_rows else "",
    )  # fmt: skip


def main() -> None:
    """Evaluate, then write both files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", nargs="?", default="tales-mdlm")
    parser.add_argument("--config", default="configs/nano.yaml, then configs/nano-finish.yaml")
    parser.add_argument("--machine", default=f"two cores of a {platform.processor() or platform.machine()} CPU")
    options = parser.parse_args()
    folder = Path(PRETRAINED / options.name)
    results = evaluate(options.name)
    (folder / "evaluation.json").write_text(json.dumps(results, indent=1), encoding="utf-8")
    (folder / "README.md").write_text(card(results, options.config, options.machine), encoding="utf-8")
    print((folder / "README.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
