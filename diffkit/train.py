"""The training loop, in the open: `fit` yields a record after every step; its caller prints, plots or stops."""

from __future__ import annotations

import copy
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm.auto import tqdm

from diffkit.backbone import denormals_flushed
from diffkit.checkpoint import (
    claimed,
    drop_checkpoints,
    latest_checkpoint,
    load_checkpoint,
    optimizer_state,
    restore_optimizers,
    save_checkpoint,
)
from diffkit.diffusion import Denoise
from diffkit.draws import SharedGenerator
from diffkit.labels import Conditioned, dropped
from diffkit.model import DiffusionModel
from diffkit.muon import Muon
from diffkit.objectives import OBJECTIVES, TIME_LAWS, check_objective
from diffkit.parallel import anyone, check_launch, load_whole, part_of, shard, split_moments, whole
from diffkit.recipe import Curriculum, TrainSettings

if TYPE_CHECKING:
    from diffkit.data import Batches  # its libraries take seconds to import

__all__ = ["Curriculum", "Record", "TrainSettings", "TrainState", "TrainingDiverged", "asked_to_stop", "fit"]
__all__ += ["make_optimizers", "with_progress"]

KEPT_CHECKPOINTS = 2
REMEDY = "The last checkpoint is sound: lower the learning rate, lengthen the warm-up or clip harder, and resume."
LabelOf = Callable[[Tensor], Tensor]


class Record(NamedTuple):
    """What one step did."""

    step: int  # steps done
    loss: float  # of the objective, nats per token
    grad_norm: float
    lr: float
    tokens_per_second: float
    validation: float | None = None  # what `validate` said, if it was asked at this step


class TrainingDiverged(RuntimeError):
    """The loss stopped being a number."""


def make_optimizers(model: nn.Module, settings: TrainSettings) -> list[torch.optim.Optimizer]:
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
        settings: TrainSettings,
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
                group["lr"] = group["full_lr"] * self.settings.warmth(self.step)
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
        times = TIME_LAWS[settings.times](len(batch), max(1, round(reach * process.T)), self.rng)
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


@contextmanager
def asked_to_stop() -> Iterator[threading.Event]:
    """An event that Ctrl-C or a request to terminate sets, instead of breaking off in the middle of a step.

    The second request breaks off at once.
    """
    stop = threading.Event()

    def ask(*_: Any) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    signals = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
    before = {number: signal.signal(number, ask) for number in signals}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def fit(
    model: DiffusionModel,
    batches: Batches,
    settings: TrainSettings,
    *,
    folder: Path | None = None,
    resume: bool = False,
    validate: Callable[[DiffusionModel], float] | None = None,
    accelerator: Accelerator | None = None,
    label_of: LabelOf | None = None,
) -> Iterator[Record]:
    """Train a model, yielding a Record after every step; leave the loop to stop.

    However the loop ends, the model then holds the averaged weights. Leaving it saves the step that was done. Ctrl-C or
    a request to terminate ends the run after the current step, saved; a second one ends it at once.

    Args:    folder: where checkpoints go, every `save_every` steps and at the end; None keeps nothing.
             resume: go on from the newest checkpoint in `folder`, if there is one; on the same CPU, bit for bit.
             validate: called with the averaged model every `validate_every` steps and at the end.
             accelerator: what to run on; whatever accelerate finds if None.
             label_of: (B, L) ids to their labels (B,), for a conditional model.
    Raises:  TrainingDiverged when a loss or gradient is NaN or infinite, the last checkpoint kept; ValueError for a
             checkpoint of another run, a folder that holds a run and resume is off, or one where a run is at work.
    """
    newest = latest_checkpoint(folder) if folder else None
    if newest and not resume:
        raise ValueError(f"fit: {folder} already holds a run ({newest.name}). Resume it, or choose another folder.")
    check_objective(settings.objective, model.process)
    accelerator = accelerator or Accelerator(mixed_precision="no")
    with claimed(folder) if folder and accelerator.is_main_process else nullcontext():
        state = TrainState(model, batches, settings, accelerator, label_of)
        if newest:
            state.load(newest)
        try:
            with denormals_flushed(), asked_to_stop() as stop:
                yield from _steps(state, stop, folder, validate)
        finally:
            model.load_state_dict(whole(state.best().state_dict()))
            model.eval()


def _steps(
    state: TrainState,
    stop: threading.Event,
    folder: Path | None,
    validate: Callable[[DiffusionModel], float] | None,
) -> Iterator[Record]:
    """The loop itself: step, validate, tell, save."""
    settings, saved = state.settings, state.step
    while state.step < settings.steps and not anyone(stop.is_set(), state.accelerator):
        started = time.perf_counter()
        loss, norm = state.advance()
        speed = state.tokens / (time.perf_counter() - started)
        last = state.step == settings.steps
        value = None
        if validate and (last or state.step % settings.validate_every == 0):
            with torch.random.fork_rng(devices=[]):  # what it draws must not differ between a whole and a resumed run
                value = validate(state.best().eval())
            if math.isnan(value):
                raise TrainingDiverged(f"fit: the held-out bound at step {state.step} is no number. {REMEDY}")
        due = last or state.step % settings.save_every == 0
        try:  # tell first, then save: a log that follows the records never lacks a step that was saved
            yield Record(state.step, loss, norm, settings.lr * settings.warmth(state.step - 1), speed, value)
        except GeneratorExit:  # the caller leaves the loop, as a stop button does: no step is lost
            due = True
            raise
        finally:
            if folder and due:
                state.save(folder)
                saved = state.step
    if folder and saved < state.step:  # asked to stop, perhaps while the caller held the record
        state.save(folder)


def with_progress(records: Iterator[Record], settings: TrainSettings) -> Iterator[Record]:
    """The same records, with a progress bar: loss, tokens per second, time left. A resumed run starts where it was."""
    for first in records:
        with tqdm(total=settings.steps, initial=first.step - 1, unit="step", dynamic_ncols=True) as bar:
            for record in chain([first], records):
                bar.set_postfix_str(f"loss {record.loss:.3f}, {record.tokens_per_second:,.0f} tokens/s", refresh=False)
                bar.update()
                yield record
