"""The bound of the chain that a sampler runs, and denoisers in small batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Generator, Tensor

from diffkit.checks import check_whole
from diffkit.processes.base import Denoise, Process, as_denoiser, keep_given
from diffkit.processes.masked import MaskedDiffusion


def in_batches(denoise: Denoise, batch_size: int) -> Denoise:
    """The same denoiser, computed for at most `batch_size` sequences at a time."""
    ask = as_denoiser(denoise)

    def batched(zt: Tensor, t: Tensor, where: Tensor | None = None) -> Tensor:
        wheres = [None] * len(zt) if where is None else where.split(batch_size)
        parts = zip(zt.split(batch_size), t.expand(len(zt)).split(batch_size), wheres, strict=False)
        return torch.cat([ask(*part) for part in parts])

    return batched


def chain_bound(process: Process, steps: int) -> Callable[..., Tensor]:
    """The bound of the chain that `denoise_frames` runs in this many even steps, in place of `process.bound`.

    The step from t to s costs a masked token 1 - gamma(s) / gamma(t), the probability that it is revealed there, times
    its cross-entropy at t. Draws take a random step, so the sum over steps is their mean times `steps`.
    Raises: ValueError for a process without masked tokens that can be revealed in any order.
    """
    check_whole(steps, "steps", "nelbo", most=process.T)
    if not process.any_order:
        raise ValueError(
            f"nelbo: steps are those of masked diffusion; {process.name!r} has no bound of its own for them."
        )
    masked = cast(MaskedDiffusion, process)

    def bound(denoise: Denoise, x0: Tensor, u: Tensor, rng: Generator, frozen: Tensor | None = None) -> Tensor:
        left = steps - (u * steps).long().clamp(max=steps - 1)  # steps left, this one counted
        t, s = (masked.T * each / steps for each in (left.double(), left.double() - 1))
        xt = keep_given(masked.corrupt(x0, t, rng)[0], x0, frozen)
        weight = steps * (1 - masked.stay_masked(t, s))
        return weight[:, None].to(x0.device) * masked.token_loss(denoise, x0, xt, t.to(x0.device)).double()

    return bound
