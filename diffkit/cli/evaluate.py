"""The command that evaluates a model. Its signature is its options, its docstring the help."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Generator
from transformers import PreTrainedTokenizerBase

from diffkit.checks import check_whole
from diffkit.cli import report
from diffkit.cli.generate import load
from diffkit.cli.settings import MOST_TOKENS, VALIDATION_SEED, split_corpus
from diffkit.data.corpus import CORPORA, load_corpus
from diffkit.evaluation.samples import quality
from diffkit.evaluation.text import bound_on_text, check_windows, full_windows, judge_of, text_bounds, together
from diffkit.io import check_writable, write_json
from diffkit.languages.exact import Language
from diffkit.languages.story_language import LANGUAGES, load_language
from diffkit.model import DiffusionModel, held_out_split
from diffkit.paths import PRETRAINED
from diffkit.random import checked_seed

READS_ANY_TEXT = "tinystories-mdlm"  # a shipped model whose tokens are made of bytes


class Asked(NamedTuple):
    """What to measure."""

    n: int
    windows: int | None
    stride: int | None
    beside: list[str]
    samples: int
    steps: int | None
    fraction: float | None
    seed: int

    @property
    def most(self) -> int:
        """Windows of a text, 0 for all."""
        return self.n if self.windows is None else self.windows


def evaluate(
    *, model: str = "", corpus: str = "", n: int = 512, windows: int | None = None, stride: int | None = None,
    beside: str = "", samples: int = 128, steps: int | None = None, fraction: float | None = None, seed: int = 0,
    json_file: str = "", all: bool = False, out: str = "",
) -> None:  # fmt: skip
    """Evaluate a model, or your own text: diffkit evaluate --corpus my.txt. The bound, and the exact value if known.

    Args:
        model: folder or shipped name (default: tales-mdlm; for a text of your own tinystories-mdlm, which reads any).
        corpus: a .txt, .jsonl or .parquet file or folder, or a name (default: the language the model was trained on).
        n: stories of the bound; for a text its windows, unless --windows says how many.
        windows: how many windows of a text to read from its start, each as long as the model's canvas; 0 for all of
            it, in one pass and constant memory (default: as --n).
        stride: new tokens in each window; the rest are the tokens before them, given and not counted again. By default
            all are new and windows are independent. Half a window takes twice the time; the bound is lower as a rule,
            since every token is predicted with text before it.
        beside: also judge these baselines on the same windows, separated by commas: a model with the same tokens, such
            as the autoregressive twin, or 3-gram:FILE, which counts that text (3-gram: what training did not hold out).
        samples: stories generated to count the valid ones (known languages only; 0 for none).
        steps: network calls for each story (default: one for every token).
        fraction: share of a text's documents to judge, at most what training held out; 1 for a text that the model has
            never seen (default: what training held out; of your own text and a shipped model, all).
        seed: of masks and samples; of the split too, if the model was saved without its own.
        json_file: also write the results there.
        all: of a model of a known language everything there is to measure, as a report: table, JSON and Markdown;
            `--all` alone is enough.
        out: folder of that report (default: reports/MODEL).
    """
    reader = "tales-mdlm" if not corpus or corpus in LANGUAGES else READS_ANY_TEXT
    trained, tokenizer = load(model or reader)
    others = [one.strip() for one in beside.split(",") if one.strip()]
    asked = Asked(n, windows, stride, others, samples, steps, fraction, checked_seed(seed))
    name, known = _checked(trained, corpus, asked, Path(json_file).parent if json_file else Path(out))
    if all:
        return _report(trained, known, asked, json_file, out)
    found, lines = _of_stories(trained, known, asked) if known else _of_text(trained, tokenizer, name, asked)
    if json_file:
        write_json(Path(json_file), found)
    print(*lines, sep="\n")


def _checked(trained: DiffusionModel, corpus: str, asked: Asked, folder: Path) -> tuple[str, Language | None]:
    """The text to judge a model on, and its language if that is known. Raises ValueError for what cannot be done."""
    own, L = trained.config.language or "", trained.denoiser.config.max_length
    if not (corpus or own):
        raise ValueError("this model was trained on real text; name a text with --corpus.")
    if corpus in LANGUAGES and corpus != own:
        raise ValueError(f"--corpus {corpus} has another vocabulary than this model, trained on {own or 'real text'}.")
    for option, count, least in (("--n", asked.n, 1), ("--samples", asked.samples, 0)):
        check_whole(count, option, "evaluate", least, MOST_TOKENS["validation_sequences"] // L)
    if asked.fraction is not None and not 0 < asked.fraction <= 1:
        raise ValueError(f"--fraction must lie in (0, 1], got {asked.fraction}.")
    check_windows(asked.most, asked.stride, L)
    check_writable(folder)
    known = load_language(own) if (corpus or own) == own else None
    if known and (asked.windows, asked.stride) != (None, None):
        raise ValueError(f"--windows and --stride are for texts; of {own} there are stories, as many as --n says.")
    return corpus or own, known


def _of_stories(trained: DiffusionModel, known: Language, asked: Asked) -> tuple[report.Figures, list[str]]:
    """Bound, gap and valid stories of a model whose language is known, as figures and as lines."""
    rng, L = Generator().manual_seed(asked.seed), known.length
    x0 = known.sample(asked.n, Generator().manual_seed(VALIDATION_SEED))
    found = report.measure_bound(trained, known.tokenizer, x0, rng) | report.measure_gap(trained, known, asked.n, rng)
    lines = report.bound_lines(found) + report.gap_lines(found)
    if asked.samples > 0:
        steps = L if asked.steps is None else asked.steps
        ids = report.draw(trained, asked.samples, L, steps, rng)
        found |= {"samples": asked.samples, "steps": steps} | quality(known, ids)._asdict()
        lines += [report.valid_line(found)]
    if asked.beside:
        counted = partial(report.training_stories, known)
        others = {name: judge_of(name, known.tokenizer, L, counted) for name in asked.beside}
        windows = together((row, torch.zeros(L, dtype=torch.bool)) for row in x0)
        judges = {"": (trained.process, trained)} | others
        *_, bound = text_bounds(judges, windows, known.tokenizer, seed=asked.seed)
        found["beside"] = report.beside(bound)
        lines += ["", *report.beside_lines(found["beside"])]
    return found, lines


def _of_text(
    trained: DiffusionModel, tokenizer: PreTrainedTokenizerBase, corpus: str, asked: Asked
) -> tuple[report.Figures, list[str]]:
    """Bound of a model on a text, as figures and as lines."""
    documents, rest = _documents(trained, corpus, asked)
    length = trained.denoiser.config.max_length
    counted = None if rest is None else partial(full_windows, rest, tokenizer, length)
    bound = bound_on_text(
        trained, documents, windows=asked.most, stride=asked.stride, seed=asked.seed, beside=asked.beside,
        counted=counted, tokenizer=tokenizer,
    )  # fmt: skip
    found = report.text_figures(trained, bound)
    note = ["Only the start of the text was read; --windows 0 reads all of it."] * (bound.read.windows == asked.most)
    if found["nats_per_token"] > (guess := math.log(V := trained.process.vocab_size)):
        note += [f"To guess, all {V:,} tokens alike, costs {guess:.2f} nats per token: this model never saw such text."]
    return found, report.text_lines(found) + note


def _documents(trained: DiffusionModel, corpus: str, asked: Asked) -> tuple[Iterator[str], Iterable[str] | None]:
    """The documents of a corpus that a model has not learned from, or a word that this is not known; and the others."""
    is_shipped = Path(str(trained.name_or_path)).parent == PRETRAINED
    fraction = 1.0 if asked.fraction is None and is_shipped and corpus not in CORPORA else asked.fraction
    share, split_seed = held_out_split(trained, fraction, asked.seed)
    if trained.config.split is None and share < 1:
        print(f"The model does not say what training held out: if its seed was not {asked.seed}, it has learned this.")
    streaming = None if corpus in CORPORA else True
    if share == 1:
        rest, judged = None, load_corpus(corpus, streaming=streaming)
    else:
        rest, judged = split_corpus(corpus, share, split_seed, streaming=streaming)
    print(f"{judged.info.description}.")
    texts = (row["text"] for row in judged)
    if (first := next(texts, None)) is None:
        raise ValueError(
            f"of {corpus} no document was held out: training holds out a share of {share:g} of them. For a "
            "text that the model has never seen: --fraction 1."
        )
    return chain([first], texts), None if rest is None else (row["text"] for row in rest)


def _report(trained: DiffusionModel, known: Language | None, asked: Asked, json_file: str, out: str) -> None:
    """Measure everything, print it, and write it to a folder."""
    if known is None or asked.samples < 1 or json_file or asked.beside:
        raise ValueError(
            "--all needs a model of a known language, a sample, and neither --beside nor --json_file: it has its own."
        )
    steps = known.length if asked.steps is None else asked.steps
    rng = Generator().manual_seed(asked.seed)
    found = report.measure(trained, known, n=asked.n, samples=asked.samples, steps=(steps,), rng=rng)
    name = Path(trained.name_or_path).resolve().name  # not the option --model, which may be `..`
    folder = Path(out or f"reports/{name}")
    report.write(name, found, folder)
    print(*report.bound_lines(found), *report.gap_lines(found), "", report.sample_table(found), sep="\n")
    print(f"\nThe report is in {folder}: README.md and report.json.")
