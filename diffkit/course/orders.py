"""Bounds taken apart: every order of revealing a text, every mask pattern of a short one."""

from __future__ import annotations

import torch
from torch import Tensor

from diffkit.checks import check_whole
from diffkit.processes.base import Denoise, as_denoiser, on_device_of
from diffkit.processes.masked import MaskedDiffusion, masked_nll
from diffkit.processes.schedules import Schedule


@torch.no_grad()
def order_bounds(process: MaskedDiffusion, denoise: Denoise, x0: Tensor, orders: Tensor) -> Tensor:
    """-log p of each text if its positions are generated in the given order, (N,) float64 nats: any-order AR.

    A masked denoiser is one autoregressive model for every order. Averaged over all orders their nats are the masked
    bound (for a network without time); a perfect denoiser gives -log p in every single one.

    Args:   x0: (N, L) ids; orders: (N, L), each row a permutation of the positions.
    Raises: ValueError if a row of orders is no permutation.
    Source: arXiv:2110.02037, section 3; arXiv:2406.03736, section 3.
    """
    N, L = x0.shape
    if orders.shape != (N, L) or not torch.equal(orders.sort(1).values, torch.arange(L).expand(N, L)):
        raise ValueError(f"order_bounds: orders must be ({N}, {L}), each row a permutation of 0..{L - 1}.")
    x0, when = on_device_of(denoise, x0), on_device_of(denoise, orders.argsort(1))  # the step that writes each position
    ask, nats = as_denoiser(denoise), torch.zeros(N, dtype=torch.float64)
    for k in range(L):
        xt, is_next = torch.where(when >= k, process.mask_id, x0), when == k
        t = process.schedule.time_of(1 - k / L).expand(N)
        nats += masked_nll(ask(xt, t, is_next), x0, is_next, process.mask_id).sum(1).cpu()
    return nats


def mask_patterns(L: int) -> Tensor:
    """Every choice of masked positions, none and all included: (2^L, L) bool; the second masks position 0 alone.

    Raises: ValueError if L is over 12.
    """
    check_whole(L, "L", "mask_patterns", most=12)  # a table of 2^L patterns
    return (torch.arange(2**L)[:, None] >> torch.arange(L)) % 2 == 1


def pattern_nats(process: MaskedDiffusion, denoise: Denoise, x0: Tensor) -> Tensor:
    """-log of the predicted probability of every masked token under every mask pattern, (N, 2^L, L) float64 nats.

    0 where the token is visible; patterns are in the order of `mask_patterns`. A denoiser with time gets the t whose
    rate is the masked share. Gradients flow to the denoiser.
    """
    N, L = x0.shape
    is_masked = on_device_of(denoise, mask_patterns(L).repeat(N, 1))
    clean = on_device_of(denoise, x0).repeat_interleave(2**L, 0)
    xt = torch.where(is_masked, process.mask_id, clean)
    t = process.schedule.time_of(is_masked.double().mean(1))
    return process.token_loss(denoise, clean, xt, t).double().cpu().reshape(N, -1, L)


@torch.no_grad()
def pattern_losses(process: MaskedDiffusion, denoise: Denoise, x0: Tensor) -> Tensor:
    """Loss of every text under every mask pattern, summed over the masked tokens: (N, L) ids to (N, 2^L) float64 nats.

    Columns are in the order of `mask_patterns`.
    """
    return pattern_nats(process, denoise, x0).sum(-1)


def pattern_chances(schedule: Schedule, t: Tensor, L: int) -> Tensor:
    """Chance of every mask pattern at each time: (n,) times to (n, 2^L) float64, columns as in `mask_patterns`."""
    count = mask_patterns(L).sum(1)
    gamma = schedule.gamma(t)[:, None]
    return gamma**count * (1 - gamma) ** (L - count)
