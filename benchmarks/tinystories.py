"""What notebook 17 and the model cards say of the shipped models of real stories: measured, and written down.

    python benchmarks/tinystories.py --train TRAINING.txt --held-out HELD_OUT.txt

TRAINING.txt is what configs/tinystories-nano.yaml was given, HELD_OUT.txt stories that no model has read. Judges
data/pretrained/tinystories-nano and its autoregressive twin beside n-grams that count the same training text. A quarter
of an hour on one core.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from torch import Generator, Tensor
from training import machine
from transformers import PreTrainedTokenizerBase

from diffkit.cli.settings import DataSettings, read_held_out
from diffkit.data.tokenizer import load_tokenizer, special_ids
from diffkit.evaluation.bounds import sequence_bounds
from diffkit.evaluation.ngram import NGram, seen_windows
from diffkit.evaluation.samples import distinct_n
from diffkit.evaluation.statistics import mean_of
from diffkit.io import write_atomic, write_json
from diffkit.model import load_model
from diffkit.network.transformer import parameter_count
from diffkit.paths import PRETRAINED
from diffkit.processes.autoregressive import Autoregressive
from diffkit.processes.base import Denoise, Process
from diffkit.sampling.sampler import sample_many

RESULTS = Path(__file__).resolve().parent / "results" / "tinystories.json"
MODELS = {"masked diffusion": "tinystories-nano", "autoregressive twin": "tinystories-nano-ar"}
ORDERS = (1, 2, 3, 4, 5)
COUNTS = (1, 8, 16, 32, 64, 96, 112, 120, 127, 128)  # hidden tokens
DRAWS, SEED = 8, 0  # maskings of a sequence; of masks and samples
SAMPLES, WINDOWS, STEPS = 128, (4, 8, 16), (128, 32, 16)

CARD = """---
license: mit
datasets: roneneldan/TinyStories
library_name: diffkit
pipeline_tag: text-generation
---
# {name}

{what}: {parameters:,} parameters. It ships with the course so that notebook 17 works offline. Load it with
`diffkit.load_model("{name}")`; the tokenizer, 2,048 pieces of words learned from the same training text, lies in the
same folder.

## Data

An excerpt of TinyStories (Eldan & Li 2023, arXiv:2305.07759). The text itself (CDLA-Sharing-1.0, whose terms do not
extend to what is computed from it) is not part of this repository:
{documents:,} stories, {train_tokens:,} tokens. {held_documents} other stories were kept apart and are what all figures
below are about.

## Training

configs/{config}: {steps:,} steps of 32 sequences of 128 tokens, {tokens:,} tokens in all, {epochs:.1f} passes over the
text. {minutes:.0f} minutes on one thread of {machine}, beside other work. The curve is `training.jsonl`.

## Evaluation

By benchmarks/tinystories.py, on {sequences} sequences of 128 tokens, {characters:,} characters of held-out stories:

| | nats a token | bits a character |
|---|---|---|
{table}

The figure of masked diffusion is an upper bound; all others are exact.

## Limits

It writes sentences, hardly stories: names change, objects appear and vanish, and a quotation may never end. The text is
made by GPT-3.5 and GPT-4 for small children and has their faults. A teaching instrument; use it for nothing else.
"""


def judged(name: str, process: Process, denoise: Denoise, x0: Tensor, characters: int) -> dict[str, Any]:
    """One row: bound with its standard error, in nats a token and bits a character."""
    nats = sequence_bounds(process, denoise, x0, rng=Generator().manual_seed(SEED), draws=DRAWS, batch_size=32)
    L, per_character = x0.shape[1], x0.numel() / characters / math.log(2)
    found = mean_of(nats / L)
    print(f"{name:22s} {found} nats a token, {found.mean * per_character:.3f} bits a character", flush=True)
    return {
        "name": name, "nats": found.mean, "error": found.standard_error, "bits": found.mean * per_character,
        "exact": not process.bound_varies,
    }  # fmt: skip


def rows(train: Tensor, held_out: Tensor, tokenizer: PreTrainedTokenizerBase, characters: int) -> list[dict[str, Any]]:
    """n-grams and networks on the same held-out sequences."""
    ids, V = special_ids(tokenizer), len(tokenizer)
    in_order = Autoregressive(V, ids.mask)
    found = [
        judged(f"{n}-gram", in_order, NGram(train, n, vocab_size=V, mask_id=ids.mask), held_out, characters)
        for n in ORDERS
    ]
    for name, folder in MODELS.items():
        model = load_model(folder)
        found.append(judged(name, model.process, model, held_out, characters))
        found[-1] |= {"parameters": parameter_count(model), **training_of(folder)}
    return found


@torch.no_grad()
def by_count(held_out: Tensor) -> list[list[float]]:
    """[hidden tokens of 128, nats of each]: what the masked model makes of a text of which so much is hidden."""
    model, rng, some = load_model(MODELS["masked diffusion"]), Generator().manual_seed(SEED), held_out[:256]
    found = []
    for count in COUNTS:
        nats = model.process.count_loss(model, some, torch.full((len(some),), count), rng)  # already times L / count
        found.append([count, nats.double().mean().item()])
    return found


def training_of(folder: str) -> dict[str, Any]:
    """How a shipped model came about, from its training.jsonl, which holds every 50th step."""
    lines = (PRETRAINED / folder / "training.jsonl").read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    steps, tokens = records[-1]["step"], 32 * 128  # of a step
    return {
        "steps": steps, "tokens": steps * tokens,
        "minutes": steps * mean(tokens / record["tokens_per_second"] for record in records) / 60,
        "curve": [[record["step"], record["validation"]] for record in records if record["validation"] is not None],
    }  # fmt: skip


def written(train: Tensor, held_out: Tensor, eos: int) -> list[dict[str, Any]]:
    """What samples show: variety, and how much of them stands word for word in the training text."""
    stream, found = train.flatten(), []

    def look(name: str, texts: Tensor) -> None:
        copied = {str(n): seen_windows(texts, stream, n) for n in WINDOWS}
        distinct = {str(n): distinct_n(texts, n, eos_id=eos) for n in (1, 2, 3)}
        found.append({"name": name, "copied": copied, "distinct": distinct})
        print(f"{name:34s} copied {copied} distinct {distinct}", flush=True)

    look("held-out stories", held_out[:SAMPLES])
    for name, folder in MODELS.items():
        model, rng = load_model(folder), Generator().manual_seed(SEED)
        for steps in STEPS if model.process.bound_varies else STEPS[:1]:
            order = model.process.default_order
            texts = sample_many(model.process, model, n=SAMPLES, length=128, steps=steps, rng=rng, order=order)
            look(f"{name}, {steps} steps", texts)
    return found


def cards(found: dict[str, Any]) -> None:
    """A model card beside each model."""
    bits = [f"| {row['name']} | {row['nats']:.3f} ± {row['error']:.3f} | {row['bits']:.3f} |" for row in found["rows"]]
    for row in found["rows"]:
        if row["name"] in MODELS:
            name = MODELS[row["name"]]
            what = {"tinystories-nano": "A masked diffusion model (MDLM) of real stories"}
            said = {"what": what.get(name, "The autoregressive twin of tinystories-nano"), "config": f"{name}.yaml"}
            said |= {"name": name, "table": "\n".join(bits), "epochs": row["tokens"] / found["train_tokens"]}
            text = CARD.format(**(found | row | said))
            write_atomic(PRETRAINED / name / "README.md", text)


def main() -> None:
    """Judge, draw, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--train", required=True, help="the text that the models learned from")
    parser.add_argument("--held-out", required=True, help="stories that no model has read")
    options = parser.parse_args()
    tokenizer = load_tokenizer(PRETRAINED / MODELS["masked diffusion"])
    train, held_out = (
        read_held_out(DataSettings(text, str(tokenizer.name_or_path), 128, 1, 10**6, 1.0), SEED)
        for text in (options.train, options.held_out)
    )
    characters = sum(len(text) for text in tokenizer.batch_decode(held_out, skip_special_tokens=True))
    documents, held_documents = (
        Path(text).read_text(encoding="utf-8").count("<|endoftext|>") for text in (options.train, options.held_out)
    )
    found = {
        "machine": machine()["cpu"], "documents": documents,
        "held_documents": held_documents, "train_tokens": train.numel(), "sequences": len(held_out),
        "characters": characters, "draws": DRAWS, "samples": SAMPLES,
        "rows": rows(train, held_out, tokenizer, characters),
        "by_count": by_count(held_out),
        "written": written(train, held_out, special_ids(tokenizer).eos),
    }  # fmt: skip
    write_json(RESULTS, found)
    cards(found)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
