"""What Muon's step costs in float32 (ours) and in bfloat16 (torch's), in turn in one run.

    python benchmarks/muon.py            # the matrices of a nano model, one thread, half a minute

On a CPU without bfloat16 units the iteration of torch.optim.Muon takes most of a training step.
"""

from __future__ import annotations

import time
from statistics import median

import torch

from diffkit.model import build_model
from diffkit.processes.masked import MaskedDiffusion
from diffkit.training.muon import Muon

ROUNDS = 7


def main() -> None:
    """Time both on the same gradients, a round each in turn, and print the median of the ratios."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = build_model(MaskedDiffusion(166, 4, "linear"), "nano")
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embedding" not in name]
    for matrix in matrices:
        matrix.grad = torch.randn_like(matrix)
    both = {
        "float32": Muon(matrices, lr=0.0),
        "bfloat16": torch.optim.Muon(matrices, lr=0.0, adjust_lr_fn="match_rms_adamw"),
    }
    seconds: dict[str, list[float]] = {name: [] for name in both}
    for _ in range(ROUNDS + 1):  # the first warms up
        for name, optimizer in both.items():
            started = time.perf_counter()
            optimizer.step()
            seconds[name].append(time.perf_counter() - started)
    for name, all_of_them in seconds.items():
        print(f"{name:9s} {1000 * median(all_of_them[1:]):7.1f} ms a step of {len(matrices)} matrices")
    ratios = [slow / fast for fast, slow in zip(*(values[1:] for values in seconds.values()), strict=True)]
    print(f"torch's takes {median(ratios):.1f} times as long as ours ({min(ratios):.1f} to {max(ratios):.1f})")


if __name__ == "__main__":
    main()
