"""The commands that make a model: data, train. Their signatures are the options, their docstrings the help."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import re
import time
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any, Literal, TextIO

import torch
from accelerate import Accelerator
from torch import Generator
from tqdm.auto import tqdm

from diffkit.cli.settings import Config, DataSettings, ModelSettings, Setup, build, default_output, learn_tokenizer
from diffkit.cli.terminal import columns, paragraph
from diffkit.io import atomic_files, check_writable, json_text, write_atomic, write_json
from diffkit.model import quiet
from diffkit.network.transformer import parameter_count
from diffkit.sampling.sampler import sample
from diffkit.training.checkpoint import latest_checkpoint
from diffkit.training.config import TrainConfig
from diffkit.training.parallel import make_accelerator
from diffkit.training.trainer import Record, fit

SAMPLES, SAMPLE_SEED = 2, 0  # texts shown while training, and the seed of all of them
Tracker = Literal["", "wandb", "tensorboard", "trackio"]


def data(
    data: DataSettings, model: ModelSettings, train: TrainConfig, train_tokenizer: str = "", vocab_size: int = 4096
) -> None:
    """Prepare the text of configs/default.yaml, or of --config, as training would, and show what a model sees of it.

    Args:
        data: what is read.
        model: its process shows how text is corrupted; nothing is trained.
        train: its seed decides the order and the split.
        train_tokenizer: first train a small tokenizer on the training part of the text, and save it in this folder.
        vocab_size: its number of tokens.
    """
    if train_tokenizer:
        data = learn_tokenizer(data, train.seed, Path(train_tokenizer), vocab_size)
        print(f"A tokenizer is in {train_tokenizer}; to train with it: --data.tokenizer {train_tokenizer}")
    started = time.perf_counter()
    setup = build(data, model, train.seed, print)
    x0 = next(setup.batches)[:1]
    process, tokenizer = setup.model.process, setup.tokenizer
    print(f"{data.corpus}: ready in {time.perf_counter() - started:.1f} s, vocabulary of {len(tokenizer):,} tokens.")
    print(f"\nOne sequence of {x0.shape[1]} tokens, as it is:\n{paragraph(x0[0], tokenizer, columns())}")
    xt, is_masked = process.corrupt(x0, torch.tensor(process.T // 2), Generator().manual_seed(train.seed))
    print(f"\nThe same at t = {process.T // 2} of {process.T}, {int(is_masked.sum())} tokens corrupted:")
    print(paragraph(xt[0], tokenizer, columns()))


def train(
    data: DataSettings,
    model: ModelSettings,
    train: TrainConfig,
    out: str = "",
    resume: bool = False,
    track: Tracker = "",
) -> None:
    """Train the model of configs/default.yaml, or of --config; options change single settings, and Ctrl-C saves.

    Args:
        data: what the model reads.
        model: what is trained.
        train: how it is trained.
        out: folder for checkpoints and the finished model (default: runs/CORPUS-PROCESS-SIZE).
        resume: go on from the newest checkpoint in that folder, bit for bit; `--resume` alone is enough.
        track: also log to one of these (installed with the extra `track`).
    """
    folder = Path(out) if out else default_output(data, model)
    _check_output(folder, resume, track, train)
    accelerator = make_accelerator(mixed_precision=train.precision, log_with=track or None, project_dir=str(folder))
    with accelerator.main_process_first():  # the others find the text prepared
        setup = build(data, model, train.seed, accelerator.print)
    checkpoints = folder / "checkpoints"
    _announce(setup, checkpoints, resume, accelerator)
    if train.warmup > train.steps:
        accelerator.print(
            f"The warm-up of {train.warmup:,} steps is longer than the run: the learning rate ends at "
            f"{train.lr_scale(train.steps - 1):.0%} of its full value. Choose a smaller --train.warmup."
        )
    if track:
        accelerator.init_trackers("diffkit")
    records: Iterator[Record] = fit(
        setup.model, setup.batches, train, folder=checkpoints, resume=resume, validate=setup.validate,
        accelerator=accelerator, label_of=setup.label_of,
    )  # fmt: skip
    step = train.steps  # if nothing is left to do
    records = _logged(records, folder, Config(data, model, train).plain(), accelerator)
    if train.sample_every:
        records = _sampled(records, setup, train.sample_every, folder / "samples.jsonl", accelerator)
    for record in with_progress(records, train) if accelerator.is_main_process else records:
        step = record.step
        if record.validation is not None and accelerator.is_main_process:
            tqdm.write(f"step {step}: held-out bound {record.validation:.4f} nats per token")
    accelerator.end_training()
    if accelerator.is_main_process:
        save(setup, folder)
    done = step == train.steps
    accelerator.print("Done." if done else f"Stopped after {step} of {train.steps} steps; go on with --resume.")
    accelerator.print(f"The model is in {folder}: diffkit sample --model {folder}")


def _check_output(folder: Path, resume: bool, track: str, train: TrainConfig) -> None:
    """Find out before the work, and without leaving anything behind, whether results can be kept."""
    check_writable(folder)
    if (folder / "config.json").exists() and not latest_checkpoint(folder / "checkpoints"):
        raise ValueError(
            f"{folder} already holds a model, and no checkpoint to resume from. Choose another folder with --out; "
            f"--model.init {folder} starts from the weights of that model."
        )
    if (folder / "config.json").exists() and not resume:
        raise ValueError(f"{folder} already holds a model. Go on with --resume, or choose another folder with --out.")
    if train.shard and train.sample_every:
        raise ValueError("--train.sample_every needs the whole model on one device; leave it out with --train.shard.")
    if track and importlib.util.find_spec(track) is None:
        raise ValueError(f"{track} is not installed. Run pip install 'diffkit[track]', or leave --track out.")


def _announce(setup: Setup, checkpoints: Path, resume: bool, accelerator: Accelerator) -> None:
    """Print size, device, folder, where a resumed run starts, and the exact entropy where it is known."""
    n, newest = accelerator.num_processes, latest_checkpoint(checkpoints)
    where = f"{accelerator.device}" if n == 1 else f"{n} processes, this one on {accelerator.device}"
    accelerator.print(f"{parameter_count(setup.model):,} parameters on {where}; checkpoints in {checkpoints}")
    if resume:
        accelerator.print(f"Resuming from {newest.name}." if newest else "Nothing to resume there: starting afresh.")
    if setup.language:
        entropy = setup.language.entropy() / setup.language.length
        accelerator.print(f"The exact entropy is {entropy:.4f} nats per token.")


def _logged(
    records: Iterator[Record], folder: Path, settings: dict[str, Any], accelerator: Accelerator
) -> Iterator[Record]:
    """The same records, one line of JSON each in a file beside the settings of the run."""
    with contextlib.ExitStack() as files:
        log = None
        for record in records:
            accelerator.log({"loss": record.loss, "grad_norm": record.grad_norm, "lr": record.lr}, step=record.step)
            if log is None and accelerator.is_main_process:
                write_json(folder / "settings.json", settings)
                log = files.enter_context(_continued(folder / "training.jsonl", record.step))
            if log:
                log.write(json_text(record._asdict()) + "\n")
            yield record


def read_log(folder: Path) -> list[dict[str, Any]]:
    """The records of a run's training.jsonl, or of a shipped model's.

    Raises: ValueError for a line that is no JSON; where such a line may be passed over, `run_page.lines_of` reads.
    """
    path, records = folder / "training.jsonl", []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise ValueError(
                f"read_log: line {number} of {path} is no record ({error}). If the run was killed, go on with --resume."
            ) from None
    return records


def _sampled(
    records: Iterator[Record], setup: Setup, every: int, path: Path, accelerator: Accelerator
) -> Iterator[Record]:
    """The same records; every few steps texts go to the terminal, a file and the trackers.

    They are always drawn from the same seed, with a generator of its own and the weights of that step, not averaged.
    """
    with contextlib.ExitStack() as files:
        log = None
        for record in records:
            if accelerator.is_main_process:
                log = log or files.enter_context(_continued(path, record.step))
            if log and record.step % every == 0:
                texts = written(setup)
                log.write(json_text({"step": record.step, "seed": SAMPLE_SEED, "texts": texts}) + "\n")
                accelerator.log({"samples": "\n\n".join(texts)}, step=record.step)
                tqdm.write("\n".join(f"step {record.step}, sample {i}: {text}" for i, text in enumerate(texts, 1)))
            yield record


def written(setup: Setup) -> list[str]:
    """A few texts by the model as it is."""
    process, rng = setup.model.process, Generator().manual_seed(SAMPLE_SEED)
    shape = (SAMPLES, setup.model.denoiser.config.max_length)
    steps = min(shape[1], process.T)
    ids = sample(process, setup.model, shape=shape, steps=steps, rng=rng, order=process.default_order)
    return [paragraph(row, setup.tokenizer) for row in ids.cpu()]


def _continued(path: Path, step: int) -> TextIO:
    """A log open for its next lines; what it has about this step or later ones a resumed run writes again."""
    write_atomic(path, _lines_before(step, path))
    return path.open("a", buffering=1, encoding="utf-8")


def _lines_before(step: int, path: Path) -> str:
    """The lines of a log about earlier steps; a line that a killed run left half-written is dropped."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    steps = [(re.match(r'{"step": (\d+), .*}\n', line), line) for line in lines]
    return "".join(line for match, line in steps if match and int(match[1]) < step)


def save(setup: Setup, folder: Path) -> None:
    """Write model and tokenizer as one folder that `load_model` reads; killed, it leaves whole files, old or new."""
    with atomic_files(folder, last="config.json") as draft:
        with quiet():
            setup.model.save_pretrained(draft)
        setup.tokenizer.save_pretrained(draft)


def with_progress(records: Iterator[Record], config: TrainConfig) -> Iterator[Record]:
    """The same records, with a progress bar: loss, tokens per second, time left. A resumed run starts where it was."""
    for first in records:
        with tqdm(total=config.steps, initial=first.step - 1, unit="step", dynamic_ncols=True) as bar:
            for record in chain([first], records):
                bar.set_postfix_str(f"loss {record.loss:.3f}, {record.tokens_per_second:,.0f} tokens/s", refresh=False)
                bar.update()
                yield record
