"""Seconds and memory of exact inference in a language.

    python benchmarks/language.py                # 64 stories of tales, half of each hidden
    python benchmarks/language.py --stories 512
    python benchmarks/language.py --language sagas --stories 16   # 16 texts of 256 positions

Memory is the peak of the whole process, the libraries included; the line before inference says how much they take.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Generator

from diffkit.languages.story_language import LANGUAGES, load_language


def peak_mb() -> float:
    """Largest memory this process has held so far, in MB; the system counts in KB, on macOS in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


def report(name: str, work: Callable[[], Any], repeats: int = 3) -> None:
    """Print the best time of a few."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    print(f"{name:34} {min(seconds):8.3f} s   peak {peak_mb():6.0f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stories", type=int, default=64)
    parser.add_argument("--language", choices=LANGUAGES, default="tales")
    given = parser.parse_args()
    n, name = given.stories, given.language
    print(f"{name}, {n} stories, {torch.get_num_threads()} threads")
    report("build the language", lambda: load_language(name), repeats=1)
    language, rng = load_language(name), Generator().manual_seed(0)
    ids = language.sample(n, rng)
    hidden = torch.where(torch.rand(ids.shape, generator=rng) < 0.5, language.mask_id, ids)
    noisy = torch.randn(n, language.length, language.vocab_size, dtype=torch.float64, generator=rng)
    report("sample", lambda: language.sample(n, rng))
    report("log-probability", lambda: language.log_prob(ids))
    report("posterior, half of it hidden", lambda: language.posterior(language.seen(hidden)))
    report(
        "posterior, all of it hidden", lambda: language.posterior(language.seen(torch.full_like(ids, language.mask_id)))
    )
    report("posterior, every position noisy", lambda: language.posterior(noisy))


if __name__ == "__main__":
    main()
