"""What text costs before it reaches the model: tokenising, the loaders' share of a step, a gigabyte from end to end.

    python benchmarks/data.py                                        # 4 MB of stories of `tales`, two minutes
    python benchmarks/data.py --text stories.txt --vocab vocab.txt   # your own text and vocabulary
    python benchmarks/data.py --gigabyte 1000                        # so many MB of random words; seven minutes

Tokenising sets `tokenize_corpus` (ids, joined, cut into chunks, checked) against a plain `datasets.map` call of the
same tokenizer, in turn, with fresh caches. The loaders' share is the mean time of `next(batches)`, over whole blocks
where a loader reads blocks, over the median step of tiny and of nano. The gigabyte is prepared as training does, with
one worker in a process of its own; resident memory counts the pages of memory-mapped files too, which the system takes
back when it needs them. Prints tables, writes JSON.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import datasets
import numpy as np
import torch
from torch import Generator
from training import (
    RESULTS,
    SETUPS,
    Learner,
    alone,
    hidden_batches,
    open_tokenizer,
    sampled_peak,
    timed,
    verdict,
    write_results,
)
from transformers import PreTrainedTokenizerBase

from diffkit.data.batches import ChunkBatches, StoryBatches, StreamBatches
from diffkit.data.chunks import tokenize_corpus
from diffkit.data.corpus import load_corpus, split_documents
from diffkit.languages.story_language import load_language

SHARE_BAR, GIGABYTES_BAR, LENGTH = 0.03, 2.0, 128
SERVED = 64  # batches a loader is timed for: four blocks of StreamBatches


def stories(path: Path, megabytes: float) -> Path:
    """Write stories of `tales`, one a line, from the seed 0."""
    language, rng, size = load_language("tales"), Generator().manual_seed(0), 0
    with path.open("w", encoding="utf-8") as file:
        while size < megabytes * 1e6:
            size += file.write("\n".join(language.decode(language.sample(1000, rng))) + "\n")
    return path


def random_words(path: Path, megabytes: float, words: list[str]) -> Path:
    """Write documents of 200 words, one a line, drawn evenly with seed 0; never more than a thousand in memory."""
    draw, size, table = np.random.default_rng(0), 0, np.array(words, dtype=object)
    with path.open("w", encoding="utf-8") as file:
        while size < megabytes * 1e6:
            size += file.write(
                "".join(" ".join(row) + "\n" for row in table[draw.integers(len(table), size=(1000, 200))])
            )
    return path


# ------------------------------------------------------------------------------------------------------ tokenising


def tokenising(text: Path, tokenizer: PreTrainedTokenizerBase, rounds: int) -> dict[str, Any]:
    """MB/s of both ways, in turn, each time into an empty folder."""
    seconds: dict[str, list[float]] = {"tokenize_corpus": [], "datasets.map": []}
    corpus = load_corpus(text)

    def plain(cache: str) -> None:
        corpus.map(
            lambda rows: tokenizer(rows["text"], verbose=False),
            batched=True,
            cache_file_name=f"{cache}/plain.arrow",
            new_fingerprint=f"plain-{time.time_ns()}",  # nothing of an earlier round is found
        )

    for i in range(rounds + 1):  # the first warms up
        for name in list(seconds)[:: 1 if i % 2 else -1]:
            with tempfile.TemporaryDirectory() as cache:
                work = (
                    plain
                    if name == "datasets.map"
                    else lambda c: tokenize_corpus(corpus, tokenizer, LENGTH, cache_dir=c)
                )
                seconds[name].append(timed(work, cache)[0])
    megabytes = text.stat().st_size / 1e6
    ratios = [slow / ours for ours, slow in list(zip(*seconds.values(), strict=True))[1:]]
    return {
        "megabytes": megabytes, "times_faster": median(ratios), "times_faster_of_rounds": [min(ratios), max(ratios)],
        **{f"megabytes_a_second_{name}": megabytes / median(values[1:]) for name, values in seconds.items()},
    }  # fmt: skip


# --------------------------------------------------------------------------------------------------------- loaders


def loaders(text: Path, tokenizer: PreTrainedTokenizerBase, L: int, B: int, cache: str) -> Iterator[tuple[str, Any]]:
    """Every kind of batches of B texts of L tokens; stories have their own length."""
    chunks = tokenize_corpus(load_corpus(text), tokenizer, L, cache_dir=cache)
    yield "ChunkBatches", ChunkBatches(chunks, B, seed=0)
    yield "StreamBatches", StreamBatches(load_corpus(text, streaming=True), tokenizer, L, B, seed=0)
    yield "StoryBatches", StoryBatches(load_language("tales"), B, seed=0)


def shares(text: Path, tokenizer: PreTrainedTokenizerBase, size: str, rounds: int, cache: str) -> list[dict[str, Any]]:
    """Time of a batch over that of a step, by the clock and by the seconds of the processor."""
    setup = SETUPS[size]
    learner, batches = Learner("ours", setup), hidden_batches(setup, 2)
    times = [timed(learner.step, batches[i % 2]) for i in range(rounds + 1)][1:]
    step, step_cpu = (median(one[i] for one in times) for i in (0, 1))
    rows = []
    for name, loader in loaders(text, tokenizer, setup.L, setup.B, cache):
        next(loader)  # opens files, builds tables
        batch, batch_cpu = (seconds / SERVED for seconds in timed(lambda it=loader: [next(it) for _ in range(SERVED)]))
        rows.append({"size": size, "loader": name, "milliseconds_a_batch": 1000 * batch, "seconds_a_step": step,
                     "share": batch / step, "share_cpu": batch_cpu / step_cpu})  # fmt: skip
    return rows


# ------------------------------------------------------------------------------------------------------ a gigabyte


def prepare(text: Path, vocab: Path | None, cache: str) -> dict[str, Any]:
    """Read, split and tokenise as training does, with one worker; call it in a process of its own."""
    datasets.config.HF_DATASETS_CACHE = cache
    tokenizer = open_tokenizer(vocab) if vocab else load_language("tales").tokenizer
    seconds: dict[str, float] = {}

    def work() -> int:
        moments = [time.perf_counter()]
        corpus = load_corpus(text)
        moments.append(time.perf_counter())
        train, held_out = split_documents(corpus, validation_fraction=0.01, seed=0)
        moments.append(time.perf_counter())
        chunks = [tokenize_corpus(part, tokenizer, LENGTH, cache_dir=cache) for part in (train, held_out)]
        moments.append(time.perf_counter())
        seconds.update(zip(("read", "split", "tokenise"), np.diff(moments).tolist(), strict=True))
        return sum(map(len, chunks)) * LENGTH

    tokens, before, most = sampled_peak(work)
    return {
        "megabytes": text.stat().st_size / 1e6, "tokens": tokens, "seconds": sum(seconds.values()),
        **{f"seconds_{name}": value for name, value in seconds.items()},
        "gigabytes_before": before.resident / 1e9, "gigabytes_peak": most.resident / 1e9,
        "own_gigabytes_peak": most.own / 1e9,
    }  # fmt: skip


def gigabyte(megabytes: list[float], vocab: Path | None, out: Path) -> None:
    """Prepare files of these sizes, print and store seconds and peak memory."""
    tokenizer = open_tokenizer(vocab) if vocab else load_language("tales").tokenizer
    words = sorted(word for word in tokenizer.get_vocab() if word.isalpha())
    rows = []
    for size in megabytes:
        with tempfile.TemporaryDirectory() as folder:
            rows.append(alone(prepare, random_words(Path(folder) / "words.txt", size, words), vocab, folder))
        peak, own, parts = rows[-1]["gigabytes_peak"], rows[-1]["own_gigabytes_peak"], ("read", "split", "tokenise")
        print(f"{size:,.0f} MB in {rows[-1]['seconds']:,.0f} s ("
              + ", ".join(f"{part} {rows[-1][f'seconds_{part}']:,.0f}" for part in parts)
              + f"); peak {own:.2f} GB of its own, {peak:.2f} GB resident, "
              + verdict(peak, GIGABYTES_BAR, most=True))  # fmt: skip
    write_results(out, {"words": len(words), "workers": 1, "memory": "resident set by psutil, every 5 ms"}, rows)


def main() -> None:
    """Measure tokenising and the loaders, or the gigabyte."""
    parser = argparse.ArgumentParser(description="Tokenising, loaders, and a gigabyte of text.")
    parser.add_argument("--text", type=Path, help="a text file (default: stories of tales)")
    parser.add_argument("--vocab", type=Path, help="a vocabulary, one piece a line, or a tokenizer folder")
    parser.add_argument("--rounds", type=int, default=3, help="measured rounds")
    parser.add_argument("--gigabyte", type=float, nargs="+", metavar="MB", help="only prepare files of these sizes")
    options = parser.parse_args()
    if options.gigabyte:
        return gigabyte(options.gigabyte, options.vocab, RESULTS / "gigabyte.json")
    torch.manual_seed(0)
    tokenizer = open_tokenizer(options.vocab) if options.vocab else load_language("tales").tokenizer
    with tempfile.TemporaryDirectory() as cache:
        datasets.config.HF_DATASETS_CACHE = cache
        text = options.text or stories(Path(cache) / "stories.txt", 4)
        speed = tokenising(text, tokenizer, options.rounds)
        rows = [row for size in SETUPS for row in shares(text, tokenizer, size, options.rounds, cache)]
    low, high = speed["times_faster_of_rounds"]
    print(f"tokenize_corpus {speed['megabytes_a_second_tokenize_corpus']:.2f} MB/s, a plain datasets.map "
          f"{speed['megabytes_a_second_datasets.map']:.2f} MB/s: {speed['times_faster']:.2f} times as fast "
          f"({low:.2f} to {high:.2f})")  # fmt: skip
    for row in rows:
        share = f"{row['share']:6.2%} of a step (by CPU seconds {row['share_cpu']:.2%})"
        print(f"{row['size']:6}{row['loader']:15}{row['milliseconds_a_batch']:8.2f} ms a batch, {share}, "
              + verdict(row["share"], SHARE_BAR, most=True))  # fmt: skip
    settings = {"text": "real text" if options.text else "stories of tales", "vocabulary": len(tokenizer)}
    write_results(RESULTS / "data.json", settings | {"tokenising": speed}, rows)


if __name__ == "__main__":
    main()
