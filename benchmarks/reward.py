"""Notebook 22's stored table: tales-mdlm is taught by a reward, and judged beside the exact optimum.

    nice python benchmarks/reward.py                    # all rows, half an hour of one core
    nice python benchmarks/reward.py "exact count"      # only rows whose name holds this
    nice python benchmarks/reward.py valid, --stories 256   # as the two stored rows that were trained on validity
    python benchmarks/reward.py --steps 2 --stories 16 --pool 32 --out try.json

The rewards: 1 for a story that ends in 'lost', and 1 for a valid one. The reward-weighted bound learns from a pool that
tales-mdlm wrote once; a policy gradient from what the policy writes itself, four steps on each batch with new masks.
Its log-ratio takes the same masks for the policy and for tales-mdlm, and different ones from the slope's, except in
"one draw". All rows have the same optimizer, steps and batch. The control of the valid ones minimises the ordinary
bound of fresh stories. Rows replace those of the same name; no weights are kept.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor

from diffkit.course.experiments.reward import judged_stories, tilted
from diffkit.evaluation.bounds import paired_gap, sequence_bounds
from diffkit.evaluation.statistics import Estimate
from diffkit.io import write_json
from diffkit.languages.story_language import endings, load_language
from diffkit.model import DiffusionModel, fingerprint, load_model
from diffkit.processes.base import Denoise
from diffkit.processes.masked import MaskedDiffusion
from diffkit.sampling.parallel import entropy_bounded
from diffkit.sampling.sampler import sample
from diffkit.training.config import TrainConfig
from diffkit.training.muon import make_optimizers, take_step
from diffkit.training.reward import SURROGATES, exact_count, policy_gradient, reward_weights, weighted_bound
from diffkit.training.session import denormals_flushed

RESULTS = Path(__file__).resolve().parent / "results" / "reward.json"
BETA, BATCH, SEED, BOUND = 0.5, 32, 22, 0.1
REUSED = 4  # steps on each batch that the policy writes
TALES = load_language("tales")
PROCESS = MaskedDiffusion(TALES.vocab_size, TALES.mask_id, "linear")
Reward = Callable[[Tensor], Tensor]  # stories (n, L) -> (n,)
Losses = Iterator[Tensor]  # one for each step


def seeded(seed: int) -> Generator:
    return Generator().manual_seed(seed)


def is_lost(x0: Tensor) -> Tensor:
    return (endings(TALES, x0) == TALES.label_id("lost")).double()


def is_valid(x0: Tensor) -> Tensor:
    return (TALES.log_prob(x0) > -torch.inf).double()


def write(model: DiffusionModel, n: int, rng: Generator) -> Tensor:
    """Stories of a model, (n, L): at most BOUND nats a call are lost to drawing in parallel."""
    how, sizes = entropy_bounded(PROCESS, BOUND), [min(64, n - i) for i in range(0, n, 64)]
    return torch.cat([sample(how, model, shape=(size, TALES.length), rng=rng) for size in sizes])


# --------------------------------------------------------------------------------------------------- what is minimised


def weighted(model: DiffusionModel, pool: Tensor, reward: Reward, rng: Generator) -> Losses:
    """The bound of the optimum; the weights are those of the whole pool."""
    weights = reward_weights(reward(pool), BETA) * len(pool) / BATCH
    while True:
        rows = torch.randint(len(pool), (BATCH,), generator=rng)
        yield weighted_bound(PROCESS, model, pool[rows], weights[rows], rng)


def policy(
    model: DiffusionModel, surrogate: str, reward: Reward, beta: float, rng: Generator, *, one_draw: bool = False
) -> Losses:
    """The policy gradient, REUSED steps for each batch; `one_draw`: slope and worth by the same masks."""
    reference, log_p = load_model("tales-mdlm"), SURROGATES[surrogate]
    while True:
        x0 = write(model, BATCH, rng)
        earned = reward(x0)
        print(f"    written: {earned.mean():.2f} earn, {is_valid(x0).mean():.2f} valid", flush=True)
        for _ in range(REUSED):
            slope = int(torch.randint(2**31, (), generator=rng))
            worth = slope if one_draw else int(torch.randint(2**31, (), generator=rng))
            with torch.no_grad():
                own, before = (log_p(PROCESS, each, x0, seeded(worth)) for each in (model, reference))
            yield policy_gradient(log_p(PROCESS, model.train(), x0, seeded(slope)), earned, own - before, beta)


def control(model: DiffusionModel, rng: Generator) -> Losses:
    """The ordinary bound of fresh stories of the language."""
    while True:
        yield -exact_count(PROCESS, model, TALES.sample(BATCH, rng), rng).mean()


ARMS: dict[str, Callable[[DiffusionModel, Tensor, Generator], Losses]] = {
    "lost, weighted bound": lambda model, pool, rng: weighted(model, pool, is_lost, rng),
    "lost, one draw": lambda model, pool, rng: policy(model, "exact_count", is_lost, BETA, rng, one_draw=True),
    "lost, exact count": lambda model, pool, rng: policy(model, "exact_count", is_lost, BETA, rng),
    "lost, exact count, no leash": lambda model, pool, rng: policy(model, "exact_count", is_lost, 0.0, rng),
    "lost, one step": lambda model, pool, rng: policy(model, "one_step", is_lost, BETA, rng),
    "valid, weighted bound": lambda model, pool, rng: weighted(model, pool, is_valid, rng),
    "valid, fresh stories": lambda model, pool, rng: control(model, rng),
}


def teach(model: DiffusionModel, losses: Losses, config: TrainConfig) -> None:
    """`config.steps` steps, each on the next of the losses."""
    optimizers = make_optimizers(model, config)
    for step in range(config.steps):
        with denormals_flushed():
            next(losses).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip)
        take_step(optimizers, config.lr_scale(step))


# ------------------------------------------------------------------------------------------------------------ the table


def lower(worse: Denoise, better: Denoise, x0: Tensor, draws: int) -> Estimate:
    """By how much the bound of the second lies below that of the first, both with the same masks."""
    bounds = partial(sequence_bounds, PROCESS, x0=x0, draws=draws)
    return paired_gap(lambda who, masks: bounds(who, rng=masks), worse, better, seed=SEED + 2)


def row_of(name: str, model: DiffusionModel, x0: Tensor, before: dict[str, Any] | None) -> dict[str, Any]:
    """Judge stories x0 that a model wrote, and by bounds how far it is from the optimum and from tales-mdlm.

    gain: how much nearer to the optimum than tales-mdlm, over stories of the optimum; gap: what is left of the way from
    there, on the same stories and masks; ratio: log q - log p_ref over what was written.
    """
    goal, reference = tilted(TALES, {"lost": 1.0}, BETA) if name.startswith("lost") else TALES, load_model("tales-mdlm")
    right = goal.sample(256, seeded(SEED + 1))
    gain, ratio = lower(reference, model.eval(), right, 4), lower(reference, model, x0, 2)
    gap = before["gap"] - gain.mean if before else lower(reference, goal.denoiser(PROCESS), right, 4).mean
    return {
        "name": name, **judged_stories(TALES, goal, x0, "lost"), "gap": gap, "gain": gain.mean,
        "gain_se": gain.standard_error, "ratio": ratio.mean, "ratio_se": ratio.standard_error,
    }  # fmt: skip


def main() -> None:
    """Make the rows, store each as it is done."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("only", nargs="?", default="", help="only rows whose name holds this")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--lr", type=float, default=6e-4)
    parser.add_argument("--pool", type=int, default=1024, help="stories that tales-mdlm writes, to learn from")
    parser.add_argument("--stories", type=int, default=512, help="to judge a row by")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    config = TrainConfig(steps=options.steps, lr=options.lr, weight_decay=0.0, warmup=10, decay=0.7)
    rows = json.loads(options.out.read_text(encoding="utf-8"))["rows"] if options.out.exists() else []
    rows = {row["name"]: row for row in rows}
    setting = {"beta": BETA, "batch": BATCH, "reused": REUSED, "seed": SEED, "entropy_bound": BOUND,
               "steps": options.steps, "lr": options.lr, "pool": options.pool,
               "sha256": fingerprint("tales-mdlm"), "torch": torch.__version__.split("+")[0]}  # fmt: skip

    def store(row: dict[str, Any]) -> None:
        rows[row["name"]] = row
        print(row, flush=True)
        write_json(options.out, {"setting": setting, "rows": list(rows.values())})

    began, start = time.process_time(), load_model("tales-mdlm")
    pool = write(start, options.pool, seeded(SEED))
    drawn = time.process_time() - began
    for name in ("lost, before", "valid, before"):
        if name not in rows or not options.only:
            store(row_of(name, start, pool[: options.stories], None) | {"cpu_seconds": drawn})
    for name, losses in ARMS.items():
        if options.only in name:
            began, model = time.process_time(), load_model("tales-mdlm")
            teach(model, losses(model, pool, seeded(SEED)), config)
            seconds = time.process_time() - began
            before, x0 = rows[f"{name.split(',')[0]}, before"], write(model, options.stories, seeded(SEED + 3))
            store(row_of(name, model, x0, before) | {"cpu_seconds": seconds})


if __name__ == "__main__":
    main()
