"""Variable length: predicting the length first, revealing EOS last, or growing the canvas block by block."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Generator, Tensor

from diffkit.checks import check_whole
from diffkit.model import DiffusionModel
from diffkit.processes.base import Denoise, Denoiser
from diffkit.processes.block import BlockDiffusion
from diffkit.processes.masked import MaskedDiffusion
from diffkit.random import highest, inverse_cdf, uniform_like
from diffkit.sampling.sampler import Frame, denoise_frames
from diffkit.sampling.unmasking import Score, confidence, random_order


def lengths_before_eos(ids: Tensor, eos_id: int) -> Tensor:
    """Tokens before the first EOS of each row, (n, L) -> (n,); L where there is none."""
    is_end = ids == eos_id
    return torch.where(is_end.any(1), is_end.int().argmax(1), ids.shape[1])


# ------------------------------------------------------------------------------------------- the length comes first


def length_histogram(lengths: Tensor, L: int, smoothing: float = 0.5) -> Tensor:
    """p(length) for 0..L from observed lengths (n,), each length counted `smoothing` times more: (L + 1,) float64."""
    counts = torch.bincount(lengths, minlength=L + 1).double() + smoothing
    return counts / counts.sum()


@torch.no_grad()
def length_probs(process: MaskedDiffusion, denoise: Denoise, canvas: Tensor, eos_id: int) -> Tensor:
    """p(length | visible tokens), canvases with MASK (B, L) -> (B, L) float64: the probability of EOS at each position.

    A text has one EOS, so with an exact denoiser the column of EOS sums to one over positions, and is the exact
    posterior of the length. A network's need not; it is normalised here. Every masked model has this length head.
    """
    share = (canvas == process.mask_id).double().mean(1)
    t = process.schedule.time(share).to(canvas.device)
    at_end = process.token_probs(denoise(canvas, t), canvas, t)[..., eos_id]
    return at_end / at_end.sum(1, keepdim=True)


def canvases_of(lengths: Tensor, L: int, *, mask_id: int, eos_id: int, pad_id: int) -> Tensor:
    """Canvases to fill: so many MASKs, then EOS, then PAD; (n,) -> (n, L).

    Raises: ValueError if a length leaves no room for its EOS.
    """
    if len(lengths) == 0 or int(lengths.min()) < 0 or int(lengths.max()) >= L:
        raise ValueError(
            f"canvases_of: lengths must lie in 0..{L - 1}, as EOS needs a position, got {lengths.tolist()[:8]}."
        )
    position, end = torch.arange(L), lengths[:, None]
    return torch.where(position < end, mask_id, torch.where(position == end, eos_id, pad_id))


# ---------------------------------------------------------------- EOS comes last: scores for `order=` of `sample`


def words_first(ends: Sequence[int]) -> Score:
    """Most confident first, but a position whose best token is one of `ends` (EOS, PAD) only after all others.

    Source: arXiv:2502.09992 (LLaDA), which gives EOS the lowest confidence.
    """

    def score(probs: Tensor, rng: Generator) -> Tensor:
        is_end = torch.isin(probs.argmax(-1), torch.tensor(ends, device=probs.device))
        return confidence(probs, rng) - 1e6 * is_end

    return score


def left_to_right_in_blocks(block: int) -> Score:
    """Any position of the first block that has masked ones, the blocks from left to right.

    Source: arXiv:2502.09992 (LLaDA), semi-autoregressive remasking; the model sees the whole canvas at every step.
    """

    def score(probs: Tensor, rng: Generator) -> Tensor:
        return random_order(probs, rng) - torch.arange(probs.shape[1], device=probs.device) // block

    return score


# ------------------------------------------------------------------------------------------ the canvas grows until EOS


class Growing:
    """Generate block after block until every row has its EOS; what is not written yet is PAD.

    A block takes `steps` steps, each revealing an equal share of its masked tokens in random order. A finished block
    never looks right, so a network's keys and values of it can be kept (`CachedDenoiser`), and that is exact.

    Args: steps: per block; eos_id, pad_id; given: tokens at the start of each row that are kept.
    """

    def __init__(self, process: BlockDiffusion, *, steps: int, eos_id: int, pad_id: int, given: int = 0):
        self.process, self.steps, self.eos_id, self.pad_id, self.given = process, steps, eos_id, pad_id, given

    def states(self, denoise: Denoiser, z: Tensor, rng: Generator) -> Iterator[tuple[float, Tensor]]:
        L, mask_id = z.shape[1], self.process.mask_id
        position, done = torch.arange(L, device=z.device), torch.zeros(len(z), dtype=torch.bool, device=z.device)
        for lo in range(0, L, self.process.block):
            hi = min(lo + self.process.block, L)
            is_new = (position >= max(lo, self.given)) & (position < hi) & ~done[:, None]
            z = z.masked_fill(is_new, mask_id)
            for left in range(self.steps - 1, -1, -1):
                if not (z == mask_id).any():
                    break
                z = torch.cat([z[:, :lo], self._step(denoise, z, slice(lo, hi), left, rng), z[:, hi:]], 1)
                if not (z == mask_id).any():
                    z = z.where(position <= lengths_before_eos(z, self.eos_id)[:, None], self.pad_id)
                yield self.process.T * (1 - hi / L), z
            done |= (z[:, lo:hi] == self.eos_id).any(1)
            if done.all():
                return

    def _step(self, denoise: Denoiser, z: Tensor, place: slice, left: int, rng: Generator) -> Tensor:
        """The block with tokens revealed, so that an equal share remains for each of the steps left."""
        block, t = z[:, place], torch.zeros(len(z), device=z.device)
        is_masked = block == self.process.mask_id
        logits = denoise(torch.cat([z, z], 1), t, z == self.process.mask_id).double()  # (N, V)
        probs = self.process.token_logits(logits, block[is_masked]).softmax(-1)
        due = is_masked.sum(1) - (is_masked.sum(1) * left / (left + 1)).floor()
        reveal, u = highest(uniform_like(block, rng), is_masked, due), uniform_like(block, rng)
        return block.masked_scatter(reveal, inverse_cdf(probs[reveal[is_masked]], u[reveal]))


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
    """Frames of the sampler `Growing`.

    Args:    rows: how many texts; length: the longest canvas, in tokens; steps: per block, at most its tokens.
             prompt: (rows, n) ids that the texts start with.
    Raises:  ValueError for no steps, a prompt as long as the canvas, or a canvas longer than the network can read.
    """
    prompt = torch.empty(rows, 0).long() if prompt is None else prompt
    check_whole(length, "length", "grow", most=network.denoiser.config.max_length)
    check_whole(steps, "steps", "grow", most=process.block)
    if prompt.shape[0] != rows or prompt.shape[1] >= length:
        raise ValueError(f"grow: the prompt must be ({rows}, fewer than {length}) ids, got {tuple(prompt.shape)}.")
    start = torch.cat([prompt, prompt.new_full((rows, length - prompt.shape[1]), pad_id)], 1)
    growing = Growing(process, steps=steps, eos_id=eos_id, pad_id=pad_id, given=prompt.shape[1])
    return denoise_frames(growing, network, start=start, rng=rng)
