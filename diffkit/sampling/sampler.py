"""Generate text: one driver that yields frames for every sampler; prompts and infilling."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import NamedTuple, Protocol, cast, runtime_checkable

import torch
from torch import Generator, Tensor, nn

from diffkit.checks import check_generator, check_whole
from diffkit.processes.base import Cacheable, Denoise, Denoiser, Process, as_denoiser, on_device_of
from diffkit.processes.masked import MaskedDiffusion
from diffkit.processes.schedules import Schedule
from diffkit.sampling.logits import filtered
from diffkit.sampling.skipping import SkipIdle, even_times
from diffkit.sampling.unmasking import UNMASKING_ORDERS, Score, Unmasking


class Frame(NamedTuple):
    """One state on the way to a text."""

    step: int  # 0 is the start
    t: float
    z: Tensor  # the state
    tokens: Tensor  # (B, L) ids to print
    probs: Tensor | None  # (B, L, V), the prediction at the state before; None at the start, and if not asked for


@runtime_checkable
class Sampler(Protocol):
    """How text is generated, with all settings; `denoise_frames` plays it."""

    @property
    def process(self) -> Process: ...

    def states(self, denoise: Denoiser, z: Tensor, rng: Generator) -> Iterator[tuple[float, Tensor]]:
        """From the start z to a text; after every move the time left (of the latest row) and the state."""


class Ancestral:
    """The reverse steps of the process itself, on a grid of times (N + 1,) from T down to 0."""

    def __init__(self, process: Process, times: Tensor):
        self.process, self.times = process, times

    def states(self, denoise: Denoiser, z: Tensor, rng: Generator) -> Iterator[tuple[float, Tensor]]:
        for t, s in pairwise(self.times):
            z = self.process.advance(denoise, z, t.expand(len(z)), s.expand(len(z)), rng)
            yield float(s), z


def sampler_for(process: Process | Sampler, steps: int | None, order: str | Score, counts: Schedule | None) -> Sampler:
    """A sampler as it is; for a process the one that takes `steps` steps in an order, see `denoise_frames`."""
    if isinstance(process, Sampler):
        if steps is not None:
            raise ValueError(f"denoise_frames: a sampler brings its own steps; leave steps={steps} out.")
        return process
    if steps is None:
        raise ValueError("denoise_frames: a process needs steps=, the number of reverse steps; a sampler does not.")
    check_whole(steps, "steps", "denoise_frames", most=process.T)
    times = even_times(process.T, steps)
    if order == "ancestral":
        return SkipIdle(cast(MaskedDiffusion, process), times) if process.any_order else Ancestral(process, times)
    if isinstance(order, str) and order not in UNMASKING_ORDERS:
        raise ValueError(f"denoise_frames: the orders are {sorted(['ancestral', *UNMASKING_ORDERS])}, got {order!r}.")
    if not process.any_order:
        raise ValueError(
            f"denoise_frames: order {order!r} is for masked diffusion; {type(process).__name__} has only "
            "order='ancestral'."
        )
    return Unmasking(cast(MaskedDiffusion, process), order, times, counts)


@contextmanager
def evaluating(denoise: Denoise) -> Iterator[None]:
    """Turn dropout off while sampling; afterwards every module is in the mode it was in."""
    training = [part for part in denoise.modules() if part.training] if isinstance(denoise, nn.Module) else []
    try:
        for part in training:
            part.training = False
        yield
    finally:
        for part in training:
            part.training = True


def check_canvas(process: Process, shape: tuple[int, int] | None, start: Tensor | None) -> None:
    """Raise ValueError unless exactly one of shape and start is given, and makes a canvas of at least one token."""
    if (shape is None) == (start is None):
        raise ValueError("denoise_frames: give either shape=(B, L), for new text, or start=ids with MASK, to fill in.")
    if start is not None:
        process.check_start(start)
        shape = start.shape[:2]  # type: ignore[assignment]
    elif not isinstance(shape, Sequence) or len(shape) != 2:
        raise ValueError(f"denoise_frames: shape must be (B, L), got {shape}.")
    for size, name in zip(shape, ("B", "L"), strict=True):  # type: ignore[arg-type]
        check_whole(size, name, "denoise_frames, shape (B, L)")


def with_filters(
    process: Process, denoise: Denoise, temperature: float, top_k: int | None, top_p: float | None
) -> Denoiser:
    """The denoiser with its cache and filters. Raises ValueError where no tokens are predicted."""
    if not process.predicts_tokens and (temperature, top_k, top_p) != (1.0, None, None):
        raise ValueError(
            "denoise_frames: temperature, top_k and top_p filter predicted tokens, but the network of "
            f"{type(process).__name__} predicts embeddings; leave them out."
        )
    cached = denoise.with_cache() if isinstance(denoise, Cacheable) else denoise
    return as_denoiser(filtered(cached, temperature, top_k, top_p, process))


@torch.no_grad()  # as a decorator: around a yield, `with` would turn gradients off in the caller's loop too
def denoise_frames(
    process: Process | Sampler,
    denoise: Denoise,
    *,
    shape: tuple[int, int] | None = None,
    start: Tensor | None = None,
    steps: int | None = None,
    rng: Generator,
    order: str | Score = "ancestral",
    counts: Schedule | None = None,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    keep_probs: bool = False,
) -> Iterator[Frame]:
    """Yield the start and then every state on the way to text. Stop early by leaving the loop.

    Args:   process: a process, or a sampler, which brings its own steps and order;
            denoise: a model, or any function (z_t, t) -> (B, L, head).
            shape: (B, L) to start from the prior; or start: (B, L) ids, MASK marks what to fill, the rest is kept.
            steps: reverse steps, 1 to T; rng: of all draws. order: "ancestral" (the process's own step), or a name from
            UNMASKING_ORDERS or a score, with `counts`, the schedule of how many masks are left (see `Unmasking`).
            temperature, top_k, top_p: filters on the predictions, in this order.
            keep_probs: each frame holds the whole prediction at the state before, which costs a call.
    Returns: an iterator over steps + 1 frames, on the device of the network.
    Raises: ValueError unless exactly one of shape and start is given, for steps outside 1..T, an unknown order, or
            filters and orders that the process does not have.

    >>> from diffkit import MaskedDiffusion, load_language
    >>> micro, rng = load_language("micro"), torch.Generator().manual_seed(1)
    >>> process = MaskedDiffusion(micro.vocab_size, micro.mask_id)
    >>> frames = denoise_frames(process, micro.denoiser(process), shape=(1, 5), steps=5, rng=rng, order="random")
    >>> [micro.decode(frame.tokens)[0] for frame in frames][::2]
    ['[MASK] [MASK] [MASK] [MASK] [MASK]', '[MASK] [MASK] Mia [MASK]', '[MASK] ran Mia ran']
    """
    check_generator(rng)
    process = (sampler := sampler_for(process, steps, order, counts)).process
    check_canvas(process, shape, start)
    ask = with_filters(process, denoise, temperature, top_k, top_p)
    z = on_device_of(denoise, process.prior(*shape, rng) if shape else start)  # type: ignore[arg-type]
    z = z if z.is_floating_point() else z.long()
    t = float(process.T)
    yield Frame(0, t, z, process.decode(z), None)
    with evaluating(denoise):
        rng_state = rng.get_state() if keep_probs else None
        for step, (left, zs) in enumerate(sampler.states(ask, z, rng), 1):
            probs = None if rng_state is None else _prediction(process, ask, z, (t, left), rng, rng_state)
            z, t = zs, left
            yield Frame(step, t, z, process.decode(z), probs)
            rng_state = rng.get_state() if keep_probs else None


def _prediction(
    process: Process, denoise: Denoiser, z: Tensor, times: tuple[float, float], rng: Generator, rng_state: Tensor
) -> Tensor:
    """What was predicted in the move between two times: by the process's own step, with the same random numbers."""
    replay = Generator(rng.device)
    replay.set_state(rng_state)
    t, s = torch.tensor(times, dtype=torch.float64)
    return process.step(denoise, z, t.expand(len(z)), s.expand(len(z)), replay).probs


@torch.no_grad()
def noising_frames(process: Process, x0: Tensor, times: Sequence[float], *, rng: Generator) -> Iterator[Frame]:
    """The forward process as one path: a text (B, L) at rising times, each state made noisier from the one before."""
    if not times or any(s > t for s, t in pairwise(times)):
        raise ValueError(f"noising_frames: times must rise, and be at least one, got {list(times)[:8]}.")
    z, _ = process.corrupt(x0.long(), times[0], rng)
    for i, t in enumerate(times):
        z = process.add_noise(z, times[i - 1], t, rng) if i else z
        yield Frame(i, float(t), z, process.decode(z), None)


def last_frame(frames: Iterator[Frame]) -> Frame:
    """Run a sampler to its end."""
    return deque(frames, maxlen=1).pop()


def sample(process: Process | Sampler, denoise: Denoise, **how: object) -> Tensor:
    """New texts, (B, L) ids. `how`: shape, steps, rng, order and so on, as in `denoise_frames`."""
    return last_frame(denoise_frames(process, denoise, **how)).tokens  # type: ignore[arg-type]


def sample_many(
    process: Process, denoise: Denoise, *, n: int, length: int, steps: int, rng: Generator, order: str = "ancestral"
) -> Tensor:
    """n new texts, (n, length) ids, in batches of 64."""
    check_whole(n, "n", "sample_many")
    shapes = [(min(64, n - done), length) for done in range(0, n, 64)]
    return torch.cat([sample(process, denoise, shape=shape, steps=steps, rng=rng, order=order) for shape in shapes])


def infill(process: Process | Sampler, denoise: Denoise, start: Tensor, **how: object) -> Tensor:
    """Fill every MASK of `start` (B, L) and keep all else: a prompt, an ending, a middle.

    Args:   start: (B, L) ids, MASK where tokens are missing, see `canvas_from_text`; how: steps, rng, order and so on,
            as in `denoise_frames`.
    Returns: (B, L) ids without MASK.

    >>> from diffkit import MaskedDiffusion, load_language
    >>> from diffkit.data.tokenizer import canvas_from_text
    >>> micro, rng = load_language("micro"), torch.Generator().manual_seed(0)
    >>> process = MaskedDiffusion(micro.vocab_size, micro.mask_id)
    >>> start = canvas_from_text("Mia ___ Tom ___", micro.tokenizer, micro.length, complete=True)
    >>> micro.decode(infill(process, micro.denoiser(process), start, steps=2, rng=rng, order="left_to_right"))
    ['Mia hid Tom hid']
    """
    return last_frame(denoise_frames(process, denoise, start=start, **how)).tokens  # type: ignore[arg-type]
