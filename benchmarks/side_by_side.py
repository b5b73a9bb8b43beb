"""This tree beside an older one, in one run: seconds of importing, sampling, training; operations of a training step.

    git worktree add ../before REVISION
    python benchmarks/side_by_side.py --before ../before

Every case is a short program that works in both trees. Rounds alternate between the trees, each in a process of its own
on one thread; the ratio is that of the medians. `--before` may be any commit with the same public behaviour.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median

HERE = Path(__file__).resolve().parent.parent
RESULTS = HERE / "benchmarks" / "results" / "side_by_side.json"

# Both trees, whatever their modules are called: the first address that exists.
FIND = """
import time, torch
from importlib import import_module
def find(name, *modules):
    for module in modules:
        try:
            return getattr(import_module("diffkit." + module), name)
        except (ModuleNotFoundError, AttributeError):
            pass
    raise SystemExit(f"{name} is in none of {modules}")
MaskedDiffusion = find("MaskedDiffusion", "processes.masked", "diffusion")
build_model = find("build_model", "model")
denoise_frames = find("denoise_frames", "sampling.sampler", "sample")
load_language = find("load_language", "languages.story_language", "language")
def big(length=128, V=30522):
    torch.manual_seed(0)
    return build_model(MaskedDiffusion(V, 103), "tiny", max_length=length).eval()
def seconds(work, rounds=3):
    work()
    started = time.perf_counter()
    for _ in range(rounds):
        work()
    return (time.perf_counter() - started) / rounds
"""

SAMPLE = """
model = big()
def write():
    rng = torch.Generator().manual_seed(0)
    for frame in denoise_frames(model.process, model, shape=(1, 128), steps=64, rng=rng, <options>):
        pass
print(seconds(write, 1))
"""

SHIPPED = """
model = find("load_model", "model")("<name>")
def write():
    rng, L = torch.Generator().manual_seed(0), model.denoiser.config.max_length
    for frame in denoise_frames(model.process, model, shape=(1, L), steps=L, rng=rng):
        pass
print(seconds(write, 1))
"""

STEP = """
from torch.utils._python_dispatch import TorchDispatchMode
OBJECTIVES = find("OBJECTIVES", "training.losses", "objectives")
language = load_language("tales")
process = MaskedDiffusion(language.vocab_size, language.mask_id, "linear")
model = build_model(process, "nano", max_length=language.length)
rng = torch.Generator().manual_seed(0)
x0, t = language.sample(64, rng), torch.randint(1, 1001, (64,), generator=rng)
class Count(TorchDispatchMode):
    operations = reads = 0
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.operations += 1
        self.reads += "_local_scalar_dense" in str(func)
        return func(*args, **(kwargs or {}))
def step():
    OBJECTIVES["<objective>"](model.process, model, x0, t, rng).backward()
"""

COUNT = """
with Count() as count:
    step()
print(count.<counter>)
"""

CLOCK = "import time; start = time.perf_counter(); {work}; print(time.perf_counter() - start)"
HELP = "import os, sys; assert os.system(sys.executable + ' -m diffkit --help > ' + os.devnull) == 0"
CASES = {
    "import torch, seconds": CLOCK.format(work="import torch"),
    "import diffkit, seconds": CLOCK.format(work="import diffkit"),
    "diffkit --help, seconds": CLOCK.format(work=HELP),
    "64 steps of 128 tokens, V = 30,522: seconds": FIND + SAMPLE.replace("<options>", ""),
    "the same with top_k = 50: seconds": FIND + SAMPLE.replace("<options>", "top_k=50"),
    "left to right, tinystories-ar: seconds": FIND + SHIPPED.replace("<name>", "tinystories-ar"),
    "left to right in blocks, tales-block: seconds": FIND + SHIPPED.replace("<name>", "tales-block"),
}
for objective in ("count_bound", "count_cross_entropy"):
    step = FIND + STEP.replace("<objective>", objective)
    CASES[f"{objective}: seconds of a step"] = step + "print(seconds(step, 10))"
    for counter in ("operations", "reads"):
        CASES[f"{objective}: {counter} of a step"] = step + COUNT.replace("<counter>", counter)


def measure(code: str, tree: Path) -> float:
    """What a program prints, run in a tree on one thread."""
    env = os.environ | {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=env, cwd=tree, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{tree}: {done.stderr[-800:]}")
    return float(done.stdout.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, required=True, help="a checkout of the older commit")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="cases whose name holds this")
    options = parser.parse_args()
    found = {}
    print(f"{'':50s}{'before':>12s}{'now':>12s}{'before/now':>12s}")
    for name, code in CASES.items():
        if options.only not in name:
            continue
        values = [[measure(code, tree) for tree in (options.before.resolve(), HERE)] for _ in range(options.rounds)]
        before, now = (median(column) for column in zip(*values, strict=True))
        found[name] = {"before": before, "now": now, "ratio": before / now if now else None}
        print(f"{name:50s}{before:12.4g}{now:12.4g}{before / now if now else float('inf'):12.2f}", flush=True)
    if not options.only:
        RESULTS.write_text(
            json.dumps({"rounds": options.rounds, "cases": found}, indent=1, allow_nan=False) + "\n", encoding="utf-8"
        )


if __name__ == "__main__":
    main()
