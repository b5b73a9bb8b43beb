"""The command line of diffkit: prepare a text, train a small diffusion language model, write with it, judge it.

Start with `diffkit doctor`, then `diffkit sample --animate`; every command explains itself: `diffkit train --help`.
"""

from __future__ import annotations

import importlib.util
import inspect
import json
import math
import os
import re
import sys
import textwrap
import time
from argparse import ArgumentError
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from accelerate import Accelerator
from jsonargparse import ArgumentParser, auto_cli
from torch import Generator, Tensor
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerBase

from diffkit import __version__
from diffkit import doctor as examination
from diffkit.checkpoint import latest_checkpoint
from diffkit.config import DataSettings, ModelSettings, Workshop, build, default_output, read_held_out
from diffkit.evaluate import Estimate, gap_to_entropy, nelbo, quality
from diffkit.language import StoryLanguage, load_language
from diffkit.model import DiffusionModel, load_model, parameter_count, quiet
from diffkit.sample import canvas_from_text, denoise_frames, last_frame
from diffkit.terminal import paragraph, play
from diffkit.tokenizer import load_tokenizer
from diffkit.train import Record, TrainingDiverged, TrainSettings, fit, with_progress

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
Rule = Literal["ancestral", "random", "confidence", "margin", "entropy", "left_to_right"]
Tracker = Literal["", "wandb", "tensorboard", "trackio"]
MISTAKES = (ValueError, OSError, TrainingDiverged)  # of the user's, told without a traceback


def data(data: DataSettings, model: ModelSettings, train: TrainSettings = TrainSettings()) -> None:
    """Prepare a corpus (read, split, tokenize, cut, cache) and show what a model sees of it.

    Without --config it is configs/default.yaml: diffkit data --config configs/tiny.yaml --data.corpus my.txt

    Args:
        data: what is read.
        model: its process and schedule show how text is hidden; nothing is trained.
        train: its seed decides the order and the split.
    """
    started = time.perf_counter()
    shop = build(data, model, train.seed)
    x0 = next(shop.batches)[:1]
    process, tokenizer = shop.model.process, shop.tokenizer
    print(f"{data.corpus}: ready in {time.perf_counter() - started:.1f} s, {len(tokenizer):,} words in the vocabulary.")
    print(f"\nOne sequence of {x0.shape[1]} tokens, as it is:\n{paragraph(x0[0], tokenizer)}")
    xt, is_masked = process.corrupt(x0, float(process.T // 2), Generator().manual_seed(train.seed))
    print(f"\nThe same at t = {process.T // 2} of {process.T}, {int(is_masked.sum())} tokens hidden:")
    print(paragraph(xt[0], tokenizer))


def train(
    data: DataSettings,
    model: ModelSettings,
    train: TrainSettings = TrainSettings(),
    out: str = "",
    resume: bool = False,
    track: Tracker = "",
) -> None:
    """Train a model. Without --config it is configs/default.yaml: nano, on the built-in stories, offline.

    Options change single settings: diffkit train --config configs/tiny.yaml --data.corpus my.txt --train.steps 20.
    Ctrl-C saves and stops.

    Args:
        data: what the model reads.
        model: what is trained.
        train: how it is trained.
        out: folder for checkpoints and the finished model (default: runs/CORPUS-PROCESS-SIZE).
        resume: go on from the newest checkpoint in that folder, bit for bit; `--resume` alone is enough.
        track: also log to one of these (installed with the extra `track`).
    """
    folder = Path(out) if out else default_output(data, model)
    _check_output(folder, resume, track)
    shop = build(data, model, train.seed)
    where = str(folder)
    accelerator = Accelerator(mixed_precision=train.precision, log_with=track or None, project_dir=where)
    newest = latest_checkpoint(folder / "checkpoints")
    print(f"{parameter_count(shop.model):,} parameters on {accelerator.device}; checkpoints in {folder / 'checkpoints'}")
    if resume:
        print(f"Resuming from {newest.name}." if newest else "Nothing to resume there: starting afresh.")
    if shop.language:
        print(f"The exact entropy is {shop.language.entropy() / shop.language.length:.4f} nats per token.")
    if track:
        accelerator.init_trackers("diffkit")
    records = fit(
        shop.model, shop.batches, train, folder=folder / "checkpoints", resume=resume, validate=shop.validate,
        accelerator=accelerator,
    )  # fmt: skip
    step = train.steps  # if there is nothing left to do
    for record in with_progress(_logged(records, folder / "training.jsonl", accelerator), train):
        step = record.step
        if record.validation is not None:
            tqdm.write(f"step {step}: held-out bound {record.validation:.4f} nats per token")
    accelerator.end_training()
    if accelerator.is_main_process:
        save(shop, folder)
    print("Done." if step == train.steps else f"Stopped after {step} of {train.steps} steps; go on with --resume.")
    print(f"The model is in {folder}: diffkit sample --model {folder}")


def _check_output(folder: Path, resume: bool, track: str) -> None:
    """Find out before the work, and without leaving anything behind, whether results can be kept."""
    parent = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not (parent.is_dir() and os.access(parent, os.W_OK)):
        raise OSError(f"train: cannot write to {folder}: {parent} is not a folder you may write to. Choose another --out.")
    if (folder / "config.json").exists() and not resume:
        raise ValueError(f"train: {folder} already holds a model. Go on with --resume, or choose another folder with --out.")
    if track and importlib.util.find_spec(track) is None:
        raise ValueError(f"train: {track} is not installed. Run pip install -e '.[track]', or leave --track out.")


def _logged(records: Iterator[Record], path: Path, accelerator: Accelerator) -> Iterator[Record]:
    """The same records, one line of JSON each in a file; what a resumed run does again is not told twice."""
    for record in records:
        accelerator.log({"loss": record.loss, "grad_norm": record.grad_norm, "lr": record.lr}, step=record.step)
        if accelerator.is_main_process:
            lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
            path.write_text("\n".join([*lines[: record.step - 1], json.dumps(record._asdict())]) + "\n", encoding="utf-8")
        yield record


def save(shop: Workshop, folder: Path) -> None:
    """Write model and tokenizer as one folder that `load_model` reads."""
    with quiet():
        shop.model.save_pretrained(folder)
    shop.tokenizer.save_pretrained(folder)
