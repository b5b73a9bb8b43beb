"""Which share of the machine's own peak in matrix products a training step of ours reaches, and what takes the rest.

    python benchmarks/utilisation.py           # tiny and nano, two minutes on one core
    python benchmarks/utilisation.py --costs   # parameters, FLOPs, memory and minutes of every size; runs nothing

FLOPs are counted by formula, matrix products only, the head at the hidden tokens only, as it is really computed (a test
holds the formula against torch's FlopCounterMode). What the attention kernel computes a second time in its backward
pass is not counted. The peak is the best of float32 products of several sizes, with as many threads, in the same round
as a step. Prints tables, writes JSON.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import median
from typing import Any

import torch
import yaml
from torch.profiler import ProfilerActivity, profile
from training import RESULTS, SETUPS, Learner, Setup, hidden_batches, timed, verdict, write_results

from diffkit.network.transformer import SIZES, Denoiser, DenoiserConfig, parameter_count

STORED = RESULTS / "utilisation.json"
CONFIGS = Path(__file__).resolve().parent.parent / "configs"
BAR = 0.6
PRODUCTS = ((512, 512, 512), (1024, 1024, 1024), (2048, 2048, 2048), (4096, 1024, 1024))
GPUS = {"A100": 312, "H100": 989, "L4": 121, "RTX 4090": 165}  # TFLOP/s, published dense bf16 peak
SHARE = 0.3  # of that peak, a usual share for networks large enough to fill the GPU
HIDDEN = {"linear": 0.5, "cosine": 0.3634}  # mean masking rate over t: 1/2, and 1 - 2 / pi


def step_flops(config: DenoiserConfig, B: int, L: int, hidden: int) -> int:
    """FLOPs of the matrix products of a training step on B texts of L tokens of which `hidden` in all are masked.

    A product of (m, k) and (k, n) takes 2 m k n, and its backward pass twice as much: one for each of the two.
    """
    D, tokens = config.hidden_size, B * L
    matrices = 4 * D * D + 2 * D * config.intermediate_size  # query, key, value, out; the two layers
    trunk = config.num_layers * (2 * tokens * matrices + 4 * tokens * L * D)  # attention: scores, and their use
    return 3 * (trunk + 2 * hidden * D * config.head_size)


def peak_rates() -> list[float]:
    """Best FLOP/s over PRODUCTS in float32, three times each: by the clock, and by the seconds of the processor."""
    rates = []
    for m, k, n in PRODUCTS:
        a, b = torch.ones(m, k), torch.ones(k, n)
        rates += [[2 * m * k * n / seconds for seconds in timed(torch.mm, a, b)] for _ in range(3)]
    return [max(one) for one in zip(*rates, strict=True)]


def measure(setup: Setup, rounds: int) -> dict[str, Any]:
    """The peak and steps in turn, the first round to warm up; then the operators of one more step."""
    learner, batches = Learner("ours", setup), hidden_batches(setup, 4)
    rates, peaks = [], []
    for i in range(rounds + 1):
        batch = batches[i % len(batches)]
        flops = step_flops(learner.model.denoiser.config, setup.B, setup.L, int(batch.is_masked.sum()))
        peaks.append(peak_rates())
        rates.append([flops / seconds for seconds in timed(learner.step, batch)])
    pairs = list(zip(rates, peaks, strict=True))[1:]
    shares, shares_cpu = ([rate[i] / peak[i] for rate, peak in pairs] for i in (0, 1))
    with profile(activities=[ProfilerActivity.CPU]) as record:
        learner.step(batches[0])
    return {
        "size": setup.size, "gigaflops_a_second": median(rate[0] for rate in rates[1:]) / 1e9,
        "gigaflops_a_cpu_second": median(rate[1] for rate in rates[1:]) / 1e9,
        "peak_gigaflops": median(peak[0] for peak in peaks[1:]) / 1e9, "share": median(shares),
        "share_of_rounds": [min(shares), max(shares)], "share_cpu": median(shares_cpu), "operators": operators(record),
    }  # fmt: skip


def operators(record: Any, most: int = 12) -> list[list[Any]]:
    """[name, share of the time of a step] of what took longest, the time within other operators not counted."""
    events = sorted(record.key_averages(), key=lambda event: -event.self_cpu_time_total)
    total = sum(event.self_cpu_time_total for event in events)
    return [[event.key.removeprefix("aten::"), event.self_cpu_time_total / total] for event in events[:most]]


# ------------------------------------------------------------------------------------------------- costs, on paper


def cost(size: str) -> dict[str, Any]:
    """Parameters, training FLOPs a token, memory of a batch and tokens of the config of a size.

    Memory is an estimate: weights, gradients, both moments of AdamW and the running average, 4 bytes each; for the
    backward pass 12 D + 2 I numbers a token and layer (I the inner width), and two tables of logits.
    """
    name = "leaderboard/mdlm" if size == "pico" else size
    settings = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text(encoding="utf-8"))
    V, L, B = 166 if size in ("pico", "nano") else 30_522, settings["data"].get("length", 48), 64
    config = DenoiserConfig(vocab_size=V, mask_token_id=1, max_length=L, **SIZES[size])
    with torch.device("meta"):
        parameters = parameter_count(Denoiser(config))
    hidden = HIDDEN[settings["model"]["process"]["init_args"]["schedule"]]
    kept = config.num_layers * (12 * config.hidden_size + 2 * config.intermediate_size) + 2 * hidden * V
    return {
        "size": size, "vocabulary": V, "length": L, "parameters": parameters,
        "flops_a_token": step_flops(config, 1000, L, int(hidden * 1000 * L)) / (1000 * L),
        "gigabytes": 4 * (5 * parameters + B * L * kept) / 1e9,
        "tokens": settings["train"]["steps"] * settings["data"]["batch_size"] * L,
    }  # fmt: skip


def in_minutes(minutes: float) -> str:
    """A cell of the table, 14 wide."""
    return f"{'<0.1':>14}" if minutes < 0.1 else f"{minutes:14,.{0 if minutes >= 10 else 1}f}"


def show_costs() -> None:
    """Print what every size costs; minutes on a CPU go by the rates of the last whole run of this script."""
    stored = json.loads(STORED.read_text(encoding="utf-8"))
    rates = {row["size"]: row["gigaflops_a_second"] * 1e9 for row in stored["rows"]}
    machine = stored["settings"]["machine"]
    print(f"{'size':8}{'V':>7}{'length':>8}{'parameters':>12}{'MFLOP/token':>13}{'GB at 64':>10}{'tokens':>9}"
          + "".join(f"{name:>14}" for name in ("CPU, min", *(f"{gpu}, min" for gpu in GPUS))))  # fmt: skip
    for row in map(cost, SIZES):
        total = row["flops_a_token"] * row["tokens"]
        speeds = [rates["nano" if row["size"] == "pico" else "tiny" if row["size"] not in rates else row["size"]]]
        minutes = [total / speed / 60 for speed in speeds + [SHARE * peak * 1e12 for peak in GPUS.values()]]
        print(f"{row['size']:8}{row['vocabulary']:7,}{row['length']:8}{row['parameters']:12,}"
              f"{row['flops_a_token'] / 1e6:13,.1f}{row['gigabytes']:10.2f}{row['tokens'] / 1e6:8,.0f}M"
              + "".join(map(in_minutes, minutes)))  # fmt: skip
    print(
        f"CPU: {machine['cpu']}, {machine['threads']} thread(s), at the measured rate of nano or tiny. GPUs: at "
        f"{SHARE:.0%} of the published dense bf16 peak, not measured;\nthe small sizes take longer, as launching the "
        "kernels bounds them (benchmarks/gpu.py). Hidden tokens by the config's schedule."
    )


def main() -> None:
    """Measure both sizes, or print the costs."""
    parser = argparse.ArgumentParser(description="FLOP/s of a training step over the machine's own peak.")
    parser.add_argument("--costs", action="store_true", help="print what every size costs instead")
    parser.add_argument("--rounds", type=int, default=3, help="measured rounds of tiny; nano has ten times as many")
    parser.add_argument("--out", type=Path, default=STORED, help="where the JSON goes")
    options = parser.parse_args()
    if options.costs:
        return show_costs()
    torch.manual_seed(0)
    rows = [measure(SETUPS["tiny"], options.rounds), measure(SETUPS["nano"], 10 * options.rounds)]
    for row in rows:
        low, high = row["share_of_rounds"]
        judged = f", {verdict(row['share'], BAR)}" if row["size"] == "tiny" else ""
        shares = f"{row['share']:.2f} ({low:.2f} to {high:.2f}; by CPU seconds {row['share_cpu']:.2f})"
        print(
            f"{row['size']}: {row['gigaflops_a_second']:.1f} of {row['peak_gigaflops']:.1f} GFLOP/s, {shares}{judged}"
        )
        print("  " + ", ".join(f"{name} {share:.1%}" for name, share in row["operators"]))
    settings = {"rounds_of_tiny": options.rounds, "products": PRODUCTS, "flops": "by formula, see step_flops"}
    write_results(options.out, settings, rows)


if __name__ == "__main__":
    main()
