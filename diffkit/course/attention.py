"""Attention weights of a network, for pictures."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from diffkit.network.attention import SHARPEST, Attention, rotate


@torch.no_grad()
def attention_weights(model: nn.Module, xt: Tensor, t: float = 0.0) -> Tensor:
    """Attention of each position to each other one, (layers, heads, L, L); every row sums to 1.

    The network computes these inside one fused call, so they are computed again from the input of each Attention.

    Args:   xt: (1, L) ids; t: one time.
    Raises: ValueError for more than one row.
    """
    if len(xt) != 1:
        raise ValueError(f"attention_weights: one row at a time, got xt {tuple(xt.shape)}. Take xt[:1].")
    weights: list[Tensor] = []

    def look(layer: Attention, given: tuple[Any, ...]) -> None:
        q, k = (f(given[0]).view(*xt.shape, layer.heads, -1).transpose(1, 2) for f in (layer.query, layer.key))
        q, k = layer.norm_query(q), layer.norm_key(k)
        if given[1] is not None:
            q, k = rotate(q, *given[1]), rotate(k, *given[1])
        scores = SHARPEST / q.shape[-1] * q @ k.transpose(-1, -2)  # (1, H, L, L)
        future = torch.ones_like(scores).triu(1).bool() if layer.causal else torch.zeros_like(scores).bool()
        weights.append(scores.masked_fill(future, -torch.inf).softmax(-1)[0])

    hooks = [layer.register_forward_pre_hook(look) for layer in model.modules() if isinstance(layer, Attention)]
    try:
        model(xt, t)
    finally:
        for hook in hooks:
            hook.remove()
    return torch.stack(weights)
