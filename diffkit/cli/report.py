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
from diffkit.evaluation import samples as judge
from diffkit.evaluation.bounds import gap_to_entropy, nelbo
from diffkit.evaluation.by_count import error_by_count
from diffkit.evaluation.statistics import Estimate, perplexity
from diffkit.evaluation.text import TextBound
from diffkit.io import atomic_files, write_json
from diffkit.languages.exact import Language
from diffkit.languages.story_language import StoryLanguage
from diffkit.model import DiffusionModel
from diffkit.network.transformer import parameter_count
from diffkit.processes.masked import MaskedDiffusion
from diffkit.sampling.sampler import sample_many

Figures = dict[str, Any]  # plain numbers, texts and dictionaries of them: JSON can hold it
SHOWN_COUNTS = (1, 4, 8, 16, 24, 32, 40, 44, 47, 48, 96, 160, 224, 255, 256)  # masked tokens
PAIRS = (("hero", "park"), ("weather", "time"))  # slots of `tales` whose joint distribution is compared
PADDED = "EOS and PAD are predicted and counted like any token"
TIME_IS_SHARE = "The time given to the network is the share of masked tokens; for the sampled chain: nelbo(steps=...)"


def measure_bound(model: DiffusionModel, tokenizer: PreTrainedTokenizerBase, x0: Tensor, rng: Generator) -> Figures:
    """The bound on stories (N, L) in every unit: nats are summed, divided by the units, and exponentiated last."""
    bound, texts = nelbo(model.process, model, x0, rng=rng), tokenizer.batch_decode(x0, skip_special_tokens=True)
    counts = {"canvas token": x0.numel(), "token up to EOS": int((x0 != tokenizer.pad_token_id).sum())}
    counts |= {"word": sum(len(text.split()) for text in texts), "character": sum(map(len, texts))}
    unk = tokenizer.unk_token_id
    return _of_model(model) | {
        "policy": PADDED, "sequences": len(x0), "length": x0.shape[1],
        "nats_per_sequence": bound.mean, "nats_per_sequence_se": bound.standard_error,
        "nats_per_token": bound.mean / x0.shape[1], "nats_per_token_se": bound.standard_error / x0.shape[1],
        "perplexity": perplexity(bound.mean / x0.shape[1]),
        "unknown": 0.0 if unk is None else (x0 == unk).double().mean().item(),
        "units": _units(bound.mean * len(x0), counts),
    }  # fmt: skip


def text_figures(model: DiffusionModel, bound: TextBound) -> Figures:
    """The bound on a text in every unit, and those beside it."""
    read, L = bound.read, bound.read.tokens / bound.read.windows
    counts = {"token": read.tokens, "word": read.words, "character": read.characters}
    return _of_model(model) | {
        "policy": f"{read.bounded}; documents are joined by EOS", "sequences": read.windows,
        "length": read.length, "stride": read.stride, "nats_per_sequence": bound.per_token.mean * L,
        "nats_per_sequence_se": bound.per_token.standard_error * L, **_row(bound),
        "unknown": read.unknown / read.tokens, "units": _units(bound.per_token.mean * read.tokens, counts),
        "beside": beside(bound),
    }  # fmt: skip


def _of_model(model: DiffusionModel) -> Figures:
    sees_share = model.process.any_order and model.denoiser.config.time != "none"
    return {
        "process": model.process.settings()["name"], "parameters": parameter_count(model),
        "exact": not model.process.bound_varies, "sees_share": sees_share,
    }  # fmt: skip


def _units(nats: float, counts: dict[str, int]) -> Figures:
    found = {}
    for unit, count in counts.items():
        each = nats / count
        found[unit] = {"count": count, "nats": each, "bits": each / math.log(2), "perplexity": perplexity(each)}
    return found


def beside(bound: TextBound) -> list[Figures]:
    """The figures of the baselines."""
    return [{"name": one.name} | _row(one) for one in bound.beside]


def _row(bound: TextBound) -> Figures:
    """The figures of one judge of a text."""
    found: Figures = {"exact": bound.exact, "perplexity": bound.perplexity}
    pairs = {"nats_per_token": bound.per_token, "bits_per_character": bound.bits_per_character}
    pairs |= {"above_the_first": bound.difference} if bound.difference else {}
    for name, one in pairs.items():
        found |= {name: one.mean, f"{name}_se": one.standard_error}
    return found


def measure_gap(model: DiffusionModel, language: Language, n: int, rng: Generator) -> Figures:
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


def measure_samples(language: Language, ids: Tensor, training: Tensor) -> Figures:
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
        "judge_perplexity": perplexity(-found["log_prob"] / language.length),
        "copied": same.share, "copied_by_chance": same.by_chance,
    }  # fmt: skip
    if found["valid"] > 0:
        distances = judge.marginals(language, ids)
        if isinstance(language, StoryLanguage):
            pairs = [pair for pair in PAIRS if {*pair} <= {*language.grammar.slots}]
            distances |= {f"{a} and {b}": judge.pair_distance(language, ids, a, b) for a, b in pairs}
        found["marginals"] = {name: one._asdict() for name, one in distances.items()}
    return found


def training_stories(language: Language) -> Tensor:
    """The first 6,400 stories (N, L) that a run with seed 0 learns from."""
    return torch.cat([*islice(StoryBatches(language, 64, 0), 100)])


def measure(
    model: DiffusionModel, language: Language, *, n: int, samples: int, steps: tuple[int, ...], rng: Generator
) -> Figures:
    """Everything about a model of a known language: n stories for the bounds, `samples` stories for each of `steps`.

    The same figures of true stories come along: no measure of samples means anything without them.
    """
    process, L = model.process, language.length
    x0, training = language.sample(n, rng), training_stories(language)
    found = measure_bound(model, language.tokenizer, x0, rng) | measure_gap(model, language, n, rng)
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
    bound = Estimate(found["nats_per_sequence"], found["nats_per_sequence_se"])
    lines = [
        f"{_name(found):20} {bound} nats per sequence ({found['sequences']} sequences of {found['length']} tokens)",
        f"{'':20} {found['policy']}",
        f"{'':20} {bound / found['length']} nats per token",
        _perplexity(found),
    ]
    if found.get("sees_share"):
        lines.insert(1, f"{'':20} {TIME_IS_SHARE}")
    return lines + _unit_lines(found)


def text_lines(found: Figures) -> list[str]:
    """The bound on a text as lines of text: nats, bits and perplexity, then what was read."""
    nats, bits = (Estimate(found[of], found[f"{of}_se"]) for of in ("nats_per_token", "bits_per_character"))
    counts = {"window": found["sequences"]} | {unit: one["count"] for unit, one in found["units"].items()}
    lines = [
        f"{_name(found):20} {nats} nats per token", f"{'':20} {bits} bits per character", _perplexity(found),
        f"{'of':20} {found['policy']}",
        f"{'read':20} {', '.join(f'{count:,} {unit}' + 's' * (count != 1) for unit, count in counts.items())}",
    ]  # fmt: skip
    lines += [f"{'':20} {TIME_IS_SHARE}"] * found["sees_share"]
    lines += [f"{'':20} (a standard error needs at least two windows)"] * (found["sequences"] == 1)
    lines += _unit_lines(found)
    if found["beside"]:
        lines += ["", *beside_lines(found["beside"])]
    return lines


def beside_lines(rows: list[Figures]) -> list[str]:
    """The baselines, on the same windows as the model."""
    lines = []
    for row in rows:
        nats, bits, above = (
            Estimate(row[of], row[f"{of}_se"]) for of in ("nats_per_token", "bits_per_character", "above_the_first")
        )
        what = "exact" if row["exact"] else "a bound"
        lines += [f"{row['name']:20} {nats} nats per token, {bits} bits per character ({what}), {above} above"]
    return [*lines, "Above: nats per token more than the model, the same windows paired; negative is better."]


def _name(found: Figures) -> str:
    return "-log p, exact" if found["exact"] else "bound on -log p"


def _perplexity(found: Figures) -> str:
    return f"{'perplexity':20} {'' if found['exact'] else 'at most '}{found['perplexity']:.5g}"


def _unit_lines(found: Figures) -> list[str]:
    lines = [
        f"{'per ' + unit:20} {one['nats']:.4f} nats, {one['bits']:.4f} bits, perplexity {one['perplexity']:.5g}"
        for unit, one in found["units"].items()
    ]
    if found["unknown"] > 0:
        share = f"{found['unknown']:.1%}, all read as one token: what is bounded is the text with these words replaced"
        lines += [f"{'unknown tokens':20} {share}"]
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
    keys = dict.fromkeys(key for one in flat.values() for key, value in one.items() if isinstance(value, int | float))
    named = {"low": "valid, 95 % from", "high": "valid, 95 % to", "log_prob": "log p of the valid, nats"}
    cells = {
        named.get(key, key.replace("_", " ")): [f"{one[key]:.4g}" if key in one else "" for one in flat.values()]
        for key in keys
        if key.replace("plot_", "plot: ", 1) not in keys or not key.startswith("plot_")
    }
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
