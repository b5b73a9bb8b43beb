"""What more buys: size, steps, data and length against the gap to the known entropy, for the masked model and its twin.

    make sweep                              # all points, about 70 minutes on one core; stop and go on as you like
    python benchmarks/scaling.py --list     # what there is, and what is done

Every point is a training run of its own, with its own decay of the learning rate to zero, so no point is a run broken off.
One row a point goes to results/scaling.csv with the settings that made it; points that stand there are not run again, and
a point that was interrupted resumes from its checkpoint under runs/scaling. Notebook 11 reads the table.

The gap is measured on fresh stories, paired with the exact denoiser on the same stories and masks. A model of length n reads
the first n tokens of every story; their exact probability is known as well.
"""

from __future__ import annotations

import argparse
import csv
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from datasets import Dataset
from torch import Generator, Tensor

from diffkit.autoregressive import Autoregressive
from diffkit.data import ChunkBatches
from diffkit.diffusion import MaskedDiffusion
from diffkit.evaluate import Estimate, mean_of, sequence_bounds
from diffkit.language import StoryLanguage, load_language
from diffkit.model import DiffusionModel, build_model, parameter_count
from diffkit.train import Curriculum, TrainSettings, fit, with_progress

HOME = Path(__file__).resolve().parent.parent
RESULTS = HOME / "benchmarks" / "results" / "scaling.csv"
BATCH, JUDGED, DRAWS = 64, 512, 8  # stories in a batch; fresh stories a point is judged on; maskings of each


class Point(NamedTuple):
    """One run."""

    process: str  # mdlm or autoregressive
    width: int
    layers: int
    steps: int
    stories: int  # different stories to learn from; 0: a fresh one every time
    length: int  # tokens read of each story

    def name(self) -> str:
        """Its folder."""
        return "-".join(f"{key[0]}{value}" for key, value in self._asdict().items())


def points() -> list[Point]:
    """The design: one axis at a time from one middle point, and steps beside size for the frontier."""
    shapes = {32: 2, 48: 3, 64: 3, 96: 4, 128: 4}  # width: layers
    found = []
    for process, few, some, many in (("mdlm", 500, 2000, 8000), ("autoregressive", 125, 500, 2000)):
        middle = Point(process, 64, shapes[64], some, 0, 48)
        found += [middle._replace(width=width, layers=layers) for width, layers in shapes.items()]
        found += [middle._replace(width=w, layers=shapes[w], steps=n) for n in (few, many) for w in (32, 64)]
        found += [middle._replace(width=128, layers=shapes[128], steps=few)]
        found += [middle._replace(stories=n) for n in (250, 1000, 4000, 16000)]
        found += [middle._replace(length=n) for n in (12, 24, 36)]
    return sorted(found, key=lambda point: point.width**2 * point.layers * point.steps * point.length)  # cheap ones first


class Prefixes:
    """Fresh stories without end, or the same finite set again and again, cut to their first tokens."""

    def __init__(self, language: StoryLanguage, point: Point, seed: int):
        self.language, self.length, self.seed, self.position = language, point.length, seed, 0
        self.finite = None
        if point.stories:
            stories = language.sample(point.stories, Generator().manual_seed(seed))
            rows = Dataset.from_dict({"input_ids": stories[:, : point.length].numpy()})
            self.finite = ChunkBatches(rows, BATCH, seed)

    def __iter__(self) -> Prefixes:
        return self

    def __next__(self) -> Tensor:
        self.position += 1
        if self.finite is not None:
            return next(self.finite)
        rng = Generator().manual_seed(1_000_003 * self.seed + self.position)
        return self.language.sample(BATCH, rng)[:, : self.length]

    def state_dict(self) -> dict:
        """Where it stands."""
        return {"position": self.position, "finite": self.finite and self.finite.state_dict()}

    def load_state_dict(self, state: dict) -> None:
        """Go on from there."""
        self.position = state["position"]
        if self.finite is not None:
            self.finite.load_state_dict(state["finite"])


def settings_of(point: Point) -> TrainSettings:
    """The same recipe for every point of a process: the shipped models', in shorter runs."""
    shared = {"optimizer": "muon", "lr": 0.003, "muon_lr": 0.01, "warmup": 50, "save_every": 200, "steps": point.steps}
    if point.process == "autoregressive":
        return TrainSettings(objective="bound", decay=0.5, ema=0.99, **shared)
    easy_first = Curriculum(start=0.25, hold=0.15, ramp=0.25)
    return TrainSettings(objective="count_cross_entropy", curriculum=easy_first, decay=0.5, ema=0.99, **shared)


def build(point: Point, language: StoryLanguage) -> DiffusionModel:
    """A fresh model of the point's shape; heads are 16 wide."""
    words = {"vocab_size": language.vocab_size, "mask_id": language.mask_id}
    process = MaskedDiffusion(schedule="linear", **words) if point.process == "mdlm" else Autoregressive(**words)
    torch.manual_seed(0)
    shape = {"hidden_size": point.width, "num_layers": point.layers, "num_heads": point.width // 16, "tied": False}
    return build_model(process, shape, max_length=point.length)


def exact_on_prefixes(language: StoryLanguage, model: DiffusionModel, length: int) -> Callable[[Tensor, Tensor], Tensor]:
    """The exact denoiser of the first `length` tokens: what follows is hidden from it."""
    exact = language.denoiser(model.process)

    def denoise(xt: Tensor, t: Tensor) -> Tensor:
        rest = torch.full((len(xt), language.length - length), language.mask_id)
        return exact(torch.cat([xt, rest], 1), t)[:, :length]

    return denoise


def judge(model: DiffusionModel, point: Point, language: StoryLanguage) -> tuple[Estimate, float]:
    """The gap to the exact denoiser and the exact loss, both in nats per token."""
    x0 = language.sample(JUDGED, Generator().manual_seed(777))
    prefix = x0[:, : point.length]
    exact = exact_on_prefixes(language, model, point.length)
    bounds = [
        sequence_bounds(model.process, who, prefix, rng=Generator().manual_seed(778), draws=DRAWS)
        for who in (model, exact)
    ]
    hidden = x0.clone()
    hidden[:, point.length :] = language.mask_id
    return mean_of(bounds[0] - bounds[1]) / point.length, -language.log_prob(hidden).mean().item() / point.length


def run(point: Point, language: StoryLanguage) -> dict[str, object]:
    """Train and judge one point: a row of the table."""
    model, settings, batches = build(point, language), settings_of(point), Prefixes(language, point, seed=1)
    folder = HOME / "runs" / "scaling" / point.name()
    seconds = 0.0
    for record in with_progress(fit(model, batches, settings, folder=folder, resume=True), settings):
        seconds += BATCH * point.length / record.tokens_per_second
    gap, exact = judge(model, point, language)
    head = model.denoiser.head.weight.numel() + model.denoiser.head_bias.numel()
    tables = model.denoiser.token_embedding.weight.numel() + model.denoiser.position_embedding.weight.numel()
    whole = parameter_count(model)
    return point._asdict() | {
        "parameters": whole, "inner_parameters": whole - head - tables, "batch": BATCH,
        "tokens": point.steps * BATCH * point.length, "objective": settings.objective, "lr": settings.lr,
        "muon_lr": settings.muon_lr, "decay": settings.decay, "ema": settings.ema, "exact": f"{exact:.5f}",
        "gap": f"{gap.mean:.5f}", "gap_se": f"{gap.standard_error:.5f}", "seconds": round(seconds),
        "torch": torch.__version__.split("+")[0],
    }  # fmt: skip


def done(path: Path) -> dict[Point, dict[str, str]]:
    """Rows that stand in the table already."""
    if not path.exists():
        return {}
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    numbers = Point._fields[1:]
    return {Point(row["process"], *(int(row[name]) for name in numbers)): row for row in rows}


def write(path: Path, rows: list[dict]) -> None:
    """Replace the table in one go."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".part")
    with draft.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
    os.replace(draft, path)


def main() -> None:
    """Run what is missing."""
    parser = argparse.ArgumentParser(description="Size, steps, data and length against the gap to the known entropy.")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the table (default: results/scaling.csv)")
    parser.add_argument("--list", action="store_true", help="show the points, run nothing")
    options = parser.parse_args()
    language, started = load_language("tales"), time.perf_counter()
    for point in points():
        rows = done(options.out)
        if options.list:
            print("done" if point in rows else "open", point)
        elif point not in rows:
            write(options.out, [*rows.values(), run(point, language)])
            print(f"{time.perf_counter() - started:6.0f} s  {point}: gap {done(options.out)[point]['gap']}", flush=True)


if __name__ == "__main__":
    main()
