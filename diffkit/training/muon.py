"""Muon, an optimizer for matrices, computed in float32: CPUs without bfloat16 units are many times slower in that."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from diffkit.training.config import TrainConfig

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic, chosen by its authors for a steep start
ITERATIONS = 5


def orthogonalized(gradient: Tensor) -> Tensor:
    """Nearly the orthogonal factor U V^T of a matrix U S V^T, (n, m): singular values come out between 0.6 and 1.3.

    Source: Jordan et al. 2024, "Muon"; Newton-Schulz iteration of a quintic.
    """
    is_tall = gradient.shape[0] > gradient.shape[1]
    x = gradient.T if is_tall else gradient
    x = x / x.norm().clamp(min=1e-7)  # no singular value above 1
    a, b, c = COEFFICIENTS
    for _ in range(ITERATIONS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if is_tall else x


class Muon(torch.optim.Optimizer):
    """Momentum whose step is orthogonalized, so that all directions of a matrix move alike.

    The same as torch.optim.Muon with adjust_lr_fn="match_rms_adamw" and Nesterov momentum, but for the precision:
    torch iterates in bfloat16.

    Args:   params: matrices; lr: root mean square of a step over 0.2, as large as AdamW's at the same rate.
    Raises: ValueError for a parameter that is not a matrix.
    Source: Jordan et al. 2024; arXiv:2502.16982, section 2.2, for the size of the step.
    """

    def __init__(self, params: Iterable[Tensor], lr: float, weight_decay: float = 0.1, momentum: float = 0.95):
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})
        for matrix in (p for group in self.param_groups for p in group["params"]):
            if matrix.ndim != 2:
                raise ValueError(f"Muon: trains matrices only, got a parameter of shape {tuple(matrix.shape)}.")

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One step; `closure` is not used."""
        for group in self.param_groups:
            for matrix in (p for p in group["params"] if p.grad is not None):
                mean = self.state[matrix].setdefault("momentum_buffer", torch.zeros_like(matrix))
                mean.lerp_(matrix.grad, 1 - group["momentum"])
                update = orthogonalized(matrix.grad.lerp(mean, group["momentum"]))
                matrix.mul_(1 - group["lr"] * group["weight_decay"])
                matrix.add_(update, alpha=-0.2 * math.sqrt(max(matrix.shape)) * group["lr"])


def make_optimizers(model: nn.Module, config: TrainConfig) -> list[torch.optim.Optimizer]:
    """AdamW for all, or Muon for the network's matrices (an untied head too) and AdamW for the rest.

    The rest: embeddings, biases, norms, and what the process trains (token embeddings: a row is a token's own).

    Source: arXiv:1711.05101 (AdamW); Jordan et al. 2024 and arXiv:2502.16982 (Muon, with its step scaled like AdamW's).
    """
    tables = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    vectors: list[nn.Parameter] = []
    for name, p in model.named_parameters():
        is_inner = config.optimizer == "muon" and id(p) not in tables and not name.startswith("process.")
        kind = vectors if p.ndim < 2 else matrices if is_inner and p.ndim == 2 else others
        kind += [p] if p.requires_grad else []
    groups = [{"params": others, "weight_decay": config.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    fused = bool(vectors) and vectors[0].is_cuda  # one kernel for all weights, and no step count to read
    optimizers: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, lr=config.lr, betas=(0.9, 0.98), fused=fused)]
    if matrices:
        optimizers.append(Muon(matrices, lr=config.muon_lr, weight_decay=config.weight_decay))
    for group in (group for optimizer in optimizers for group in optimizer.param_groups):
        group["full_lr"] = group["lr"]
    return optimizers


def take_step(optimizers: Iterable[torch.optim.Optimizer], scale: float) -> None:
    """One step of optimizers from `make_optimizers`, at this share of their full rates; then no gradients are left."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["full_lr"] * scale
        optimizer.step()
        optimizer.zero_grad()
