"""Filters on beliefs, each a denoiser in and a denoiser out: temperature, top-k, top-p."""

from __future__ import annotations

import torch
from torch import Tensor

from diffkit.checks import check_whole
from diffkit.processes.base import Denoise, without_mask


def exclude_mask(denoise: Denoise, mask_id: int) -> Denoise:
    """MASK is never an answer: filters must not count it among the likely tokens, whatever the network says of it."""
    return lambda zt, t: without_mask(denoise(zt, t), mask_id)


def with_temperature(denoise: Denoise, temperature: float) -> Denoise:
    """Sharpen (below 1) or flatten (above 1) the beliefs; 0 leaves only the most likely token."""
    if not 0 <= temperature < torch.inf:
        raise ValueError(f"cooler: the temperature must be 0 or more, got {temperature}.")
    if temperature == 0:
        return with_top_k(denoise, 1)
    return lambda zt, t: denoise(zt, t) / temperature


def with_top_k(denoise: Denoise, k: int) -> Denoise:
    """Keep the k most likely tokens of each position; among equals the lower id."""
    check_whole(k, "k", "with_top_k")

    def filtered(zt: Tensor, t: Tensor) -> Tensor:
        logits = denoise(zt, t)
        rank = logits.argsort(dim=-1, descending=True, stable=True).argsort(dim=-1, stable=True)
        return logits.masked_fill(rank >= min(k, rank.shape[-1]), -torch.inf)

    return filtered


def with_top_p(denoise: Denoise, p: float) -> Denoise:
    """Keep the smallest set of tokens whose probability reaches p, the token that crosses the line included."""
    if not 0 < p <= 1:
        raise ValueError(f"with_top_p: p is a share of probability in (0, 1], got {p}.")

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
        denoise = with_temperature(denoise, temperature)
    if top_k is not None:
        denoise = with_top_k(denoise, top_k)
    return denoise if top_p is None else with_top_p(denoise, top_p)
