"""Batches made while a GPU works on the one before."""

from __future__ import annotations

from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from diffkit.data.batches import Batches  # its libraries take seconds to import


def prefetched(batches: Batches) -> Generator[tuple[Tensor, dict[str, Any]]]:
    """Each batch, in pinned memory if there is a GPU, and the position after it, from which a resumed run goes on.

    The next batch is made in a thread meanwhile. When closed, `batches` go back to the position of the last one.
    """

    def make() -> tuple[Tensor, dict[str, Any]]:
        batch = next(batches)
        return (batch.pin_memory() if torch.cuda.is_available() else batch), batches.state_dict()

    position = batches.state_dict()
    try:
        with ThreadPoolExecutor(1) as worker:
            coming = worker.submit(make)
            while True:
                batch, position = coming.result()
                coming = worker.submit(make)
                yield batch, position
    finally:
        batches.load_state_dict(position)
