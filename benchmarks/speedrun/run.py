"""The speedrun: train a diffusion language model to a fixed quality, and say how long that took.

    make speedrun                                                       # repeat the record of the short track
    python benchmarks/speedrun/run.py notebook_05 --seed 1              # the main track: `tales`
    python benchmarks/speedrun/run.py stories --text STORIES.txt        # the second track: real text

README.md beside this file has the rules and the records. A record is a module of records/ whose `setup(seed, text)`
builds what is trained and says how. The clock runs while steps are made; it stands still while the judge is at work.
"""

from __future__ import annotations

import argparse
import importlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor

from diffkit.cli.settings import Setup
from diffkit.data.chunks import texts_of
from diffkit.evaluation.bounds import sequence_bounds
from diffkit.evaluation.statistics import Estimate, mean_of
from diffkit.io import write_json
from diffkit.model import DiffusionModel
from diffkit.network.transformer import parameter_count
from diffkit.training.config import TrainConfig
from diffkit.training.trainer import fit

RECORD = "micro_bound"  # what `make speedrun` repeats
HERE = Path(__file__).resolve().parent
RECORDS = [path.stem for path in (HERE / "records").glob("[!_]*.py")]
SEED = 2026  # of the texts and the masks that every run is judged on
STORIES, DRAWS = 1024, 4  # stories of a language, and masks of each
Judge = Callable[[DiffusionModel], Estimate]


class Track(NamedTuple):
    """What a run has to reach."""

    target: float
    unit: str


LANGUAGE = Track(0.05, "nats a token above the entropy")
TEXT = Track(1.2, "bits a character")


class Judged(NamedTuple):
    """A run so far: the clock, and the verdict on its averaged weights."""

    step: int
    tokens: int  # positions of the texts that the network was trained on
    seconds: float
    cpu_seconds: float
    loss: float
    value: float
    standard_error: float


def judge_of(setup: Setup) -> tuple[Track, Judge]:
    """The track of a run and its judge: fixed texts and masks, every number of masks alike.

    Of a language the exact denoiser reads the same masked stories, so that their variance cancels.
    """

    def bounds(denoise: Any) -> Tensor:
        return sequence_bounds(setup.model.process, denoise, x0, rng=Generator().manual_seed(SEED), draws=DRAWS)

    if setup.language:
        x0 = setup.language.sample(STORIES, Generator().manual_seed(SEED))
        exact = bounds(setup.language.denoiser(setup.model.process))
        return LANGUAGE, lambda model: mean_of(bounds(model) - exact) / x0.shape[1]
    x0 = setup.validation
    characters = sum(map(len, texts_of(x0, setup.tokenizer))) / len(x0)  # of a window
    return TEXT, lambda model: mean_of(bounds(model)) / (characters * math.log(2))


def clock() -> Tensor:
    """Seconds of the wall clock and of the processor, (2,)."""
    return torch.tensor([time.perf_counter(), time.process_time()], dtype=torch.float64)


def run(setup: Setup, config: TrainConfig, track: Track, judge: Judge) -> Iterator[Judged]:
    """Train until the target is reached or the steps are used up; yield every verdict."""
    paused, verdict = torch.zeros(2, dtype=torch.float64), Estimate(math.inf, math.inf)

    def validate(model: DiffusionModel) -> float:
        nonlocal paused, verdict
        before = clock()
        verdict = judge(model)
        paused += clock() - before
        return verdict.mean

    tokens, started = config.accumulate * setup.batches.batch_size * setup.model.denoiser.config.max_length, clock()
    for record in fit(setup.model, setup.batches, config, validate=validate):
        if record.validation is not None:
            seconds, cpu_seconds = (clock() - started - paused).tolist()
            yield Judged(record.step, record.step * tokens, seconds, cpu_seconds, record.loss, *verdict)
            if verdict.mean <= track.target:
                return


def main() -> None:
    """Repeat a record and keep its curve."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("record", nargs="?", default=RECORD, choices=sorted(RECORDS), help=f"{RECORD} if none is named")
    parser.add_argument("--seed", type=int, default=0, help="of weights, data, times and masks")
    parser.add_argument("--text", default="tinystories", help="second track: a text file, or a name on the Hub")
    parser.add_argument("--every", type=int, help="steps between two verdicts")
    parser.add_argument("--steps", type=int, help="another plan than the record's, to try things out")
    parser.add_argument("--out", type=Path, default=HERE / "results", help="folder for the curve")
    options = parser.parse_args()
    torch.set_num_threads(1)
    setup, config = importlib.import_module(f"records.{options.record}").setup(options.seed, options.text)
    config = replace(config, seed=options.seed, steps=options.steps or config.steps, save_every=config.steps,
                     validate_every=options.every or config.validate_every)  # fmt: skip
    track, judge = judge_of(setup)
    found = {"record": options.record, "seed": options.seed, "track": track._asdict(), "torch": torch.__version__,
             "parameters": parameter_count(setup.model), "planned_steps": config.steps}  # fmt: skip
    print(f"{options.record}: {found['parameters']:,} parameters, until {track.target} {track.unit}", flush=True)
    curve: list[Judged] = []
    for judged in run(setup, config, track, judge):
        curve.append(judged)
        print(f"step {judged.step:5,d}  {judged.seconds:7.1f} s  {judged.cpu_seconds:7.1f} s of CPU  "
              f"{judged.tokens:10,d} tokens  {judged.value:.4f} ± {judged.standard_error:.4f}", flush=True)  # fmt: skip
        rows = [{name: round(value, 4) for name, value in row._asdict().items()} for row in curve]
        write_json(options.out / f"{options.record}-{options.seed}.json", found | {"curve": rows})
    is_reached = curve[-1].value <= track.target
    print(f"{'Reached' if is_reached else 'Not reached'} after {curve[-1].seconds:.0f} seconds of training.")


if __name__ == "__main__":
    main()
