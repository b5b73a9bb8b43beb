"""Tokens a second and peak memory of a training step: our model, and transformers' BertForMaskedLM of the same size.

    python benchmarks/training.py                                          # tiny and nano, four minutes on one core
    python benchmarks/training.py --text stories.txt --vocab vocab.txt     # tiny on real text

A step is the forward pass, the loss of the hidden tokens, the backward pass and AdamW. Both models see the same batches
with the same tokens hidden, in turn within each round, so that a slow minute of the machine strikes both; the ratio is
the median over the rounds. BERT is trained as its page says, `model(ids, labels=...).loss`, without dropout, as ours.
Memory is the largest resident set of a fresh process during two steps, asked every 5 ms through psutil, above what it
was just before the model was built. OMP_NUM_THREADS sets the threads; with one, the seconds of the processor say what
those of the clock would on a machine that does nothing else. Prints one table, writes JSON.
"""

from __future__ import annotations

import argparse
import os
import platform
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import psutil
import torch
import transformers
from torch import Generator, Tensor
from transformers import BertConfig, BertForMaskedLM, BertTokenizerFast, PreTrainedTokenizerBase

from diffkit.data.tokenizer import load_tokenizer
from diffkit.io import write_json
from diffkit.languages.story_language import load_language
from diffkit.model import DiffusionModel, build_model
from diffkit.network.transformer import parameter_count
from diffkit.processes.masked import MaskedDiffusion
from diffkit.training.config import TrainConfig
from diffkit.training.losses import low_discrepancy
from diffkit.training.muon import make_optimizers
from diffkit.training.session import denormals_flushed

RESULTS = Path(__file__).resolve().parent / "results"
BARS = {"tiny": {"speed": 1.8, "memory": 0.6}, "nano": {"speed": 1.0}}


class Setup(NamedTuple):
    """What is trained on what: the size, V, the id of MASK, tokens in a text, texts in a batch, the schedule."""

    size: str
    V: int
    mask_id: int
    L: int
    B: int
    schedule: str


SETUPS = {
    "tiny": Setup("tiny", 30_522, 103, 128, 64, "cosine"),  # configs/tiny.yaml, BERT's vocabulary
    "nano": Setup("nano", 166, 1, 48, 64, "linear"),  # configs/nano.yaml, the language `tales`
}


class Batch(NamedTuple):
    """Texts (B, L), the same with tokens hidden, where they are hidden, and the times (B,) that said how many."""

    x0: Tensor
    xt: Tensor
    is_masked: Tensor
    t: Tensor


def our_model(setup: Setup) -> DiffusionModel:
    """A fresh model of ours."""
    return build_model(MaskedDiffusion(setup.V, setup.mask_id, setup.schedule), setup.size, max_length=setup.L)


def twin_of(setup: Setup) -> BertForMaskedLM:
    """BERT with the layers, width, heads, inner width, vocabulary, length and (un)tied head of our model."""
    shape = our_model(setup).denoiser.config
    return BertForMaskedLM(
        BertConfig(
            vocab_size=shape.vocab_size, hidden_size=shape.hidden_size, num_hidden_layers=shape.num_layers,
            num_attention_heads=shape.num_heads, intermediate_size=shape.intermediate_size,
            max_position_embeddings=shape.max_length, tie_word_embeddings=shape.tied,
            hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
        )
    )  # fmt: skip


def our_loss(model: DiffusionModel, batch: Batch) -> Tensor:
    """Mean cross-entropy of the hidden tokens, as `objectives.cross_entropy` takes it."""
    return model.process.token_loss(model, batch.x0, batch.xt, batch.t).sum() / batch.is_masked.sum()


def bert_loss(bert: BertForMaskedLM, batch: Batch) -> Tensor:
    """The same of BERT: a label of -100 marks what is not asked for."""
    return bert(batch.xt, labels=batch.x0.masked_fill(~batch.is_masked, -100)).loss


SIDES: dict[str, tuple[Callable[[Setup], Any], Callable[[Any, Batch], Tensor]]] = {
    "ours": (our_model, our_loss),
    "BertForMaskedLM": (twin_of, bert_loss),
}


class Learner:
    """A model with its optimizer; `step` trains it on one batch."""

    def __init__(self, side: str, setup: Setup):
        build, self.loss_of = SIDES[side]
        self.model = build(setup).train()
        self.optimizers = make_optimizers(self.model, TrainConfig(optimizer="adamw"))

    def step(self, batch: Batch) -> float:
        """Forward, backward, AdamW; returns the loss, nats per hidden token."""
        with denormals_flushed():
            loss = self.loss_of(self.model, batch)
            loss.backward()
            for optimizer in self.optimizers:
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
        return loss.item()


def open_tokenizer(source: Path | str) -> PreTrainedTokenizerBase:
    """A vocabulary of BERT's, one piece a line, its [SEP] as EOS; or what `load_tokenizer` takes."""
    if Path(source).is_file():
        return BertTokenizerFast(vocab=str(source), eos_token="[SEP]")
    return load_tokenizer(source)


def hidden_batches(setup: Setup, n: int, text: Path | None = None, vocab: Path | None = None) -> list[Batch]:
    """n batches with tokens hidden at low-discrepancy times, from the seed 0.

    Texts are cut from the file `text`, read with `vocab`; else they are stories of `tales`, if V is theirs, else random
    ids: what is timed depends on how many tokens are hidden, not on which.
    """
    rng, shape = Generator().manual_seed(0), (n, setup.B, setup.L)
    if text is not None and vocab is not None:
        tokenizer = open_tokenizer(vocab)
        with text.open(encoding="utf-8") as file:
            ids = tokenizer(file.read(10 * n * setup.B * setup.L), add_special_tokens=False, verbose=False)["input_ids"]
        texts = torch.tensor(ids[: np.prod(shape)]).reshape(shape)
    elif setup.V == load_language("tales").vocab_size:
        texts = load_language("tales").sample(n * setup.B, rng).reshape(shape)
    else:
        texts = torch.randint(setup.mask_id + 1, setup.V, shape, generator=rng)
    process = MaskedDiffusion(setup.V, setup.mask_id, setup.schedule)
    batches = []
    for x0 in texts:
        t = low_discrepancy(setup.B, process.T, rng)
        batches.append(Batch(x0, *process.corrupt(x0, t, rng), t))
    return batches


class Memory(NamedTuple):
    """Bytes of a process: resident, and how many of these are its own, not pages of a mapped file (Linux says so)."""

    resident: int
    own: int


def memory_of(process: psutil.Process) -> Memory:
    """What a process holds now."""
    info = process.memory_info()
    return Memory(info.rss, info.rss - getattr(info, "shared", 0))


def sampled_peak(work: Callable[[], Any]) -> tuple[Any, Memory, Memory]:
    """Do the work; returns its result, the memory before it, and the most of each kind on the way, every 5 ms."""
    process, finished = psutil.Process(), threading.Event()
    before = memory_of(process)
    seen = [before]

    def watch() -> None:
        while not finished.wait(0.005):
            seen[0] = Memory(*map(max, zip(seen[0], memory_of(process), strict=True)))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        result = work()
    finally:
        finished.set()
        watcher.join()
    return result, before, seen[0]


def alone(work: Callable[..., Any], *given: Any) -> Any:
    """Call a function in a fresh process, which shares no memory with this one."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(work, *given).result()


def peak_of(side: str, setup: Setup, batches: list[Batch], threads: int) -> int:
    """Bytes that building a model and two steps take at most; call it in a process of its own."""
    torch.set_num_threads(threads)

    def train() -> None:
        learner = Learner(side, setup)
        for batch in batches[:2]:
            learner.step(batch)

    _, before, most = sampled_peak(train)
    return most.resident - before.resident


def timed(work: Callable[..., Any], *given: Any) -> tuple[float, float]:
    """Seconds by the clock, and of the processor, all threads together."""
    clock, processor = time.perf_counter(), time.process_time()
    work(*given)
    return time.perf_counter() - clock, time.process_time() - processor


def race(setup: Setup, batches: list[Batch], rounds: int) -> list[dict[str, Any]]:
    """Both sides in turn, the first round to warm up; then each of them alone, for its memory."""
    learners = {side: Learner(side, setup) for side in SIDES}
    seconds: dict[str, list[tuple[float, float]]] = {side: [] for side in SIDES}
    for i in range(rounds + 1):
        for side in list(SIDES)[:: 1 if i % 2 else -1]:
            seconds[side].append(timed(learners[side].step, batches[i % len(batches)]))
    parameters = {side: parameter_count(learner.model) for side, learner in learners.items()}
    del learners
    rows: list[dict[str, Any]] = []
    for side in SIDES:
        clock, processor = (median(one[i] for one in seconds[side][1:]) for i in (0, 1))
        rows.append({
            "size": setup.size, "model": side, "parameters": parameters[side], "seconds_a_step": clock,
            "cpu_seconds_a_step": processor, "tokens_a_second": setup.B * setup.L / clock,
            "peak_megabytes": alone(peak_of, side, setup, batches, torch.get_num_threads()) / 1e6,
        })  # fmt: skip
    pairs = list(zip(seconds["ours"][1:], seconds["BertForMaskedLM"][1:], strict=True))
    for i, name in enumerate(("times_faster", "times_faster_cpu")):
        ratios = [bert[i] / ours[i] for ours, bert in pairs]
        rows[0] |= {name: median(ratios), f"{name}_of_rounds": [min(ratios), max(ratios)]}
    rows[0]["share_of_memory"] = rows[0]["peak_megabytes"] / rows[1]["peak_megabytes"]
    return rows


def machine() -> dict[str, Any]:
    """What ran it: kind of processor, threads and versions, no names."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")] or [platform.processor()]
    return {
        "cpu": names[0], "cores": os.cpu_count(), "threads": torch.get_num_threads(),
        "python": platform.python_version(), "torch": torch.__version__, "transformers": transformers.__version__,
    }  # fmt: skip


def write_results(path: Path, settings: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """Store a table as JSON, the old one or the new one whole; numbers to four digits."""

    def short(value: Any) -> Any:
        if isinstance(value, list):
            return [short(part) for part in value]
        return float(f"{value:.4g}") if isinstance(value, float) else value

    rows = [{key: short(value) for key, value in row.items()} for row in rows]
    write_json(path, {"settings": settings | {"machine": machine()}, "rows": rows})


def verdict(value: float, bar: float, most: bool = False) -> str:
    """The bar, and whether the value reaches it (or, with `most`, stays under it)."""
    return f"bar {'at most' if most else 'at least'} {bar:g}: {'met' if (value <= bar) == most else 'MISSED'}"


def show(rows: list[dict[str, Any]]) -> None:
    """Print the table, then the ratios beside their bars."""
    print(f"{'size':6}{'model':17}{'parameters':>12}{'s a step':>10}{'CPU s':>8}{'tokens/s':>10}{'peak MB':>9}")
    for row in rows:
        speeds = f"{row['cpu_seconds_a_step']:8.3f}{row['tokens_a_second']:10,.0f}{row['peak_megabytes']:9,.0f}"
        print(f"{row['size']:6}{row['model']:17}{row['parameters']:12,}{row['seconds_a_step']:10.3f}{speeds}")
    for row in rows[::2]:
        bars, (low, high) = BARS[row["size"]], row["times_faster_of_rounds"]
        print(f"{row['size']}: {row['times_faster']:.2f} times as fast ({low:.2f} to {high:.2f}; by CPU seconds "
              f"{row['times_faster_cpu']:.2f}), {verdict(row['times_faster'], bars['speed'])}")  # fmt: skip
        judged = f", {verdict(row['share_of_memory'], bars['memory'], most=True)}" if "memory" in bars else ""
        print(f"{row['size']}: {row['share_of_memory']:.2f} of the memory{judged}")


def main() -> None:
    """Run both sizes, print the table and the ratios, and store them."""
    parser = argparse.ArgumentParser(description="A training step of ours against BertForMaskedLM's.")
    parser.add_argument("--text", type=Path, help="a text file for tiny, with --vocab (default: random ids)")
    parser.add_argument("--vocab", type=Path, help="a vocabulary of 30,522 pieces, one a line, or a tokenizer folder")
    parser.add_argument("--rounds", type=int, default=3, help="measured rounds of tiny; nano has ten times as many")
    parser.add_argument("--out", type=Path, default=RESULTS / "training.json", help="where the JSON goes")
    options = parser.parse_args()
    torch.manual_seed(0)
    tiny, nano = SETUPS["tiny"], SETUPS["nano"]
    rows = race(tiny, hidden_batches(tiny, 4, options.text, options.vocab), options.rounds)
    rows += race(nano, hidden_batches(nano, 4), 10 * options.rounds)
    show(rows)
    settings = {
        "setups": {name: setup._asdict() for name, setup in SETUPS.items()}, "rounds_of_tiny": options.rounds,
        "ids_of_tiny": "real text" if options.text else "random", "memory": "resident set by psutil, every 5 ms",
    }  # fmt: skip
    write_results(options.out, settings, rows)


if __name__ == "__main__":
    main()
