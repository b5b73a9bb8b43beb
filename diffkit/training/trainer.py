"""The training loop, in the open: `fit` yields a record after every step; its caller prints, plots or stops."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from accelerate import Accelerator
from tqdm.auto import tqdm

from diffkit.io import exclusive
from diffkit.model import DiffusionModel
from diffkit.training.checkpoint import latest_checkpoint
from diffkit.training.config import Curriculum, TrainConfig
from diffkit.training.losses import check_objective
from diffkit.training.parallel import anyone, whole
from diffkit.training.state import REMEDY, LabelOf, TrainingDiverged, TrainState, make_optimizers

if TYPE_CHECKING:
    from diffkit.data.batches import Batches  # its libraries take seconds to import

__all__ = ["Curriculum", "Record", "TrainConfig", "TrainState", "TrainingDiverged", "asked_to_stop", "fit"]
__all__ += ["make_optimizers", "with_progress"]


class Record(NamedTuple):
    """What one step did."""

    step: int  # steps done
    loss: float  # of the objective, nats per token
    grad_norm: float
    lr: float
    tokens_per_second: float
    validation: float | None = None  # what `validate` said, if it was asked at this step


@contextmanager
def denormals_flushed() -> Iterator[None]:
    """Treat denormal numbers as zero while training, and only then: CPUs multiply such gradients many times slower."""
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


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
    settings: TrainConfig,
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
    with exclusive(folder) if folder and accelerator.is_main_process else nullcontext():
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
            yield Record(state.step, loss, norm, settings.lr * settings.lr_scale(state.step - 1), speed, value)
        except GeneratorExit:  # the caller leaves the loop, as a stop button does: no step is lost
            due = True
            raise
        finally:
            if folder and due:
                state.save(folder)
                saved = state.step
    if folder and saved < state.step:  # asked to stop, perhaps while the caller held the record
        state.save(folder)


def with_progress(records: Iterator[Record], settings: TrainConfig) -> Iterator[Record]:
    """The same records, with a progress bar: loss, tokens per second, time left. A resumed run starts where it was."""
    for first in records:
        with tqdm(total=settings.steps, initial=first.step - 1, unit="step", dynamic_ncols=True) as bar:
            for record in chain([first], records):
                bar.set_postfix_str(f"loss {record.loss:.3f}, {record.tokens_per_second:,.0f} tokens/s", refresh=False)
                bar.update()
                yield record
