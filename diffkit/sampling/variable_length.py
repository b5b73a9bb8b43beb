"""How long should it be: reading the end first, keeping it for last, or growing the canvas block by block."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Generator, Tensor

from diffkit.checks import check_ids, check_whole
from diffkit.model import DiffusionModel
from diffkit.network.attention import KeyValueCache
from diffkit.processes.base import Denoise, on_device_of
from diffkit.processes.block import BlockDiffusion
from diffkit.processes.masked import MaskedDiffusion
from diffkit.random import categorical, highest
from diffkit.sampling.sampler import Frame
from diffkit.sampling.unmasking import Score, confidence, random_order


def lengths_before_eos(ids: Tensor, eos_id: int) -> Tensor:
    """Tokens before the first EOS of each row, (n, L) -> (n,); L where there is none."""
    is_end = ids == eos_id
    return torch.where(is_end.any(1), is_end.int().argmax(1), ids.shape[1])


# ------------------------------------------------------------------------------------------- the length comes first


def length_histogram(lengths: Tensor, L: int, smoothing: float = 0.5) -> Tensor:
    """p(length) for 0..L from observed lengths (n,), each length counted `smoothing` times more: (L + 1,) float64."""
    if lengths.is_floating_point() or lengths.numel() and (lengths.min() < 0 or lengths.max() > L):
        raise ValueError(
            f"length_histogram: lengths are whole numbers in 0..{L}, got {lengths.dtype} {lengths.tolist()[:8]}."
        )
    if not smoothing >= 0 or not (smoothing or len(lengths)):
        raise ValueError(
            f"length_histogram: without lengths smoothing must be positive, else 0 or more, got {smoothing}."
        )
    counts = torch.bincount(lengths, minlength=L + 1).double() + smoothing
    return counts / counts.sum()


@torch.no_grad()
def length_probs(process: MaskedDiffusion, denoise: Denoise, canvas: Tensor, eos_id: int) -> Tensor:
    """p(length | what is visible), canvases with MASK (B, L) -> (B, L) float64: the belief that EOS stands at a place.

    A text has one EOS, so of an exact denoiser the column of EOS sums to one over places, and is the exact posterior of
    the length. A network's need not; it is normalised here. This is the length head that every masked model has.
    """
    check_ids(canvas, process.vocab_size, "length_probs")
    check_whole(eos_id, "eos_id", "length_probs", 0, process.vocab_size - 1)
    share = (canvas == process.mask_id).double().mean(1)
    logits = denoise(canvas, process.schedule.time_of(share).to(canvas.device)).double()
    at_end = process.log_probs(logits, canvas).exp()[..., eos_id]
    return at_end / at_end.sum(1, keepdim=True)


def canvases_of(lengths: Tensor, L: int, *, mask_id: int, eos_id: int, pad_id: int) -> Tensor:
    """Canvases to fill: so many MASKs, then EOS, then PAD; (n,) -> (n, L).

    Raises: ValueError if a length leaves no room for its EOS.
    """
    if len(lengths) == 0 or int(lengths.min()) < 0 or int(lengths.max()) >= L:
        raise ValueError(
            f"canvases_of: lengths must lie in 0..{L - 1}, as EOS needs a place, got {lengths.tolist()[:8]}."
        )
    place, end = torch.arange(L), lengths[:, None]
    return torch.where(place < end, mask_id, torch.where(place == end, eos_id, pad_id))


# ---------------------------------------------------------------- the end comes last: scores for `order=` of `sample`


def words_first(ends: Sequence[int]) -> Score:
    """Most confident first, but a place that would show one of `ends` (EOS, PAD) only after all that would not.

    Source: arXiv:2502.09992 (LLaDA), which gives EOS the lowest confidence.
    """

    def score(probs: Tensor, rng: Generator) -> Tensor:
        is_end = torch.isin(probs.argmax(-1), torch.tensor(ends, device=probs.device))
        return confidence(probs, rng) - 1e6 * is_end

    return score


def left_to_right_in_blocks(block: int) -> Score:
    """Any place of the first block that has hidden ones, the blocks from left to right.

    Source: arXiv:2502.09992 (LLaDA), semi-autoregressive remasking; the model sees the whole canvas at every step.
    """

    check_whole(block, "block", "left_to_right_in_blocks")

    def score(probs: Tensor, rng: Generator) -> Tensor:
        return random_order(probs, rng) - torch.arange(probs.shape[1], device=probs.device) // block

    return score


# ------------------------------------------------------------------------------------------ the canvas grows until EOS


def _block_frames(
    process: BlockDiffusion, network: DiffusionModel, x: Tensor, here: slice, cache: KeyValueCache, *, steps: int,
    rng: Generator,
) -> Iterator[Tensor]:  # fmt: skip
    """Fill the MASKs of one block in random order, an equal share at every step; yield its ids after each of them."""
    ids = x[:, here]
    for left in range(steps - 1, -1, -1):
        hidden = (is_masked := ids == process.mask_id).sum(1)
        if not hidden.any():
            return
        logits = network(ids, 0.0, cache=cache)
        cache.cut(here.start)  # the block is not finished: forget it
        beliefs, due = process.log_probs(logits.double(), ids).exp(), hidden - (hidden * left / (left + 1)).floor()
        ids = torch.where(highest(random_order(beliefs, rng), is_masked, due), categorical(beliefs, rng), ids)
        yield ids


@torch.no_grad()
def grow(
    process: BlockDiffusion,
    network: DiffusionModel,
    *,
    rows: int,
    length: int,
    steps: int,
    rng: Generator,
    eos_id: int,
    pad_id: int,
    prompt: Tensor | None = None,
) -> Iterator[Frame]:
    """Write block after block until every row has its EOS, and yield a frame at each step; what is not there is PAD.

    Finished blocks are read once: their keys and values are kept, which changes nothing, as a block never looks right.
    A block takes `steps` steps, each revealing an equal share of its hidden tokens in random order.

    Args:    rows: how many texts; length: the longest canvas, in tokens; steps: per block, at most its tokens.
             prompt: (rows, n) ids that the texts start with.
    Raises:  ValueError for no steps, a prompt as long as the canvas, or a canvas longer than the network can read.
    """
    check_whole(rows, "rows", "grow")
    start, longest = torch.empty(rows, 0).long() if prompt is None else prompt, network.config.denoiser["max_length"]
    check_whole(length, "length", "grow", most=longest)
    check_whole(steps, "steps", "grow", most=process.block)
    if start.shape[0] != rows or start.shape[1] >= length:
        raise ValueError(f"grow: the prompt must be ({rows}, fewer than {length}) ids, got {tuple(start.shape)}.")
    x, cache, step = on_device_of(network, torch.full((rows, length), pad_id)), KeyValueCache(), 0
    x[:, : start.shape[1]] = start
    place, done = (
        on_device_of(network, torch.arange(length)),
        on_device_of(network, torch.zeros(rows, dtype=torch.bool)),
    )
    yield Frame(step, float(process.T), x.clone(), x.clone(), None)
    for first in range(0, length, process.block):
        here = slice(first, min(first + process.block, length))
        x[:, here] = x[:, here].where((place[here] < start.shape[1]) | done[:, None], process.mask_id)
        for ids in _block_frames(process, network, x, here, cache, steps=steps, rng=rng):
            x[:, here] = ids
            if not (ids == process.mask_id).any():
                x = x.where(place <= lengths_before_eos(x, eos_id)[:, None], pad_id)
            step += 1
            yield Frame(step, process.T * (1 - here.stop / length), x.clone(), x.clone(), None)
        done |= (x[:, here] == eos_id).any(1)
        if done.all():
            return
        network(x[:, here], 0.0, cache=cache)  # finished: keep its keys and values
