"""One run on several processes: what they agree on, and weights that are split over them."""

from __future__ import annotations

import torch
from accelerate import Accelerator, DistributedType
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from diffkit.model import DiffusionModel
from diffkit.random import SharedGenerator

KNOWN = {DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU}


def check_launch(accelerator: Accelerator) -> None:
    """Raises: ValueError for a way of sharing the work that accelerate offers and the trainer does not."""
    if accelerator.distributed_type not in KNOWN:
        raise ValueError(
            f"fit: launched as {accelerator.distributed_type.value}, but only one process, several on CPUs and several "
            "on GPUs are supported. Use a file of configs/accelerate; --train.shard true splits the weights (FSDP)."
        )


def part_of(x: Tensor, rng: SharedGenerator) -> Tensor:
    """This process's rows of something that all processes hold. Raises ValueError if the rows cannot be shared out."""
    if len(x) % rng.processes:
        raise ValueError(
            f"fit: a batch of {len(x)} sequences cannot be shared by {rng.processes} processes. Choose a "
            "data.batch_size that their number divides."
        )
    return x[rng.rank :: rng.processes]


def anyone(asked: bool, accelerator: Accelerator) -> bool:
    """Whether any process says yes; all of them hear the same answer."""
    if accelerator.num_processes == 1:
        return asked
    return bool(accelerator.reduce(torch.tensor(float(asked), device=accelerator.device)) > 0)


def shard(model: DiffusionModel) -> DiffusionModel:
    """Split a model's weights, and with them gradients and moments, over all processes, in place.

    A layer is gathered while it is used; otherwise each process holds its share of every matrix. See `whole`.

    Raises: ValueError for a process with trained parts of its own (word vectors), which are used outside the network.
    Source: arXiv:2304.11277 (FSDP).
    """
    if any(p.requires_grad for p in model.process.parameters()):
        raise ValueError(
            f"fit: train.shard cannot split {model.config.process['name']!r}, whose word vectors are used outside the "
            "network. Leave shard out."
        )
    mesh = init_device_mesh(model.device.type, (torch.distributed.get_world_size(),))
    for block in model.denoiser.blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh, reshard_after_forward=True)
    return model


def whole(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors, those that are split gathered; all processes must ask together."""
    return {name: value.full_tensor() if isinstance(value, DTensor) else value for name, value in tensors.items()}


def split_like(value: Tensor, other: Tensor) -> Tensor:
    """A whole tensor, split as another of its shape is."""
    if not isinstance(other, DTensor) or isinstance(value, DTensor) or value.shape != other.shape:
        return value
    return distribute_tensor(value.to(other.device), other.device_mesh, other.placements)


def load_whole(module: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Load whole tensors into a module, split or not."""
    own = module.state_dict()
    module.load_state_dict({name: split_like(value, own.get(name, value)) for name, value in tensors.items()})


def split_moments(optimizers: list[torch.optim.Optimizer]) -> None:
    """Split what optimisers remember as their parameters are split."""
    for optimizer in optimizers:
        for parameter, moments in optimizer.state.items():
            moments.update({name: split_like(value, parameter) for name, value in moments.items()})
