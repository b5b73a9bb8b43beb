"""Seconds to write one text of 128 tokens over 30,522 words: the plain loop, ours, and the plain loop around BERT.

    python benchmarks/sampling.py                      # T = 1000 and 64 steps, about 20 minutes on one core
    python benchmarks/sampling.py --steps 64           # the shorter half, two minutes

The plain loop computes the whole table of logits at every step and draws every place from V + 1 outcomes with Gumbel
noise in float64 (its equal, the exponential race, which takes one logarithm instead of two). BERT is transformers'
BertForMaskedLM of the same size (width 256, 6 layers, 4 heads). Weights are random: what is timed does not depend on
them. Every contestant runs in the same process on one thread; the long loops run once and whole, cut into slices
between which the short ones run again, so that a slow minute of the machine strikes all of them. Prints one table,
writes JSON.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Generator, Tensor
from transformers import BertConfig, BertForMaskedLM

from diffkit.course.block_cache import Blockwise, dual_cache, prefix_cache
from diffkit.course.network_calls import CallCounter, NoChangeCache, expected_calls
from diffkit.io import write_json
from diffkit.model import DiffusionModel, build_model
from diffkit.processes.masked import MaskedDiffusion
from diffkit.sampling.parallel import most_confident
from diffkit.sampling.remasking import Remasking, rescale
from diffkit.sampling.sampler import Ancestral, Sampler, denoise_frames
from diffkit.sampling.skipping import FirstHitting, SkipIdle, even_times

RESULTS = Path(__file__).resolve().parent / "results" / "sampling.json"
V, MASK, L, T, SLICES = 30_522, 103, 128, 1000, 10
Loop = Iterator[Tensor]


def plain_loop(logits_of: Callable[[Tensor], Tensor], process: MaskedDiffusion, times: Tensor, rng: Generator) -> Loop:
    """All logits at every place, one draw over V + 1 outcomes by an exponential race in float64; yields every state."""
    x = process.prior(1, L, rng)
    for t, s in pairwise(times):
        gamma_t, gamma_s = float(process.schedule.gamma(t)), float(process.schedule.gamma(s))
        logits = logits_of(x).double()
        logits[..., MASK] = -torch.inf
        weights = logits.softmax(-1) * (gamma_t - gamma_s)
        weights[..., MASK] = gamma_s
        noise = -torch.rand(weights.shape, generator=rng, dtype=torch.float64).log()
        x = torch.where(x == MASK, (weights / noise).argmax(-1), x)
        yield x


def states(frames: Iterator[Any]) -> Loop:
    """The ids of every frame after the start."""
    next(frames)
    yield from (frame.tokens for frame in frames)


def contestants(steps: int, model: DiffusionModel, bert: BertForMaskedLM) -> dict[str, tuple[str, bool, Callable]]:
    """Name -> (law, is it run once in slices, start). `start(counted network)` gives a loop over the states."""
    process, times, long = model.process, even_times(T, steps), steps > 100

    def new() -> Generator:
        return Generator().manual_seed(0)

    def ours(sampler: Sampler) -> Callable:
        return lambda network: states(denoise_frames(sampler, network, shape=(1, L), rng=new()))

    def table(wrap: Callable) -> Callable:
        sampler = Ancestral(process, times)
        return lambda network: states(denoise_frames(sampler, wrap(network), shape=(1, L), rng=new()))

    def blocks(cache: Any) -> Callable:
        return ours(Blockwise(process, 32, most_confident(2), cache))

    every: dict[str, tuple[str, bool, Callable]] = {
        "plain loop": ("ancestral", long, lambda n: plain_loop(lambda x: n(x, torch.zeros(1)), process, times, new())),
        "plain loop, BertForMaskedLM": (
            "ancestral", long, lambda _: plain_loop(lambda x: bert(x).logits, process, times, new())),
        "no-change cache": ("ancestral", long, table(NoChangeCache)),
        "lazy: head where revealed": ("ancestral", False, ours(SkipIdle(process, times))),
        "first hitting": ("ancestral, T to infinity", False, ours(FirstHitting(process))),
        "remasking, lazy": ("remasking", False, ours(Remasking(process, times, rescale(0.1)))),
    }  # fmt: skip
    if steps == 64:  # two tokens a call make 64 calls
        every |= {
            "our step, whole table": ("ancestral", False, table(lambda network: network)),
            "blocks of 32, nothing kept": ("two surest", False, blocks(None)),
            "blocks of 32, prefix kept": ("approximate", False, blocks(prefix_cache)),
            "blocks of 32, prefix and suffix kept": ("approximate", False, blocks(dual_cache)),
        }
    return every


def timed(loop: Loop, most: int | None = None) -> tuple[float, float, Tensor | None]:
    """Seconds by the clock and of the processor for (at most so many moves of) a loop, and its last state."""
    clock, processor, last = time.perf_counter(), time.process_time(), None
    for state in islice(loop, most):
        last = state
    return time.perf_counter() - clock, time.process_time() - processor, last


@torch.no_grad()
def race(steps: int, model: DiffusionModel, bert: BertForMaskedLM) -> list[dict[str, Any]]:
    """Run all of them side by side."""
    every = contestants(steps, model, bert)
    counts = {name: CallCounter(model) for name in every}
    sliced = {name: start(counts[name]) for name, (_, long, start) in every.items() if long}
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in every}
    last: dict[str, Tensor | None] = {}
    rounds = SLICES if sliced else 3
    for i in range(rounds):
        for name, (_, long, start) in every.items():
            if not long:
                counts[name].calls = 0
            loop, most = (sliced[name], steps // SLICES) if long else (start(counts[name]), None)
            clock, processor, last[name] = timed(loop, most)
            seconds[name].append((clock, processor))
        print(f"  {steps} steps: round {i + 1} of {rounds}", flush=True)
    rows = []
    for name, (law, long, _) in every.items():
        assert last[name] is not None and not (last[name] == MASK).any()
        whole = sum if long else statistics.median
        clock, processor = (whole(one[i] for one in seconds[name]) for i in (0, 1))
        calls = steps if "Bert" in name else counts[name].calls
        rows.append(
            {"steps": steps, "way": name, "law": law, "calls": calls, "seconds": clock, "cpu_seconds": processor}
        )
    first, exact = rows[0], torch.equal(*(last[name] for name in ("no-change cache", "lazy: head where revealed")))
    for row in rows:
        row["times_faster"] = first["seconds"] / row["seconds"]
        row["times_faster_cpu"] = first["cpu_seconds"] / row["cpu_seconds"]
    print(f"  the no-change cache and the lazy sampler wrote the same tokens: {exact}")
    return rows


def machine() -> dict[str, Any]:
    """What ran it: kind of processor and versions, no names."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line for line in lines if line.startswith("model name")] or [platform.processor()]
    return {"cpu": names[0], "threads": 1, "torch": torch.__version__, "transformers": transformers.__version__}


def main() -> None:
    """Run the races and store the table."""
    parser = argparse.ArgumentParser(description="Seconds a text: the plain loop, ours, and BERT's.")
    parser.add_argument("--steps", type=int, nargs="+", default=[64, T], help="steps on the grid (default: 64 1000)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the JSON goes (default: results/)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    process = MaskedDiffusion(V, MASK, "linear")
    model = build_model(process, "tiny", max_length=L).eval()
    shape = model.denoiser.config
    bert = BertForMaskedLM(
        BertConfig(
            vocab_size=V, hidden_size=shape.hidden_size, num_hidden_layers=shape.num_layers,
            num_attention_heads=shape.num_heads, intermediate_size=shape.intermediate_size, max_position_embeddings=L,
        )
    ).eval()  # fmt: skip
    rows = [row for steps in options.steps for row in race(steps, model, bert)]
    print(f"{'steps':>5}  {'way':37}{'law':26}{'calls':>6}{'seconds':>9}{'CPU s':>8}{'faster':>8}{'(CPU)':>8}")
    for r in rows:
        print(f"{r['steps']:5}  {r['way']:37}{r['law']:26}{r['calls']:6}{r['seconds']:9.2f}{r['cpu_seconds']:8.2f}"
              f"{r['times_faster']:7.1f}x{r['times_faster_cpu']:7.1f}x")  # fmt: skip
    settings = {
        "vocabulary": V, "length": L, "batch": 1, "size": "tiny", "T": T, "schedule": "linear", "machine": machine(),
        "repeats": {
            "64": "median of 3",
            "1000": f"the plain loops and the no-change cache once, in {SLICES} slices; others median of {SLICES}",
        },
        "expected_calls": {n: round(expected_calls(process.schedule, even_times(T, n), L), 2) for n in options.steps},
    }  # fmt: skip
    rows = [{k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()} for row in rows]
    write_json(options.out, {"settings": settings, "rows": rows})


if __name__ == "__main__":
    main()
