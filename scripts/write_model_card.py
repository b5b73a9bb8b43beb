"""Evaluate a shipped model and write its card: README.md and evaluation.json beside the weights. Takes minutes."""

from __future__ import annotations

import argparse
import platform
from pathlib import Path
from statistics import mean
from typing import NamedTuple

import torch

from diffkit.cli.report import measure, sample_table
from diffkit.cli.train import read_log
from diffkit.evaluation.bounds import paired_gap, sequence_bounds
from diffkit.evaluation.statistics import Estimate
from diffkit.io import write_json
from diffkit.languages.story_language import StoryLanguage, endings, load_language
from diffkit.model import DiffusionModel, load_model
from diffkit.network.conditioning import Conditioned
from diffkit.paths import PRETRAINED
from diffkit.sampling.sampler import sample

SEQUENCES, SAMPLES, STEPS = 1024, 512, (48, 24, 12)  # samples come in batches of 64

KINDS = {
    "mdlm": "A masked diffusion model (MDLM)",
    "conditional": "A masked diffusion model (MDLM) conditioned on how the story ends,",
    "block": "A block diffusion model, which writes blocks of eight tokens from left to right,",
    "d3pm": "A D3PM model (discrete diffusion with transition matrices)",
    "sedd": "A SEDD model (score entropy discrete diffusion)",
    "udlm": "A model of UDLM, uniform diffusion in continuous time,",
    "hybrid": "A diffusion model with hybrid noise (MASK and uniform words)",
    "diffusion_lm": "A model of Diffusion-LM, Gaussian diffusion of learned word vectors,",
    "plaid": "A model of Plaid, Gaussian diffusion of word vectors trained by its likelihood,",
    "soft_token_plaid": "A model of Plaid (Gaussian diffusion of word vectors) whose network reads soft tokens,",
    "autoregressive": "An autoregressive model, the twin of tales-mdlm that writes from left to right,",
}
NOTES = {  # on a curve that is not as `diffkit train` writes it
    "tales-mdlm": "; its\n`validation` is the mean gap over nine numbers of hidden tokens, no bound",
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
and how this run went, is in EXPERIMENTS.md; the curve is `training.jsonl` (one record a line{note}). The weights are an
exponential average, as the configs say.

## Evaluation

All numbers by `scripts/write_model_card.py`, exact counterparts beside them. PAD and EOS count as tokens, {length} to
a story. The first row is a mean over {sequences:,} stories and may lie below the entropy by chance; the gap is paired
with the exact denoiser on the same stories and masks.

| | model | exact |
|---|---|---|
| {bound_name}, nats per token | {bound} | {entropy_nats_per_token:.4f} (entropy) |
| gap to the entropy, nats per token, paired over {sequences:,} stories | **{gap}** | 0 |
{tables}
## Samples

Distances are in nats (KL) or shares; a floor is what a perfect sampler of this size shows on average.

{sampled_table}

## Limits

It knows {words} words and stories of one shape; it is a teaching instrument, not a writer. With a gap of
{story_gap:.2f} nats a *story* it breaks promises made a sentence earlier; the share of valid samples says how often it
does not.
"""

ERRORS = """
Loss per hidden token, nats:

| hidden tokens | model | exact | gap |
|---|---|---|---|
"""


ENDINGS = """
Given how the story ends (512 stories for the gap, 128 samples, one token a step):

| ending | gap to the exact conditional, nats per token | valid stories with that ending |
|---|---|---|
"""


def evaluate(name: str) -> dict:
    """All figures of the card as plain numbers: those of `diffkit evaluate --all`, and what the files are."""
    model = load_model(name)
    language, process = load_language(model.config.language), model.process
    rng, L = torch.Generator().manual_seed(2), language.length
    in_order = process.network.causal or process.network.block
    steps = (L,) if in_order else STEPS  # one after the other, fewer would change nothing
    found = measure(model, language, n=SEQUENCES, samples=SAMPLES, steps=steps, rng=rng)
    asked = language.labels if model.labels else []
    told = [{"ending": ending} | told_gap(model, language, ending, rng)._asdict() for ending in asked]
    return found | {
        "name": name, "language": model.config.language, "words": language.vocab_size - 4,
        "megabytes": sum(file.stat().st_size for file in (PRETRAINED / name).iterdir()) / 1e6,
        "story_gap": found["gap_nats_per_token"] * L, "endings": told,
    }  # fmt: skip


class Told(NamedTuple):
    """A conditional model, given how the story ends."""

    gap: float  # above the exact conditional, nats per token
    gap_se: float
    success: float  # share of samples that are valid stories with that ending


def told_gap(model: DiffusionModel, language: StoryLanguage, ending: str, rng: torch.Generator) -> Told:
    """One ending: the bound beside the exact conditional denoiser on the same stories and masks, and 128 samples."""
    label, process, L = language.labels.index(ending), model.process, language.length
    told = Conditioned(model, label)
    x0 = language.sample(512, rng, label=ending)
    seed = int(torch.randint(2**31, (), generator=rng))
    gap = paired_gap(
        lambda who, masks: sequence_bounds(process, who, x0, rng=masks),
        told, language.denoiser(process, ending), seed=seed,
    ) / L  # fmt: skip
    ids = sample(process, told, shape=(128, L), steps=L, order="random", rng=rng)
    return Told(gap.mean, gap.standard_error, (endings(language, ids) == label).double().mean().item())


def card(found: dict, config: str, machine: str) -> str:
    """The card as Markdown."""
    records = read_log(PRETRAINED / found["name"])
    steps, order = records[-1]["step"], ", random order" if found["process"] == "mdlm" else ""
    tables = "".join(
        f"| valid stories of {one['samples']}, {n} steps{order} | "
        f"{one['valid']:.1%} ({one['low']:.1%} to {one['high']:.1%}) | |\n"
        for n, one in found["sampled"].items()
    )
    if found["by_count"]:
        tables += ERRORS + "".join(
            f"| {row['count']} | {row['model']:.4f} | {row['exact']:.4f} | {row['gap']:.4f} ± {row['gap_se']:.4f} |\n"
            for row in found["by_count"]
        )
    if found["endings"]:
        tables += ENDINGS + "".join(
            f"| {one['ending']} | {one['gap']:.4f} ± {one['gap_se']:.4f} | {one['success']:.1%} |\n"
            for one in found["endings"]
        )
    tokens = 64 * steps * found["length"]
    bound = Estimate(found["nats_per_token"], found["nats_per_token_se"])
    gap = Estimate(found["gap_nats_per_token"], found["gap_se"])
    return CARD.format(
        **found, bound=bound, gap=gap, config=config, machine=machine, steps=steps,
        minutes=tokens * mean(1 / r["tokens_per_second"] for r in records) / 60, stories=64 * steps, tokens=tokens,
        tables=tables, sampled_table=sample_table(found), note=NOTES.get(found["name"], ""),
        kind=KINDS["conditional" if found["endings"] else found["process"]],
        bound_name="negative log-likelihood" if found["exact"] else "bound on the negative log-likelihood",
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
    write_json(folder / "evaluation.json", results)
    (folder / "README.md").write_text(card(results, options.config, options.machine), encoding="utf-8")
    print((folder / "README.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
