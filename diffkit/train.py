"""The training loop, in the open: `fit` yields a record after every step, and whoever calls it prints, plots or stops."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import torch
from accelerate import Accelerator
from torch import Generator, Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm.auto import tqdm

from diffkit.checkpoint import latest_checkpoint, load_checkpoint, optimizer_state, restore_optimizers, save_checkpoint
from diffkit.diffusion import Denoise, MaskedDiffusion
from diffkit.model import DiffusionModel
from diffkit.noise import corrupt_count

KEPT_CHECKPOINTS = 2


class Batches(Protocol):
    """An endless iterator of (B, L) int64 ids whose place can be saved (data.py)."""

    def __iter__(self) -> Iterator[Tensor]: ...
    def __next__(self) -> Tensor: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


# ------------------------------------------------------------------------------------------------------- which times, which loss


def low_discrepancy(B: int, T: int, rng: Generator) -> Tensor:
    """(B,) whole times in 1..T, one from each of B equal slices of the axis: each is uniform, and the batch is spread evenly.

    Source: arXiv:2107.00630, appendix on low-discrepancy sampling; the MDLM code calls this form "antithetic".
    """
    u = (torch.arange(B) + torch.rand(B, generator=rng, dtype=torch.float64)) / B
    return (u * T).long().clamp(max=T - 1) + 1


def uniform(B: int, T: int, rng: Generator) -> Tensor:
    """(B,) whole times in 1..T, independent."""
    return torch.randint(1, T + 1, (B,), generator=rng)


TIME_LAWS = {"low_discrepancy": low_discrepancy, "uniform": uniform}


def cross_entropy(process: MaskedDiffusion, denoise: Denoise, x0: Tensor, t: Tensor, rng: Generator) -> Tensor:
    """Mean cross-entropy of the masked tokens of the whole batch: the simplest objective; not a bound, and not to be reported."""
    xt, is_masked = process.corrupt(x0, t, rng)
    return process.token_loss(denoise, x0, xt, t).sum() / is_masked.sum().clamp(min=1)


def sequence_mean(process: MaskedDiffusion, denoise: Denoise, x0: Tensor, t: Tensor, rng: Generator) -> Tensor:
    """Mean within each sequence, then over sequences: with the linear schedule its mean is the bound per token (up to 1/T)."""
    xt, is_masked = process.corrupt(x0, t, rng)
    return (process.token_loss(denoise, x0, xt, t).sum(1) / is_masked.sum(1).clamp(min=1)).mean()


def bound(process: Any, denoise: Denoise, x0: Tensor, t: Tensor, rng: Generator) -> Tensor:
    """The bound on the negative log-likelihood, nats per token: every part, weighted as the mathematics says."""
    return torch.stack(process.loss(denoise, x0, t, rng)).sum(0).mean()


def _counts(process: MaskedDiffusion, x0: Tensor, t: Tensor) -> Tensor:
    """How many tokens to mask at time t: the expected number, rounded up, (B,)."""
    return (process.schedule.gamma(t) * x0.shape[1]).ceil().long().clamp(min=1)


def count_cross_entropy(process: MaskedDiffusion, denoise: Denoise, x0: Tensor, t: Tensor, rng: Generator) -> Tensor:
    """As cross_entropy, with the number of masks fixed to its expectation: the same gradient on average, with less noise."""
    count = _counts(process, x0, t)
    xt, _ = corrupt_count(x0, count.to(x0.device), mask_id=process.mask_id, rng=rng)
    return process.token_loss(denoise, x0, xt, t).sum() / count.sum()


def count_bound(process: MaskedDiffusion, denoise: Denoise, x0: Tensor, t: Tensor, rng: Generator) -> Tensor:
    """The exact-count bound, nats per token: unbiased for the bound when the schedule is linear (counts then are uniform)."""
    return process.count_loss(denoise, x0, _counts(process, x0, t), rng).mean()


OBJECTIVES = {
    objective.__name__: objective for objective in (cross_entropy, sequence_mean, bound, count_cross_entropy, count_bound)
}


@dataclass(frozen=True)
class Curriculum:
    """Mask-rate curriculum: times come from (0, start * T] at first, and the range then widens to (0, T].

    Hiding little first is how a small network finds that two distant places say the same thing; see notebook 05.
    Shares of the whole run: `hold` at the starting range, then `ramp` to widen it. The default is no curriculum.
    """

    start: float = 1.0
    hold: float = 0.0
    ramp: float = 0.0

    def reach(self, progress: float) -> float:
        """Largest t / T to draw after this share of the run."""
        if progress < self.hold:
            return self.start
        return min(1.0, self.start + (1 - self.start) * (progress - self.hold) / max(self.ramp, 1e-9))


@dataclass(frozen=True)
class TrainSettings:
    """How to train. Rates are per optimiser step, one step being `accumulate` batches."""

    steps: int = 2000
    objective: str = "cross_entropy"  # a name from OBJECTIVES
    times: str = "low_discrepancy"  # a name from TIME_LAWS
    curriculum: Curriculum = field(default_factory=Curriculum)
    optimizer: Literal["adamw", "muon"] = "adamw"  # muon: for the matrices, with AdamW for the rest
    lr: float = 3e-4
    muon_lr: float = 1e-2  # for the matrices that Muon trains
    weight_decay: float = 0.01
    warmup: int = 1000  # steps
    decay: float = 0.0  # share of the run, at its end, over which the rate falls to zero along a half cosine
    clip: float = 1.0  # largest gradient norm
    accumulate: int = 1
    ema: float = 0.999  # weight of the past in the averaged weights; 0 turns averaging off
    precision: Literal["no", "bf16", "fp16"] = "no"
    save_every: int = 500  # steps
    validate_every: int = 500  # steps
    seed: int = 0

    def __post_init__(self) -> None:
        for name, table in (("objective", OBJECTIVES), ("times", TIME_LAWS)):
            if getattr(self, name) not in table:
                raise ValueError(f"TrainSettings: {name} must be one of {sorted(table)}, got {getattr(self, name)!r}.")
        if min(self.steps, self.accumulate, self.save_every, self.validate_every) < 1 or self.lr <= 0:
            raise ValueError("TrainSettings: steps, accumulate, save_every, validate_every and lr must be positive.")

    def warmth(self, step: int) -> float:
        """Share of the full learning rate at a step (0 is the first): linear warm-up, constant, cosine decay."""
        left = (self.steps - step) / max(1.0, self.decay * self.steps)
        return min(1.0, (step + 1) / max(1, self.warmup)) * (0.5 - 0.5 * math.cos(math.pi * min(1.0, left)))


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
    """AdamW for all, or Muon for the matrices inside the network and AdamW for embeddings, biases and norms.

    Source: arXiv:1711.05101 (AdamW); Jordan et al. 2024 and arXiv:2502.16982 (Muon, with its step scaled like AdamW's).
    """
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    inner = [p for name, p in named if settings.optimizer == "muon" and p.ndim == 2 and "embedding" not in name]
    outer = [p for _, p in named if all(p is not q for q in inner)]
    decayed, kept = [p for p in outer if p.ndim > 1], [p for p in outer if p.ndim < 2]
    groups = [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": kept, "weight_decay": 0.0}]
    optimizers: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, lr=settings.lr, betas=(0.9, 0.98))]
    if inner:
        step_like_adamw = {"weight_decay": settings.weight_decay, "adjust_lr_fn": "match_rms_adamw"}
        optimizers.append(torch.optim.Muon(inner, lr=settings.muon_lr, **step_like_adamw))  # type: ignore[arg-type]
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["full_lr"] = group["lr"]
    return optimizers


class TrainState:
    """All that a run is made of, so that it can be saved in the middle and go on bit for bit."""

    def __init__(self, model: DiffusionModel, batches: Batches, settings: TrainSettings, accelerator: Accelerator):
        self.settings, self.accelerator, self.batches = settings, accelerator, batches
        self.model = model.to(accelerator.device)
        self.average = AveragedModel(self.model, multi_avg_fn=get_ema_multi_avg_fn(settings.ema))
        self.network, *self.optimizers = accelerator.prepare(self.model, *make_optimizers(self.model, settings))
        self.rng = Generator().manual_seed(settings.seed + accelerator.process_index)
        self.step = self.tokens = 0  # steps done; tokens of the last one

    def advance(self) -> tuple[float, float]:
        """One optimiser step; returns (loss in nats per token, gradient norm)."""
        settings, process = self.settings, self.model.process
        reach = settings.curriculum.reach(self.step / settings.steps)
        self.network.train()
        losses, self.tokens = [], 0
        for _ in range(settings.accumulate):
            x0 = next(self.batches).to(self.accelerator.device)
            t = TIME_LAWS[settings.times](len(x0), max(1, round(reach * process.T)), self.rng).to(x0.device)
            with self.accelerator.autocast():
                loss = OBJECTIVES[settings.objective](process, self.network, x0, t, self.rng)
            self.accelerator.backward(loss / settings.accumulate)
            losses.append(loss.detach())
            self.tokens += x0.numel() * self.accelerator.num_processes
        loss = torch.stack(losses).mean()
        if not torch.isfinite(loss):
            raise TrainingDiverged(
                f"fit: the loss became {loss.item()} at step {self.step + 1}. The weights before it are in the last "
                "checkpoint; lower the learning rate, lengthen the warm-up or clip harder, and resume."
            )
        norm = self.accelerator.clip_grad_norm_(self.network.parameters(), settings.clip)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["full_lr"] * settings.warmth(self.step)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.average.update_parameters(self.model)
        self.step += 1
        return loss.item(), float(norm)

    def best(self) -> DiffusionModel:
        """The model to judge and to ship: averaged weights, or the current ones where averaging is off."""
        return self.average.module if self.settings.ema else self.model  # type: ignore[return-value]

    def save(self, folder: Path) -> Path:
        """Write a checkpoint under a run's folder and drop all but the newest two."""
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        tensors |= {f"average.{name}": value for name, value in self.average.state_dict().items()}
        tensors |= optimizer_state(self.optimizers)
        tensors |= {"rng": self.rng.get_state(), "rng_torch": torch.get_rng_state()}
        path = folder / f"step-{self.step:07d}"
        numbers = {"step": self.step, "batches": self.batches.state_dict(), "settings": asdict(self.settings)}
        save_checkpoint(path, tensors, numbers)
        for old in sorted(folder.glob("step-*"))[:-KEPT_CHECKPOINTS]:
            for file in old.iterdir():
                file.unlink()
            old.rmdir()
        return path

    def load(self, path: Path) -> None:
        """Go back to a checkpoint. Raises ValueError if it belongs to another model."""
        tensors, numbers = load_checkpoint(path)
        for prefix, module in (("model.", self.model), ("average.", self.average)):
            weights = {name.removeprefix(prefix): v for name, v in tensors.items() if name.startswith(prefix)}
            try:
                module.load_state_dict(weights)
            except RuntimeError as error:
                raise ValueError(
                    f"fit: the checkpoint {path} is of another model ({str(error).splitlines()[0]}). Resume with the "
                    "config it was made with, or start in a new folder."
                ) from error
        restore_optimizers(self.optimizers, tensors)
        self.rng.set_state(tensors["rng"])
        torch.set_rng_state(tensors["rng_torch"])
        self.batches.load_state_dict(numbers["batches"])
        self.step = numbers["step"]


@contextmanager
def asked_to_stop() -> Iterator[threading.Event]:
    """An event that Ctrl-C or a request to terminate sets, instead of breaking off in the middle of a step."""
    stop = threading.Event()
    signals = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in signals}
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
) -> Iterator[Record]:
    """Train a model, yielding a Record after every step; leave the loop to stop. At the end the model holds the averaged weights.

    Args:    folder: where checkpoints go, every `save_every` steps and at the end; None keeps nothing.
             resume: go on from the newest checkpoint in `folder`, if there is one.
             validate: called with the averaged model every `validate_every` steps and at the end.
    Raises:  TrainingDiverged when the loss is NaN or infinite, the last checkpoint kept; ValueError for a checkpoint of another
             model, or a folder that holds a run and resume is off.
    Ctrl-C or a terminate signal ends the run after the current step, saved.
    """
    torch.set_flush_denormal(True)  # CPUs multiply denormal gradients many times slower
    state = TrainState(model, batches, settings, accelerator or Accelerator(mixed_precision=settings.precision))
    newest = latest_checkpoint(folder) if folder else None
    if newest and not resume:
        raise ValueError(f"fit: {folder} already holds a run ({newest.name}). Resume it, or choose another folder.")
    if newest:
        state.load(newest)
    with asked_to_stop() as stop:
        while state.step < settings.steps and not stop.is_set():
            started = time.perf_counter()
            loss, norm = state.advance()
            speed = state.tokens / (time.perf_counter() - started)
            last = state.step == settings.steps or stop.is_set()
            if folder and state.accelerator.is_main_process and (last or state.step % settings.save_every == 0):
                state.save(folder)
            judge = validate and (last or state.step % settings.validate_every == 0)
            value = validate(state.best().eval()) if judge and validate else None
            yield Record(state.step, loss, norm, settings.lr * settings.warmth(state.step - 1), speed, value)
    model.load_state_dict(state.best().state_dict())
    model.eval()


def with_progress(records: Iterator[Record], settings: TrainSettings, done: int = 0) -> Iterator[Record]:
    """The same records, with a progress bar: loss, tokens per second, time left."""
    with tqdm(total=settings.steps, initial=done, unit="step", dynamic_ncols=True) as bar:
        for record in records:
            bar.update(record.step - bar.n)
            bar.set_postfix(loss=f"{record.loss:.3f}", tokens_per_s=f"{record.tokens_per_second:,.0f}")
            yield record
