"""The commands that use a model: write, fill, judge. Their signatures are the options, their docstrings the help."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from torch import Generator, Tensor
from transformers import PreTrainedTokenizerBase

from diffkit.checks import check_whole
from diffkit.cli import doctor as examination
from diffkit.cli import report
from diffkit.cli.settings import MOST_TOKENS, DataSettings, read_held_out
from diffkit.cli.terminal import paragraph, play
from diffkit.data.tokenizer import load_tokenizer
from diffkit.languages.story_language import load_language
from diffkit.languages.tales import GRAMMARS
from diffkit.model import DiffusionModel, check_tokenizer, load_model
from diffkit.processes.masked import Denoise
from diffkit.random import checked_seed
from diffkit.sampling.guidance import follow
from diffkit.sampling.sampler import canvas_from_text, denoise_frames, last_frame
from diffkit.training.checkpoint import check_writable, write_whole

MOST_NUMBERS = 2**28  # probabilities in a table of texts, places and words; some such tables are held at once
Rule = Literal["ancestral", "random", "confidence", "margin", "entropy", "left_to_right"]


def demo() -> None:
    """Watch a story unmask, written by the shipped model; `diffkit sample` has the options."""
    sample(animate=True)


def sample(
    model: str = "tales-mdlm",
    n: int = 1,
    steps: int | None = None,
    rule: Rule | None = None,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    prompt: str = "",
    length: int | None = None,
    label: str = "",
    guidance: float = 0.0,
    seed: int | None = None,
    animate: bool = False,
) -> None:
    """Write new texts: diffkit sample --prompt "One rainy day" --n 3.

    Args:
        model: folder of a trained model, or the name of a shipped one.
        n: how many texts.
        steps: network calls; fewer are faster and worse (default: one for every token).
        rule: which hidden tokens are revealed first; "ancestral" follows the process itself (default: random, where
            the process leaves a choice).
        temperature: below 1 safer, above 1 wilder.
        top_k: draw from the k likeliest tokens only.
        top_p: draw from the smallest set of tokens that holds this probability.
        prompt: how the text starts; ___ leaves one word open, ___{3} three.
        length: tokens of the canvas (default: what the model was trained on).
        label: how a story ends (lost, kept, returned, shared); for a conditional model such as tales-mdlm-conditional.
        guidance: how much to stress the label; 0 follows it as it was learned.
        seed: the same seed gives the same texts (default: new ones each time).
        animate: show the text appear; `--animate` alone is enough.
    """
    trained, tokenizer = _load(model)
    longest = trained.denoiser.config.max_length
    length = longest if length is None else length
    if not 1 <= length <= longest:
        raise ValueError(f"--length must lie in 1..{longest}, what the model was trained on, got {length}.")
    canvas = canvas_from_text(prompt, tokenizer, length)
    how = {"rule": rule, "temperature": temperature, "top_k": top_k, "top_p": top_p}
    _write(trained, tokenizer, canvas, n, steps, seed, animate, how, _steered(trained, label, guidance))


def infill(
    text: str,
    model: str = "tales-mdlm",
    n: int = 1,
    complete: bool = False,
    steps: int | None = None,
    rule: Rule | None = None,
    temperature: float = 1.0,
    label: str = "",
    guidance: float = 0.0,
    seed: int | None = None,
    animate: bool = False,
) -> None:
    """Fill the blanks of a text and keep its words: diffkit infill "One ___ day Mia walked to the park."

    Args:
        text: a text with blanks, ___ for one missing word, ___{3} for three: before, between or behind the words.
        model: folder of a trained model, or the name of a shipped one.
        n: how many fillings.
        complete: the text ends where it ends; otherwise the model also writes how it goes on.
        steps: network calls (default: one for every hidden token).
        rule: which hidden tokens are revealed first; "ancestral" follows the process itself (default: random, where
            the process leaves a choice).
        temperature: below 1 safer, above 1 wilder.
        label: how the story ends (lost, kept, returned, shared), for a conditional model.
        guidance: how much to stress the label; 0 follows it as it was learned.
        seed: the same seed gives the same fillings (default: new ones each time).
        animate: show the words appear; `--animate` alone is enough.
    """
    trained, tokenizer = _load(model)
    canvas = canvas_from_text(text, tokenizer, trained.denoiser.config.max_length, complete=complete)
    if not (canvas == tokenizer.mask_token_id).any():
        raise ValueError("the text is complete and has no blank; write ___ where a word is missing.")
    how = {"rule": rule, "temperature": temperature}
    _write(trained, tokenizer, canvas, n, steps, seed, animate, how, _steered(trained, label, guidance))


def _load(model: str) -> tuple[DiffusionModel, PreTrainedTokenizerBase]:
    trained = load_model(model)
    tokenizer = load_tokenizer(trained.name_or_path)
    check_tokenizer(trained, tokenizer)
    return trained, tokenizer


def _steered(trained: DiffusionModel, label: str, guidance: float) -> Denoise:
    """The model, or the model told how the text shall end."""
    if not label and not guidance:
        return trained
    labels = load_language(trained.config.language).labels if trained.config.language and trained.labels else []
    if not labels:
        raise ValueError("this model knows no labels; --label and --guidance need one such as tales-mdlm-conditional.")
    if label not in labels:
        raise ValueError(f"--label must be one of {', '.join(labels)}, got {label!r}.")
    return follow(trained, labels.index(label), guidance)


def _write(
    trained: DiffusionModel, tokenizer: PreTrainedTokenizerBase, canvas: Tensor, n: int, steps: int | None,
    seed: int | None, animated: bool, how: dict[str, Any], denoise: Denoise,
) -> None:  # fmt: skip
    """Fill n copies of a canvas (1, L) and print them; the first one is played if it is to be animated."""
    most = max(1, MOST_NUMBERS // (canvas.shape[1] * len(tokenizer)))
    if not 1 <= n <= most:
        raise ValueError(f"--n must be at least 1 and at most {most:,} texts of this model at once, got {n}.")
    if steps is None:
        steps = min(max(1, int((canvas == tokenizer.mask_token_id).sum())), trained.process.T)
    rng = Generator()
    rng.seed() if seed is None else rng.manual_seed(checked_seed(seed))
    is_blank = bool((canvas == tokenizer.mask_token_id).all())  # nothing given: the process knows how a text starts
    start = trained.process.prior(n, canvas.shape[1], rng) if is_blank else canvas.expand(n, -1)
    how["rule"] = how["rule"] or trained.process.default_rule
    frames = denoise_frames(trained.process, denoise, start=start, steps=steps, rng=rng, **how)
    frame = play(frames, tokenizer, steps=steps) if animated else last_frame(frames)
    texts = [paragraph(ids, tokenizer) for ids in frame.tokens[1 if animated else 0 :]]
    print(*texts, sep="\n\n", end="\n" if texts else "")


def evaluate(
    model: str = "tales-mdlm",
    n: int = 512,
    samples: int = 128,
    steps: int | None = None,
    corpus: str = "",
    fraction: float = 0.01,
    seed: int = 0,
    json_file: str = "",
    all: bool = False,
    out: str = "",
) -> None:
    """Judge a model: the bound on its negative log-likelihood and, where the language is known, the gap to the truth.

    Args:
        model: folder of a trained model, or the name of a shipped one.
        n: sequences that the bound looks at.
        samples: stories drawn to see how many are valid (known languages only; 0 for none).
        steps: network calls for each story (default: one for every token).
        corpus: text to evaluate on (default: the language that the model was trained on).
        fraction: share of that text which training held out; 1 for a text that the model has never seen.
        seed: of masks and samples; for a text also of the split, as in training.
        json_file: also write the results there.
        all: everything there is to measure, with a report: table, JSON, Markdown and figures; `--all` alone is enough.
        out: folder of that report (default: reports/MODEL).
    """
    trained, tokenizer = _load(model)
    rng, L = Generator().manual_seed(checked_seed(seed)), trained.denoiser.config.max_length
    name, steps = _evaluated_on(trained, corpus), L if steps is None else steps
    for option, count, least in (("--n", n, 1), ("--samples", samples, 0)):
        check_whole(count, option, "evaluate", least, MOST_TOKENS["validation_sequences"] // L)
    check_writable(Path(json_file).parent if json_file else Path(out))
    known = load_language(name) if name == trained.config.language else None
    if all:
        if known is None or samples < 1 or json_file:
            raise ValueError("--all needs a model of a known language, a sample, and no --json_file: it has its own.")
        whole = report.measure(trained, known, n=n, samples=samples, steps=(steps,), rng=rng)
        folder = Path(trained.name_or_path).resolve().name  # not `model`, which may be `..`
        return _write_report(folder, whole, Path(out or f"reports/{folder}"))
    x0 = read_held_out(DataSettings(name, str(trained.name_or_path), L, 1, n, fraction), seed)
    found = report.measure_bound(trained, tokenizer, x0, rng, padded=known is not None)
    print(*report.bound_lines(found), sep="\n")
    if known:
        found |= report.measure_gap(trained, known, n, rng)
        print(*report.gap_lines(found), sep="\n")
    if known and samples > 0:
        found |= report.measure_validity(known, report.draw(trained, samples, L, steps, rng)) | {"steps": steps}
        print(*report.sample_lines(found), sep="\n")
    if json_file:
        write_whole(Path(json_file), json.dumps(found, indent=1) + "\n")


def _evaluated_on(trained: DiffusionModel, corpus: str) -> str:
    """Which text a model is judged by."""
    own = trained.config.language or ""
    if not (corpus or own):
        raise ValueError("this model was trained on real text; say which text to use with --corpus.")
    if corpus in GRAMMARS and corpus != own:
        raise ValueError(f"--corpus {corpus} has words of its own, which this model of {own or 'real text'} never saw.")
    return corpus or own


def _write_report(name: str, found: report.Figures, folder: Path) -> None:
    """Leave a report in a folder, and print what it says."""
    report.write(name, found, folder)
    print(*report.bound_lines(found), *report.gap_lines(found), "", report.sample_table(found), sep="\n")
    print(f"\nThe report is in {folder}: README.md, report.json and figures.")


def doctor() -> None:
    """Check this machine: versions, device, memory, shipped models, seconds per training step; say what to do."""
    wrong = 0
    for finding in examination.examine():
        wrong += not finding.ok
        print(examination.line_of(finding), flush=True)
    print("Everything works." if not wrong else f"{wrong} to look at: the lines marked LOOK say what to do.")
