"""Means over all batches and processes of a step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
import torch.distributed as dist
from torch import Tensor

_COUNTS: ContextVar[list[Tensor] | None] = ContextVar("counts", default=None)


@contextmanager
def counted() -> Iterator[list[Tensor]]:
    """Collect the counts that `pooled` divides by, so that batches can be pooled into one step, each by its count."""
    counts: list[Tensor] = []
    before = _COUNTS.set(counts)
    try:
        yield counts
    finally:
        _COUNTS.reset(before)


def pooled(total: Tensor, count: Tensor) -> Tensor:
    """total / count; over several processes that share a batch, the mean of what they return is that of the batch.

    Each divides its own total by the mean count of all.
    """
    count = count.float()
    if dist.is_initialized():
        dist.all_reduce(count)
        count = count / dist.get_world_size()
    if (counts := _COUNTS.get()) is not None:
        counts.append(count)
    return total / torch.where(count == 0, 1.0, count)
