"""A run's state as a checkpoint, and back."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from diffkit.training import checkpoint
from diffkit.training.parallel import split_like, whole

if TYPE_CHECKING:
    from diffkit.training.trainer import Trainer

KEPT_CHECKPOINTS = 2


def kind_of(run: Trainer) -> dict[str, Any]:
    """What a checkpoint must share with the run that resumes it."""
    parts = {"process": run.model.config.process, "denoiser": run.model.config.denoiser}
    flat = {f"{part}.{key}": value for part, settings in parts.items() for key, value in settings.items()}
    return flat | {"optimizer": run.config.optimizer}


def save_run(run: Trainer, folder: str | Path) -> Path:
    """Write a checkpoint in a run's folder and drop all but the newest two; all processes must call it together."""
    tensors = {f"model.{name}": value for name, value in run.model.state_dict().items()}
    tensors |= {f"average.{name}": value for name, value in run.average.items()}
    tensors = whole(tensors | checkpoint.optimizer_state(run.optimizers))
    path = Path(folder) / f"step-{run.steps_done:07d}"
    if not run.accelerator.is_main_process:
        return path
    tensors |= {"rng": run.rng.get_state(), "rng_torch": torch.get_rng_state()}
    if run.accelerator.device.type == "cuda":
        tensors["rng_cuda"] = torch.cuda.get_rng_state(run.accelerator.device)
    numbers = {"step": run.steps_done, "settings": asdict(run.config), "kind": kind_of(run)}
    checkpoint.save_checkpoint(path, tensors, numbers | {"batches": run.position or run.batches.state_dict()})
    checkpoint.drop_checkpoints(path.parent, KEPT_CHECKPOINTS)
    return path


def load_run(run: Trainer, path: str | Path) -> None:
    """Go back to a checkpoint. Raises ValueError if it belongs to another model, optimizer or data."""
    tensors, numbers = checkpoint.load_checkpoint(path)
    own, kept = kind_of(run), numbers["kind"]
    differing = [f"{key}: {kept[key]} there, {own[key]} here" for key in own if kept.get(key, own[key]) != own[key]]
    if differing:
        raise ValueError(
            f"fit: the checkpoint {path} is of another run ({'; '.join(differing)}). Resume with the config it was "
            "made with, or start in a new folder."
        )
    run.batches.load_state_dict(numbers["batches"])
    for prefix, state in (("model.", run.model.state_dict()), ("average.", run.average)):
        for name, value in state.items():
            value.copy_(split_like(tensors.get(prefix + name, tensors["model." + name]), value))
    checkpoint.restore_optimizers(run.optimizers, tensors)
    for parameter, moments in (pair for optimizer in run.optimizers for pair in optimizer.state.items()):
        moments.update({name: split_like(value, parameter) for name, value in moments.items()})
    run.rng.set_state(tensors["rng"])
    torch.set_rng_state(tensors["rng_torch"])
    if "rng_cuda" in tensors and run.accelerator.device.type == "cuda":
        torch.cuda.set_rng_state(tensors["rng_cuda"], run.accelerator.device)
    run.steps_done = numbers["step"]
    run.vary_dropout()
