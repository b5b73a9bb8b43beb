"""The command line: diffkit data | train | sample | infill | evaluate | doctor. Thin: every command calls the package."""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from jsonargparse import auto_cli
from torch import Generator
from transformers import PreTrainedTokenizerBase

from diffkit import doctor as examination
from diffkit.config import DataSettings, ModelSettings, build, default_output, read
from diffkit.evaluate import Estimate, gap_to_entropy, nelbo, quality
from diffkit.language import load_language
from diffkit.model import DiffusionModel, load_model, parameter_count, quiet
from diffkit.sample import Frame, canvas_from_text, denoise_frames, last_frame
from diffkit.tokenizer import load_tokenizer
from diffkit.train import TrainingDiverged, TrainSettings, fit, with_progress

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
Rule = Literal["ancestral", "random", "confidence", "margin", "entropy", "left_to_right"]
HIDDEN = "░░░"
MISTAKES = (ValueError, TypeError, OSError, TrainingDiverged)  # of the user's, told without a traceback


def data(data: DataSettings = DataSettings(), seed: int = 0) -> None:
    """Prepare a corpus: read, split, tokenize, cut, keep in the cache; show what the model will see.

    Args:
        data: what to read; see `diffkit train --help`.
        seed: of the split and the order.
    """
    started = time.perf_counter()
    texts = read(data, seed)
    batch = next(texts.batches)
    print(f"{data.corpus}: sequences of {batch.shape[1]} tokens, vocabulary {len(texts.tokenizer):,}, ", end="")
    print(f"{len(texts.validation)} held out, ready in {time.perf_counter() - started:.1f} s. The first of a batch:")
    print(textwrap.fill(texts.tokenizer.decode(batch[0]), 100))


def train(
    data: DataSettings = DataSettings(),
    model: ModelSettings = ModelSettings(),
    train: TrainSettings = TrainSettings(),
    out: str = "",
    resume: bool = False,
    track: str = "",
) -> None:
    """Train a model. Without arguments: configs/default.yaml, the nano model on the built-in stories, offline.

    Args:
        data: what the model reads.
        model: what is trained.
        train: how it is trained.
        out: folder for checkpoints and the finished model (default runs/CORPUS-PROCESS-SIZE).
        resume: go on from the newest checkpoint in that folder, bit for bit.
        track: also log to "wandb", "tensorboard" or "trackio" (installed with the extra `track`).
    """
    from accelerate import Accelerator

    folder = Path(out) if out else default_output(data, model)
    shop = build(data, model, train.seed)
    accelerator = Accelerator(mixed_precision=train.precision, log_with=track or None, project_dir=str(folder))
    if track:
        accelerator.init_trackers("diffkit")
    print(f"{parameter_count(shop.model):,} parameters on {accelerator.device}; checkpoints in {folder}")
    if shop.language:
        print(f"The exact entropy is {shop.language.entropy() / shop.language.length:.4f} nats per token.")
    records = fit(
        shop.model, shop.batches, train, folder=folder / "checkpoints", resume=resume, validate=shop.validate, accelerator=accelerator
    )
    folder.mkdir(parents=True, exist_ok=True)
    finished = False
    with (folder / "training.jsonl").open("a", encoding="utf-8") as log:
        for record in with_progress(records, train):
            log.write(json.dumps(record._asdict()) + "\n")
            accelerator.log({"loss": record.loss, "grad_norm": record.grad_norm, "lr": record.lr}, step=record.step)
            if record.validation is not None:
                print(f"step {record.step}: held-out bound {record.validation:.4f} nats per token", flush=True)
            finished = record.step == train.steps
    accelerator.end_training()
    if accelerator.is_main_process:
        save(shop.model, shop.tokenizer, folder)
    print(f"{'Done' if finished else 'Stopped; resume with --resume true'}. The model is in {folder}")


def save(model: DiffusionModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write model and tokenizer as one folder that `load_model` reads."""
    with quiet():
        model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _paragraph(frame: Frame, row: int, tokenizer: PreTrainedTokenizerBase) -> str:
    """A text on its way, hidden tokens as blocks, everything after its end cut off."""
    words = []
    for token in frame.tokens[row].tolist():
        if token in (tokenizer.eos_token_id, tokenizer.pad_token_id):
            continue
        words.append(HIDDEN if token == tokenizer.mask_token_id else tokenizer.convert_ids_to_tokens(token))
    if HIDDEN not in words:
        return tokenizer.decode([i for i in frame.tokens[row].tolist() if i not in tokenizer.all_special_ids])
    return tokenizer.convert_tokens_to_string(words)


def animate(frames: Iterable[Frame], tokenizer: PreTrainedTokenizerBase, seconds: float = 0.12) -> Frame:
    """Play frames in the terminal, in place where it can, else a few of them one below the other."""
    width, live, drawn = min(100, shutil.get_terminal_size().columns), sys.stdout.isatty(), 0
    for frame in frames:
        lines = textwrap.wrap(_paragraph(frame, 0, tokenizer), width) or [""]
        if live:
            print(f"\033[{drawn}F\033[J" if drawn else "", end="")
            print("\n".join(lines), f"\n[step {frame.step}]", flush=True)
            drawn = len(lines) + 1
            time.sleep(seconds)
        elif frame.step % 12 == 0:
            print(f"[step {frame.step}]", *lines, sep="\n")
    return frame


def sample(
    model: str = "tales-mdlm",
    n: int = 1,
    steps: int = 0,
    rule: Rule = "random",
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    prompt: str = "",
    length: int = 0,
    seed: int | None = None,
    animate: bool = False,
) -> None:
    """Write new texts.

    Args:
        model: folder of a trained model, or the name of a shipped one.
        n: how many texts.
        steps: network calls (default: one for every token, the best there is).
        rule: which hidden tokens are revealed first; "ancestral" follows the diffusion process itself.
        temperature: below 1 safer, above 1 wilder.
        top_k: draw from the k likeliest tokens only.
        top_p: draw from the smallest set of tokens that holds this probability.
        prompt: how the text starts; `___` leaves one word open.
        length: tokens of the canvas (default: what the model was trained on).
        seed: the same seed gives the same texts (default: a new one each time).
        animate: show the text appear.
    """
    trained, tokenizer = _load(model)
    canvas = canvas_from_text(prompt, tokenizer, length or trained.denoiser.config.max_length).expand(n, -1)
    _write(trained, tokenizer, canvas, steps, rule, temperature, top_k, top_p, seed, animate)


def infill(
    text: str,
    model: str = "tales-mdlm",
    n: int = 1,
    complete: bool = False,
    steps: int = 0,
    rule: Rule = "random",
    temperature: float = 1.0,
    seed: int | None = None,
    animate: bool = False,
) -> None:
    """Fill the blanks of a text and keep its words: diffkit infill "One ___ day Mia ran to the park ."

    Args:
        text: a text with blanks `___`, one for each missing word.
        model: folder of a trained model, or the name of a shipped one.
        n: how many fillings.
        complete: the text ends where it ends; otherwise the model also writes how it goes on.
        steps: network calls (default: one for every blank).
        rule: which hidden tokens are revealed first.
        temperature: below 1 safer, above 1 wilder.
        seed: the same seed gives the same fillings.
        animate: show the words appear.
    """
    trained, tokenizer = _load(model)
    canvas = canvas_from_text(text, tokenizer, trained.denoiser.config.max_length, complete=complete).expand(n, -1)
    _write(trained, tokenizer, canvas, steps, rule, temperature, None, None, seed, animate)


def _load(model: str) -> tuple[DiffusionModel, PreTrainedTokenizerBase]:
    trained = load_model(model)
    return trained, load_tokenizer(trained.name_or_path)


def _write(trained, tokenizer, canvas, steps, rule, temperature, top_k, top_p, seed, animated) -> None:  # type: ignore[no-untyped-def]
    """Sample from a canvas and print, animated or not."""
    hidden = int((canvas[0] == tokenizer.mask_token_id).sum())
    if hidden == 0:
        raise ValueError("nothing to write: the text has no blank (___) and is complete.")
    rng = Generator()
    rng.seed() if seed is None else rng.manual_seed(seed)
    frames = denoise_frames(
        trained.process, trained, start=canvas, steps=min(steps or hidden, trained.process.T), rng=rng, rule=rule,
        temperature=temperature, top_k=top_k, top_p=top_p,
    )  # fmt: skip
    frame = animate(frames, tokenizer) if animated else last_frame(frames)
    for row in range(1 if animated else 0, len(canvas)):
        print(textwrap.fill(_paragraph(frame, row, tokenizer), 100), end="\n\n" if len(canvas) > 1 else "\n")


def evaluate(
    model: str = "tales-mdlm",
    n: int = 512,
    samples: int = 128,
    steps: int = 0,
    corpus: str = "",
    seed: int = 0,
    json_file: str = "",
) -> None:
    """Judge a model: the bound on its negative log-likelihood and, where the language is known, the gap to the truth.

    Args:
        model: folder of a trained model, or the name of a shipped one.
        n: sequences the bound looks at.
        samples: stories drawn to see how many are valid (known languages only; 0 for none).
        steps: network calls for each story (default: one for every token).
        corpus: text to evaluate on (default: the language that the model was trained on).
        seed: of stories, masks and samples.
        json_file: also write the results there.
    """
    trained, tokenizer = _load(model)
    rng, L = Generator().manual_seed(seed), trained.denoiser.config.max_length
    name = corpus or trained.config.language
    if not name:
        raise ValueError("evaluate: this model was trained on real text; say which text to use with --corpus.")
    x0 = read(DataSettings(name, trained.name_or_path, L, validation_sequences=n), seed).validation
    bound = nelbo(trained.process, trained, x0, rng=rng)
    results = report_bound(bound, L, len(x0))
    if name == trained.config.language:
        language = load_language(name)
        gap = gap_to_entropy(trained.process, trained, language, n, rng=rng) / L
        results |= {"entropy_nats_per_token": language.entropy() / L, "gap_nats_per_token": gap.mean, "gap_se": gap.standard_error}
        print(f"exact entropy            {language.entropy() / L:.4f} nats per token")
        print(f"gap to the entropy       {gap} nats per token, paired with the exact denoiser")
        if samples:
            canvas = trained.process.prior(samples, L, rng)
            frames = denoise_frames(trained.process, trained, start=canvas, steps=steps or L, rng=rng, rule="random")
            found = quality(language, last_frame(frames).tokens)
            results |= found._asdict()
            print(f"valid stories            {found.valid:.1%} of {samples} (95 % interval {found.low:.1%} to {found.high:.1%})")
    if json_file:
        Path(json_file).write_text(json.dumps(results, indent=1), encoding="utf-8")


def report_bound(bound: Estimate, L: int, n: int) -> dict[str, float]:
    """Print a bound in every unit, averages first and the exponent last; the numbers as a dictionary."""
    per_token = bound / L
    perplexity = 2.718281828459045**per_token.mean
    print(f"bound on {n} sequences    {bound} nats per sequence; PAD and EOS count as tokens, exact-count estimator")
    print(f"                         {per_token} nats per token; perplexity at most {perplexity:.4f}")
    return {
        "nats_per_sequence": bound.mean, "nats_per_sequence_se": bound.standard_error,
        "nats_per_token": per_token.mean, "perplexity": perplexity, "sequences": n,
    }  # fmt: skip


def doctor() -> None:
    """Check this machine: versions, device, memory, shipped models, speed of a training step; say what to do."""
    findings = []
    for finding in examination.examine():
        findings.append(finding)
        print(examination.line_of(finding), flush=True)
    wrong = sum(not finding.ok for finding in findings)
    print("Everything works." if not wrong else f"{wrong} to look at; the lines marked LOOK say what to do.")


COMMANDS = {command.__name__: command for command in (data, train, sample, infill, evaluate, doctor)}


def main(arguments: list[str] | None = None) -> int:
    """Entry point of the command `diffkit`; 0 if all went well, 2 for a mistake of the user's."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["train"] and not any(word.startswith("--config") or word in ("-h", "--help") for word in arguments):
        arguments = ["train", "--config", str(CONFIGS / "default.yaml"), *arguments[1:]]
    try:
        auto_cli(COMMANDS, args=arguments, prog="diffkit", description=__doc__, as_positional=True)
    except MISTAKES as mistake:
        print(f"diffkit: {mistake}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("diffkit: stopped.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
