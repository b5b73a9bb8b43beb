"""The commands that generate text. Their signatures are the options, their docstrings the help."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from json import loads
from pathlib import Path
from typing import Any, Literal, NamedTuple

from torch import Generator, Tensor
from transformers import PreTrainedTokenizerBase

from diffkit.cli.showing import Shown
from diffkit.data.tokenizer import canvas_from_text
from diffkit.languages.story_language import load_language
from diffkit.model import DiffusionModel, load_with_tokenizer
from diffkit.paths import PRETRAINED, user_path
from diffkit.processes.base import Denoise
from diffkit.random import checked_seed
from diffkit.sampling.guidance import condition_on
from diffkit.sampling.sampler import Frame, denoise_frames

MOST_NUMBERS = 2**28  # probabilities in a table of texts, positions and tokens; some such tables are held at once
MOST_PROBS = 2**26  # probabilities kept for a page; without them it plays the text only
Order = Literal["ancestral", "random", "confidence", "margin", "entropy", "left_to_right"]


def demo() -> None:
    """Watch a story unmask, written by the shipped model; `diffkit sample` has the options."""
    sample(animate=True)


def sample(
    *, model: str = "tales-mdlm", n: int = 1, steps: int | None = None, order: Order | None = None,
    temperature: float | None = None, top_k: int | None = None, top_p: float | None = None, prompt: str = "",
    length: int | None = None, label: str = "", guidance: float = 0.0, seed: int | None = None, animate: bool = False,
    stream: bool = False, json: bool = False, frames: bool = False, save: str = "",
) -> None:  # fmt: skip
    """Generate texts: diffkit sample --prompt "One rainy day" --n 3.

    Args:
        model: folder of a trained model, or the name of a shipped one.
        n: how many texts.
        steps: network calls; fewer are faster and worse (default: one for every token).
        order: which masked tokens are revealed first; "ancestral" follows the process itself (default: random, where
            the process leaves a choice). This and the next three take what the model's generation_config.json says, if
            it has one.
        temperature: below 1 more typical text, above 1 more varied (default: 1).
        top_k: draw from the k likeliest tokens only.
        top_p: draw from the smallest set of tokens that holds this probability.
        prompt: how the text starts; ___ stands for one missing token, ___{3} for three.
        length: tokens of the canvas (default: what the model was trained on).
        label: how a story ends (lost, kept, returned, shared); for a conditional model such as tales-mdlm-conditional.
        guidance: strength of classifier-free guidance; 0 conditions on the label only.
        seed: the same seed gives the same texts (default: new ones each time).
        animate: show the text appear; `--animate` alone is enough.
        stream: print the text from its start as far as it is known; with --order left_to_right token by token.
        json: for programs, a line for each text, with its seed; with --stream also one for each step.
        frames: with --json, every state on the way as well.
        save: also keep the run as a file to share, a new .html (a page that plays it), .svg or .gif.
    """
    shown = Shown(animate, stream, json, frames, save)
    shown.check(n)
    trained, tokenizer = load(model)
    longest = trained.denoiser.config.max_length
    length = longest if length is None else length
    if not 1 <= length <= longest:
        raise ValueError(f"--length must lie in 1..{longest}, as in training, got {length}.")
    how = _how(trained, order=order, temperature=temperature, top_k=top_k, top_p=top_p)
    run = Run(trained, tokenizer, _conditioned(trained, label, guidance), n, steps, _seed(seed), how)
    _write(run, canvas_from_text(prompt, tokenizer, length), shown)


def infill(
    text: str, *, input: str = "", model: str = "tales-mdlm", n: int = 1, complete: bool = False,
    steps: int | None = None, order: Order | None = None, temperature: float | None = None, label: str = "",
    guidance: float = 0.0, seed: int | None = None, animate: bool = False, stream: bool = False, json: bool = False,
    frames: bool = False, save: str = "",
) -> None:  # fmt: skip
    """Fill the blanks of a text and keep the rest: diffkit infill "One ___ day Mia walked to the park."

    Args:
        text: a text with blanks, ___ for one missing token, ___{3} for three, anywhere in it.
        input: instead of a text, a file with one on each line, or - for what is piped in; each is filled as if alone.
        model: folder of a trained model, or the name of a shipped one.
        n: how many fillings.
        complete: the text ends here; otherwise the model also continues it.
        steps: network calls (default: one for every masked token).
        order: which masked tokens are revealed first; "ancestral" follows the process itself (default: random, where
            the process leaves a choice). This and the next take what the model's generation_config.json says, if it
            has one.
        temperature: below 1 more typical text, above 1 more varied (default: 1).
        label: how the story ends (lost, kept, returned, shared), for a conditional model.
        guidance: strength of classifier-free guidance; 0 conditions on the label only.
        seed: the same seed gives the same fillings (default: new ones each time).
        animate: show the text appear; `--animate` alone is enough.
        stream: print the text from its start as far as it is known.
        json: for programs, a line for each filling, with its text and seed; with --stream also one for each step.
        frames: with --json, every state on the way as well.
        save: also keep the run as a file to share, a new .html (a page that plays it), .svg or .gif.
    """
    shown = Shown(animate, stream, json, frames, save, is_batch=bool(input))
    shown.check(n)
    if bool(text) == bool(input):
        raise ValueError("give either one text with blanks, or --input with a file that has one on each line.")
    if input not in ("", "-") and not user_path(input).is_file():
        raise ValueError(f"--input: there is no file {input}. Check the path, or give - for what is piped in.")
    trained, tokenizer = load(model)
    denoise, seed = _conditioned(trained, label, guidance), _seed(seed)
    run = Run(trained, tokenizer, denoise, n, steps, seed, _how(trained, order=order, temperature=temperature))
    for about, line in lines_of(input) if input else [({}, text)]:
        _write(run, _with_blanks(line.strip() if input else line, trained, tokenizer, complete, about), shown, about)


def lines_of(source: str) -> Iterator[tuple[dict[str, Any], str]]:
    """The lines of a file, or of what is piped in for -, as they come; each with its number. Blank ones are skipped."""
    piped, path = nullcontext(sys.stdin or ()), user_path(source)
    with piped if source == "-" else path.open(encoding="utf-8-sig", errors="surrogateescape") as lines:
        yield from (({"line": i, "input": line.strip()}, line) for i, line in enumerate(lines, 1) if line.strip())


def _with_blanks(
    text: str, trained: DiffusionModel, tokenizer: PreTrainedTokenizerBase, complete: bool, about: dict[str, Any]
) -> Tensor:
    """A canvas with something to fill. Raises ValueError otherwise, which names the line that the text is from."""
    try:
        canvas = canvas_from_text(text, tokenizer, trained.denoiser.config.max_length, complete=complete)
        if not (canvas == tokenizer.mask_token_id).any():
            raise ValueError("the text is complete and has no blank; write ___ where a token is missing.")
    except ValueError as error:
        raise ValueError(f"line {about['line']}: {error}" if about else str(error)) from error
    return canvas


def load(model: str) -> tuple[DiffusionModel, PreTrainedTokenizerBase]:
    """A model by name or folder, and its tokenizer."""
    trained, tokenizer = load_with_tokenizer(model)
    if Path(model).is_dir() and Path(model).name == model and (PRETRAINED / model).is_dir():
        print(f"{model} is a folder here and a shipped model; this is {trained.name_or_path}.", file=sys.stderr)
    return trained, tokenizer


def _conditioned(trained: DiffusionModel, label: str, guidance: float) -> Denoise:
    """The model, or the model conditioned on a label."""
    if not label and not guidance:
        return trained
    labels = load_language(trained.config.language).labels if trained.config.language and trained.labels else []
    if not labels:
        raise ValueError("this model has no labels; --label and --guidance need one such as tales-mdlm-conditional.")
    if label not in labels:
        raise ValueError(f"--label must be one of {', '.join(labels)}, got {label!r}.")
    return condition_on(trained, labels.index(label), guidance)


def _how(trained: DiffusionModel, **asked: Any) -> dict[str, Any]:
    """Unmasking order and filters: the options, else the model's generation_config.json, else the process's defaults.

    Raises: ValueError for such a file that holds anything else.
    """
    path = Path(trained.name_or_path) / "generation_config.json"
    own = loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if unknown := sorted({*own} - {"order", "temperature", "top_k", "top_p"}):
        raise ValueError(f"{path}: it may say order, temperature, top_k and top_p, got {unknown}. Leave them out?")
    given = {name: value for name, value in asked.items() if value is not None}
    plain = {"order": trained.process.default_order}
    return plain | {name: value for name, value in own.items() if value is not None} | given


def _seed(seed: int | None) -> int:
    """The seed, or a new one that is short enough to be typed again."""
    return secrets.randbelow(2**31) if seed is None else checked_seed(seed)


class Run(NamedTuple):
    """How texts are generated."""

    model: DiffusionModel
    tokenizer: PreTrainedTokenizerBase
    denoise: Denoise
    n: int
    steps: int | None
    seed: int
    how: dict[str, Any]  # unmasking order and filters

    def frames(self, canvas: Tensor, steps: int, keep_probs: bool) -> Iterator[Frame]:
        """Fill n copies of a canvas (1, L)."""
        process, rng = self.model.process, Generator().manual_seed(self.seed)
        is_empty = (canvas == self.tokenizer.mask_token_id).all()
        start = process.prior(self.n, canvas.shape[1], rng) if is_empty else canvas.expand(self.n, -1)
        return denoise_frames(
            process, self.denoise, start=start, steps=steps, rng=rng, keep_probs=keep_probs, **self.how,
        )  # fmt: skip


def _write(run: Run, canvas: Tensor, shown: Shown, about: dict[str, Any] | None = None) -> None:
    """Fill n copies of a canvas (1, L), and show them."""
    tokenizer, is_masked = run.tokenizer, canvas == run.tokenizer.mask_token_id
    most = max(1, MOST_NUMBERS // (canvas.shape[1] * len(tokenizer)))
    if not 1 <= run.n <= most:
        raise ValueError(f"--n must be at least 1 and at most {most:,} texts of this model at once, got {run.n}.")
    steps = min(max(1, int(is_masked.sum())), run.model.process.T) if run.steps is None else run.steps
    keeps_probs = shown.kind == ".html" and run.n * canvas.numel() * len(tokenizer) * steps <= MOST_PROBS
    shown.show(run.frames(canvas, steps, keeps_probs), tokenizer, steps, {"seed": run.seed} | (about or {}))
    if shown.save:
        title = f"{Path(run.model.name_or_path).name} writes a text in {steps} steps, seed {run.seed}"
        shown.keep(tokenizer, title, ~is_masked[0])
