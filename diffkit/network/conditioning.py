"""Labels, such as the way a story ends, and denoisers conditioned on one."""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn

from diffkit.random import uniform_like


def dropped(label: Tensor, p: float, null: int, rng: Generator) -> Tensor:
    """Each label (B,) replaced by `null` with probability p: a model trained this way can also do without a label.

    Source: arXiv:2207.12598, section 3.2.
    """
    return label.masked_fill(uniform_like(label, rng) < p, null)


class Conditioned(nn.Module):
    """A model with a label, as a denoiser.

    Args: label: one index into `labels` for all rows, or (B,) one for each.
    """

    def __init__(self, model: nn.Module, label: int | Tensor):
        super().__init__()
        self.model, self.label = model, torch.as_tensor(label)
        self.train(model.training)

    def forward(self, zt: Tensor, t: Tensor, where: Tensor | None = None) -> Tensor:
        return self.model(zt, t, where, label=self.label.to(zt.device, non_blocking=True).expand(len(zt)))
