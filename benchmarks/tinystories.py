"""What notebook 17 and the model cards say of the shipped models of real stories: measured, and written down.

    python benchmarks/tinystories.py --train TRAINING.txt --held-out HELD_OUT.txt --along EARLY EARLIER

TRAINING.txt is what the models learned from, HELD_OUT.txt stories that none has read; EARLY and EARLIER are folders of
the masked model as it was on the way (scripts/ship_model.py --checkpoint); earlier stages in the table stay in it.
Judges the shipped models beside n-grams that count the same training text, chooses how the masked model and the block
model write by default, and puts that beside their weights as generation_config.json. Half an hour on one core; `--only
block` judges the block model alone, `--only rewritten` the drafts that the masked model reads again, and each leaves
all else in the table as it is.
"""

from __future__ import annotations

import argparse
import json
import math
import re
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from torch import Generator, Tensor
from training import machine
from transformers import PreTrainedTokenizerBase

from diffkit.cli.settings import DataSettings, read_held_out
from diffkit.cli.train import read_log
from diffkit.course.rewriting import rewrite_frames, token_scores
from diffkit.data.tokenizer import load_tokenizer, special_ids
from diffkit.evaluation.bounds import sequence_bounds
from diffkit.evaluation.ngram import NGram, seen_windows
from diffkit.evaluation.samples import distinct_n, token_entropy
from diffkit.evaluation.statistics import mean_of
from diffkit.io import write_atomic, write_json
from diffkit.model import DiffusionModel, load_model
from diffkit.network.transformer import parameter_count
from diffkit.paths import PRETRAINED
from diffkit.processes.autoregressive import Autoregressive
from diffkit.processes.base import Denoise, Process
from diffkit.random import uniform_like
from diffkit.sampling.sampler import sample

RESULTS = Path(__file__).resolve().parent / "results" / "tinystories.json"
MASKED, BLOCK, TWIN = "masked diffusion", "block diffusion", "autoregressive twin"
MODELS = {MASKED: "tinystories-mdlm", BLOCK: "tinystories-block", TWIN: "tinystories-ar"}
SAID = {  # on the cards: what it is, the second part of its training, and how exactly that was computed
    MASKED: (
        "A masked diffusion model (MDLM) of real stories", ", then configs/tinystories-mdlm-finish.yaml",
        "; the second part in bfloat16",
    ),
    BLOCK: (
        "A block diffusion model of real stories, blocks of 8 tokens from left to right",
        ", then configs/tinystories-block-finish.yaml", ", in bfloat16",
    ),
    TWIN: (
        "The autoregressive twin of tinystories-mdlm", ", then configs/tinystories-ar-finish.yaml",
        "; the second part in bfloat16",
    ),
}  # fmt: skip
ORDERS = (1, 2, 3)  # of the n-grams
COUNTS = (1, 8, 16, 32, 64, 96, 112, 120, 127, 128)  # hidden tokens
LENGTH, DRAWS, SEED = 128, 4, 0  # tokens; maskings of a sequence; of masks and samples
SEQUENCES = 512  # held-out ones that are judged
SAMPLES, WINDOWS = 32, (4, 8, 16)
JUDGED = 64  # samples whose words are counted, plain and by default
PLAIN: dict[str, Any] = {"order": "random", "temperature": 1.0, "top_p": None}
TRIED = [PLAIN] + [  # ways to write that are compared: unmasking order and filters, one network call a token
    {"order": order, "temperature": temperature, "top_p": top_p}
    for order, temperature, top_p in (
        ("random", 1.0, 0.95), ("random", 1.0, 0.9), ("random", 0.9, 0.9), ("random", 0.8, 0.9), ("random", 0.7, 0.9),
        ("confidence", 1.0, None), ("confidence", 1.0, 0.9), ("entropy", 1.0, 0.9),
        ("entropy", 0.9, 0.9), ("entropy", 0.8, 0.9),
    )
]  # fmt: skip
TRIED_IN_BLOCKS: list[dict[str, Any]] = [  # of the block model, whose order is its own
    {"temperature": temperature, "top_p": top_p}
    for temperature, top_p in ((1.0, None), (1.0, 0.95), (1.0, 0.9), (0.9, 0.9), (0.8, 0.9))
]
NEVER = -1  # an id that no token has: windows are read to their end, beyond that of a story
ROUNDS, COUNT = (1, 2, 4), 16  # of rewriting, after which texts are judged; tokens hidden in each

CARD = """---
license: mit
datasets: roneneldan/TinyStories
library_name: diffkit
pipeline_tag: text-generation
---
# {name}

{what}: {parameters:,} parameters, stored in 16 bits. It ships with the course so that notebook 17 works offline. Load
it with `diffkit.load_model("{name}")`; the tokenizer, {pieces:,} pieces of words learned from the same training text,
lies in the same folder.

## Data

An excerpt of TinyStories (Eldan & Li 2023, arXiv:2305.07759). The text itself (CDLA-Sharing-1.0, whose terms do not
extend to what is computed from it) is not part of this repository:
{documents:,} stories, {train_tokens:,} tokens. All figures below were measured on {held_documents:,} other stories.

## Training

configs/{config}: {steps:,} steps of 32 sequences of 128 tokens, {tokens:,} tokens, {epochs:.1f} passes over the text,
from the weights of a {start} model that had read {start_tokens:,} tokens. {minutes:.0f} minutes on one thread of
{machine}, beside other work{precision}. The curve is `training.jsonl`.

## Evaluation

By benchmarks/tinystories.py, on {sequences} sequences of 128 tokens, {characters:,} characters of held-out stories:

| | nats a token | bits a character |
|---|---|---|
{table}

The figures of diffusion are upper bounds; all others are exact.

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
        "bits_error": found.standard_error * per_character, "exact": not process.bound_varies,
    }  # fmt: skip


def counted(train: Tensor, held_out: Tensor, tokenizer: PreTrainedTokenizerBase, characters: int) -> list[dict]:
    """Rows of n-grams."""
    ids, V = special_ids(tokenizer), len(tokenizer)
    in_order = Autoregressive(V, ids.mask)
    return [
        judged(f"{n}-gram", in_order, NGram(train, n, vocab_size=V, mask_id=ids.mask), held_out, characters)
        for n in ORDERS
    ]


def learned(name: str, held_out: Tensor, characters: int, start_tokens: int) -> dict[str, Any]:
    """Row of a network, on the same held-out sequences."""
    model, before = load_model(MODELS[name]), {"start": "left-to-right", "start_tokens": start_tokens}
    if name == BLOCK:
        before = {"start": "masked", "start_tokens": start_tokens + training_of(MODELS[MASKED])["tokens"]}
    row = judged(name, model.process, model, held_out, characters)
    return row | {"parameters": parameter_count(model), **training_of(MODELS[name]), **before}


@torch.no_grad()
def by_count(held_out: Tensor) -> list[list[float]]:
    """[hidden tokens of 128, nats of each]: what the masked model makes of a text of which so much is hidden."""
    model, rng, some = load_model(MODELS[MASKED]), Generator().manual_seed(SEED), held_out[:256]
    found = []
    for count in COUNTS:
        nats = model.process.count_loss(model, some, torch.full((len(some),), count), rng)  # already times L / count
        found.append([count, nats.double().mean().item()])
    return found


def training_of(folder: str) -> dict[str, Any]:
    """How a shipped model came about, from its training.jsonl, which holds every 50th step."""
    records = read_log(PRETRAINED / folder)
    steps, tokens = records[-1]["step"], 32 * LENGTH  # of a step
    return {
        "steps": steps, "tokens": steps * tokens,
        "minutes": steps * mean(tokens / record["tokens_per_second"] for record in records) / 60,
        "curve": [[record["step"], record["validation"]] for record in records if record["validation"] is not None],
    }  # fmt: skip


class Reader:
    """Judges texts beside real ones: how likely to the twin, how varied, how much copied, which words are none."""

    def __init__(self, train: Tensor, text: str, tokenizer: PreTrainedTokenizerBase):
        self.stream, self.tokenizer, self.twin = train.flatten(), tokenizer, load_model(MODELS[TWIN])
        self.known = set(words_of(text))

    def read(self, name: str, ids: Tensor) -> dict[str, Any]:
        eos, rng = special_ids(self.tokenizer).eos, Generator().manual_seed(SEED)
        # What is cut off at either end of a window is no whole word.
        words = [word for text in self.tokenizer.batch_decode(ids, skip_special_tokens=True) for word in inner(text)]
        nats = mean_of(sequence_bounds(self.twin.process, self.twin, ids, rng=rng, batch_size=32) / ids.shape[1])
        whole = mean_of(torch.tensor([token_entropy(row[None], eos_id=NEVER) for row in ids], dtype=torch.float64))
        found = {
            "name": name, "texts": len(ids), "twin_nats": nats.mean, "twin_error": nats.standard_error,
            "entropy": whole.mean, "entropy_error": whole.standard_error, "words": len(words),
            "no_words": mean(word not in self.known for word in words),
            "copied": {str(n): seen_windows(ids, self.stream, n) for n in WINDOWS},
            "distinct": {str(n): distinct_n(ids, n, eos_id=eos) for n in (1, 2, 3)},
        }  # fmt: skip
        print(f"{name:40s}", {k: round(v, 4) for k, v in found.items() if isinstance(v, float)}, flush=True)
        return found


def words_of(text: str) -> list[str]:
    """The words of a text in lower case."""
    return re.findall(r"[^\W\d_]+", text.lower())


def inner(text: str) -> list[str]:
    """Its words but the first and the last."""
    return words_of(text)[1:-1]


def drawn(model: DiffusionModel, n: int = SAMPLES, steps: int = LENGTH, **how: Any) -> Tensor:
    """Unpicked texts, seed 0."""
    rng = Generator().manual_seed(SEED)
    return sample(model.process, model, shape=(n, LENGTH), steps=steps, rng=rng, **how)


def ways_to_write(model: DiffusionModel, reader: Reader, tried: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Settings, and what their samples are worth."""
    return [how | reader.read(" ".join(map(str, how.values())), drawn(model, **how)) for how in tried]


def rewritten(model: DiffusionModel, reader: Reader, real: Tensor, how: dict[str, Any]) -> list[dict[str, Any]]:
    """What plain drafts are worth after rounds of hiding tokens, doubtful ones or any, and filling them by `how`."""
    rng, drafts = Generator().manual_seed(SEED), drawn(model, **PLAIN)
    rows = [reader.read("held-out stories", real), reader.read("as drafted", drafts)]
    chosen = {"doubtful": token_scores, "random": lambda predict, x0, mask_id, groups: uniform_like(x0, rng)}
    for name, scores in chosen.items():
        frames = rewrite_frames(
            model.process, model, drafts, rounds=ROUNDS[-1], count=COUNT, steps=COUNT, scores=scores,
            rng=Generator().manual_seed(SEED), **how,
        )  # fmt: skip
        last = {frame.step // (COUNT + 1): frame.tokens for frame in frames if frame.step % (COUNT + 1) == 0}
        rows += [reader.read(f"{n} x {COUNT} {name} tokens", last[n]) for n in ROUNDS]
    return [*rows, reader.read("the default from the start", drawn(model, **how))]


def default_of(ways: list[dict[str, Any]], real: dict[str, Any]) -> dict[str, Any]:
    """The settings whose texts lie nearest to real stories, in nats to the twin and entropy of the tokens.

    Of those that repeat no more of the training text than new stories do, in windows of 8 and of 16 tokens.
    """
    axes = ("twin_nats", "entropy")
    own = [way for way in ways if all(way["copied"][n] <= real["copied"][n] for n in ("8", "16"))]
    nearest = min(own, key=lambda way: math.hypot(*(way[axis] - real[axis] for axis in axes)))
    return {name: nearest[name] for name in PLAIN if name in nearest}


def texts_of(model: DiffusionModel, how: dict[str, Any], tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Two unpicked texts, decoded."""
    return tokenizer.batch_decode(drawn(model, 2, **how), skip_special_tokens=True)


def along(folders: list[str], tokenizer: PreTrainedTokenizerBase) -> list[dict[str, Any]]:
    """Two texts of the masked model at each stage of its training, plainly sampled; stages in the table stay in it."""
    known = json.loads(RESULTS.read_text(encoding="utf-8"))["along"] if RESULTS.exists() else []
    texts = {stage["steps"]: stage["texts"] for stage in known}
    for folder in folders:
        texts[training_of(Path(folder).resolve())["steps"]] = texts_of(load_model(folder), PLAIN, tokenizer)
    return [{"steps": steps, "texts": texts[steps]} for steps in sorted(texts)]


def cards(found: dict[str, Any]) -> None:
    """A model card beside each model."""
    bits = [f"| {row['name']} | {row['nats']:.3f} ± {row['error']:.3f} | {row['bits']:.3f} |" for row in found["rows"]]
    for row in found["rows"]:
        if row["name"] in MODELS:
            what, then, precision = SAID[row["name"]]
            name = MODELS[row["name"]]
            said = {
                "what": what, "name": name, "config": f"{name}.yaml{then}", "precision": precision,
                "table": "\n".join(bits), "epochs": row["tokens"] / found["train_tokens"],
            }  # fmt: skip
            write_atomic(PRETRAINED / name / "README.md", CARD.format(**(found | row | said)))


def of_masked(
    options: argparse.Namespace, train: Tensor, held_out: Tensor, characters: int, reader: Reader
) -> dict[str, Any]:
    """The table but for the block model; writes how the masked model writes by default."""
    tokenizer, model = reader.tokenizer, load_model(MODELS[MASKED])
    train_text, held_out_text = (path.read_text(encoding="utf-8") for path in (options.train, options.held_out))
    rows = counted(train, held_out, tokenizer, characters)
    rows += [learned(name, held_out, characters, options.start_tokens) for name in (MASKED, TWIN)]
    found = {
        "machine": machine()["cpu"], "pieces": len(tokenizer), "documents": train_text.count("<|endoftext|>"),
        "held_documents": held_out_text.count("<|endoftext|>"), "train_tokens": train.numel(),
        "sequences": len(held_out), "characters": characters, "draws": DRAWS, "samples": SAMPLES, "rows": rows,
        "by_count": by_count(held_out), "held_out": reader.read("held-out stories", held_out[:SAMPLES]),
        "ways": ways_to_write(model, reader, TRIED), "twin": reader.read(TWIN, drawn(reader.twin, order="ancestral")),
        "along": along([*options.along, str(PRETRAINED / MODELS[MASKED])], tokenizer),
    }  # fmt: skip
    found["default"] = default_of(found["ways"], found["held_out"])
    found["judged"] = [
        reader.read(name, drawn(model, JUDGED, **how))
        for name, how in (("plain", PLAIN), ("default", found["default"]))
    ]
    write_json(PRETRAINED / MODELS[MASKED] / "generation_config.json", found["default"])
    return found


def of_block(
    found: dict[str, Any], held_out: Tensor, characters: int, reader: Reader, start_tokens: int
) -> dict[str, Any]:
    """All rows with that of the block model, and how it writes; puts its default beside its weights."""
    block, kept = load_model(MODELS[BLOCK]), [row for row in found["rows"] if row["name"] != BLOCK]
    rows = [*kept[:-1], learned(BLOCK, held_out, characters, start_tokens), kept[-1]]
    ways = ways_to_write(block, reader, TRIED_IN_BLOCKS)
    default = default_of(ways, found["held_out"])
    write_json(PRETRAINED / MODELS[BLOCK] / "generation_config.json", default)
    texts = texts_of(block, default, reader.tokenizer)
    return {"rows": rows, "block": {"ways": ways, "default": default, "texts": texts}}


def main() -> None:
    """Judge, draw, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=Path, required=True, help="the text that the models learned from")
    parser.add_argument("--held-out", type=Path, required=True, help="stories that no model has read")
    parser.add_argument("--along", nargs="*", default=[], help="the masked model on the way, earliest first")
    parser.add_argument("--start-tokens", type=int, default=0, help="read by the model that all started from")
    parser.add_argument("--only", choices=["block", "rewritten"], help="judge this alone")
    options = parser.parse_args()
    tokenizer = load_tokenizer(PRETRAINED / MODELS[MASKED])
    train, held_out = (
        read_held_out(DataSettings(str(text), str(tokenizer.name_or_path), LENGTH, 1, 2**19, 1.0), SEED)
        for text in (options.train, options.held_out)
    )
    held_out = held_out[:SEQUENCES]
    characters = sum(len(text) for text in tokenizer.batch_decode(held_out, skip_special_tokens=True))
    reader = Reader(train, options.train.read_text(encoding="utf-8"), tokenizer)
    found = (
        json.loads(RESULTS.read_text(encoding="utf-8"))
        if options.only
        else of_masked(options, train, held_out, characters, reader)
    )
    if options.only != "rewritten":
        found |= of_block(found, held_out, characters, reader, options.start_tokens)
    if options.only != "block":
        found["rewritten"] = rewritten(load_model(MODELS[MASKED]), reader, held_out[:SAMPLES], found["default"])
    write_json(RESULTS, found)
    cards(found)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
