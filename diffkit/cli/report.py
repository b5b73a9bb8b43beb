"""One report on a model: everything measured once, as plain numbers; as a table, and as a page with figures."""

from __future__ import annotations

import html
import json
import math
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor
from transformers import PreTrainedTokenizerBase

from diffkit.course import plots
from diffkit.data.batches import StoryBatches
from diffkit.evaluation.bounds import CountError, error_by_count, gap_to_entropy, nelbo
from diffkit.evaluation.samples import (
    copied,
    distinct_n,
    marginals,
    pair_distance,
    quality,
    repeated_sentences,
    self_bleu,
    token_entropy,
)
from diffkit.evaluation.statistics import Estimate
from diffkit.io import write_atomic
from diffkit.languages.story_language import StoryLanguage
from diffkit.model import DiffusionModel
from diffkit.network.transformer import parameter_count
from diffkit.processes.masked import MaskedDiffusion
from diffkit.sampling.sampler import sample_many

Figures = dict[str, Any]  # plain numbers, texts and dictionaries of them: JSON can hold it
SHOWN_COUNTS = (1, 4, 8, 16, 24, 32, 40, 44, 47, 48)  # hidden tokens
PAIRS = (("hero", "park"), ("weather", "time"))  # slots of `tales` whose joint distribution is looked at
PADDED = "EOS and PAD are predicted and counted like any token"
PACKED = "documents joined by EOS and cut to one length; no padding"


# ----------------------------------------------------------------------------------------------------------- measuring


def measure_bound(
    model: DiffusionModel, tokenizer: PreTrainedTokenizerBase, x0: Tensor, rng: Generator, *, padded: bool
) -> Figures:
    """The bound on sequences (N, L) in every unit: nats are summed first, divided by the units of the same text, and
    exponentiated last.
    """
    bound, N = nelbo(model.process, model, x0, rng=rng), len(x0)
    texts = tokenizer.batch_decode(x0, skip_special_tokens=True)
    if padded:
        counts = {"canvas token": x0.numel(), "token up to EOS": int((x0 != tokenizer.pad_token_id).sum())}
    else:
        counts = {"token": x0.numel()}
    counts |= {"word": sum(len(text.split()) for text in texts), "character": sum(map(len, texts))}
    if not all(counts.values()):
        raise ValueError(
            "measure_bound: the model knows no word of this text, so nothing can be judged. Give one in its language."
        )
    nats, unk = bound.mean * N, tokenizer.unk_token_id
    return {
        "process": model.process.settings()["name"], "parameters": parameter_count(model),
        "exact": not model.process.bound_varies, "policy": PADDED if padded else PACKED, "sequences": N,
        "length": x0.shape[1], "nats_per_sequence": bound.mean, "nats_per_sequence_se": bound.standard_error,
        "nats_per_token": bound.mean / x0.shape[1], "nats_per_token_se": bound.standard_error / x0.shape[1],
        "perplexity": math.exp(bound.mean / x0.shape[1]),
        "unknown": 0.0 if unk is None else (x0 == unk).double().mean().item(),
        "units": {
            unit: {
                "count": count, "nats": nats / count, "bits": nats / count / math.log(2),
                "perplexity": math.exp(nats / count),
            }
            for unit, count in counts.items()
        },
    }  # fmt: skip


def measure_gap(model: DiffusionModel, language: StoryLanguage, n: int, rng: Generator) -> Figures:
    """The distance to the exact entropy, nats per canvas token, paired over n fresh stories."""
    gap = gap_to_entropy(model.process, model, language, n, rng=rng) / language.length
    return {
        "entropy_nats_per_token": language.entropy() / language.length, "gap_nats_per_token": gap.mean,
        "gap_se": gap.standard_error,
    }  # fmt: skip


def measure_counts(model: DiffusionModel, language: StoryLanguage, n: int, rng: Generator) -> list[Figures]:
    """Loss by number of hidden tokens, beside the exact one; nothing for a process that hides in another way."""
    if not isinstance(model.process, MaskedDiffusion):
        return []
    counts = sorted({min(count, language.length) for count in SHOWN_COUNTS})
    rows = error_by_count(model.process, model, language, counts=counts, n=n, rng=rng)
    return [{**row._asdict(), "gap": row.gap.mean, "gap_se": row.gap.standard_error} for row in rows]


def draw(model: DiffusionModel, n: int, L: int, steps: int, rng: Generator) -> Tensor:
    """n texts in batches of 64, made in the process's own way."""
    process = model.process
    return sample_many(process, model, n=n, length=L, steps=steps, rng=rng, order=process.default_order)


def measure_validity(language: StoryLanguage, ids: Tensor) -> Figures:
    """How many of the samples (n, L) are stories of the language, and how likely those are."""
    return {"samples": len(ids)} | quality(language, ids)._asdict()


def measure_samples(language: StoryLanguage, ids: Tensor, training: Tensor | None = None) -> Figures:
    """Samples (n, L) of a language that is known: validity, exact probability, variety, copying, marginals.

    `training` (N, L): stories that the model has seen; those that stand among the samples word for word are counted.
    """
    ends = {"eos_id": language.eos_id}
    stop_id = language.tokenizer.convert_tokens_to_ids(".")
    found = measure_validity(language, ids)
    found |= {f"distinct_{n}": distinct_n(ids, n, **ends) for n in (1, 2, 3)}
    found |= {
        "self_bleu": self_bleu(ids, **ends) if len(ids) > 1 else math.nan,
        "token_entropy": token_entropy(ids, **ends),
        "repeated_sentences": repeated_sentences(ids, stop_id=stop_id, **ends),
        "judge_perplexity": math.exp(-found["log_prob"] / language.length),
    }
    if training is not None:
        same = copied(ids, training, language)
        found |= {"copied": same.share, "copied_by_chance": same.by_chance}
    known = [pair for pair in PAIRS if {*pair} <= {*language.grammar.slots}]
    if found["valid"] > 0:
        distances = marginals(language, ids)
        distances |= {f"{a} and {b}": pair_distance(language, ids, a, b) for a, b in known}
        found["marginals"] = {name: one._asdict() for name, one in distances.items()}
    return found


def measure(
    model: DiffusionModel, language: StoryLanguage, *, n: int, samples: int, steps: tuple[int, ...], rng: Generator
) -> Figures:
    """Everything about a model of a known language: n stories for the bounds, `samples` stories for each of `steps`.

    The true stories' own figures stand beside the samples': no measure of samples means anything without them.
    """
    x0, training = language.sample(n, rng), torch.cat(_first_batches(language, 100))
    found = measure_bound(model, language.tokenizer, x0, rng, padded=True) | measure_gap(model, language, n, rng)
    found["by_count"] = measure_counts(model, language, min(n, 512), rng)
    found["true_stories"] = measure_samples(language, language.sample(samples, rng), training)
    found["sampled"] = {
        each: measure_samples(language, draw(model, samples, language.length, each, rng), training) for each in steps
    }
    return found


def _first_batches(language: StoryLanguage, count: int) -> list[Tensor]:
    batches = StoryBatches(language, 64, 0)
    return [next(batches) for _ in range(count)]


# -------------------------------------------------------------------------------------------------------------- showing


def bound_lines(found: Figures) -> list[str]:
    """A bound as lines of text, every unit with what it counts."""
    name = "-log p, exact" if found["exact"] else "bound on -log p"
    bound = Estimate(found["nats_per_sequence"], found["nats_per_sequence_se"])
    lines = [
        f"{name:20} {bound} nats per sequence ({found['sequences']} sequences of {found['length']} tokens)",
        f"{'':20} {found['policy']}",
        f"{'':20} {bound / found['length']} nats per token",
        f"{'perplexity':20} {'' if found['exact'] else 'at most '}{found['perplexity']:.5g}",
    ]
    lines += [
        f"{'per ' + unit:20} {one['nats']:.4f} nats, {one['bits']:.4f} bits, perplexity {one['perplexity']:.5g}"
        for unit, one in found["units"].items()
    ]
    if found["unknown"] > 0:
        share = f"{found['unknown']:.1%}"
        lines += [f"{'of these tokens':20} {share} are words that the model does not know, read as one token for all"]
    return lines


def gap_lines(found: Figures) -> list[str]:
    """The gap as lines of text."""
    gap = Estimate(found["gap_nats_per_token"], found["gap_se"])
    return [
        f"{'exact entropy':20} {found['entropy_nats_per_token']:.4f} nats per token",
        f"{'gap to the entropy':20} {gap} nats per token (beside the exact denoiser, on the same masks)",
    ]


def sample_lines(found: Figures) -> list[str]:
    """Validity as a line of text."""
    interval = f"95 % interval {found['low']:.1%} to {found['high']:.1%}"
    return [f"{'valid stories':20} {found['valid']:.1%} of {found['samples']} ({interval})"]


def sample_table(found: Figures) -> str:
    """Every figure of the samples beside that of true stories, as Markdown."""
    columns = {"true stories": found["true_stories"]} | {f"{n} steps": one for n, one in found["sampled"].items()}
    flat = {name: {**one} | _flat(one.get("marginals", {})) for name, one in columns.items()}
    rows = dict.fromkeys(key for one in flat.values() for key, value in one.items() if isinstance(value, int | float))
    lines = ["| | " + " | ".join(columns) + " |", "|---|" + "---|" * len(columns)]
    for key in rows:
        cells = (f"{one[key]:.4g}" if key in one else "" for one in flat.values())
        lines.append(f"| {key.replace('_', ' ')} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _flat(distances: Figures) -> Figures:
    return {f"{name}: {key}": value for name, one in distances.items() for key, value in one.items()}


def page(name: str, found: Figures) -> str:
    """The report as Markdown; its figures lie beside it."""
    lines = [f"# {html.escape(name)}", "", "```", *bound_lines(found), *gap_lines(found), "```", "", "## Samples", ""]
    lines += ["Distances are in nats (KL) or shares; a floor is what a perfect sampler of this size shows on average."]
    lines += ["", sample_table(found), "", "![Gap of every plot figure to its floor](marginals.png)", ""]
    if found["by_count"]:
        lines += ["## Loss by number of hidden tokens", "", "![Loss per hidden token, model and exact](by_count.png)"]
    return "\n".join(lines) + "\n"


def write(name: str, found: Figures, folder: Path) -> None:
    """Write report.json, README.md and figures into a folder, each whole or not at all."""
    best = list(found["sampled"].values())[0]
    shown = {key: {"KL": one["kl"], "floor": one["kl_floor"]} for key, one in best.get("marginals", {}).items()}
    turned = {side: {key: one[side] for key, one in shown.items()} for side in ("KL", "floor")}
    files = {"report.json": json.dumps(found, indent=1).encode() + b"\n", "README.md": page(name, found).encode()}
    files["marginals.png"] = plots.grouped_bars(
        turned, title="Marginals of the samples", y_label="KL to the exact ones, nats", alt="KL beside its floor."
    ).png
    if found["by_count"]:
        rows = [
            CountError(row["count"], row["model"], row["exact"], Estimate(row["gap"], row["gap_se"]))
            for row in found["by_count"]
        ]
        files["by_count.png"] = plots.error_by_count(rows).png
    for file, content in files.items():
        write_atomic(folder / file, content)
