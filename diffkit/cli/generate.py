"""The commands that generate text. Their signatures are the options, their docstrings the help."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Literal

from torch import Generator, Tensor
from transformers import PreTrainedTokenizerBase

from diffkit.cli.terminal import columns, paragraph, play
from diffkit.data.tokenizer import canvas_from_text, load_tokenizer
from diffkit.languages.story_language import load_language
from diffkit.model import DiffusionModel, check_tokenizer, load_model
from diffkit.paths import PRETRAINED
from diffkit.processes.base import Denoise
from diffkit.random import checked_seed
from diffkit.sampling.guidance import condition_on
from diffkit.sampling.sampler import denoise_frames, last_frame

MOST_NUMBERS = 2**28  # probabilities in a table of texts, positions and tokens; some such tables are held at once
Order = Literal["ancestral", "random", "confidence", "margin", "entropy", "left_to_right"]


def demo() -> None:
    """Watch a story unmask, written by the shipped model; `diffkit sample` has the options."""
    sample(animate=True)


def sample(
    *,
    model: str = "tales-mdlm",
    n: int = 1,
    steps: int | None = None,
    order: Order | None = None,
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
    """Generate texts: diffkit sample --prompt "One rainy day" --n 3.

    Args:
        model: folder of a trained model, or the name of a shipped one.
        n: how many texts.
        steps: network calls; fewer are faster and worse (default: one for every token).
        order: which masked tokens are revealed first; "ancestral" follows the process itself (default: random, where
            the process leaves a choice).
        temperature: below 1 more typical text, above 1 more varied.
        top_k: draw from the k likeliest tokens only.
        top_p: draw from the smallest set of tokens that holds this probability.
        prompt: how the text starts; ___ stands for one missing token, ___{3} for three.
        length: tokens of the canvas (default: what the model was trained on).
        label: how a story ends (lost, kept, returned, shared); for a conditional model such as tales-mdlm-conditional.
        guidance: strength of classifier-free guidance; 0 conditions on the label only.
        seed: the same seed gives the same texts (default: new ones each time).
        animate: show the text appear; `--animate` alone is enough.
    """
    trained, tokenizer = load(model)
    longest = trained.denoiser.config.max_length
    length = longest if length is None else length
    if not 1 <= length <= longest:
        raise ValueError(f"--length must lie in 1..{longest}, as in training, got {length}.")
    canvas = canvas_from_text(prompt, tokenizer, length)
    _write(
        trained, tokenizer, canvas, n=n, steps=steps, seed=seed, animate=animate, order=order,
        denoise=_conditioned(trained, label, guidance), temperature=temperature, top_k=top_k, top_p=top_p,
    )  # fmt: skip


def infill(
    text: str,
    *,
    model: str = "tales-mdlm",
    n: int = 1,
    complete: bool = False,
    steps: int | None = None,
    order: Order | None = None,
    temperature: float = 1.0,
    label: str = "",
    guidance: float = 0.0,
    seed: int | None = None,
    animate: bool = False,
) -> None:
    """Fill the blanks of a text and keep the rest: diffkit infill "One ___ day Mia walked to the park."

    Args:
        text: a text with blanks, ___ for one missing token, ___{3} for three, anywhere in it.
        model: folder of a trained model, or the name of a shipped one.
        n: how many fillings.
        complete: the text ends here; otherwise the model also continues it.
        steps: network calls (default: one for every masked token).
        order: which masked tokens are revealed first; "ancestral" follows the process itself (default: random, where
            the process leaves a choice).
        temperature: below 1 more typical text, above 1 more varied.
        label: how the story ends (lost, kept, returned, shared), for a conditional model.
        guidance: strength of classifier-free guidance; 0 conditions on the label only.
        seed: the same seed gives the same fillings (default: new ones each time).
        animate: show the text appear; `--animate` alone is enough.
    """
    trained, tokenizer = load(model)
    canvas = canvas_from_text(text, tokenizer, trained.denoiser.config.max_length, complete=complete)
    if not (canvas == tokenizer.mask_token_id).any():
        raise ValueError("the text is complete and has no blank; write ___ where a token is missing.")
    _write(
        trained, tokenizer, canvas, n=n, steps=steps, seed=seed, animate=animate, order=order,
        denoise=_conditioned(trained, label, guidance), temperature=temperature,
    )  # fmt: skip


def load(model: str) -> tuple[DiffusionModel, PreTrainedTokenizerBase]:
    """A model by name or folder, and its tokenizer."""
    trained = load_model(model)
    if Path(model).is_dir() and Path(model).name == model and (PRETRAINED / model).is_dir():
        print(f"{model} is a folder here and a shipped model; this is {trained.name_or_path}.", file=sys.stderr)
    tokenizer = load_tokenizer(trained.name_or_path)
    check_tokenizer(trained, tokenizer)
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


def _write(
    trained: DiffusionModel, tokenizer: PreTrainedTokenizerBase, canvas: Tensor, *, n: int, steps: int | None,
    seed: int | None, animate: bool, order: str | None, denoise: Denoise, **filters: Any,
) -> None:  # fmt: skip
    """Fill n copies of a canvas (1, L) and print them; with `animate` the first one is played."""
    process, is_masked = trained.process, canvas == tokenizer.mask_token_id
    most = max(1, MOST_NUMBERS // (canvas.shape[1] * len(tokenizer)))
    if not 1 <= n <= most:
        raise ValueError(f"--n must be at least 1 and at most {most:,} texts of this model at once, got {n}.")
    steps = min(max(1, int(is_masked.sum())), process.T) if steps is None else steps
    rng = Generator()
    rng.seed() if seed is None else rng.manual_seed(checked_seed(seed))
    start = process.prior(n, canvas.shape[1], rng) if is_masked.all() else canvas.expand(n, -1)
    frames = denoise_frames(
        process, denoise, start=start, steps=steps, rng=rng, order=order or process.default_order, **filters
    )
    frame = play(frames, tokenizer, steps=steps) if animate else last_frame(frames)
    texts = [paragraph(ids, tokenizer, columns()) for ids in frame.tokens[1 if animate else 0 :]]
    print(*texts, sep="\n\n", end="\n" if texts else "")
