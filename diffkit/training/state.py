"""All that a training run is made of: one step of it, and how it is saved in the middle and goes on bit for bit."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from diffkit.model import DiffusionModel
from diffkit.network.conditioning import Conditioned, dropped
from diffkit.processes.base import Denoise
from diffkit.random import SharedGenerator
from diffkit.training.checkpoint import (
    drop_checkpoints,
    load_checkpoint,
    optimizer_state,
    restore_optimizers,
    save_checkpoint,
)
from diffkit.training.config import TrainConfig
from diffkit.training.losses import OBJECTIVES, TIME_SAMPLERS
from diffkit.training.muon import Muon
from diffkit.training.parallel import check_launch, load_whole, part_of, shard, split_moments, whole

if TYPE_CHECKING:
    from diffkit.data.batches import Batches  # its libraries take seconds to import

KEPT_CHECKPOINTS = 2
REMEDY = "The last checkpoint is sound: lower the learning rate, lengthen the warm-up or clip harder, and resume."
LabelOf = Callable[[Tensor], Tensor]


class TrainingDiverged(FloatingPointError):
    """The loss stopped being a number."""


def make_optimizers(model: nn.Module, settings: TrainConfig) -> list[torch.optim.Optimizer]:
    """AdamW for all, or Muon for the matrices (an untied head too) and AdamW for embeddings, biases and norms.

    Source: arXiv:1711.05101 (AdamW); Jordan et al. 2024 and arXiv:2502.16982 (Muon, with its step scaled like AdamW's).
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    tables = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    tables |= {id(p) for p in getattr(model, "process", nn.Module()).parameters()}  # word vectors
    is_inner = {id(p): settings.optimizer == "muon" and p.ndim == 2 and id(p) not in tables for p in trained}
    inner, outer = [p for p in trained if is_inner[id(p)]], [p for p in trained if not is_inner[id(p)]]
    decayed, kept = [p for p in outer if p.ndim > 1], [p for p in outer if p.ndim < 2]
    groups = [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": kept, "weight_decay": 0.0}]
    optimizers: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, lr=settings.lr, betas=(0.9, 0.98))]
    if inner:
        optimizers.append(Muon(inner, lr=settings.muon_lr, weight_decay=settings.weight_decay))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["full_lr"] = group["lr"]
    return optimizers


class TrainState:
    """All that a run is made of, so that it can be saved in the middle and go on bit for bit."""

    def __init__(
        self,
        model: DiffusionModel,
        batches: Batches,
        settings: TrainConfig,
        accelerator: Accelerator,
        label_of: LabelOf | None = None,
    ):
        check_launch(accelerator)
        self.settings, self.accelerator, self.batches, self.label_of = settings, accelerator, batches, label_of
        self.is_split = settings.shard and accelerator.num_processes > 1
        self.model = (copy.deepcopy(model) if self.is_split else model).to(accelerator.device)
        self.model.zero_grad(set_to_none=True)  # what an earlier run may have left
        self.average = AveragedModel(self.model, multi_avg_fn=get_ema_multi_avg_fn(settings.ema))
        if self.is_split:
            shard(self.model)
            shard(self.average.module)  # type: ignore[arg-type]
        self.optimizers = make_optimizers(self.model, settings)
        self.network: nn.Module = self.model if self.is_split else accelerator.prepare(self.model)
        self.rng = SharedGenerator(accelerator.process_index, accelerator.num_processes)
        self.rng.manual_seed(settings.seed)
        self.step = self.tokens = 0  # steps done; tokens of the last one
        self._part_dropout()

    def _part_dropout(self) -> None:
        """Let other processes than the first drop other activations."""
        if self.rng.rank:
            torch.manual_seed(hash((self.settings.seed, self.step, self.rng.rank)))

    def advance(self) -> tuple[float, float]:
        """One optimiser step; returns (loss in nats per token, gradient norm).

        Raises: TrainingDiverged, with the weights as they were before the step.
        """
        self.network.train()
        self.tokens = 0
        batches = self.settings.accumulate
        losses = [self._learn_from_batch(last=i == batches - 1) for i in range(batches)]
        loss = self.accelerator.reduce(torch.stack(losses).mean(), "mean").item()
        norms = {"": nn.utils.clip_grad_norm_(self.network.parameters(), self.settings.clip)}
        norm = whole(norms)[""].item()
        if not math.isfinite(loss + norm):
            raise TrainingDiverged(
                f"fit: loss {loss:g} and gradient norm {norm:g} at step {self.step + 1}, which ends with batch "
                f"{(self.step + 1) * batches} of the run. {REMEDY}"
            )
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["full_lr"] * self.settings.lr_scale(self.step)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.average.update_parameters(self.model)
        self.step += 1
        return loss, norm

    def _learn_from_batch(self, last: bool) -> Tensor:
        """Add the gradient of this process's part of one batch; after the last of a step the processes share theirs.

        Times and noise are drawn for the whole batch, so that a run does not depend on the number of processes.
        """
        settings, process, device = self.settings, self.model.process, self.accelerator.device
        batch = next(self.batches)
        self.tokens += batch.numel()
        reach = settings.curriculum.reach(self.step / settings.steps)
        times = TIME_SAMPLERS[settings.times](len(batch), max(1, round(reach * process.T)), self.rng)
        x0, t = (part_of(x, self.rng).to(device) for x in (batch, times))
        with nullcontext() if last else self.accelerator.no_sync(self.network):
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=settings.precision == "bf16"):
                loss = OBJECTIVES[settings.objective](process, self._told(x0), x0, t, self.rng)
            self.accelerator.backward(loss / settings.accumulate)
        return loss.detach()

    def _told(self, x0: Tensor) -> Denoise:
        """The network, or what tells it the labels of these texts; some labels are hidden from it."""
        if self.label_of is None:
            return self.network
        return Conditioned(
            self.network, dropped(self.label_of(x0), self.settings.drop_label, self.model.labels, self.rng)
        )

    def best(self) -> DiffusionModel:
        """The model to judge and to ship: averaged weights, or the current ones where averaging is off."""
        return self.average.module if self.settings.ema else self.model  # type: ignore[return-value]

    def kind(self) -> dict[str, Any]:
        """What a checkpoint must share with the run that resumes it."""
        config = self.model.config
        return {"process": config.process, "denoiser": config.denoiser, "optimizer": self.settings.optimizer}

    def save(self, folder: Path) -> Path:
        """Write a checkpoint under a run's folder and drop all but the newest two; all processes must ask together."""
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        tensors |= {f"average.{name}": value for name, value in self.average.state_dict().items()}
        tensors = whole(tensors | optimizer_state(self.optimizers))
        path = folder / f"step-{self.step:07d}"
        if not self.accelerator.is_main_process:
            return path
        tensors |= {"rng": self.rng.get_state(), "rng_torch": torch.get_rng_state()}
        if self.accelerator.device.type == "cuda":
            tensors["rng_cuda"] = torch.cuda.get_rng_state(self.accelerator.device)
        numbers = {"step": self.step, "batches": self.batches.state_dict(), "settings": asdict(self.settings)}
        save_checkpoint(path, tensors, numbers | {"kind": self.kind()})
        drop_checkpoints(folder, KEPT_CHECKPOINTS)
        return path

    def load(self, path: Path) -> None:
        """Go back to a checkpoint. Raises ValueError if it belongs to another model, optimizer or data."""
        tensors, numbers = load_checkpoint(path)
        own, kept = _flat(self.kind()), _flat(numbers.get("kind", {}))
        differing = [f"{key}: {kept[key]} there, {own[key]} here" for key in own if kept.get(key, own[key]) != own[key]]
        if differing:
            raise ValueError(
                f"fit: the checkpoint {path} is of another run ({'; '.join(differing)}). Resume with the config it was "
                "made with, or start in a new folder."
            )
        self.batches.load_state_dict(numbers["batches"])
        for prefix, module in (("model.", self.model), ("average.", self.average)):
            load_whole(module, {name.removeprefix(prefix): v for name, v in tensors.items() if name.startswith(prefix)})
        restore_optimizers(self.optimizers, tensors)
        split_moments(self.optimizers)
        self.rng.set_state(tensors["rng"])
        torch.set_rng_state(tensors["rng_torch"])
        if "rng_cuda" in tensors and self.accelerator.device.type == "cuda":
            torch.cuda.set_rng_state(tensors["rng_cuda"], self.accelerator.device)
        self.step = numbers["step"]
        self._part_dropout()


def _flat(kind: dict[str, Any]) -> dict[str, Any]:
    """{"process": {"T": 1000}, "optimizer": "adamw"} as {"process.T": 1000, "optimizer": "adamw"}."""
    parts = {name: value if isinstance(value, dict) else {"": value} for name, value in kind.items()}
    return {f"{name}.{key}".rstrip("."): value for name, part in parts.items() for key, value in part.items()}
