"""Labels, such as the way a story ends, and denoisers that are told one."""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn

from diffkit.random import uniform_like


def dropped(label: Tensor, p: float, null: int, rng: Generator) -> Tensor:
    """Each label (B,) replaced by `null` with probability p: a model trained so can also do without.

    Source: arXiv:2207.12598, section 3.2.
    """
    if not 0 <= p <= 1:
        raise ValueError(f"dropped: p is a probability in [0, 1], got {p}.")
    return label.masked_fill(uniform_like(label, rng) < p, null)


class Conditioned:
    """A model that is told a label, as a denoiser: call it with (z_t, t) like any other.

    Args: label: one place in `labels` for all rows, or (B,) one for each.
    """

    def __init__(self, model: nn.Module, label: int | Tensor):
        self.model, self.label = model, torch.as_tensor(label)
        self.selects_positions = getattr(getattr(model, "module", model), "selects_positions", False)

    def __call__(self, zt: Tensor, t: Tensor, *where: Tensor) -> Tensor:
        if self.label.shape not in ((), (len(zt),)):
            raise ValueError(f"Conditioned: label is one number or ({len(zt)},), got {tuple(self.label.shape)}.")
        return self.model(zt, t, *where, label=self.label.to(zt.device).expand(len(zt)))
