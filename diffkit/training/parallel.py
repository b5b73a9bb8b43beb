"""One run on several processes: which rows are whose, and weights that are split over them.

Replicated weights (DDP) are accelerate's. Split ones call torch's `fully_shard` here: accelerate 1.15 ignores its FSDP2
plugin on CPUs, where the tests run.
"""

from __future__ import annotations

import os
import sys
from datetime import timedelta
from typing import Any

import torch
from accelerate import Accelerator, DistributedType, InitProcessGroupKwargs
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from diffkit.model import DiffusionModel
from diffkit.random import SharedGenerator

KNOWN = {DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU}
SIZES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")  # what accelerate looks for
PATIENCE = timedelta(minutes=30)  # for other processes, when they join and later at every sum


def make_accelerator(**settings: Any) -> Accelerator:
    """An Accelerator; where the environment promises other processes, it says so before it waits for them.

    A launcher such as torchrun starts them all, but a batch system may have left its variables behind.

    Raises: ValueError if the others do not come in time.
    """
    name = next((name for name in SIZES if os.environ.get(name, "1") not in ("", "1")), None)
    if name is None or "TORCHELASTIC_RUN_ID" in os.environ or torch.distributed.is_initialized():
        return Accelerator(**settings)
    setting = f"{name}={os.environ[name]} is set"
    remedy = f"To run one process, unset {name} and LOCAL_RANK, as left over from a batch system"
    limit = f"{PATIENCE.total_seconds() / 60:g} minutes"
    print(f"{setting}: waiting up to {limit} for as many processes. {remedy}.", file=sys.stderr, flush=True)
    try:
        return Accelerator(**settings, kwargs_handlers=[InitProcessGroupKwargs(timeout=PATIENCE)])
    except torch.distributed.DistError as error:
        raise ValueError(f"fit: {setting}, but not so many processes came within {limit}. {remedy}.") from error


def check_launch(accelerator: Accelerator) -> None:
    """Raises: ValueError for a way of sharing the work that accelerate offers and the trainer does not."""
    if accelerator.distributed_type not in KNOWN:
        raise ValueError(
            f"fit: launched as {accelerator.distributed_type.value}, but only one process, several on CPUs and several "
            "on GPUs are supported. Use a file of configs/accelerate; --train.shard true splits the weights (FSDP)."
        )


def part_of(x: Tensor, rng: SharedGenerator) -> Tensor:
    """This process's rows of a batch that all processes hold. Raises ValueError if they cannot share it evenly."""
    if len(x) % rng.processes:
        raise ValueError(
            f"fit: a batch of {len(x)} sequences cannot be shared by {rng.processes} processes. Choose a "
            "data.batch_size that their number divides."
        )
    return x[rng.rank :: rng.processes]


def anyone(asked: bool, accelerator: Accelerator) -> bool:
    """Whether it is true on any process; the same answer on all."""
    if accelerator.num_processes == 1:
        return asked
    return bool(accelerator.reduce(torch.tensor(float(asked), device=accelerator.device)) > 0)


def shard(model: DiffusionModel) -> None:
    """Split a model's weights, and with them gradients and moments, over all processes, in place.

    A layer is gathered while it is used; otherwise each process holds its share of every matrix. See `whole`.

    Raises: ValueError for a process that trains embeddings of its own, which are used outside the network.
    Source: arXiv:2304.11277 (FSDP).
    """
    if any(p.requires_grad for p in model.process.parameters()):
        raise ValueError(
            f"fit: train.shard cannot split {model.config.process['name']!r}, whose embeddings are used outside the "
            "network. Leave shard out."
        )
    mesh = init_device_mesh(model.device.type, (torch.distributed.get_world_size(),))
    for block in model.denoiser.blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh, reshard_after_forward=True)


def whole(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors, those that are split gathered; all processes must call it together."""
    return {name: value.full_tensor() if isinstance(value, DTensor) else value for name, value in tensors.items()}


def split_like(value: Tensor, other: Tensor) -> Tensor:
    """A whole tensor, split as another of its shape is."""
    if not isinstance(other, DTensor) or isinstance(value, DTensor) or value.shape != other.shape:
        return value
    return distribute_tensor(value.to(other.device), other.device_mesh, other.placements)
