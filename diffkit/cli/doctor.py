"""The command that checks a machine: versions, device, memory, shipped models, seconds of a training step."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import NamedTuple

import psutil
import torch
from torch import Generator

from diffkit.languages.story_language import load_language
from diffkit.model import build_model, load_model
from diffkit.paths import PRETRAINED
from diffkit.processes.masked import MaskedDiffusion

PACKAGES = ("torch", "transformers", "datasets", "accelerate", "jupyterlab", "ipywidgets", "matplotlib")
MEMORY_NEEDED_GB = 2.0
SLOW_STEP_SECONDS = 2.0  # at this speed notebook 05 takes more than ten minutes


class Finding(NamedTuple):
    """One line of the report; `advice` helps when it is not ok."""

    name: str
    value: str
    ok: bool
    advice: str = ""


def device() -> str:
    """The device that training and sampling use here: "cuda", "mps" or "cpu"."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def seconds_per_step(batch_size: int = 64, repeats: int = 3) -> float:
    """Seconds of one training step of the nano model on `tales`, the fastest of a few, on the CPU."""
    language = load_language("tales")
    process = MaskedDiffusion(language.vocab_size, language.mask_id)
    model = build_model(process, "nano", max_length=language.length)
    rng = Generator().manual_seed(0)
    x0, t, times = language.sample(batch_size, rng), torch.full((batch_size,), 500), []
    for _ in range(repeats):
        started = time.perf_counter()
        process.loss(model, x0, t, rng).diffusion.mean().backward()
        times.append(time.perf_counter() - started)
    return min(times)


def _packages() -> Iterator[Finding]:
    works = (3, 11) <= sys.version_info[:2] < (3, 14)
    yield Finding("Python", platform.python_version(), works, "Install Python 3.11, 3.12 or 3.13.")
    for name in PACKAGES:
        try:
            yield Finding(name, version(name), True)
        except PackageNotFoundError:
            yield Finding(name, "missing", False, "Run `make lab` once, or pip install 'diffkit[notebooks]'.")


def _hardware() -> Iterator[Finding]:
    where = device()
    name = torch.cuda.get_device_name() if where == "cuda" else platform.processor() or platform.machine()
    yield Finding("device", f"{where} ({name})", True)
    yield Finding("threads", f"{torch.get_num_threads()} of {os.cpu_count()} cores", True)
    memory = psutil.virtual_memory().available / 1e9
    advice = f"Close other programs: the notebooks need about {MEMORY_NEEDED_GB:.0f} GB."
    yield Finding("free memory", f"{memory:.1f} GB", memory >= MEMORY_NEEDED_GB, advice)


def _models() -> Iterator[Finding]:
    folders = sorted(path.name for path in PRETRAINED.glob("*") if path.is_dir())
    if not folders:
        yield Finding(
            "shipped models", "none", False, f"Clone or install diffkit again; {PRETRAINED} is missing or empty."
        )
    for folder in folders:
        try:
            load_model(PRETRAINED / folder)
            yield Finding(f"model {folder}", "loads", True)
        except (OSError, ValueError, RuntimeError) as error:
            advice = f"{error} Fetch it again: git checkout data/pretrained, or install diffkit again."
            yield Finding(f"model {folder}", "does not load", False, advice)


def _speed() -> Iterator[Finding]:
    seconds = seconds_per_step()
    advice = "Close other programs, or plug the laptop in; everything works, but training notebooks take longer."
    yield Finding("training step", f"{seconds:.2f} s for 64 stories", seconds < SLOW_STEP_SECONDS, advice)


SECTIONS: tuple[Callable[[], Iterator[Finding]], ...] = (_packages, _hardware, _models, _speed)


def doctor() -> None:
    """Check this machine: versions, device, memory, shipped models, seconds per training step."""
    wrong = 0
    for finding in examine():
        wrong += not finding.ok
        print(line_of(finding), flush=True)
    print("Everything works." if not wrong else f"{wrong} to look at: see the advice below the lines marked LOOK.")


def examine() -> Iterator[Finding]:
    """Every check in turn; takes a few seconds."""
    for section in SECTIONS:
        yield from section()


def line_of(finding: Finding) -> str:
    """A finding as one line of text, with the advice below it where something is wrong."""
    mark = "ok  " if finding.ok else "LOOK"
    return f"{mark}  {finding.name:<30}{finding.value}" + ("" if finding.ok else f"\n      {finding.advice}")
