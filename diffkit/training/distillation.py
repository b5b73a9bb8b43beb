"""Distillation: a student that learns to do in one step what its teacher does in several (SDTT)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Generator, Tensor

from diffkit.processes.base import Denoise
from diffkit.processes.masked import MaskedDiffusion
from diffkit.training.pooling import pooled

NEVER = -12.0  # nats: the least log-probability that counts, about that of a token a trained network never expects


@torch.no_grad()
def teacher_targets(
    process: MaskedDiffusion, teacher: Denoise, xt: Tensor, times: Sequence[Tensor], rng: Generator
) -> Tensor:
    """What the teacher predicts of every token on its own way through `times`: (B, L, V) log-probabilities.

    A token's target is the prediction of the step that reveals it; of a token that stays hidden, the last prediction.

    Args:   xt: (B, L) ids with masks; times: (B,) each, falling: at the first the teacher finds xt.
    Source: arXiv:2410.21035 (SDTT).
    """
    target = None
    for a, b in pairwise(times):
        raw, is_masked = teacher(xt, a), (xt == process.mask_id)[..., None]
        log_probs = process.log_probs(raw.double(), xt)
        target = log_probs if target is None else torch.where(is_masked, log_probs, target)
        xt = process.reverse_step(raw, xt, a, b, rng)
    return target  # type: ignore[return-value]


def divergence(target: Tensor, log_probs: Tensor, backward: bool = False) -> Tensor:
    """KL(target || student) of each position, or backward KL(student || target): (B, L, V) twice to (B, L) nats.

    Where a teacher rules a token out, backward KL is infinite for all students that do not; e^NEVER stands for 0.
    """
    p, q = (target, log_probs) if not backward else (log_probs, target)
    return (p.exp() * (p.clamp(min=NEVER) - q.clamp(min=NEVER))).sum(-1)


def distillation(
    process: MaskedDiffusion, student: Denoise, x0: Tensor, t: Tensor, rng: Generator, *, teacher: Denoise,
    step: float, small_steps: int = 2, backward: bool = False,
) -> Tensor:  # fmt: skip
    """One round of SDTT: the student at x_t against the teacher on its way from t to t - `step`; nats per hidden token.

    After a round the student is the next teacher, and `step` doubles. Forward KL teaches the mean of the teacher's
    predictions, backward KL their sharper geometric mean.

    Args: teacher: of the round before; small_steps: what the teacher takes for one `step`, in units of t.
    """
    xt, is_masked = process.corrupt(x0, t, rng)
    times = [(t - step * j / small_steps).clamp(min=0.0) for j in range(small_steps + 1)]
    target = teacher_targets(process, teacher, xt, times, rng)
    log_probs = process.log_probs(student(xt, t), xt).to(target.dtype)
    nats = divergence(target, log_probs, backward).masked_fill(~is_masked, 0.0)
    return pooled(nats.sum(), is_masked.sum())
