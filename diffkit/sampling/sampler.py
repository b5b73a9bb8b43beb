"""How text is made: from masks to words, as a stream of frames; prompts and infilling."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import NamedTuple, Protocol

import torch
from torch import Generator, Tensor, nn
from transformers import PreTrainedTokenizerBase

from diffkit.checks import check_whole
from diffkit.processes.base import Denoise, Process, on_device_of
from diffkit.processes.masked import MaskedDiffusion
from diffkit.processes.schedules import Schedule
from diffkit.sampling.logits import exclude_mask, filtered
from diffkit.sampling.unmasking import UNMASKING_ORDERS, Score, Unmasking

__all__ = [
    "UNMASKING_ORDERS",
    "Frame",
    "Unmasking",
    "Score",
    "canvas_from_text",
    "check_canvas",
    "denoise_frames",
    "evaluating",
]
__all__ += ["infill", "last_frame", "noising_frames", "sample", "sample_many"]


class Frame(NamedTuple):
    """One picture of a text on its way."""

    step: int  # 0 is the start
    t: float
    z: Tensor  # the state
    tokens: Tensor  # (B, L) ids to print
    probs: Tensor | None  # (B, L, V), the belief that led here; None at the start, and where no whole table is made


@contextmanager
def evaluating(denoise: Denoise) -> Iterator[None]:
    """No dropout while sampling; a network goes back to the mode it was in."""
    networks = [denoise] if isinstance(denoise, nn.Module) and denoise.training else []
    try:
        for network in networks:
            network.eval()
        yield
    finally:
        for network in networks:
            network.train()


def check_canvas(process: Process, shape: tuple[int, int] | None, start: Tensor | None, where: str) -> None:
    """Raise ValueError unless exactly one of shape and start is given, and makes a canvas of at least one token."""
    if (shape is None) == (start is None):
        raise ValueError(f"{where}: give either shape=(B, L), for new text, or start=ids with MASK, to fill in.")
    if start is not None:
        process.check_start(start)
        shape = start.shape[:2]  # type: ignore[assignment]
    elif not isinstance(shape, Sequence) or len(shape) != 2:
        raise ValueError(f"{where}: shape must be (B, L), got {shape}.")
    for size, name in zip(shape, ("B", "L"), strict=True):  # type: ignore[arg-type]
        check_whole(size, name, f"{where}, shape (B, L)")


def _way_back(process: Process, order: str | Score, counts: Schedule | None) -> Process | Unmasking:
    """Who takes the steps: the process itself, or a rule."""
    if order == "ancestral":
        return process
    if not isinstance(process, MaskedDiffusion):
        raise ValueError(
            f"denoise_frames: rule {order!r} chooses places for masked diffusion; {type(process).__name__} has its "
            "own way, order='ancestral'."
        )
    return Unmasking(process, order, counts)


def _believed(
    process: Process, denoise: Denoise, temperature: float, top_k: int | None, top_p: float | None
) -> Denoise:
    """The denoiser with its filters."""
    if process.predicts_tokens:
        return filtered(exclude_mask(denoise, process.mask_id), temperature, top_k, top_p)
    if (temperature, top_k, top_p) != (1.0, None, None):
        raise ValueError(
            "denoise_frames: temperature, top_k and top_p filter beliefs about words, but the network of "
            f"{type(process).__name__} gives points in space; leave them out."
        )
    return denoise


@torch.no_grad()  # as a decorator: around a yield, `with` would turn gradients off in the caller's loop too
def denoise_frames(
    process: Process,
    denoise: Denoise,
    *,
    shape: tuple[int, int] | None = None,
    start: Tensor | None = None,
    steps: int,
    rng: Generator,
    order: str | Score = "ancestral",
    counts: Schedule | None = None,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
) -> Iterator[Frame]:
    """Yield the start and then every state on the way to text. Stop early by leaving the loop.

    Args:   process: the way back; denoise: a model, or any function (z_t, t) -> (B, L, head).
            shape: (B, L) to start from the prior; or start: (B, L) ids, MASK marks what to fill, the rest is kept.
            steps: network calls, 1 to T; rng: of all draws. rule: "ancestral" (the process's own step), or a name from
            UNMASKING_ORDERS or a score, with `counts`, the schedule of how many masks are left (see `Unmasking`).
            temperature, top_k, top_p: filters on the beliefs, in this order.
    Returns: an iterator over steps + 1 frames, on the device of the network.
    Raises: ValueError unless exactly one of shape and start is given, for steps outside 1..T, an unknown rule, or
            filters and rules that the process does not know.

    >>> from diffkit.language import load_language
    >>> micro, rng = load_language("micro"), torch.Generator().manual_seed(1)
    >>> process = MaskedDiffusion(micro.vocab_size, micro.mask_id)
    >>> for frame in denoise_frames(process, micro.denoiser(process), shape=(1, 5), steps=5, rng=rng, order="random"):
    ...     print(frame.step, micro.decode(frame.tokens)[0])
    0 [MASK] [MASK] [MASK] [MASK] [MASK]
    1 [MASK] [MASK] [MASK] [MASK]
    2 [MASK] [MASK] Mia [MASK]
    3 [MASK] ran Mia [MASK]
    4 [MASK] ran Mia ran
    5 Tom ran Mia ran
    """
    check_canvas(process, shape, start, "denoise_frames")
    check_whole(steps, "steps", "denoise_frames", most=process.T)
    mover, believe = _way_back(process, order, counts), _believed(process, denoise, temperature, top_k, top_p)
    with evaluating(denoise):
        z = on_device_of(denoise, process.prior(*shape, rng) if shape else start)  # type: ignore[arg-type]
        yield Frame(0, float(process.T), z, process.decode(z), None)
        times = torch.linspace(process.T, 0, steps + 1, dtype=torch.float64)
        for i in range(steps):
            z, probs = mover.step(believe, z, times[i].expand(len(z)), times[i + 1].expand(len(z)), rng)
            yield Frame(i + 1, times[i + 1].item(), z, process.decode(z), probs)


class GetsNoisier(Protocol):
    """What `noising_frames` needs of a process."""

    def corrupt(self, x0: Tensor, t: Tensor, rng: Generator) -> tuple[Tensor, Tensor]: ...
    def add_noise(self, zs: Tensor, s: Tensor | float, t: Tensor | float, rng: Generator) -> Tensor: ...  # z_t of z_s
    def decode(self, z: Tensor) -> Tensor: ...


@torch.no_grad()
def noising_frames(process: GetsNoisier, x0: Tensor, times: Sequence[float], *, rng: Generator) -> Iterator[Frame]:
    """The way there as one path: a text (B, L) at rising times, each state made noisier from the one before."""
    if not times or any(s > t for s, t in pairwise(times)):
        raise ValueError(f"noising_frames: times must rise, and be at least one, got {list(times)[:8]}.")
    z, _ = process.corrupt(x0, torch.full((len(x0),), times[0], dtype=torch.float64), rng)
    for i, t in enumerate(times):
        z = process.add_noise(z, times[i - 1], t, rng) if i else z
        yield Frame(i, float(t), z, process.decode(z), None)


def last_frame(frames: Iterator[Frame]) -> Frame:
    """Run a sampler to its end."""
    frame = next(frames)
    for frame in frames:  # noqa: B007
        pass
    return frame


def sample(
    process: Process, denoise: Denoise, *, shape: tuple[int, int], steps: int, rng: Generator, **how: object
) -> Tensor:
    """New texts, (B, L) ids. `how`: rule, counts, temperature, top_k, top_p as in `denoise_frames`."""
    return last_frame(denoise_frames(process, denoise, shape=shape, steps=steps, rng=rng, **how)).tokens  # type: ignore[arg-type]


def sample_many(
    process: Process, denoise: Denoise, *, n: int, length: int, steps: int, rng: Generator, order: str = "ancestral"
) -> Tensor:
    """n new texts, (n, length) ids, in batches of 64."""
    check_whole(n, "n", "sample_many")
    sizes = [min(64, n - done) for done in range(0, n, 64)]
    return torch.cat(
        [sample(process, denoise, shape=(size, length), steps=steps, rng=rng, order=order) for size in sizes]
    )


def infill(process: Process, denoise: Denoise, start: Tensor, *, steps: int, rng: Generator, **how: object) -> Tensor:
    """Fill every MASK of `start` (B, L) and keep all else: a prompt, an ending, a middle.

    Args:   process, denoise, steps, rng: as in `denoise_frames`; start: (B, L) ids, MASK where words are missing, see
            `canvas_from_text`; how: rule, counts, temperature, top_k, top_p as there.
    Returns: (B, L) ids without MASK.
    Raises: as `denoise_frames`.

    >>> from diffkit.language import load_language
    >>> micro, rng = load_language("micro"), torch.Generator().manual_seed(0)
    >>> process = MaskedDiffusion(micro.vocab_size, micro.mask_id)
    >>> start = canvas_from_text("Mia ___ Tom ___", micro.tokenizer, micro.length, complete=True)
    >>> micro.decode(infill(process, micro.denoiser(process), start, steps=2, rng=rng, order="left_to_right"))
    ['Mia hid Tom hid']
    """
    return last_frame(denoise_frames(process, denoise, start=start, steps=steps, rng=rng, **how)).tokens  # type: ignore[arg-type]


def canvas_from_text(text: str, tokenizer: PreTrainedTokenizerBase, length: int, *, complete: bool = False) -> Tensor:
    """A text with blanks as a (1, length) canvas with MASK in the blanks: `___` is one token, `___{3}` three.

    The space before what is missing belongs to it, as it does where a tokenizer makes one piece of both.

    Args:    complete: the text is a whole one, so EOS and PAD follow it; otherwise the rest of the canvas is MASK.
    Raises:  ValueError if the text does not fit, or holds a word that the tokenizer does not know.
    """
    check_whole(length, "length", "canvas_from_text")
    text = text if complete else text.rstrip(" ")
    words, *rest = re.split(r" *_{2,}(?:\{(\d+)\})?", text)  # words, then in turn: how many are blank, words
    if not text.isascii() and text != text.encode(errors="replace").decode():
        raise ValueError("canvas_from_text: the text holds bytes that are no UTF-8. Type or save it again as UTF-8.")
    wanted = sum(int(blanks or 1) for blanks in rest[::2])
    if wanted > length:
        raise ValueError(
            f"canvas_from_text: the text has {wanted} blanks, the canvas holds {length} tokens. Shorten the text."
        )
    ids: list[int] = list(tokenizer(words, add_special_tokens=False)["input_ids"])
    for blanks, piece in zip(rest[::2], rest[1::2], strict=True):
        ids += [tokenizer.mask_token_id] * int(blanks or 1)
        ids += tokenizer(piece, add_special_tokens=False)["input_ids"]
    if tokenizer.unk_token_id is not None and tokenizer.unk_token_id in ids:
        pieces = dict.fromkeys(re.findall(r"\w+|[^\w\s]", " ".join([words, *rest[1::2]])))
        unknown = [w for w in pieces if tokenizer.unk_token_id in tokenizer(w, add_special_tokens=False)["input_ids"]]
        raise ValueError(
            f"canvas_from_text: the model's vocabulary lacks {', '.join(map(repr, unknown))}; use other words."
        )
    ids += [tokenizer.eos_token_id] if complete else []
    if len(ids) > length:
        raise ValueError(
            f"canvas_from_text: the text has {len(ids)} tokens, the canvas holds {length}. Shorten the text."
        )
    filler = tokenizer.pad_token_id if complete else tokenizer.mask_token_id
    return torch.tensor([ids + [filler] * (length - len(ids))])
