"""Seconds of the default `diffkit sample` path in two source trees, alternately in fresh processes; prints the ratio.

    git worktree add /tmp/old v0.1 && python benchmarks/default_sample.py /tmp/old

One text of 128 tokens, V = 30,522, in 64 steps of the default order, by an untrained `tiny` network, whose weights
do not matter for the time; one thread. The two trees write the same tokens, which is checked.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
CHILD = """
import importlib, importlib.util, json, sys, time, torch
def find(name, *modules):
    for module in modules:
        try:
            return getattr(importlib.import_module(module), name)
        except ImportError:
            pass
torch.set_num_threads(1), torch.manual_seed(0)
V, L, steps = map(int, sys.argv[1:])
process = find("MaskedDiffusion", "diffkit.processes.masked", "diffkit.diffusion")(V, 103, "linear")
model = find("build_model", "diffkit.model")(process, "tiny", max_length=L).eval()
sample = find("sample", "diffkit.sampling.sampler", "diffkit.sample")
how = {"order" if importlib.util.find_spec("diffkit.sampling") else "rule": "random"}  # the default of this process
started = time.perf_counter()
ids = sample(process, model, shape=(1, L), steps=steps, rng=torch.Generator().manual_seed(0), **how)
print(json.dumps([time.perf_counter() - started, ids.tolist()]))
"""


def seconds(tree: Path, V: int, L: int, steps: int) -> tuple[float, list[list[int]]]:
    """Time one text in a fresh process that imports diffkit from a tree; with it the text."""
    command = [sys.executable, "-c", CHILD, *map(str, (V, L, steps))]
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    found = json.loads(subprocess.run(command, cwd=tree, env=environment, stdout=subprocess.PIPE, check=True).stdout)
    return found[0], found[1]


def main() -> None:
    """Run both trees in turn and print medians."""
    parser = argparse.ArgumentParser(description="The default `diffkit sample` in two source trees.")
    parser.add_argument("old", type=Path, help="a git worktree of the commit to compare with")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each tree (default: 3)")
    parser.add_argument("--shape", type=int, nargs=3, default=[30_522, 128, 64], metavar=("V", "L", "STEPS"))
    options = parser.parse_args()
    times: dict[str, list[float]] = {"old": [], "new": []}
    for i in range(options.rounds):
        old, new = (seconds(tree, *options.shape) for tree in (options.old.resolve(), HERE))
        times["old"].append(old[0])
        times["new"].append(new[0])
        print(f"round {i + 1}: old {old[0]:.2f} s, new {new[0]:.2f} s, same tokens: {old[1] == new[1]}", flush=True)
    medians = {name: statistics.median(each) for name, each in times.items()}
    print(
        f"median: old {medians['old']:.2f} s, new {medians['new']:.2f} s, {medians['old'] / medians['new']:.1f} times"
    )


if __name__ == "__main__":
    main()
