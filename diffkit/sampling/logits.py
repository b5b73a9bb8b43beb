"""Filters on the predictions, each a denoiser in and a denoiser out: temperature, top-k, top-p."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from diffkit.checks import check_whole
from diffkit.processes.base import Denoise, Denoiser, as_denoiser, without_mask


def _mapped(denoise: Denoise, change: Callable[[Tensor], Tensor]) -> Denoiser:
    """The denoiser with its logits (..., V) changed."""
    ask = as_denoiser(denoise)
    return lambda zt, t, where=None, **cache: change(ask(zt, t, where, **cache))


def exclude_mask(denoise: Denoise, mask_id: int) -> Denoiser:
    """MASK is never predicted: filters must not count it among the likely tokens."""
    return _mapped(denoise, lambda logits: without_mask(logits, mask_id))


def with_temperature(denoise: Denoise, temperature: float) -> Denoiser:
    """Sharpen (below 1) or flatten (above 1) the predictions; 0 leaves only the most likely token."""
    if not 0 <= temperature < torch.inf:
        raise ValueError(f"with_temperature: the temperature must be 0 or more, got {temperature}.")
    if temperature == 0:
        return with_top_k(denoise, 1)
    return _mapped(denoise, lambda logits: logits / temperature)


def with_top_k(denoise: Denoise, k: int) -> Denoiser:
    """Keep the k most likely tokens of each position; among equals the lower id."""
    check_whole(k, "k", "with_top_k")

    def keep(logits: Tensor) -> Tensor:
        most = min(k, logits.shape[-1])
        last = logits.topk(most, dim=-1).values[..., -1:]
        above, ties = logits > last, logits == last
        kept = above | ties & (ties.cumsum(-1) <= most - above.sum(-1, keepdim=True))
        return logits.masked_fill(~kept, -torch.inf)

    return _mapped(denoise, keep)


def with_top_p(denoise: Denoise, p: float) -> Denoiser:
    """Keep the smallest set of tokens whose probability reaches p, the token that crosses the line included."""
    if not 0 < p <= 1:
        raise ValueError(f"with_top_p: p is a share of probability in (0, 1], got {p}.")

    def keep(logits: Tensor) -> Tensor:
        order = logits.argsort(dim=-1, descending=True, stable=True)
        probs = logits.double().softmax(-1).gather(-1, order)
        beyond = probs.cumsum(-1) - probs >= p
        return logits.masked_fill(torch.zeros_like(beyond).scatter(-1, order, beyond), -torch.inf)

    return _mapped(denoise, keep)


def filtered(
    denoise: Denoise, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
) -> Denoise:
    """Temperature first, then top-k, then top-p."""
    if temperature != 1:
        denoise = with_temperature(denoise, temperature)
    if top_k is not None:
        denoise = with_top_k(denoise, top_k)
    return denoise if top_p is None else with_top_p(denoise, top_p)
