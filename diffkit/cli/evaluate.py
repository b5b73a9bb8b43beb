"""The command that evaluates a model. Its signature is its options, its docstring the help."""

from __future__ import annotations

from pathlib import Path

from torch import Generator, Tensor

from diffkit.checks import check_whole
from diffkit.cli import report
from diffkit.cli.generate import load
from diffkit.cli.settings import MOST_TOKENS, DataSettings, read_held_out
from diffkit.evaluation.samples import quality
from diffkit.io import check_writable, write_json
from diffkit.languages.story_language import load_language
from diffkit.languages.tales import GRAMMARS
from diffkit.model import DiffusionModel, held_out_split
from diffkit.random import checked_seed


def evaluate(
    *,
    model: str = "tales-mdlm",
    n: int = 512,
    samples: int = 128,
    steps: int | None = None,
    corpus: str = "",
    fraction: float | None = None,
    seed: int = 0,
    json_file: str = "",
    all: bool = False,
    out: str = "",
) -> None:
    """Evaluate a model: the bound on its negative log-likelihood and, for a known language, the gap to the entropy.

    Args:
        model: folder of a trained model, or the name of a shipped one.
        n: sequences of the bound.
        samples: stories generated to count the valid ones (known languages only; 0 for none).
        steps: network calls for each story (default: one for every token).
        corpus: text to evaluate on (default: the language that the model was trained on).
        fraction: share of its documents, at most what training held out; 1 for a text that the model has never seen.
        seed: of masks and samples; of the split too, if the model was saved without its own.
        json_file: also write the results there.
        all: everything there is to measure, as a report: table, JSON and Markdown; `--all` alone is enough.
        out: folder of that report (default: reports/MODEL).
    """
    trained, tokenizer = load(model)
    rng, L = Generator().manual_seed(checked_seed(seed)), trained.denoiser.config.max_length
    name, steps = _corpus(trained, corpus), L if steps is None else steps
    _check_numbers(n, samples, fraction, L)
    check_writable(Path(json_file).parent if json_file else Path(out))
    known = load_language(name) if name == trained.config.language else None
    if all:
        if known is None or samples < 1 or json_file:
            raise ValueError("--all needs a model of a known language, a sample, and no --json_file: it has its own.")
        return _report(trained, report.measure(trained, known, n=n, samples=samples, steps=(steps,), rng=rng), out)
    x0 = _held_out(trained, name, n, fraction, seed)
    found = report.measure_bound(trained, tokenizer, x0, rng, padded=known is not None)
    lines = report.bound_lines(found)
    if known:
        found |= report.measure_gap(trained, known, n, rng)
        lines += report.gap_lines(found)
    if known and samples > 0:
        ids = report.draw(trained, samples, L, steps, rng)
        found |= {"samples": samples, "steps": steps} | quality(known, ids)._asdict()
        lines += [report.valid_line(found)]
    if json_file:
        write_json(Path(json_file), found)
    print(*lines, sep="\n")


def _report(trained: DiffusionModel, found: report.Figures, out: str) -> None:
    """Print a report, and write it to a folder."""
    name = Path(trained.name_or_path).resolve().name  # not the option --model, which may be `..`
    folder = Path(out or f"reports/{name}")
    report.write(name, found, folder)
    print(*report.bound_lines(found), *report.gap_lines(found), "", report.sample_table(found), sep="\n")
    print(f"\nThe report is in {folder}: README.md and report.json.")


def _check_numbers(n: int, samples: int, fraction: float | None, L: int) -> None:
    """Raise ValueError for numbers that no text or no machine has."""
    for option, count, least in (("--n", n, 1), ("--samples", samples, 0)):
        check_whole(count, option, "evaluate", least, MOST_TOKENS["validation_sequences"] // L)
    if fraction is not None and not 0 < fraction <= 1:
        raise ValueError(f"--fraction must lie in (0, 1], got {fraction}.")


def _corpus(trained: DiffusionModel, corpus: str) -> str:
    """The text to evaluate a model on."""
    own = trained.config.language or ""
    if not (corpus or own):
        raise ValueError("this model was trained on real text; name a text with --corpus.")
    if corpus in GRAMMARS and corpus != own:
        raise ValueError(f"--corpus {corpus} has another vocabulary than this model, trained on {own or 'real text'}.")
    return corpus or own


def _held_out(trained: DiffusionModel, corpus: str, n: int, fraction: float | None, seed: int) -> Tensor:
    """Sequences of a corpus (N, L) that the model has not learned from, or a word that this is not known."""
    share, split_seed = held_out_split(trained, fraction, seed)
    if trained.config.language is None and trained.config.split is None and share < 1:
        print(f"The model does not say what training held out: if its seed was not {seed}, it has learned this text.")
    length = trained.denoiser.config.max_length
    return read_held_out(DataSettings(corpus, str(trained.name_or_path), length, 1, n, share), split_seed, print)
