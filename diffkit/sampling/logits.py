"""Filters on predicted tokens: temperature, top-k, top-p."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from diffkit.checks import check_whole
from diffkit.processes.base import Denoise, Process, as_denoiser

SMALLEST = torch.finfo(torch.float64).tiny
Filter = Callable[[Tensor], Tensor]  # logits (..., V) -> logits


def temperature_filter(temperature: float) -> Filter:
    """Sharpen (below 1) or flatten (above 1) the predictions; 0 leaves only the most likely token.

    Logits count from the highest one, so that a temperature near 0 gives the limit and no infinite numbers.
    """
    if not 0 <= temperature < torch.inf:
        raise ValueError(f"temperature_filter: the temperature must be 0 or more, got {temperature}.")
    if temperature == 0:
        return top_k_filter(1)

    return lambda logits: (logits - logits.amax(-1, keepdim=True)).double() / max(temperature, SMALLEST)


def top_k_filter(k: int) -> Filter:
    """Keep the k most likely tokens of each position; among equals the lower id."""
    check_whole(k, "k", "top_k_filter")

    def keep(logits: Tensor) -> Tensor:
        most = min(k, logits.shape[-1])
        last = logits.topk(most, dim=-1).values[..., -1:]
        above, ties = logits > last, logits == last
        kept = above | ties & (ties.cumsum(-1) <= most - above.sum(-1, keepdim=True))
        return logits.masked_fill(~kept, -torch.inf)

    return keep


def top_p_filter(p: float) -> Filter:
    """Keep the smallest set of tokens whose probability reaches p, the token that crosses the line included."""
    if not 0 < p <= 1:
        raise ValueError(f"top_p_filter: p is a share of probability in (0, 1], got {p}.")

    def keep(logits: Tensor) -> Tensor:
        order = logits.argsort(dim=-1, descending=True, stable=True)
        probs = logits.double().softmax(-1).gather(-1, order)
        beyond = probs.cumsum(-1) - probs >= p
        return logits.masked_fill(torch.zeros_like(beyond).scatter(-1, order, beyond), -torch.inf)

    return keep


def filtered(
    denoise: Denoise, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None,
    process: Process | None = None,
) -> Denoise:  # fmt: skip
    """A denoiser whose predictions pass temperature first, then top-k, then top-p.

    Args: process: what the output means. Filters act on which token it predicts, never on when a token changes. None:
          the output is logits of tokens.
    """
    filters = [] if temperature == 1 else [temperature_filter(temperature)]
    filters += [] if top_k is None else [top_k_filter(top_k)]
    filters += [] if top_p is None else [top_p_filter(top_p)]
    if not filters:
        return denoise
    ask = as_denoiser(denoise)

    def filtering(zt: Tensor, t: Tensor, where: Tensor | None = None) -> Tensor:
        raw = ask(zt, t, where)
        own = zt if where is None else zt[:, : where.shape[1]][where]
        logits = raw if process is None else process.token_logits(raw, own)
        for change in filters:
            logits = change(logits)
        return logits if process is None else process.with_token_logits(raw, own, logits)

    return filtering
