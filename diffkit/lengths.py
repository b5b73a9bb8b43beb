"""How long should it be: reading the end first, keeping it for last, or growing the canvas block by block."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Generator, Tensor, nn

from diffkit.attention import KeyValueCache
from diffkit.blocks import BlockDiffusion
from diffkit.diffusion import Denoise, MaskedDiffusion
from diffkit.draws import categorical
from diffkit.sample import Frame, Score, confidence, random_order


def lengths_of(ids: Tensor, eos_id: int) -> Tensor:
    """Tokens before the first EOS of each row, (n, L) -> (n,); L where there is none."""
    is_end = ids == eos_id
    return torch.where(is_end.any(1), is_end.int().argmax(1), ids.shape[1])


# ------------------------------------------------------------------------------------------- the length comes first


def length_histogram(lengths: Tensor, L: int, smoothing: float = 0.5) -> Tensor:
    """p(length) for 0..L from observed lengths (n,), each length counted `smoothing` times more: (L + 1,) float64."""
    counts = torch.bincount(lengths, minlength=L + 1).double() + smoothing
    return counts / counts.sum()


@torch.no_grad()
def length_beliefs(process: MaskedDiffusion, denoise: Denoise, canvas: Tensor, eos_id: int) -> Tensor:
    """p(length | what is visible), canvases with MASK (B, L) -> (B, L) float64: the belief that EOS stands at a place.

    A text has one EOS, so of an exact denoiser the column of EOS sums to one over places, and is the exact posterior of
    the length. A network's need not; it is normalised here. This is the length head that every masked model has.
    """
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


# ---------------------------------------------------------------- the end comes last: scores for `rule=` of `sample`


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

    def score(probs: Tensor, rng: Generator) -> Tensor:
        return random_order(probs, rng) - torch.arange(probs.shape[1], device=probs.device) // block

    return score


# ------------------------------------------------------------------------------------------ the canvas grows until EOS


def _reveal(process: BlockDiffusion, logits: Tensor, ids: Tensor, left: int, rng: Generator) -> Tensor:
    """Reveal random hidden tokens of a block, as many as are due when `left` more steps will follow."""
    is_masked = ids == process.mask_id
    beliefs, hidden = process.log_probs(logits.double(), ids).exp(), is_masked.sum(1)
    due = (hidden - (hidden * left / (left + 1)).floor().long())[:, None]
    rank = random_order(beliefs, rng).masked_fill(~is_masked, -1).argsort(1, descending=True).argsort(1)
    return torch.where(is_masked & (rank < due), categorical(beliefs, rng), ids)


@torch.no_grad()
def grow(
    process: BlockDiffusion,
    network: nn.Module,
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
    start, longest = torch.empty(rows, 0).long() if prompt is None else prompt, network.config.denoiser["max_length"]
    if not 1 <= length <= longest or not 1 <= steps <= process.block:
        raise ValueError(
            f"grow: length must lie in 1..{longest} and steps in 1..{process.block}, got {length} and {steps}."
        )
    if start.shape[0] != rows or start.shape[1] >= length:
        raise ValueError(f"grow: the prompt must be ({rows}, fewer than {length}) ids, got {tuple(start.shape)}.")
    x, cache, done = torch.full((rows, length), pad_id), KeyValueCache(), torch.zeros(rows, dtype=torch.bool)
    x[:, : start.shape[1]] = start
    yield Frame(0, float(process.T), x.clone(), x.clone(), None)
    step = 0
    for first in range(0, length, process.block):
        here = slice(first, min(first + process.block, length))
        given = torch.arange(length)[here] < start.shape[1]
        x[:, here] = torch.where(given | done[:, None], x[:, here], process.mask_id)
        for left in range(steps - 1, -1, -1):
            if not (x[:, here] == process.mask_id).any():
                break
            logits = network(x[:, here], 0.0, cache=cache)
            cache.cut(first)  # the block is not finished: forget it
            x[:, here] = _reveal(process, logits, x[:, here], left, rng)
            if left == 0:
                x = torch.where(torch.arange(length) > lengths_of(x, eos_id)[:, None], pad_id, x)
            step += 1
            yield Frame(step, process.T * (1 - here.stop / length), x.clone(), x.clone(), None)
        done |= (x[:, here] == eos_id).any(1)
        if done.all():
            return
        network(x[:, here], 0.0, cache=cache)  # finished: keep its keys and values
