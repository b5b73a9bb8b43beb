"""Memory of one process that is used for long: samplings, players, loadings, figures, and notebooks run again.

    python benchmarks/long_use.py                              # about twenty minutes on one core
    python benchmarks/long_use.py loops --out try.json         # only the loops; also: reruns, together, interrupted

Loops: the same thing again and again in one process; resident memory, Python objects and tensors at ten moments, the
first after a warm-up. Reruns: all cells of a notebook, 20 times in one kernel. Together: two notebooks at once, each
held against its stored outputs. Interrupted: a notebook is interrupted at random moments (Ctrl-C), then run from the
top in the same kernel, and held against its stored outputs. Prints a table, writes JSON.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nbformat
import psutil
import torch
from ipywidgets.widgets.widget import _instances
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode
from torch import Generator
from training import RESULTS, write_results

from diffkit.course import plots
from diffkit.course.widgets.board import InfillingBoard
from diffkit.course.widgets.panel import close
from diffkit.course.widgets.player import Player
from diffkit.languages.story_language import load_language
from diffkit.model import load_model
from diffkit.sampling.sampler import Frame, denoise_frames, sample

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "scripts"))
from run_notebooks import normalise, same_where_compared  # noqa: E402

LOOKS = 10  # moments at which memory is read
RUNS, RERUN = 20, ("02_noise_schedules", "00_start_here", "05_training")
TOGETHER = ("02_noise_schedules", "03_objective")
INTERRUPTIONS, INTERRUPTED = 3, ("05_training", "04_model", "02_noise_schedules")  # trains, writes files, has widgets
IMPORTS = "load_language("  # in the cell that imports: torch interrupted while it loads cannot be loaded again
SHORTER = {"05_training": {"steps=200": "steps=20", "every=50": "every=5", "warmup=20": "warmup=2", "n=256": "n=16"}}


# ------------------------------------------------------------------------------------------------------------- loops


def held() -> dict[str, float]:
    """What this process holds now, after a collection: MB resident, Python objects, tensors, open widgets."""
    gc.collect()
    everything = gc.get_objects()
    tensors = sum(issubclass(type(one), torch.Tensor) for one in everything)
    resident = psutil.Process().memory_info().rss / 1e6
    return {"mb": resident, "objects": len(everything), "tensors": tensors, "widgets": len(_instances)}


def again(act: Callable[[int], Any], times: int, looks: int = LOOKS) -> list[dict[str, float]]:
    """Do something `times` times; what is held at so many moments, evenly spaced, the last at the end."""
    seen, every = [], times // looks
    for i in range(times):
        act(i)
        if (i + 1) % every == 0:
            seen.append({"after": i + 1} | held())
    return seen


def loops() -> dict[str, tuple[int, Callable[[int], Any]]]:
    """What is done again and again, and how often."""
    language, model = load_language("tales"), load_model("tales-mdlm")
    process, shape = model.process, (1, language.length)

    def samplings(i: int) -> None:
        sample(process, model, shape=(4, language.length), steps=4, rng=Generator().manual_seed(i))

    frames: list[Frame] = list(denoise_frames(process, model, shape=shape, steps=8, rng=Generator().manual_seed(0)))
    player = Player(frames, language.tokenizer)

    def new_board() -> InfillingBoard:
        return InfillingBoard(process, model, language, frames[-1].tokens[0], hidden=(1, 2))

    def players(_: int) -> None:
        Player(frames, language.tokenizer)._repr_mimebundle_()

    def curve(i: int) -> None:
        plots.lines(range(9), {"a": range(9), "b": [i] * 9}, title="t", x_label="x", y_label="y", alt="a line")

    return {
        "samplings": (1000, samplings),
        "players made and shown": (200, players),
        "one player shown": (200, lambda _: player._repr_mimebundle_()),
        "boards made and shown": (200, lambda _: new_board().controls()),
        "boards made and closed": (200, lambda _: close(new_board().controls())),
        "loadings": (100, lambda _: load_model("tales-mdlm")),
        "figures": (100, curve),
    }


def loop_rows() -> list[dict[str, Any]]:
    """Every loop, run in turn."""
    return [shown({"what": name, "times": times, "looks": again(act, times)}) for name, (times, act) in loops().items()]


# --------------------------------------------------------------------------------------------------------- notebooks


def read(name: str) -> NotebookNode:
    """A notebook as it is stored; a training that takes minutes is cut short."""
    notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    for cell in notebook.cells:
        for long, short in SHORTER.get(name, {}).items():
            cell.source = cell.source.replace(long, short)
    return notebook


class Kernel:
    """A kernel in which a notebook is run from top to bottom, as often as you like; files that it leaves are seen."""

    def __init__(self, name: str):
        self.name, self.scratch = name, Path(tempfile.mkdtemp(prefix="long-use-"))
        self.client = NotebookClient(
            read(name), timeout=900, kernel_name="python3", resources={"metadata": {"path": str(ROOT / "notebooks")}},
            record_timing=False, store_widget_state=False,
        )  # fmt: skip

    def __enter__(self) -> Kernel:
        environment = os.environ | {"TMPDIR": str(self.scratch), "PYTHONDONTWRITEBYTECODE": "1"}
        self.client.create_kernel_manager()
        self.client.start_new_kernel(env=environment)
        self.client.start_new_kernel_client()
        return self

    def __exit__(self, *_: object) -> None:
        self.client._cleanup_kernel()
        shutil.rmtree(self.scratch, ignore_errors=True)

    @property
    def pid(self) -> int:
        """Of the kernel's process."""
        return self.client.km.provisioner.process.pid

    def run(self, interrupt_after: float | None = None, after: str = "") -> NotebookNode:
        """Run all cells and return what they gave; interrupted so many seconds after the first cell with `after`."""
        self.client.nb = notebook = read(self.name)
        self.client.reset_execution_trackers()
        timer = threading.Timer(interrupt_after or 0, os.kill, (self.pid, signal.SIGINT))
        code = [(i, cell) for i, cell in enumerate(notebook.cells) if cell.cell_type == "code"]
        for _, cell in code:
            cell.outputs, cell.execution_count = [], None
        try:
            for i, cell in code:
                self.client.execute_cell(cell, i)
                if interrupt_after is not None and timer.ident is None and after in cell.source:
                    timer.start()
        finally:
            timer.cancel()
        return notebook

    def megabytes(self) -> float:
        """Resident memory, after a collection."""
        self.client.kc.execute("import gc; gc.collect()", silent=True)
        time.sleep(2)
        return psutil.Process(self.pid).memory_info().rss / 1e6

    def left_behind(self) -> list[str]:
        """Files in its folder for temporary things."""
        return sorted(str(path.relative_to(self.scratch)) for path in self.scratch.rglob("*") if path.is_file())


def same(one: NotebookNode, other: NotebookNode) -> bool:
    """Whether two runs gave the same, as `make notebooks` compares; the numbers of the cells do not count."""
    both = [normalise(one), normalise(other)]
    for notebook in both:
        for cell in notebook.cells:
            for part in (cell, *cell.get("outputs", ())):
                part.pop("execution_count", None)
    return same_where_compared(*both)


def reruns(name: str, times: int) -> dict[str, Any]:
    """Memory of one kernel, run by run, and whether the last run gave what the first gave."""
    with Kernel(name) as kernel:
        first, looks = kernel.run(), [kernel.megabytes()]
        for _ in range(times - 1):
            last = kernel.run()
            looks.append(kernel.megabytes())
        growth = (looks[-1] - looks[1]) / (times - 2)
        return shown({"what": name, "runs": times, "mb": looks, "mb_a_run": growth, "same": same(first, last)})


def together(names: tuple[str, str]) -> dict[str, Any]:
    """Two notebooks alone, one after the other, and both at once."""

    def timed(name: str) -> tuple[float, NotebookNode]:
        started = time.perf_counter()
        with Kernel(name) as kernel:
            notebook = kernel.run()
        return time.perf_counter() - started, notebook

    alone = [timed(name) for name in names]
    started = time.perf_counter()
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(timed, names))
    whole = time.perf_counter() - started
    stored = [same(notebook, read(name)) for name, (_, notebook) in zip(names, both, strict=True)]
    seconds = {"alone": [one for one, _ in alone], "at_once": [one for one, _ in both], "until_both_ended": whole}
    ratio = [b / a for (a, _), (b, _) in zip(alone, both, strict=True)]
    return shown({"what": list(names), "seconds": seconds, "ratio": ratio, "as_stored": stored})


def interrupted(name: str, times: int) -> dict[str, Any]:
    """Interrupt at random moments after the imports, run all again, compare; and once more in a kernel of its own."""
    with Kernel(name) as kernel:
        kernel.run()
        started = time.perf_counter()
        reference = kernel.run()
        seconds = time.perf_counter() - started
    rng, cases = random.Random(name), []
    for _ in range(times):
        with Kernel(name) as kernel:
            moment, ended = rng.uniform(0, seconds), "unharmed"
            try:
                kernel.run(moment, after=IMPORTS)
            except CellExecutionError as error:
                ended = error.ename
            left = kernel.left_behind()
            cases.append({"moment": moment, "ended": ended, "left": left, "same": same(kernel.run(), reference)})
    with Kernel(name) as kernel:
        afresh = same(kernel.run(), reference)
    return shown({"what": name, "seconds": seconds, "cases": cases, "same_afresh": afresh})


def shown(row: dict[str, Any]) -> dict[str, Any]:
    """Print a row, and give it back."""
    print(json.dumps(row, default=str, allow_nan=False), flush=True)
    return row


PARTS: dict[str, Callable[[], list[dict[str, Any]]]] = {
    "loops": loop_rows,
    "reruns": lambda: [reruns(name, RUNS) for name in RERUN],
    "together": lambda: [together(TOGETHER)],
    "interrupted": lambda: [interrupted(name, INTERRUPTIONS) for name in INTERRUPTED],
}


def main() -> None:
    """Read the command line, measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)} (default: all)")
    parser.add_argument("--out", type=Path, default=RESULTS / "long_use.json", help="JSON file to write")
    arguments = parser.parse_args()
    if not {*arguments.parts} <= {*PARTS}:
        parser.error(f"the parts are {', '.join(PARTS)}, got {' '.join(arguments.parts)}")
    torch.set_num_threads(1)
    rows = [{"part": part, **row} for part in arguments.parts or PARTS for row in PARTS[part]()]
    write_results(arguments.out, {"looks": LOOKS, "runs": RUNS, "shortened": SHORTER}, rows)


if __name__ == "__main__":
    main()
