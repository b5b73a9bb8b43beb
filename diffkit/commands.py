"""What the commands of diffkit do, one function each: their signatures are the options, their docstrings the help."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import Accelerator
from torch import Generator, Tensor
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerBase

from diffkit import doctor as examination
from diffkit import report
from diffkit.checkpoint import latest_checkpoint, write_whole
from diffkit.config import DataSettings, ModelSettings, Workshop, build, default_output, learn_tokenizer, read_held_out
from diffkit.diffusion import Denoise
from diffkit.guidance import follow
from diffkit.language import load_language
from diffkit.model import DiffusionModel, load_model, parameter_count, quiet
from diffkit.sample import canvas_from_text, denoise_frames, last_frame
from diffkit.terminal import paragraph, play
from diffkit.tokenizer import load_tokenizer
from diffkit.train import Record, TrainSettings, fit, with_progress

Rule = Literal["ancestral", "random", "confidence", "margin", "entropy", "left_to_right"]
Tracker = Literal["", "wandb", "tensorboard", "trackio"]


def data(
    data: DataSettings, model: ModelSettings, train: TrainSettings, train_tokenizer: str = "", vocab_size: int = 4096
) -> None:
    """Prepare the text of configs/default.yaml, or of --config, as training would, and show what a model sees of it.

    Args:
        data: what is read.
        model: its process and schedule show how text is hidden; nothing is trained.
        train: its seed decides the order and the split.
        train_tokenizer: first learn a small tokenizer from the training part of the text, and save it in this folder.
        vocab_size: how many words and pieces of words it shall have.
    """
    if train_tokenizer:
        data = learn_tokenizer(data, train.seed, Path(train_tokenizer), vocab_size)
        print(f"A tokenizer is in {train_tokenizer}; to train with it: --data.tokenizer {train_tokenizer}")
    started = time.perf_counter()
    shop = build(data, model, train.seed)
    x0 = next(shop.batches)[:1]
    process, tokenizer = shop.model.process, shop.tokenizer
    print(f"{data.corpus}: ready in {time.perf_counter() - started:.1f} s, {len(tokenizer):,} words in the vocabulary.")
    print(f"\nOne sequence of {x0.shape[1]} tokens, as it is:\n{paragraph(x0[0], tokenizer)}")
    xt, is_masked = process.corrupt(x0, torch.tensor(process.T // 2), Generator().manual_seed(train.seed))
    print(f"\nThe same at t = {process.T // 2} of {process.T}, {int(is_masked.sum())} tokens hidden:")
    print(paragraph(xt[0], tokenizer))


def train(
    data: DataSettings,
    model: ModelSettings,
    train: TrainSettings,
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
    _check_output(folder, resume, track)
    shop = build(data, model, train.seed)
    accelerator = Accelerator(mixed_precision=train.precision, log_with=track or None, project_dir=str(folder))
    checkpoints = folder / "checkpoints"
    newest = latest_checkpoint(checkpoints)
    print(f"{parameter_count(shop.model):,} parameters on {accelerator.device}; checkpoints in {checkpoints}")
    if resume:
        print(f"Resuming from {newest.name}." if newest else "Nothing to resume there: starting afresh.")
    if shop.language:
        print(f"The exact entropy is {shop.language.entropy() / shop.language.length:.4f} nats per token.")
    if track:
        accelerator.init_trackers("diffkit")
    records = fit(
        shop.model, shop.batches, train, folder=checkpoints, resume=resume, validate=shop.validate,
        accelerator=accelerator, label_of=shop.label_of,
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
        raise OSError(f"cannot write to {folder}: {parent} is not a folder you may write to. Choose another --out.")
    if (folder / "config.json").exists() and not (resume and latest_checkpoint(folder / "checkpoints")):
        raise ValueError(f"{folder} already holds a model. Go on with --resume, or choose another folder with --out.")
    if track and importlib.util.find_spec(track) is None:
        raise ValueError(f"{track} is not installed. Run pip install -e '.[track]', or leave --track out.")


def _logged(records: Iterator[Record], path: Path, accelerator: Accelerator) -> Iterator[Record]:
    """The same records, one line of JSON each in a file; what a resumed run does again is not told twice."""
    done = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    with contextlib.ExitStack() as files:
        log = None
        for record in records:
            accelerator.log({"loss": record.loss, "grad_norm": record.grad_norm, "lr": record.lr}, step=record.step)
            if log is None and accelerator.is_main_process:
                path.parent.mkdir(parents=True, exist_ok=True)
                log = files.enter_context(path.open("w", buffering=1, encoding="utf-8"))
                log.writelines(f"{line}\n" for line in done[: record.step - 1])
            if log:
                log.write(json.dumps(record._asdict()) + "\n")
            yield record


def save(shop: Workshop, folder: Path) -> None:
    """Write model and tokenizer as one folder that `load_model` reads."""
    with quiet():
        shop.model.save_pretrained(folder)
    shop.tokenizer.save_pretrained(folder)


def sample(
    model: str = "tales-mdlm",
    n: int = 1,
    steps: int | None = None,
    rule: Rule | None = None,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    prompt: str = "",
    length: int | None = None,
    label: str = "",
    guidance: float = 0.0,
    seed: int | None = None,
    animate: bool = False,
) -> None:
    """Write new texts: diffkit sample --prompt "One rainy day" --n 3.

    Args:
        model: folder of a trained model, or the name of a shipped one.
        n: how many texts.
        steps: network calls; fewer are faster and worse (default: one for every token).
        rule: which hidden tokens are revealed first; "ancestral" follows the process itself (default: random, where
            the process leaves a choice).
        temperature: below 1 safer, above 1 wilder.
        top_k: draw from the k likeliest tokens only.
        top_p: draw from the smallest set of tokens that holds this probability.
        prompt: how the text starts; ___ leaves one word open, ___{3} three.
        length: tokens of the canvas (default: what the model was trained on).
        label: how a story ends (lost, kept, returned, shared); for a conditional model such as tales-mdlm-conditional.
        guidance: how much to stress the label; 0 follows it as it was learned.
        seed: the same seed gives the same texts (default: new ones each time).
        animate: show the text appear; `--animate` alone is enough.
    """
    trained, tokenizer = _load(model)
    longest = trained.denoiser.config.max_length
    length = longest if length is None else length
    if not 1 <= length <= longest:
        raise ValueError(f"--length must lie in 1..{longest}, what the model was trained on, got {length}.")
    canvas = canvas_from_text(prompt, tokenizer, length)
    how = {"rule": rule, "temperature": temperature, "top_k": top_k, "top_p": top_p}
    _write(trained, tokenizer, canvas, n, steps, seed, animate, how, _steered(trained, label, guidance))


def infill(
    text: str,
    model: str = "tales-mdlm",
    n: int = 1,
    complete: bool = False,
    steps: int | None = None,
    rule: Rule | None = None,
    temperature: float = 1.0,
    label: str = "",
    guidance: float = 0.0,
    seed: int | None = None,
    animate: bool = False,
) -> None:
    """Fill the blanks of a text and keep its words: diffkit infill "One ___ day Mia walked to the park."

    Args:
        text: a text with blanks, ___ for one missing word, ___{3} for three: before, between or behind the words.
        model: folder of a trained model, or the name of a shipped one.
        n: how many fillings.
        complete: the text ends where it ends; otherwise the model also writes how it goes on.
        steps: network calls (default: one for every hidden token).
        rule: which hidden tokens are revealed first; "ancestral" follows the process itself (default: random, where
            the process leaves a choice).
        temperature: below 1 safer, above 1 wilder.
        label: how the story ends (lost, kept, returned, shared), for a conditional model.
        guidance: how much to stress the label; 0 follows it as it was learned.
        seed: the same seed gives the same fillings (default: new ones each time).
        animate: show the words appear; `--animate` alone is enough.
    """
    trained, tokenizer = _load(model)
    canvas = canvas_from_text(text, tokenizer, trained.denoiser.config.max_length, complete=complete)
    if not (canvas == tokenizer.mask_token_id).any():
        raise ValueError("the text is complete and has no blank; write ___ where a word is missing.")
    how = {"rule": rule, "temperature": temperature}
    _write(trained, tokenizer, canvas, n, steps, seed, animate, how, _steered(trained, label, guidance))


def _load(model: str) -> tuple[DiffusionModel, PreTrainedTokenizerBase]:
    trained = load_model(model)
    return trained, load_tokenizer(trained.name_or_path)


def _steered(trained: DiffusionModel, label: str, guidance: float) -> Denoise:
    """The model, or the model told how the text shall end."""
    if not label and not guidance:
        return trained
    labels = load_language(trained.config.language).labels if trained.config.language and trained.labels else []
    if not labels:
        raise ValueError("this model knows no labels; --label and --guidance need one such as tales-mdlm-conditional.")
    if label not in labels:
        raise ValueError(f"--label must be one of {', '.join(labels)}, got {label!r}.")
    return follow(trained, labels.index(label), guidance)


def _write(
    trained: DiffusionModel, tokenizer: PreTrainedTokenizerBase, canvas: Tensor, n: int, steps: int | None,
    seed: int | None, animated: bool, how: dict[str, Any], denoise: Denoise,
) -> None:  # fmt: skip
    """Fill n copies of a canvas (1, L) and print them; the first one is played if it is to be animated."""
    if n < 1:
        raise ValueError(f"--n must be at least 1, got {n}.")
    if steps is None:
        steps = min(max(1, int((canvas == tokenizer.mask_token_id).sum())), trained.process.T)
    rng = Generator()
    rng.seed() if seed is None else rng.manual_seed(seed)
    is_blank = bool((canvas == tokenizer.mask_token_id).all())  # nothing given: the process knows how a text starts
    start = trained.process.prior(n, canvas.shape[1], rng) if is_blank else canvas.expand(n, -1)
    how["rule"] = how["rule"] or trained.process.default_rule
    frames = denoise_frames(trained.process, denoise, start=start, steps=steps, rng=rng, **how)
    frame = play(frames, tokenizer, steps=steps) if animated else last_frame(frames)
    texts = [paragraph(ids, tokenizer) for ids in frame.tokens[1 if animated else 0 :]]
    print(*texts, sep="\n\n", end="\n" if texts else "")


def evaluate(
    model: str = "tales-mdlm",
    n: int = 512,
    samples: int = 128,
    steps: int | None = None,
    corpus: str = "",
    fraction: float = 0.01,
    seed: int = 0,
    json_file: str = "",
    all: bool = False,
    out: str = "",
) -> None:
    """Judge a model: the bound on its negative log-likelihood and, where the language is known, the gap to the truth.

    Args:
        model: folder of a trained model, or the name of a shipped one.
        n: sequences that the bound looks at.
        samples: stories drawn to see how many are valid (known languages only; 0 for none).
        steps: network calls for each story (default: one for every token).
        corpus: text to evaluate on (default: the language that the model was trained on).
        fraction: share of that text which training held out; 1 for a text that the model has never seen.
        seed: of masks and samples; for a text also of the split, as in training.
        json_file: also write the results there.
        all: everything there is to measure, with a report: table, JSON, Markdown and figures; `--all` alone is enough.
        out: folder of that report (default: reports/MODEL).
    """
    trained, tokenizer = _load(model)
    rng, L, name = Generator().manual_seed(seed), trained.denoiser.config.max_length, corpus or trained.config.language
    steps = L if steps is None else steps
    if not name:
        raise ValueError("this model was trained on real text; say which text to use with --corpus.")
    known = load_language(name) if name == trained.config.language else None
    if all:
        if known is None or samples < 1:
            raise ValueError("--all needs a model of a known language, evaluated on it, and at least one sample.")
        whole = report.measure(trained, known, n=n, samples=samples, steps=(steps,), rng=rng)
        return _write_report(Path(model).name, whole, Path(out or f"reports/{Path(model).name}"))
    x0 = read_held_out(DataSettings(name, str(trained.name_or_path), L, 1, n, fraction), seed)
    found = report.measure_bound(trained, tokenizer, x0, rng, padded=known is not None)
    print(*report.bound_lines(found), sep="\n")
    if known:
        found |= report.measure_gap(trained, known, n, rng)
        print(*report.gap_lines(found), sep="\n")
    if known and samples > 0:
        found |= report.measure_validity(known, report.draw(trained, samples, L, steps, rng)) | {"steps": steps}
        print(*report.sample_lines(found), sep="\n")
    if json_file:
        write_whole(Path(json_file), json.dumps(found, indent=1) + "\n")


def _write_report(name: str, found: report.Figures, folder: Path) -> None:
    """Leave a report in a folder, and print what it says."""
    report.write(name, found, folder)
    print(*report.bound_lines(found), *report.gap_lines(found), "", report.sample_table(found), sep="\n")
    print(f"\nThe report is in {folder}: README.md, report.json and figures.")


def doctor() -> None:
    """Check this machine: versions, device, memory, shipped models, seconds per training step; say what to do."""
    wrong = 0
    for finding in examination.examine():
        wrong += not finding.ok
        print(examination.line_of(finding), flush=True)
    print("Everything works." if not wrong else f"{wrong} to look at: the lines marked LOOK say what to do.")
