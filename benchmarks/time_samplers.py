"""Which times to train at: four samplers, the same network and steps, three seeds, the gap to the known entropy.

    nice python benchmarks/time_samplers.py             # 12 runs of 800 steps on `tales`; stop it and go on later
    nice python benchmarks/time_samplers.py --language micro --out benchmarks/results/time_samplers_micro.json
    python benchmarks/time_samplers.py --steps 20 --every 10 --seeds 1 --out try.json

All minimise plain cross-entropy of the hidden tokens, and draw one u in each slice of [0, 1) per batch. They differ in
what they make of it: t = u T (uniform), a quantile of N(1/2, 0.2^2) cut off at 0 and 1 (bell), t up to a quarter at
first and then all (curriculum), or the number of masks itself (counts). The bell stands in for that of
arXiv:2605.13026, whose constants we do not know. The runs advance in turn, `every` steps each, so that an early end
leaves all of them at the same step; each is judged by its averaged weights against the exact denoiser on the same
stories with the same masks, every number of masks alike. The file is written after each turn.
"""

from __future__ import annotations

import argparse
import json
import time
from functools import partial
from pathlib import Path
from statistics import NormalDist
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor

from diffkit.cli.settings import DataSettings, ModelSettings, build
from diffkit.io import write_atomic
from diffkit.languages.story_language import load_language
from diffkit.model import DiffusionModel
from diffkit.processes.masked import MaskedDiffusion
from diffkit.training.config import Curriculum, TrainConfig
from diffkit.training.losses import TIME_SAMPLERS, low_discrepancy
from diffkit.training.trainer import fit

RESULTS = Path(__file__).resolve().parent / "results" / "time_samplers.json"
LEVELS = (0.1, 0.05)  # nats a token: after how many steps is the gap below?
PARTS = {"few": (0, 0.25), "many": (0.75, 1)}  # shares of hidden tokens that are judged apart as well
BELL = NormalDist(0.5, 0.2)


def bell(B: int, T: int, rng: Generator) -> Tensor:
    """(B,) whole times in 1..T: `low_discrepancy`, pressed into a bell around the middle."""
    first, last = BELL.cdf(0), BELL.cdf(1)
    u = (low_discrepancy(B, 2**30, rng).double() - 0.5) / 2**30
    t = [BELL.inv_cdf(first + (last - first) * each) * T for each in u.tolist()]
    return torch.tensor(t).ceil().long().clamp(1, T)


TIME_SAMPLERS["bell"] = bell
ARMS: dict[str, dict[str, Any]] = {
    "uniform": {},
    "bell": {"times": "bell"},
    "counts": {"objective": "count_cross_entropy"},
    "curriculum": {"curriculum": Curriculum(start=0.25, hold=0.3, ramp=0.25)},
}


class Judge(NamedTuple):
    """Texts and masks that every model is judged on, every number of hidden tokens alike, and the exact loss."""

    x0: Tensor
    xt: Tensor
    count: Tensor
    exact: Tensor  # (n,) nats per hidden token

    def gaps(self, model: DiffusionModel) -> dict[str, float]:
        """Model minus exact, nats per hidden token: over all numbers of masks (the gap to the entropy), few, many."""
        with torch.no_grad():
            nats = model.process.token_loss(model, self.x0, self.xt, torch.zeros(len(self.x0)))
        off, share = nats.double().sum(1) / self.count - self.exact, self.count / self.x0.shape[1]
        parts = {name: off[(least < share) & (share <= most)] for name, (least, most) in PARTS.items()}
        return {name: round(part.mean().item(), 4) for name, part in ({"gap": off} | parts).items()}


def judge(name: str) -> Judge:
    """The same for every run: four texts for each number of hidden tokens, many more where texts are short."""
    language, rng = load_language(name), Generator().manual_seed(2024)
    draws = max(4, 2000 // language.length**2)
    process = MaskedDiffusion(language.vocab_size, language.mask_id, "linear")
    count = torch.arange(1, language.length + 1).repeat(draws)
    x0 = language.sample(len(count), rng)
    xt, _ = process.corrupt_count(x0, count, rng)
    exact = process.token_loss(language.denoiser(process), x0, xt, torch.zeros(len(x0)))
    return Judge(x0, xt, count, exact.double().sum(1) / count)


def advance(arm: str, seed: int, until: int, folder: Path, args: argparse.Namespace, judged: Judge) -> dict[str, Any]:
    """Train one run up to a step, from its last checkpoint on, and judge it there."""
    config = TrainConfig(
        **{"steps": args.steps, "objective": "cross_entropy", "optimizer": "muon", "lr": 3e-3, "muon_lr": 1e-2,
           "warmup": 20, "ema": 0.99, "save_every": args.steps, "seed": seed} | ARMS[arm]
    )  # fmt: skip
    data = DataSettings(corpus=args.language, batch_size=args.batch, validation_sequences=2)
    setup = build(data, ModelSettings(args.size, partial(MaskedDiffusion, schedule="linear")), seed=seed)
    losses, started = [], time.process_time()
    for record in fit(setup.model, setup.batches, config, folder=folder / args.language / f"{arm}-{seed}", resume=True):
        losses.append(record.loss)
        if record.step >= until:
            break  # it saves, and the model holds its averaged weights
    seconds = round(time.process_time() - started, 1)
    loss = round(sum(losses[-20:]) / len(losses[-20:]), 4)
    return {"arm": arm, "seed": seed, "step": until, **judged.gaps(setup.model), "loss": loss, "seconds": seconds}


def reached(rows: list[dict[str, Any]], arm: str, seed: int, level: float) -> int | None:
    """The first step judged at which a run's gap was at most `level`; None if it was at none."""
    return next((row["step"] for row in rows if (row["arm"], row["seed"]) == (arm, seed) and row["gap"] <= level), None)


def report(rows: list[dict[str, Any]], seeds: int) -> str:
    """One line for each sampler: the gaps of its seeds at the last step that all have, and steps to each level."""
    last = min(max(row["step"] for row in rows if row["arm"] == arm) for arm in {row["arm"] for row in rows})
    lines = [f"{'':10s} gaps at step {last}, by seed; steps to a gap of " + ", ".join(map(str, LEVELS))]
    for arm in ARMS:
        gaps = [f"{row['gap']:.3f}" for row in rows if row["arm"] == arm and row["step"] == last]
        steps = [[reached(rows, arm, seed, level) for seed in range(seeds)] for level in LEVELS]
        lines.append(f"{arm:10s} {'  '.join(gaps)}   {steps}")
    return "\n".join(lines)


def main() -> None:
    """Advance all runs in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--language", default="tales")
    parser.add_argument("--size", default="pico")
    parser.add_argument("--steps", type=int, default=800, help="of every run; the plan of the curriculum")
    parser.add_argument("--every", type=int, default=40, help="steps between two judgements")
    parser.add_argument("--batch", type=int, default=32, help="texts")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path("runs/time_samplers"), help="checkpoints, to go on from")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    kept = json.loads(args.out.read_text(encoding="utf-8"))["rows"] if args.out.exists() else []
    rows, judged = kept, judge(args.language)
    setting = {"language": args.language, "size": args.size, "steps planned": args.steps, "batch": args.batch,
               "seeds": args.seeds, "few": "up to a quarter hidden", "many": "over three quarters",
               "torch": torch.__version__}  # fmt: skip
    for until in range(args.every, args.steps + 1, args.every):
        for seed in range(args.seeds):
            for arm in ARMS:
                if any((row["arm"], row["seed"], row["step"]) == (arm, seed, until) for row in rows):
                    continue
                rows.append(advance(arm, seed, until, args.folder, args, judged))
                write_atomic(args.out, json.dumps({"setting": setting, "rows": rows}, indent=0, allow_nan=False))
                print(rows[-1], flush=True)
    print(report(rows, args.seeds))


if __name__ == "__main__":
    main()
