"""What more buys: size, steps, data and length against the gap to the known entropy, for the masked model and its twin.

    make sweep                                # all points, some three hours of one core; stop and go on as you like
    python benchmarks/scaling.py --list       # what there is, and what is done
    python benchmarks/scaling.py --seeds 1    # one seed of each point; a second process may take the others meanwhile

Every point is a training run of its own, with its own decay of the learning rate to zero; none is a run broken off.
Every seed of a point is one row of results/scaling.csv with the settings that made it; what stands there is not run
again, and what was interrupted resumes from its checkpoint under runs/scaling. Notebook 11 reads the table.

The gap is measured on fresh stories, paired with the exact denoiser on the same stories and masks. A model of length n
reads the first n tokens of every story; their exact probability is known as well.
"""

from __future__ import annotations

import argparse
import csv
import io
import time
from pathlib import Path
from typing import Any

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
SEEDS = (1, 2, 3)  # of stories; weights and masks have the one before
LONG = 40e6  # width^2 x layers x steps from which a point has one seed: more than five minutes


def cost(point: Point) -> float:
    """Proportional to the seconds of a run."""
    return point.width**2 * point.layers * point.steps * point.length / 48


def points() -> list[Point]:
    """The design, cheap first: one axis at a time from one middle point, and steps beside size for the frontier."""
    shapes = {32: 2, 48: 3, 64: 3, 96: 4, 128: 4}  # width: layers
    found = []
    for process, few, some, many in (("mdlm", 400, 1600, 6400), ("autoregressive", 125, 500, 2000)):
        middle = Point(process, 64, shapes[64], some, 0, 48)
        found += [middle._replace(width=width, layers=layers) for width, layers in shapes.items()]
        found += [middle._replace(width=w, layers=shapes[w], steps=n) for n in (few, many) for w in (32, 64)]
        found += [middle._replace(stories=n) for n in (250, 1000, 4000)]
        found += [middle._replace(length=n) for n in (12, 24, 36)]
    return sorted(found, key=cost)


def run(point: Point, language: StoryLanguage, seed: int) -> dict[str, object]:
    """Train and judge one point: a row of the table."""
    model, settings = build_point(point, language, seed - 1), train_config(point, seed - 1)
    batches, folder = Prefixes(language, point, seed), HOME / "runs" / "scaling" / f"{point.name()}-seed{seed}"
    steps, started = [], time.process_time()
    for record in with_progress(fit(model, batches, settings, folder=folder, resume=True), settings):
        steps.append(record.step)
    seconds = time.process_time() - started
    if steps and steps[-1] < point.steps:
        raise SystemExit(
            f"scaling: stopped at step {steps[-1]} of {point.steps}; run again to go on. Nothing was judged."
        )
    gap, exact = evaluate_point(model, point, language)
    whole, inner = parameter_counts(model)
    return {"seed": seed} | point._asdict() | {
        "parameters": whole, "inner_parameters": inner, "batch": BATCH,
        "tokens": point.steps * BATCH * point.length, "objective": settings.objective, "lr": settings.lr,
        "muon_lr": settings.muon_lr, "decay": settings.decay, "ema": settings.ema, "exact": f"{exact:.5f}",
        "gap": f"{gap.mean:.5f}", "gap_se": f"{gap.standard_error:.5f}", "torch": torch.__version__.split("+")[0],
        "cpu_seconds": f"{seconds:.0f}" if steps[:1] == [1] else "",  # of a run that was not broken off
    }  # fmt: skip


def read(path: Path) -> list[dict[str, Any]]:
    """The rows of the table so far."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def is_done(point: Point, seed: int, rows: list[dict[str, Any]]) -> bool:
    """Whether the table has this run."""
    key = {name: str(value) for name, value in {"seed": seed, **point._asdict()}.items()}
    return any(all(row[name] == value for name, value in key.items()) for row in rows)


def write(path: Path, rows: list[dict[str, Any]]) -> None:
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
    parser.add_argument("--list", action="store_true", help="show the runs, make none")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS, help="of these seeds only")
    options = parser.parse_args()
    language = load_language("tales")
    runs = [(point, seed) for seed in options.seeds for point in points() if seed == SEEDS[0] or cost(point) < LONG]
    for point, seed in runs:
        if options.list:
            print("done" if is_done(point, seed, read(options.out)) else "open", f"seed {seed}", point)
        elif not is_done(point, seed, read(options.out)):
            row = run(point, language, seed)
            write(options.out, [*read(options.out), row])  # read again: another process may have added to it
            print(f"{row['cpu_seconds']:>5} s  seed {seed}  {point}: gap {row['gap']}", flush=True)


if __name__ == "__main__":
    main()
