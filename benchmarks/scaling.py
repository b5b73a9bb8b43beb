"""What more buys: size, steps, data and length against the gap to the known entropy, for the masked model and its twin.

    make sweep                                # all points, about 70 minutes on one core; stop and go on as you like
    python benchmarks/scaling.py --list       # what there is, and what is done
    python benchmarks/scaling.py --seeds 3    # the points of SEVERAL with seeds 1 to 3, about 20 minutes on one core

Every point is a training run of its own, with its own decay of the learning rate to zero; none is a run broken off.
One row a point goes to results/scaling.csv with the settings that made it; points that stand there are not run again,
and a point that was interrupted resumes from its checkpoint under runs/scaling. Notebook 11 reads the table.

The gap is measured on fresh stories, paired with the exact denoiser on the same stories and masks. A model of length n
reads the first n tokens of every story; their exact probability is known as well.

Seed 1, the one of results/scaling.csv, is the stories' seed; weights and masks have the one before it. Points with
several seeds go to results/scaling_seeds.csv.
"""

from __future__ import annotations

import argparse
import csv
import io
import time
from pathlib import Path

import torch

from diffkit.cli.train import with_progress
from diffkit.course.experiments.scaling import (
    BATCH,
    Point,
    Prefixes,
    build_point,
    evaluate_point,
    parameter_counts,
    train_config,
)
from diffkit.io import write_atomic
from diffkit.languages.story_language import StoryLanguage, load_language
from diffkit.training.trainer import fit

HOME = Path(__file__).resolve().parent.parent
RESULTS = HOME / "benchmarks" / "results" / "scaling.csv"
SEEDS = RESULTS.with_name("scaling_seeds.csv")
_twin = Point("autoregressive", 64, 3, 500, 0, 48)
SEVERAL = (  # cheap enough for several seeds, the questions of notebook 11 first
    _twin, _twin._replace(stories=16000), _twin._replace(width=32, layers=2), _twin._replace(width=48),
    _twin._replace(length=12), _twin._replace(length=24), _twin._replace(length=36),
    Point("mdlm", 32, 2, 500, 0, 48), _twin._replace(steps=125), _twin._replace(stories=4000),
    _twin._replace(stories=1000), Point("mdlm", 64, 3, 500, 0, 48), _twin._replace(width=96, layers=4),
)  # fmt: skip


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
    return sorted(
        found, key=lambda point: point.width**2 * point.layers * point.steps * point.length
    )  # cheap ones first


def run(point: Point, language: StoryLanguage, seed: int = 1) -> dict[str, object]:
    """Train and judge one point: a row of the table."""
    model, settings = build_point(point, language, seed - 1), train_config(point, seed - 1)
    batches, folder = Prefixes(language, point, seed), HOME / "runs" / "scaling" / f"{point.name()}-seed{seed}"
    last = 0
    for record in with_progress(fit(model, batches, settings, folder=folder, resume=True), settings):
        last = record.step
    if last and last < point.steps:
        raise SystemExit(f"scaling: stopped at step {last} of {point.steps}; run again to go on. Nothing was judged.")
    gap, exact = evaluate_point(model, point, language)
    whole, inner = parameter_counts(model)
    return point._asdict() | {
        "parameters": whole, "inner_parameters": inner, "batch": BATCH,
        "tokens": point.steps * BATCH * point.length, "objective": settings.objective, "lr": settings.lr,
        "muon_lr": settings.muon_lr, "decay": settings.decay, "ema": settings.ema, "exact": f"{exact:.5f}",
        "gap": f"{gap.mean:.5f}", "gap_se": f"{gap.standard_error:.5f}", "torch": torch.__version__.split("+")[0],
    }  # fmt: skip


def done(path: Path) -> dict[Point, dict[str, str]]:
    """Rows that stand in the table already."""
    if not path.exists():
        return {}
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    numbers = Point._fields[1:]
    return {Point(row["process"], *(int(row[name]) for name in numbers)): row for row in rows}


def run_seeds(seeds: int, language: StoryLanguage, path: Path) -> None:
    """The points of SEVERAL with seeds 1 to `seeds`, every row written as it is done; none is run twice."""
    rows: list[dict] = []
    if path.exists():
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    for point in SEVERAL:
        for seed in range(1, seeds + 1):
            key = {name: str(value) for name, value in {**point._asdict(), "seed": seed}.items()}
            if any(all(row[name] == value for name, value in key.items()) for row in rows):
                continue
            started = time.process_time()
            row = {"seed": str(seed), **{name: str(value) for name, value in run(point, language, seed).items()}}
            rows.append(row | {"cpu_seconds": f"{time.process_time() - started:.0f}"})
            write(path, rows)
            print(f"{rows[-1]['cpu_seconds']:>5} s  seed {seed}  {point}: gap {row['gap']}", flush=True)


def write(path: Path, rows: list[dict]) -> None:
    """Replace the table in one go."""
    text = io.StringIO()
    table = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    write_atomic(path, text.getvalue())


def main() -> None:
    """Run what is missing."""
    parser = argparse.ArgumentParser(description="Size, steps, data and length against the gap to the known entropy.")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the table (default: results/scaling.csv)")
    parser.add_argument("--list", action="store_true", help="show the points, run nothing")
    parser.add_argument("--seeds", type=int, default=0, help="run the points of SEVERAL with so many seeds")
    options = parser.parse_args()
    if options.seeds:
        run_seeds(options.seeds, load_language("tales"), SEEDS)
        return
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
