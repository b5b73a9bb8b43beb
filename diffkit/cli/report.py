"""One report on a model: everything measured once, as plain numbers; shown as lines, as a table and as a page."""

from __future__ import annotations

import html
import math
from itertools import islice
from pathlib import Path
from typing import Any, cast

import torch
from torch import Generator, Tensor
from transformers import PreTrainedTokenizerBase

from diffkit.data.batches import StoryBatches
from diffkit.data.chunks import texts_of
from diffkit.evaluation import samples as judge
from diffkit.evaluation.bounds import gap_to_entropy, nelbo
from diffkit.evaluation.by_count import error_by_count
from diffkit.evaluation.statistics import Estimate
from diffkit.io import atomic_files, write_json
from diffkit.languages.story_language import StoryLanguage
from diffkit.model import DiffusionModel
from diffkit.network.transformer import parameter_count
from diffkit.processes.masked import MaskedDiffusion
from diffkit.sampling.sampler import sample_many

Figures = dict[str, Any]  # plain numbers, texts and dictionaries of them: JSON can hold it
SHOWN_COUNTS = (1, 4, 8, 16, 24, 32, 40, 44, 47, 48)  # masked tokens
PAIRS = (("hero", "park"), ("weather", "time"))  # slots of `tales` whose joint distribution is compared
PADDED = "EOS and PAD are predicted and counted like any token"
PACKED = "documents joined by EOS and cut to one length; no padding"


def measure_bound(
    model: DiffusionModel, tokenizer: PreTrainedTokenizerBase, x0: Tensor, rng: Generator, *, padded: bool
) -> Figures:
    """The bound on sequences (N, L) in every unit: nats are summed, divided by the units, and exponentiated last."""
    bound, N = nelbo(model.process, model, x0, rng=rng), len(x0)
    texts = tokenizer.batch_decode(x0, skip_special_tokens=True) if padded else texts_of(x0, tokenizer)
    if padded:
        counts = {"canvas token": x0.numel(), "token up to EOS": int((x0 != tokenizer.pad_token_id).sum())}
    else:
        counts = {"token": x0.numel()}
    counts |= {"word": sum(len(text.split()) for text in texts), "character": sum(map(len, texts))}
    if not all(counts.values()):
        raise ValueError("measure_bound: no word of this text is in the model's vocabulary. Choose another text.")
    nats, unk = bound.mean * N, tokenizer.unk_token_id
    return {
        "process": model.process.settings()["name"], "parameters": parameter_count(model),
        "exact": not model.process.bound_varies,
        "told_share": model.process.any_order and model.denoiser.config.time != "none",
        "policy": PADDED if padded else PACKED, "sequences": N,
        "length": x0.shape[1], "nats_per_sequence": bound.mean, "nats_per_sequence_se": bound.standard_error,
        "nats_per_token": bound.mean / x0.shape[1], "nats_per_token_se": bound.standard_error / x0.shape[1],
        "perplexity": _exp(bound.mean / x0.shape[1]),
        "unknown": 0.0 if unk is None else (x0 == unk).double().mean().item(),
        "units": {
            unit: {
                "count": count, "nats": nats / count, "bits": nats / count / math.log(2),
                "perplexity": _exp(nats / count),
            }
            for unit, count in counts.items()
        },
    }  # fmt: skip


def _exp(nats: float) -> float:
    """A perplexity; infinite where no number is large enough."""
    return math.inf if nats > 709 else math.exp(nats)


def measure_gap(model: DiffusionModel, language: StoryLanguage, n: int, rng: Generator) -> Figures:
    """The distance to the exact entropy, nats per canvas token, paired over n fresh stories."""
    gap = gap_to_entropy(model.process, model, language, n, rng=rng) / language.length
    return {
        "entropy_nats_per_token": language.entropy() / language.length, "gap_nats_per_token": gap.mean,
        "gap_se": gap.standard_error,
    }  # fmt: skip


def draw(model: DiffusionModel, n: int, L: int, steps: int, rng: Generator) -> Tensor:
    """Generate n texts (n, L) in the order that the process chooses."""
    process = model.process
    return sample_many(process, model, n=n, length=L, steps=steps, rng=rng, order=process.default_order)


def measure_samples(language: StoryLanguage, ids: Tensor, training: Tensor) -> Figures:
    """Samples (n, L): validity, exact probability, variety, copies of `training` (N, L), marginals."""
    ends = {"eos_id": language.eos_id}
    stop_id = language.tokenizer.convert_tokens_to_ids(".")
    same = judge.copied(ids, training, language)
    found: Figures = {"samples": len(ids)} | judge.quality(language, ids)._asdict()
    found |= {f"distinct_{n}": judge.distinct_n(ids, n, **ends) for n in (1, 2, 3)}
    found |= {
        "self_bleu": judge.self_bleu(ids, **ends) if len(ids) > 1 else math.nan,
        "token_entropy": judge.token_entropy(ids, **ends),
        "repeated_sentences": judge.repeated_sentences(ids, stop_id=stop_id, **ends),
        "judge_perplexity": _exp(-found["log_prob"] / language.length),
        "copied": same.share, "copied_by_chance": same.by_chance,
    }  # fmt: skip
    if found["valid"] > 0:
        pairs = [pair for pair in PAIRS if {*pair} <= {*language.grammar.slots}]
        distances = judge.marginals(language, ids)
        distances |= {f"{a} and {b}": judge.pair_distance(language, ids, a, b) for a, b in pairs}
        found["marginals"] = {name: one._asdict() for name, one in distances.items()}
    return found


def measure(
    model: DiffusionModel, language: StoryLanguage, *, n: int, samples: int, steps: tuple[int, ...], rng: Generator
) -> Figures:
    """Everything about a model of a known language: n stories for the bounds, `samples` stories for each of `steps`.

    The same figures of true stories come along: no measure of samples means anything without them.
    """
    process, L = model.process, language.length
    x0, training = language.sample(n, rng), torch.cat([*islice(StoryBatches(language, 64, 0), 100)])
    found = measure_bound(model, language.tokenizer, x0, rng, padded=True) | measure_gap(model, language, n, rng)
    found["by_count"] = []
    if "count_bound" in process.objectives:
        counts = sorted({min(count, L) for count in SHOWN_COUNTS})
        rows = error_by_count(cast(MaskedDiffusion, process), model, language, counts=counts, n=min(n, 512), rng=rng)
        found["by_count"] = [{**row._asdict(), "gap": row.gap.mean, "gap_se": row.gap.standard_error} for row in rows]
    found["true_stories"] = measure_samples(language, language.sample(samples, rng), training)
    found["sampled"] = {}
    for each in steps:
        found["sampled"][each] = measure_samples(language, draw(model, samples, L, each, rng), training)
    return found


def bound_lines(found: Figures) -> list[str]:
    """A bound as lines of text, in every unit."""
    name = "-log p, exact" if found["exact"] else "bound on -log p"
    bound = Estimate(found["nats_per_sequence"], found["nats_per_sequence_se"])
    lines = [
        f"{name:20} {bound} nats per sequence ({found['sequences']} sequences of {found['length']} tokens)",
        f"{'':20} {found['policy']}",
        f"{'':20} {bound / found['length']} nats per token",
        f"{'perplexity':20} {'' if found['exact'] else 'at most '}{found['perplexity']:.5g}",
    ]
    if found.get("told_share"):
        told = "The network sees as its time the share of masked tokens; of the chain that is sampled: nelbo(steps=...)"
        lines.insert(1, f"{'':20} {told}")
    lines += [
        f"{'per ' + unit:20} {one['nats']:.4f} nats, {one['bits']:.4f} bits, perplexity {one['perplexity']:.5g}"
        for unit, one in found["units"].items()
    ]
    if found["unknown"] > 0:
        lines += [f"{'unknown tokens':20} {found['unknown']:.1%}, all read as one token"]
    return lines


def gap_lines(found: Figures) -> list[str]:
    """The gap as lines of text."""
    gap = Estimate(found["gap_nats_per_token"], found["gap_se"])
    return [
        f"{'exact entropy':20} {found['entropy_nats_per_token']:.4f} nats per token",
        f"{'gap to the entropy':20} {gap} nats per token (paired, on the same stories)",
    ]


def valid_line(found: Figures) -> str:
    """The share of valid samples as a line of text."""
    interval = f"95 % interval {found['low']:.1%} to {found['high']:.1%}"
    return f"{'valid stories':20} {found['valid']:.1%} of {found['samples']} ({interval})"


def sample_table(found: Figures) -> str:
    """Every figure of the samples next to that of true stories, as Markdown."""
    columns = {"true stories": found["true_stories"]} | {f"{n} steps": one for n, one in found["sampled"].items()}
    flat = {
        name: {**one}
        | {f"{of}: {key}": value for of, each in one.get("marginals", {}).items() for key, value in each.items()}
        for name, one in columns.items()
    }
    rows = dict.fromkeys(key for one in flat.values() for key, value in one.items() if isinstance(value, int | float))
    cells = {key.replace("_", " "): [f"{one[key]:.4g}" if key in one else "" for one in flat.values()] for key in rows}
    return table(["", *columns], cells)


def table(head: list[str], rows: dict[str, list[str]]) -> str:
    """Markdown of named rows of cells."""
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    return "\n".join(lines + [f"| {name} | {' | '.join(cells)} |" for name, cells in rows.items()])


def page(name: str, found: Figures) -> str:
    """The report as Markdown."""
    lines = [f"# {html.escape(name)}", "", "```", *bound_lines(found), *gap_lines(found), "```", "", "## Samples", ""]
    lines += ["Distances are in nats (KL) or shares; a floor is the mean of a perfect sampler of this size."]
    lines += ["", sample_table(found), ""]
    if found["by_count"]:
        rows = {
            str(row["count"]): [f"{row[key]:.4f}" for key in ("model", "exact", "gap")] for row in found["by_count"]
        }
        lines += ["## Loss by number of masked tokens", "", "Nats per masked token.", ""]
        lines += [table(["masked", "model", "exact", "gap"], rows)]
    return "\n".join(lines) + "\n"


def write(name: str, found: Figures, folder: Path) -> None:
    """Write report.json and README.md into a folder, each whole or not at all."""
    with atomic_files(folder, last="README.md") as draft:
        write_json(draft / "report.json", found)
        (draft / "README.md").write_text(page(name, found), encoding="utf-8")
