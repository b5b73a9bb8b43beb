"""Does distilling an imperfect teacher repair it? tales-mdlm and its students (SDTT) beside the exact denoiser.

    nice python benchmarks/distillation.py train        # minutes for each student; into runs/distillation
    nice python benchmarks/distillation.py judge        # every student that is there, the teacher, the exact denoiser
    python benchmarks/distillation.py train --steps 2 --only control --runs /tmp/try

All start from tales-mdlm and make two rounds on the same stories at the same rates. Round one: the teacher takes two
steps of T/16 where the student learns one of T/8; then the student is the teacher, and the steps double. The control
has the exact-count bound as its loss instead: what it gains is gained by more training. Rows are stored as they are
made, in results/distillation.json; a row that is there is skipped. No weights are kept but in `runs`.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import time
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor, nn

from diffkit.course.exercises.methods.capstone import one_question
from diffkit.course.experiments.few_steps import best_counts, draw_with_nats, frontier_of_samples
from diffkit.course.parallel_cost import Plan, evenly, excess_nats
from diffkit.data.batches import StoryBatches
from diffkit.evaluation.bounds import sequence_bounds
from diffkit.evaluation.statistics import mean_of, wilson
from diffkit.io import write_json
from diffkit.languages.story_language import load_language
from diffkit.model import DiffusionModel, fingerprint, load_model
from diffkit.processes.base import Denoise
from diffkit.processes.masked import MaskedDiffusion
from diffkit.random import highest, uniform_like
from diffkit.training.config import TrainConfig
from diffkit.training.distillation import distillation
from diffkit.training.losses import count_bound, low_discrepancy
from diffkit.training.muon import make_optimizers, take_step
from diffkit.training.session import denormals_flushed

TEACHER = "tales-mdlm"
TALES = load_language("tales")
PROCESS = MaskedDiffusion(TALES.vocab_size, TALES.mask_id, "linear")
ROUNDS = (PROCESS.T / 8, PROCESS.T / 4)  # the student's step
BATCH, SEED = 32, 21
RATES: dict[str, Any] = {"lr": 5e-4, "muon_lr": 2e-3}  # of AdamW and Muon
RESULTS = Path(__file__).resolve().parent / "results" / "distillation.json"
Loss = Callable[[DiffusionModel, Tensor, Tensor, Generator], Tensor]  # student, x0 (B, L), t (B,), rng


# ------------------------------------------------------------------------------------------------------------- training


def more_training(teacher: DiffusionModel, step: float) -> Loss:
    """The control: no teacher, the bound of true stories."""
    return partial(count_bound, PROCESS)


def taught(teacher: DiffusionModel, step: float, backward: bool) -> Loss:
    return partial(distillation, PROCESS, teacher=teacher, step=step, backward=backward)


ARMS: dict[str, Callable[[DiffusionModel, float], Loss]] = {
    "control": more_training,
    "forward": partial(taught, backward=False),
    "backward": partial(taught, backward=True),
}


def student_of(name: str, steps: int) -> DiffusionModel:
    """The student after the last round, each of so many optimizer steps."""
    student, batches, rng = load_model(TEACHER), StoryBatches(TALES, BATCH, SEED), Generator().manual_seed(SEED)
    config = TrainConfig(steps=steps, optimizer="muon", **RATES, weight_decay=0.0, warmup=10, decay=0.75)
    for step in ROUNDS:
        loss_of = ARMS[name](copy.deepcopy(student).eval(), step)
        optimizers = make_optimizers(student.train(), config)
        for done in range(steps):
            loss = loss_of(student, next(batches), low_discrepancy(BATCH, PROCESS.T, rng), rng)
            loss.backward()
            nn.utils.clip_grad_norm_(student.parameters(), config.clip)
            take_step(optimizers, config.lr_scale(done))
            if done % 20 == 0 or done == steps - 1:
                print(f"{name}, step of T/{PROCESS.T / step:g}, {done + 1}: {loss.item():.4f}", flush=True)
    return student.eval()


def train(options: argparse.Namespace, table: dict[str, Any]) -> None:
    for name in (each for each in ARMS if options.only in each):
        began = time.process_time()
        with denormals_flushed():
            student_of(name, options.steps).save_pretrained(options.runs / name)
        found = {"steps": options.steps, "batch": BATCH, "cpu_seconds": round(time.process_time() - began)}
        table.setdefault("training", {})[name] = found
        write_json(options.out, table)


# -------------------------------------------------------------------------------------------------------------- judging


@cache
def profile(n: int = 64) -> list[float]:
    """h(k) of the exact denoiser, nats per hidden token with k = 0..L-1 visible."""
    x0, L = TALES.sample(n, Generator().manual_seed(0)), TALES.length
    known = torch.tensor([0, 1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 18, 22, 26, 31, 36, 42, 47])
    measured = []
    for k in known.tolist():
        xt, _ = PROCESS.corrupt_count(x0, torch.full((n,), L - k), Generator().manual_seed(k))
        measured.append(float(PROCESS.token_loss(TALES.denoiser(PROCESS), x0, xt, 0.0).sum()) / n / (L - k))
    h = torch.tensor(measured).cummin(0).values
    right = torch.searchsorted(known, torch.arange(L)).clamp(min=1)  # of the measured points around each k
    share = (torch.arange(L) - known[right - 1]) / (known[right] - known[right - 1])
    return torch.lerp(h[right - 1], h[right], share).tolist()


def at_random(counts: list[int], seed: int) -> Plan:
    """Reveal counts[j] random positions in step j, other ones for every text."""
    rng = Generator().manual_seed(seed)

    def plan(probs: Tensor, is_masked: Tensor, left: int) -> Tensor:
        return highest(uniform_like(is_masked, rng), is_masked, torch.full((len(is_masked),), counts[-left]))

    return plan


def plan_of(order: str, steps: int) -> Plan:
    if order == "one open question":
        return evenly(one_question)
    even = [TALES.length // steps] * steps
    return at_random(even if order == "random, even" else best_counts(profile(), steps), SEED + 1)


def judged(denoise: Denoise, order: str, steps: int, stories: int) -> dict[str, Any]:
    """Samples of a sampler, and its price on true stories: KL(p || q), of a random order the mean over its plans."""
    began = time.process_time()
    plan, rng, shape = plan_of(order, steps), Generator().manual_seed(SEED), (min(64, stories), TALES.length)
    drawn = [draw_with_nats(PROCESS, denoise, plan, shape, steps, rng) for _ in range(stories // shape[0])]
    own, true = -torch.cat([nats for _, nats in drawn]), torch.cat([TALES.log_prob(ids) for ids, _ in drawn])
    hits = int((true > -torch.inf).sum())
    low, high = wilson(hits, len(true))
    row: dict[str, Any] = {"valid": hits / len(true), "low": low, "high": high, "stories": len(true)}
    if hits > 1:
        at = frontier_of_samples(own, true)
        row["nll"] = at.nll._asdict()
        if "random" not in order:  # there `own` is given the plan, not the sampler's
            row |= {"entropy": at.entropy._asdict(), "kl": at.kl._asdict()}
    model: Any = denoise if isinstance(denoise, DiffusionModel) else None
    price = excess_nats(plan_of(order, steps), TALES, steps=steps, n=max(2, stories // 4), seed=SEED, model=model)
    return row | {"price": mean_of(price)._asdict(), "cpu_seconds": round(time.process_time() - began)}


def gap(denoise: Denoise, n: int) -> dict[str, float]:
    """Bound minus entropy, nats a story: on n true stories, with the masks of the exact denoiser."""
    x0 = TALES.sample(n, Generator().manual_seed(SEED))
    of_model, exact = (
        sequence_bounds(PROCESS, each, x0, rng=Generator().manual_seed(SEED + 1))
        for each in (denoise, TALES.denoiser(PROCESS))
    )
    return mean_of(of_model - exact)._asdict()


# Order of unmasking and steps, the most telling first.
CELLS = (
    ("one open question", 8), ("random, even", 8), ("one open question", 16), ("random, even", 4),
    ("random, best counts", 8), ("random, even", 16), ("random, best counts", 4),
)  # fmt: skip


def settings() -> dict[str, Any]:
    """What the rows rest on."""
    return {
        "seed": SEED, "teacher_sha256": fingerprint(TEACHER), "entropy_nats": TALES.entropy(),
        "best_counts": {str(steps): best_counts(profile(), steps) for steps in (4, 8)},
        "torch": torch.__version__.split("+")[0], **RATES,
    }  # fmt: skip


def judge(options: argparse.Namespace, table: dict[str, Any]) -> None:
    """Make and store the rows that are not there, all models in one cell before the next."""
    folders = {"teacher": TEACHER} | {name: options.runs / name for name in ARMS if (options.runs / name).exists()}
    models = {"exact": TALES.denoiser(PROCESS)} | {name: load_model(folder) for name, folder in folders.items()}
    rows, gaps = table.setdefault("rows", []), table.setdefault("gaps", {})
    done = {(row["model"], row["order"], row["steps"]) for row in rows}
    table["settings"] = settings()
    for name in models.keys() - gaps.keys():
        gaps[name] = gap(models[name], options.stories)
    for (order, steps), name in itertools.product(CELLS, models):
        if options.only in name and (name, order, steps) not in done:
            row = judged(models[name], order, steps, options.stories)
            rows.append({"model": name, "order": order, "steps": steps} | row)
            print(rows[-1], flush=True)
            write_json(options.out, table)


def main() -> None:
    """Train, or judge what was trained."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["train", "judge"])
    parser.add_argument("--steps", type=int, default=120, help="optimizer steps of a round")
    parser.add_argument("--stories", type=int, default=192, help="to judge on")
    parser.add_argument("--only", default="", help="only names that hold this")
    parser.add_argument("--runs", type=Path, default=Path("runs/distillation"), help="where the students are")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    table = json.loads(options.out.read_text(encoding="utf-8")) if options.out.exists() else {}
    {"train": train, "judge": judge}[options.part](options, table)


if __name__ == "__main__":
    main()
