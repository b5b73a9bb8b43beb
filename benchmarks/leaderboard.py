"""The leaderboard: every method on the same backbone, data, tokens and optimizer, beside the exact denoiser.

    make leaderboard                                # all rows, hours on a CPU; stop and go on as you like
    python benchmarks/leaderboard.py --list         # what there is, and what is done
    python benchmarks/leaderboard.py --only plaid   # one row; two may run side by side
    python benchmarks/leaderboard.py --only plaid --rescore  # sample again, after a sampler has changed

Each row is `diffkit train` with a file of configs/leaderboard, then scored on fresh stories. Rows that stand in
results/leaderboard.json are not run again, and one that was interrupted resumes from its checkpoint under
runs/leaderboard. The model of the first seed is shipped as data/pretrained/pico-NAME; to score another seed again, its
run has to be there. Seconds per text are measured last, all rows in turn, if one of them is new. Notebook 16 reads the
table.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
from dataclasses import replace
from pathlib import Path
from statistics import median

import torch

from diffkit.cli import train
from diffkit.cli.settings import read_config
from diffkit.course.experiments.leaderboard import (
    TITLES,
    Board,
    Row,
    SampleScores,
    as_json,
    by_likelihood,
    by_samples,
    likelihood,
    read_board,
    samplers_of,
    score_samples,
    seconds_per_text,
    steps_of,
)
from diffkit.io import atomic_folder, write_atomic
from diffkit.languages.story_language import StoryLanguage, load_language
from diffkit.model import DiffusionModel, fingerprint, load_model
from diffkit.network.transformer import parameter_count
from diffkit.paths import PRETRAINED

HOME = Path(__file__).resolve().parent.parent
RESULTS = HOME / "benchmarks" / "results" / "leaderboard.json"
STORIES, DRAWS, TEXTS, TIMED_STEPS = 1024, 8, 256, 16
MODEL_FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
CARD = """---
license: mit
library_name: diffkit
pipeline_tag: text-generation
---
# pico-{name}

The row "{title}" of the leaderboard (notebook 16): {parameters:,} parameters, trained on the story language `tales` by
`diffkit train --config configs/leaderboard/{name}.yaml`: {tokens:,} tokens with padding, {minutes:.0f} minutes on
one thread of a shared cloud CPU (AMD EPYC), beside other work. All rows share data, width, depth, steps and optimizer.

Its bound is {excess} nats per token above the entropy on {stories:,} fresh stories: {gap} is the
network's error, {slack} what the exact denoiser has. More in benchmarks/results/leaderboard.json, all by
benchmarks/leaderboard.py.

It knows the words of `tales` and stories of one shape; it is a teaching instrument, not a writer.
"""


def run_folder(name: str, seed: int) -> Path:
    """Where a row is trained."""
    return HOME / "runs" / "leaderboard" / (f"{name}-seed{seed}" if seed else name)


def run(name: str, seed: int, language: StoryLanguage) -> Row:
    """Train one row, or go on with it, and judge it."""
    read = read_config(HOME / "configs" / "leaderboard" / f"{name}.yaml")
    settings = read._replace(train=replace(read.train, seed=seed))
    folder = run_folder(name, seed)
    train.train(*settings, out=str(folder), resume=True)
    trained = load_model(folder)
    process, L = trained.process, language.length
    records = train.read_log(folder)
    a_step = settings.data.batch_size * L
    row = Row(
        name=name,
        seed=seed,
        settings=settings.plain(),
        parameters=parameter_count(trained),
        tokens=settings.train.steps * a_step,
        minutes=sum(a_step / each["tokens_per_second"] for each in records) / 60,
        curve=[(each["step"], round(each["validation"], 4)) for each in records if each["validation"] is not None],
        weights=fingerprint(folder),
        likelihood=likelihood(process, trained, language, STORIES, seed=777, draws=DRAWS),
        samples=scored(trained, language),
    )
    if seed == 0:
        ship(row, folder)
    return row


def scored(trained: DiffusionModel, language: StoryLanguage) -> list[SampleScores]:
    """What a model writes by each sampler of its process, beside the exact denoiser."""
    process = trained.process
    return [
        score_samples(who, process, denoise, language, sampler=sampler, steps=steps, n=TEXTS, seed=779)
        for sampler in samplers_of(process)
        for steps in steps_of(process, language.length)
        for who, denoise in (("trained", trained), ("exact", language.denoiser(process)))
    ]


def rescore(out: Path, name: str, seed: int, language: StoryLanguage) -> None:
    """Sample a row of the table again, from the shipped model or, where its seed is another, from that of its run.

    Raises: FileNotFoundError if the weights are not there.
    """
    folder = run_folder(name, seed) if seed else PRETRAINED / f"pico-{name}"
    if not (folder / "model.safetensors").is_file():
        raise FileNotFoundError(
            f"leaderboard: the weights of {name} of seed {seed} are not in {folder}. Only those of seed 0 are shipped; "
            "copy the folder from the machine that trained it, or train it again with another --out."
        )
    samples = scored(load_model(folder), language)
    board = read_board(out)  # only now: another row may have come in meanwhile
    rows = [row._replace(samples=samples) if (row.name, row.seed) == (name, seed) else row for row in board.rows]
    write_atomic(out, as_json(board._replace(rows=rows)))


def ship(row: Row, folder: Path) -> None:
    """Copy the model to where the course looks for it, with a card; the old one stays until the new one is whole."""
    target = PRETRAINED / f"pico-{row.name}"
    with atomic_folder(target) as draft:
        for file in MODEL_FILES:
            shutil.copy(folder / file, draft / file)
        facts = row._asdict() | row.likelihood._asdict() | {"title": row.title(), "stories": STORIES}
        write_atomic(draft / "README.md", CARD.format(**facts))


def timed(rows: list[Row], language: StoryLanguage) -> list[Row]:
    """The rows with their seconds per text: all in turn, three rounds after one to warm up, the median of each."""
    models = {row.name: load_model(PRETRAINED / f"pico-{row.name}") for row in rows}
    rounds = [
        {name: seconds_per_text(m.process, m, language.length, steps=TIMED_STEPS) for name, m in models.items()}
        for _ in range(4)
    ]
    return [row._replace(seconds=median(each[row.name] for each in rounds[1:])) for row in rows]


def judging(language: StoryLanguage) -> dict:
    """What the figures rest on."""
    return {
        "language": "tales", "entropy_nats_a_token": language.entropy() / language.length, "stories": STORIES,
        "draws": DRAWS, "texts": TEXTS, "timed_steps": TIMED_STEPS, "timed_batch": 64,
        "torch": torch.__version__.split("+")[0], "python": platform.python_version(), "machine": platform.machine(),
        "threads": torch.get_num_threads(), "cpus": os.cpu_count(),
    }  # fmt: skip


def main() -> None:
    """Run what is missing, then time all rows, then show the table."""
    parser = argparse.ArgumentParser(description="Every method on one ruler.")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the table (default: results/leaderboard.json)")
    parser.add_argument("--only", choices=TITLES, action="append", help="this row (may be given more than once)")
    parser.add_argument("--seed", type=int, default=0, help="of the training; 0 is the one that is shipped")
    parser.add_argument("--rescore", action="store_true", help="sample again from stored models, train nothing")
    parser.add_argument("--list", action="store_true", help="show the rows, run nothing")
    options = parser.parse_args()
    language = load_language("tales")
    for name in options.only or TITLES:
        is_done = any((row.name, row.seed) == (name, options.seed) for row in read_board(options.out).rows)
        if options.list:
            print("done" if is_done else "open", name)
        elif options.rescore and is_done:
            rescore(options.out, name, options.seed, language)
        elif options.rescore:
            print(f"{name}: no row of seed {options.seed} in {options.out}, nothing to score again")
        elif not is_done:
            row = run(name, options.seed, language)
            rows = [*read_board(options.out).rows, row]  # read anew: another row may have come in meanwhile
            write_atomic(options.out, as_json(Board(judging(language), rows)))
    board = read_board(options.out)
    if options.list or not board.rows:
        return
    if not options.only and any(row.seconds is None for row in board.rows):
        board = board._replace(rows=timed(board.rows, language))
        write_atomic(options.out, as_json(board))
    print(by_likelihood(board.rows), by_samples(board.rows), sep="\n\n")


if __name__ == "__main__":
    main()
