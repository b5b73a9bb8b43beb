"""How text is made: from masks to words, as a stream of frames. Reveal rules, filters, prompts and infilling."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import NamedTuple, Protocol

import torch
from torch import Generator, Tensor, nn
from transformers import PreTrainedTokenizerBase

from diffkit.diffusion import Denoise, MaskedDiffusion, Process, Step, beside, without_mask
from diffkit.doors import check_ids, check_whole
from diffkit.draws import categorical, highest, uniform_like
from diffkit.noise import Schedule, get_schedule


class Frame(NamedTuple):
    """One picture of a text on its way."""

    step: int  # 0 is the start
    t: float
    z: Tensor  # the state
    tokens: Tensor  # (B, L) ids to print
    probs: Tensor | None  # (B, L, V), the belief that led here; None at the start, and where no whole table is made


# ------------------------------------------------------------------- which positions to reveal: scores, high goes first

Score = Callable[[Tensor, Generator], Tensor]  # probs (B, L, V) -> (B, L)


def rounded(score: Tensor) -> Tensor:
    """Saturated beliefs differ by rounding noise, not the same on every machine: ties go to the lower position."""
    return (score * 1e4).round()


def random_order(probs: Tensor, rng: Generator) -> Tensor:
    """Any position, all equally likely."""
    return uniform_like(probs[..., 0], rng)


def confidence(probs: Tensor, rng: Generator) -> Tensor:
    """Where the most likely token is most likely (arXiv:2202.04200, choosing before drawing)."""
    return rounded(probs.amax(-1))


def margin(probs: Tensor, rng: Generator) -> Tensor:
    """Where the best token beats the second best by most (arXiv:2502.06768)."""
    best = probs.topk(2, dim=-1).values
    return rounded(best[..., 0] - best[..., 1])


def entropy(probs: Tensor, rng: Generator) -> Tensor:
    """Where the belief has the lowest entropy (arXiv:2505.24857)."""
    return rounded(-torch.special.entr(probs).sum(-1))


def left_to_right(probs: Tensor, rng: Generator) -> Tensor:
    """In reading order."""
    return -torch.arange(probs.shape[1], device=probs.device).expand(probs.shape[:2]).double()


RULES: dict[str, Score] = {
    "random": random_order,
    "confidence": confidence,
    "margin": margin,
    "entropy": entropy,
    "left_to_right": left_to_right,
}


class Reveal:
    """A step that reveals a planned number of tokens, at the positions a rule puts first; for masked diffusion.

    Positions are chosen before tokens are drawn: one token at a time is exact under every rule when the denoiser is.

    Args:   rule: a name from RULES, or a score; counts: the schedule whose gamma says which share of the starting masks
                is left at each time; linear reveals the same number at every step.
    Raises: ValueError for an unknown rule.
    """

    def __init__(self, process: MaskedDiffusion, rule: str | Score, counts: Schedule | None = None):
        if isinstance(rule, str) and rule not in RULES:
            raise ValueError(f"Reveal: the rules are {sorted(['ancestral', *RULES])}, got {rule!r}.")
        self.process, self.score = process, RULES[rule] if isinstance(rule, str) else rule
        self.counts = counts or get_schedule("linear", process.T)

    def step(self, denoise: Denoise, zt: Tensor, t: Tensor, s: Tensor, rng: Generator) -> Step:
        """One step from t back to s; same call as the process's own step."""
        probs = self.process.log_probs(denoise(zt, t).double(), zt).exp()
        is_masked = zt == self.process.mask_id
        share = (self.counts.gamma(s) / self.counts.gamma(t)).to(zt.device)
        left = (is_masked.sum(1) * share + 1e-9).floor()  # masks to keep, (B,)
        reveal = highest(self.score(probs, rng), is_masked, is_masked.sum(1) - left)
        return Step(torch.where(reveal, categorical(probs, rng), zt), probs)


# ------------------------------------------------------------------------------- filters: a denoiser in, a denoiser out


def cooler(denoise: Denoise, temperature: float) -> Denoise:
    """Sharpen (below 1) or flatten (above 1) the beliefs; 0 leaves only the most likely token."""
    if not 0 <= temperature < torch.inf:
        raise ValueError(f"cooler: the temperature must be 0 or more and finite, got {temperature}.")
    if temperature == 0:
        return keep_top_k(denoise, 1)
    return lambda zt, t: denoise(zt, t) / temperature


def keep_top_k(denoise: Denoise, k: int) -> Denoise:
    """Keep the k most likely tokens of each position; among equals the lower id."""
    check_whole(k, "k", "keep_top_k")

    def filtered(zt: Tensor, t: Tensor) -> Tensor:
        logits = denoise(zt, t)
        rank = logits.argsort(dim=-1, descending=True, stable=True).argsort(dim=-1, stable=True)
        return logits.masked_fill(rank >= min(k, rank.shape[-1]), -torch.inf)

    return filtered


def keep_top_p(denoise: Denoise, p: float) -> Denoise:
    """Keep the smallest set of tokens whose probability reaches p, the token that crosses the line included."""
    if not 0 < p <= 1:
        raise ValueError(f"keep_top_p: p is a share of probability in (0, 1], got {p}.")

    def filtered(zt: Tensor, t: Tensor) -> Tensor:
        logits = denoise(zt, t)
        order = logits.argsort(dim=-1, descending=True, stable=True)
        probs = logits.double().softmax(-1).gather(-1, order)
        beyond = probs.cumsum(-1) - probs >= p
        return logits.masked_fill(torch.zeros_like(beyond).scatter(-1, order, beyond), -torch.inf)

    return filtered


def filtered(
    denoise: Denoise, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
) -> Denoise:
    """Temperature first, then top-k, then top-p."""
    if temperature != 1:
        denoise = cooler(denoise, temperature)
    if top_k is not None:
        denoise = keep_top_k(denoise, top_k)
    return denoise if top_p is None else keep_top_p(denoise, top_p)


# ------------------------------------------------------------------------------------------------------------ sampling


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


def words_only(denoise: Denoise, mask_id: int) -> Denoise:
    """MASK is never an answer: filters must not count it among the likely tokens, whatever the network says of it."""
    return lambda zt, t: without_mask(denoise(zt, t), mask_id)


def check_canvas(process: Process, shape: tuple[int, int] | None, start: Tensor | None, where: str) -> None:
    """Raise ValueError unless exactly one of shape and start is given, and makes a canvas of at least one token."""
    if (shape is None) == (start is None):
        raise ValueError(f"{where}: give either shape=(B, L), for new text, or start=ids with MASK, to fill in.")
    if start is not None:
        check_ids(process.decode(start), process.vocab_size, where)
        shape = start.shape[:2]  # type: ignore[assignment]
    elif not isinstance(shape, Sequence) or len(shape) != 2:
        raise ValueError(f"{where}: shape must be (B, L), got {shape}.")
    for size, name in zip(shape, ("B", "L"), strict=True):  # type: ignore[arg-type]
        check_whole(size, name, f"{where}, shape (B, L)")


@torch.no_grad()  # as a decorator: around a yield, `with` would turn gradients off in the caller's loop too
def denoise_frames(
    process: Process,
    denoise: Denoise,
    *,
    shape: tuple[int, int] | None = None,
    start: Tensor | None = None,
    steps: int,
    rng: Generator,
    rule: str | Score = "ancestral",
    counts: Schedule | None = None,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
) -> Iterator[Frame]:
    """Yield the start and then every state on the way to text. Stop early by leaving the loop.

    Args:   process: the way back; denoise: a model, or any function (z_t, t) -> (B, L, head).
            shape: (B, L) to start from the prior; or start: (B, L) ids, MASK marks what to fill, the rest is kept.
            steps: network calls, 1 to T; rng: of all draws. rule: "ancestral" (the process's own step), or a name from
            RULES or a score, with `counts`, the schedule of how many masks are left (see `Reveal`).
            temperature, top_k, top_p: filters on the beliefs, in this order.
    Returns: an iterator over steps + 1 frames, on the device of the network.
    Raises: ValueError unless exactly one of shape and start is given, for steps outside 1..T, an unknown rule, or
            filters and rules that the process does not know.

    >>> from diffkit.language import load_language
    >>> micro, rng = load_language("micro"), torch.Generator().manual_seed(1)
    >>> process = MaskedDiffusion(micro.vocab_size, micro.mask_id)
    >>> for frame in denoise_frames(process, micro.denoiser(process), shape=(1, 5), steps=5, rng=rng, rule="random"):
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
    if rule != "ancestral" and not isinstance(process, MaskedDiffusion):
        raise ValueError(
            f"denoise_frames: rule {rule!r} chooses places for masked diffusion; {type(process).__name__} has its "
            "own way, rule='ancestral'."
        )
    mover = process if rule == "ancestral" else Reveal(process, rule, counts)  # type: ignore[arg-type]
    if not process.names_words and (temperature, top_k, top_p) != (1.0, None, None):
        raise ValueError(
            "denoise_frames: temperature, top_k and top_p filter beliefs about words, but the network of "
            f"{type(process).__name__} gives points in space; leave them out."
        )
    words = words_only(denoise, process.mask_id) if process.names_words else denoise
    believe = filtered(words, temperature, top_k, top_p)
    with evaluating(denoise):
        z = beside(denoise, process.prior(*shape, rng) if shape else start)  # type: ignore[arg-type]
        yield Frame(0, float(process.T), z, process.decode(z), None)
        times = torch.linspace(process.T, 0, steps + 1, dtype=torch.float64)
        for i in range(steps):
            z, probs = mover.step(believe, z, times[i].expand(len(z)), times[i + 1].expand(len(z)), rng)
            yield Frame(i + 1, times[i + 1].item(), z, process.decode(z), probs)


class GetsNoisier(Protocol):
    """What `noising_frames` needs of a process."""

    def corrupt(self, x0: Tensor, t: Tensor, rng: Generator) -> tuple[Tensor, Tensor]: ...
    def noisier(self, zs: Tensor, s: Tensor | float, t: Tensor | float, rng: Generator) -> Tensor: ...  # z_t of z_s
    def decode(self, z: Tensor) -> Tensor: ...


@torch.no_grad()
def noising_frames(process: GetsNoisier, x0: Tensor, times: Sequence[float], *, rng: Generator) -> Iterator[Frame]:
    """The way there as one path: a text (B, L) at rising times, each state made noisier from the one before."""
    if not times or any(s > t for s, t in pairwise(times)):
        raise ValueError(f"noising_frames: times must rise, and be at least one, got {list(times)[:8]}.")
    z, _ = process.corrupt(x0, torch.full((len(x0),), times[0], dtype=torch.float64), rng)
    for i, t in enumerate(times):
        z = process.noisier(z, times[i - 1], t, rng) if i else z
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
    process: Process, denoise: Denoise, *, n: int, length: int, steps: int, rng: Generator, rule: str = "ancestral"
) -> Tensor:
    """n new texts, (n, length) ids, in batches of 64."""
    check_whole(n, "n", "sample_many")
    sizes = [min(64, n - done) for done in range(0, n, 64)]
    return torch.cat(
        [sample(process, denoise, shape=(size, length), steps=steps, rng=rng, rule=rule) for size in sizes]
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
    >>> micro.decode(infill(process, micro.denoiser(process), start, steps=2, rng=rng, rule="left_to_right"))
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
