"""Training settings: steps, objective, learning rates, curriculum."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, field
from typing import Any, Literal

from diffkit.random import checked_seed
from diffkit.training.losses import OBJECTIVES, TIME_SAMPLERS

MOST = 10**9  # of anything that a run counts
LEAST, FINITE = math.ulp(0.0), sys.float_info.max
RANGES = {
    "steps": (1, MOST), "accumulate": (1, MOST), "save_every": (1, MOST), "validate_every": (1, MOST),
    "warmup": (0, MOST), "sample_every": (0, MOST), "lr": (LEAST, FINITE), "muon_lr": (LEAST, FINITE),
    "clip": (LEAST, math.inf), "weight_decay": (0, FINITE), "ema": (0, math.nextafter(1.0, 0.0)), "decay": (0, 1),
    "drop_label": (0, 1),
}  # fmt: skip


def refuse_null(settings: Any) -> None:
    """Raises: ValueError if a setting has no value, as after `steps: null` in a file."""
    for name, value in vars(settings).items():
        if value is None:
            raise ValueError(f"{type(settings).__name__}: {name} needs a value, got null. Leave the line out?")


@dataclass(frozen=True)
class Curriculum:
    """Mask-rate curriculum: times come from (0, start * T] at first, and the range then widens to (0, T].

    Masking little first is how a small network learns that two distant positions depend on each other; see notebook 05.
    The default is no curriculum.
    """

    start: float = 1.0  # first largest t / T
    hold: float = 0.0  # share of the run at that range
    ramp: float = 0.0  # share of the run over which the range widens to all of (0, T]

    def __post_init__(self) -> None:
        refuse_null(self)
        if not (0 < self.start <= 1 and 0 <= self.hold and 0 <= self.ramp and self.hold + self.ramp <= 1):
            raise ValueError(
                f"Curriculum: start must be in (0, 1], hold and ramp shares of the run with a sum up to 1; got {self}"
            )

    def reach(self, progress: float) -> float:
        """Largest t / T to draw after this share of the run."""
        if progress < self.hold:
            return self.start
        return min(1.0, self.start + (1 - self.start) * (progress - self.hold) / max(self.ramp, 1e-9))


@dataclass(frozen=True)
class TrainConfig:
    """How to train. Rates are per optimizer step, one step being `accumulate` batches."""

    steps: int = 2000  # optimizer steps of the whole run
    objective: str = "cross_entropy"  # what is minimised, a name from training/losses.py that fits the process
    times: str = "low_discrepancy"  # how t is drawn for a batch: low_discrepancy or uniform
    curriculum: Curriculum = field(default_factory=Curriculum)
    optimizer: Literal["adamw", "muon"] = "adamw"  # muon: for the matrices, with AdamW for the rest
    lr: float = 3e-4  # learning rate of AdamW after warm-up
    muon_lr: float = 1e-2  # learning rate of the matrices that Muon trains
    weight_decay: float = 0.01  # of matrices and embeddings
    warmup: int = 1000  # steps over which the rate rises from zero
    decay: float = 0.0  # share of the run, at its end, over which the rate falls to zero along a half cosine
    clip: float = 1.0  # largest gradient norm
    accumulate: int = 1  # batches to an optimizer step
    ema: float = 0.999  # weight of the past in the averaged weights, less in the first steps; 0: no average
    precision: Literal["no", "bf16"] = "no"  # bf16: the network computes in bfloat16, weights stay float32
    compile: bool = False  # torch.compile the network: slow first steps, then faster ones on a GPU
    shard: bool = False  # split the weights over several processes (FSDP); for models that no single GPU holds
    drop_label: float = 0.1  # share of the labels hidden from a conditional model, so that it can do without
    save_every: int = 500  # steps between checkpoints
    validate_every: int = 500  # steps between bounds on held-out text
    sample_every: int = 0  # steps between texts that the command line shows while it trains (0: none)
    seed: int = 0  # of weights, order, times and masks

    def __post_init__(self) -> None:
        refuse_null(self)
        checked_seed(self.seed)
        for name, names in {
            "objective": [*OBJECTIVES], "times": [*TIME_SAMPLERS], "optimizer": ["adamw", "muon"],
            "precision": ["no", "bf16"],
        }.items():  # fmt: skip
            if getattr(self, name) not in names:
                raise ValueError(f"TrainConfig: {name} must be one of {names}, got {getattr(self, name)!r}.")
        for name, (least, most) in RANGES.items():
            if not least <= getattr(self, name) <= most:
                raise ValueError(
                    f"TrainConfig: {name} must be a number in {least:g}..{most:g}, got {getattr(self, name)}."
                )

    def lr_scale(self, step: int) -> float:
        """Share of the full learning rate at a step (0 is the first): linear warm-up, constant, cosine decay."""
        left = (self.steps - step) / max(1.0, self.decay * self.steps)
        return min(1.0, (step + 1) / max(1, self.warmup)) * (0.5 - 0.5 * math.cos(math.pi * min(1.0, left)))
