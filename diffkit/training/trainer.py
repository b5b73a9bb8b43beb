"""The training loop, in the open: `fit` yields a record after every step; its caller prints, plots or stops."""

from __future__ import annotations

import copy
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from diffkit.io import exclusive
from diffkit.model import DiffusionModel
from diffkit.network.conditioning import Conditioned, dropped
from diffkit.processes.base import Denoise
from diffkit.random import SharedGenerator
from diffkit.training import checkpoint
from diffkit.training.config import TrainConfig
from diffkit.training.losses import OBJECTIVES, TIME_SAMPLERS
from diffkit.training.muon import make_optimizers, take_step
from diffkit.training.parallel import anyone, check_launch, make_accelerator, part_of, shard, whole
from diffkit.training.pooling import counted
from diffkit.training.prefetch import prefetched
from diffkit.training.resume import load_run, save_run
from diffkit.training.session import asked_to_stop, denormals_flushed

if TYPE_CHECKING:
    from diffkit.data.batches import Batches  # its libraries take seconds to import

REMEDY = "The last checkpoint is sound: lower the learning rate, lengthen the warm-up or clip harder, and resume."
LabelOf = Callable[[Tensor], Tensor]
Validate = Callable[[DiffusionModel], float]


class TrainingDiverged(FloatingPointError):
    """The loss stopped being a number."""


class Record(NamedTuple):
    """What one step did."""

    step: int  # steps done
    loss: float  # of the objective, nats per token
    grad_norm: float
    lr: float
    tokens_per_second: float
    validation: float | None = None  # what `validate` returned, if it was called at this step


class Trainer:
    """A run in progress: model, averaged weights, optimizers, random states, position in the data. Args: as `fit`."""

    def __init__(
        self,
        model: DiffusionModel,
        batches: Batches,
        config: TrainConfig,
        accelerator: Accelerator,
        label_of: LabelOf | None = None,
    ):
        check_launch(accelerator)
        self.config, self.accelerator, self.batches, self.label_of = config, accelerator, batches, label_of
        self.is_split = config.shard and accelerator.num_processes > 1
        self.model = (copy.deepcopy(model) if self.is_split else model).to(accelerator.device)
        self.model.zero_grad(set_to_none=True)  # an earlier run may have left some
        if self.is_split:
            shard(self.model)
        network = torch.compile(self.model) if config.compile else self.model
        self.network: Any = network if self.is_split else accelerator.prepare(network)
        self.optimizers = make_optimizers(self.model, config)
        named = self.model.named_parameters(remove_duplicate=False)  # a tied weight under each of its names
        self.weights = {name: p.detach() for name, p in named}
        self.average = {name: p.clone() for name, p in self.weights.items()} if config.ema else {}
        self.rng = SharedGenerator(accelerator.process_index, accelerator.num_processes)
        self.rng.manual_seed(config.seed)
        self.source = prefetched(batches) if accelerator.device.type == "cuda" else ((x0, None) for x0 in batches)
        self.position: dict[str, Any] | None = None  # of the last batch used, where others were made ahead
        self.steps_done = self.tokens = 0  # tokens of the last step
        self.vary_dropout()

    def step(self) -> tuple[float, float]:
        """One optimizer step; returns the loss in nats per token and the gradient norm.

        Raises: TrainingDiverged, with the weights as they were before the step.
        """
        config = self.config
        taken = [next(self.source) for _ in range(config.accumulate)]  # each (B, L), the same on all processes
        batches, self.position = [x0 for x0, _ in taken], taken[-1][1]
        self.tokens, rows = sum(x0.numel() for x0 in batches), [len(x0) for x0 in batches]
        latest = max(1, round(config.curriculum.reach(self.steps_done / config.steps) * self.model.process.T))
        times = TIME_SAMPLERS[config.times](sum(rows), latest, self.rng).split(rows)
        mean = self._backward(batches, times)
        length = whole({"": nn.utils.clip_grad_norm_(self.network.parameters(), config.clip)})[""]
        loss, norm = torch.stack([mean, length]).tolist()  # all that a step reads from the device
        if not math.isfinite(loss + norm):
            raise TrainingDiverged(
                f"fit: loss {loss:g} and gradient norm {norm:g} at step {self.steps_done + 1}, which ends with batch "
                f"{(self.steps_done + 1) * config.accumulate} of the run. {REMEDY}"
            )
        take_step(self.optimizers, config.lr_scale(self.steps_done))
        if self.average:
            decay = min(config.ema, (1 + self.steps_done) / (10 + self.steps_done))  # short runs forget their start
            torch._foreach_lerp_([*self.average.values()], [*self.weights.values()], 1 - decay)
        self.steps_done += 1
        return loss, norm

    def _backward(self, batches: list[Tensor], times: Sequence[Tensor]) -> Tensor:
        """Add up the gradients of a step's batches and return the mean loss, as if they were one: see `counted`."""
        process, device = self.model.process, self.accelerator.device
        means: list[Tensor] = []
        counts: list[Tensor] = []
        self.network.train()
        for x0, t in zip(batches, times, strict=True):
            x0, t = part_of(x0, self.rng), part_of(t, self.rng)
            denoise = self._conditioned(x0)
            x0, t = (x.to(device, non_blocking=True) for x in (x0, t))
            is_last = len(means) == len(batches) - 1  # then the processes add up their gradients
            with nullcontext() if is_last else self.accelerator.no_sync(self.network), counted() as found:
                with torch.autocast(device.type, dtype=torch.bfloat16, enabled=self.config.precision == "bf16"):
                    nats = OBJECTIVES[self.config.objective](process, denoise, x0, t, self.rng)  # corrupts, predicts
                counts.append(found[0] if found else torch.ones((), device=device))
                share = counts[-1] / counts[0].clamp(min=1)  # 1 for a single batch
                self.accelerator.backward(nats * share)
            means.append(nats.detach() * share)
        total = (torch.stack(counts).sum() / counts[0].clamp(min=1)).clamp(min=1e-9)
        for p in (p for p in self.network.parameters() if p.grad is not None and len(batches) > 1):
            p.grad /= total
        return self.accelerator.reduce(torch.stack(means).sum() / total, "mean")

    def _conditioned(self, x0: Tensor) -> Denoise:
        """The network, given the labels of these texts if it takes any; some labels are hidden from it."""
        if self.label_of is None:
            return self.network
        labels = dropped(self.label_of(x0), self.config.drop_label, self.model.labels, self.rng)
        return Conditioned(self.network, labels.to(self.accelerator.device, non_blocking=True))

    def vary_dropout(self) -> None:
        """Let other processes than the first drop other activations."""
        if self.rng.rank:
            torch.manual_seed(hash((self.config.seed, self.steps_done, self.rng.rank)))

    @contextmanager
    def averaged(self) -> Iterator[DiffusionModel]:
        """The model with the averaged weights, to be judged; its own come back afterwards."""
        own = {name: self.weights[name].clone() for name in self.average}
        try:
            for name, value in self.average.items():
                self.weights[name].copy_(value)
            yield self.model.eval()
        finally:
            for name, value in own.items():
                self.weights[name].copy_(value)

    def result(self) -> dict[str, Tensor]:
        """The state of the model to ship: averaged weights, or the last ones without averaging."""
        return whole(self.model.state_dict() | self.average)


def fit(
    model: DiffusionModel,
    batches: Batches,
    config: TrainConfig,
    *,
    folder: str | Path | None = None,
    resume: bool = False,
    validate: Validate | None = None,
    accelerator: Accelerator | None = None,
    label_of: LabelOf | None = None,
) -> Iterator[Record]:
    """Train a model, yielding a Record after every step; leave the loop to stop.

    However the loop ends, the model then holds the averaged weights. Leaving it saves the step that was done. Ctrl-C or
    a request to terminate ends the run after the current step, saved; a second one ends it at once.

    Noise depends on the seed, the step and the row, whatever the number of processes. It changes with the rows of a
    step, over which times are spread evenly, and, where an objective draws twice (counts, labels), with its batches.

    Args:    folder: where checkpoints go, every `save_every` steps and at the end; None keeps nothing.
             resume: go on from the newest checkpoint in `folder`, if there is one; on the same CPU, bit for bit.
             validate: called with the averaged model every `validate_every` steps and at the end.
             accelerator: what to run on; whatever accelerate finds if None.
             label_of: (B, L) ids to their labels (B,), for a conditional model.
    Raises:  TrainingDiverged when a loss or gradient is NaN or infinite, the last checkpoint kept; ValueError for an
             objective of another process, a checkpoint of another run, a folder that holds a run and resume is off, or
             one where a run is at work.
    """
    folder = Path(folder).expanduser() if folder else None
    newest = checkpoint.latest_checkpoint(folder) if folder else None
    if newest and not resume:
        raise ValueError(f"fit: {folder} already holds a run ({newest.name}). Resume it, or choose another folder.")
    if config.objective not in model.process.objectives:
        raise ValueError(
            f"fit: objective {config.objective!r} is made for another process; {type(model.process).__name__} can be "
            f"trained with one of {[*model.process.objectives]}."
        )
    accelerator = accelerator or make_accelerator(mixed_precision="no")
    with exclusive(folder) if folder and accelerator.is_main_process else nullcontext():
        trainer = Trainer(model, batches, config, accelerator, label_of)
        if newest:
            load_run(trainer, newest)
        try:
            with denormals_flushed(), asked_to_stop() as stop:
                yield from _steps(trainer, stop, folder, validate)
        finally:
            trainer.source.close()
            model.load_state_dict(trainer.result())
            model.eval()


def _steps(trainer: Trainer, stop: threading.Event, folder: Path | None, validate: Validate | None) -> Iterator[Record]:
    """The loop itself: step, validate, yield, save."""
    config, saved = trainer.config, trainer.steps_done
    while trainer.steps_done < config.steps and not anyone(stop.is_set(), trainer.accelerator):
        started = time.perf_counter()
        loss, norm = trainer.step()
        speed = trainer.tokens / (time.perf_counter() - started)
        step = trainer.steps_done
        is_last, bound = step == config.steps, None
        if validate and (is_last or step % config.validate_every == 0):
            try:
                with trainer.averaged() as model:
                    bound = validate(model)
                if math.isnan(bound):
                    raise FloatingPointError(f"validate returned {bound}")
            except FloatingPointError as error:
                raise TrainingDiverged(f"fit: the held-out bound at step {step} is not a number. {REMEDY}") from error
        due = is_last or step % config.save_every == 0
        try:  # yield first, then save: a log that follows the records never lacks a step that was saved
            yield Record(step, loss, norm, config.lr * config.lr_scale(step - 1), speed, bound)
        except GeneratorExit:  # the caller leaves the loop, as a stop button does: no step is lost
            due = True
            raise
        finally:
            if folder and due:
                save_run(trainer, folder)
                saved = step
    if folder and saved < trainer.steps_done:  # asked to stop, perhaps while the caller held the record
        save_run(trainer, folder)
