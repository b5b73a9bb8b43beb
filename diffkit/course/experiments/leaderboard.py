"""The leaderboard: all methods measured alike, with the trained network and with the exact denoiser."""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor

from diffkit.evaluation.bounds import sequence_bounds
from diffkit.evaluation.samples import quality
from diffkit.evaluation.statistics import Estimate, mean_of
from diffkit.io import json_text
from diffkit.languages.story_language import StoryLanguage
from diffkit.processes.base import Denoise, Process
from diffkit.processes.gaussian.embedding_diffusion import MOVERS
from diffkit.sampling.sampler import sample_many
from diffkit.sampling.unmasking import UNMASKING_ORDERS

TITLES = {  # every row, by the name of its file in configs/leaderboard and of its model pico-NAME
    "autoregressive": "autoregressive",
    "mdlm": "masked, our loss",
    "mdlm-published": "masked, MDLM's loss",
    "d3pm-absorbing": "D3PM, absorbing",
    "sedd-absorbing": "SEDD, absorbing",
    "d3pm-uniform": "D3PM, uniform",
    "udlm": "UDLM (uniform)",
    "diffusion-lm": "Diffusion-LM",
    "plaid": "Plaid",
}
STEPS = (8, 16, 32, 64)  # network calls that a text may take
BATCH = 64  # texts timed together


class Likelihood(NamedTuple):
    """Where the nats go, each per token: the bound is entropy + slack + gap, up to chance."""

    excess: Estimate  # the network's bound above the truth, text by text
    gap: Estimate  # the network's bound above the exact denoiser's, same texts and noise: the model's error
    slack: Estimate  # the exact denoiser's bound above the truth: the method's cost


@torch.no_grad()
def likelihood(
    process: Process, denoise: Denoise, language: StoryLanguage, n: int, *, seed: int, draws: int = 16
) -> Likelihood:
    """The bound of a denoiser on n fresh stories, each corrupted `draws` times; `seed` decides both."""
    x0 = language.sample(n, Generator().manual_seed(seed))
    own, best = (
        sequence_bounds(process, each, x0, rng=Generator().manual_seed(seed + 1), draws=draws)
        for each in (denoise, language.denoiser(process))
    )
    truth = -language.log_prob(x0)
    return Likelihood(*(mean_of(nats) / language.length for nats in (own - truth, own - best, best - truth)))


class SampleScores(NamedTuple):
    """Scores of the texts of one denoiser and sampler."""

    denoiser: str  # "trained" or "exact"
    sampler: str  # an unmasking order, "ddpm" or "ddim", or "ancestral": the process's own step
    steps: int
    n: int
    valid: float  # share of texts that are stories
    low: float  # its 95 % interval
    high: float
    log_prob: float | None  # of the valid ones, nats; true stories have minus the entropy. None if there are none
    plot_kl: float | None  # KL(plots of the valid ones || plots of the language), nats
    plot_kl_floor: float | None  # what as many true stories show on average


def samplers_of(process: Process) -> tuple[str, ...]:
    """Its samplers, the one of its paper first."""
    if process.network.input_size:
        return ("ddpm", "ddim")
    return ("ancestral", "random") if process.default_order == "random" else ("ancestral",)


def steps_of(process: Process, L: int) -> tuple[int, ...]:
    """Numbers of calls to try; left to right it is one per position."""
    return (L,) if process.network.causal else STEPS


def sample_texts(
    process: Process, denoise: Denoise, sampler: str, *, n: int, L: int, steps: int, rng: Generator
) -> Tensor:
    """New texts (n, L), a batch at a time."""
    known = MOVERS if process.network.input_size else ("ancestral", *UNMASKING_ORDERS)
    if sampler not in known:
        raise ValueError(
            f"sample_texts: the samplers of {type(process).__name__} are {sorted(known)}, got {sampler!r}."
        )
    if process.network.input_size:
        process = copy.copy(process)  # the same words and weights
        setattr(process, "sampler", sampler)  # noqa: B010  # of the embedding processes
    order = sampler if sampler in UNMASKING_ORDERS else "ancestral"
    return sample_many(process, denoise, n=n, length=L, steps=steps, rng=rng, order=order)


def score_samples(
    name: str,
    process: Process,
    denoise: Denoise,
    language: StoryLanguage,
    *,
    sampler: str,
    steps: int,
    n: int,
    seed: int,
) -> SampleScores:
    """Sample n texts and score them; `name` is the denoiser's."""
    rng, L = Generator().manual_seed(seed), language.length
    found = quality(language, sample_texts(process, denoise, sampler, n=n, L=L, steps=steps, rng=rng))
    some = {name: value if math.isfinite(value) else None for name, value in found._asdict().items()}
    return SampleScores(name, sampler, steps, n, **some)  # type: ignore[arg-type]


def seconds_per_text(process: Process, denoise: Denoise, L: int, *, steps: int) -> float:
    """Wall time of a batch of 64 texts over 64, on this machine, now; compare only what was timed side by side."""
    rng = Generator().manual_seed(0)
    started = time.perf_counter()
    steps = L if process.network.causal else steps
    sample_texts(process, denoise, samplers_of(process)[0], n=BATCH, L=L, steps=steps, rng=rng)
    return (time.perf_counter() - started) / BATCH


class Row(NamedTuple):
    """One training run of one method, and its scores."""

    name: str  # of its config
    seed: int  # of its training
    settings: dict[str, Any]  # all of them, as trained
    parameters: int
    tokens: int  # read in training, padding included
    minutes: float  # of training on one thread of a shared machine
    curve: list[tuple[int, float]]  # held-out bound during training: (step, nats a token)
    weights: str  # SHA-256 of model.safetensors
    likelihood: Likelihood
    samples: list[SampleScores]
    seconds: float | None = None  # per text in 16 steps, one thread; all rows timed side by side

    def title(self) -> str:
        """Its name in tables and figures."""
        return TITLES[self.name]

    def scores(self, denoiser: str, sampler: str) -> list[SampleScores]:
        """The scores of one denoiser and sampler, few steps first."""
        return sorted(
            (each for each in self.samples if (each.denoiser, each.sampler) == (denoiser, sampler)),
            key=lambda s: s.steps,
        )


class Board(NamedTuple):
    """All rows, and the settings of their evaluation."""

    evaluation: dict[str, Any]
    rows: list[Row]


def read_board(path: Path) -> Board:
    """The stored leaderboard, rows in the order of TITLES; an empty one if there is no such file."""
    if not path.exists():
        return Board({}, [])
    stored = json.loads(path.read_text(encoding="utf-8"))
    rows = [_row(each) for each in stored["rows"]]
    return Board(stored["evaluation"], sorted(rows, key=lambda row: ([*TITLES].index(row.name), row.seed)))


def _row(stored: dict[str, Any]) -> Row:
    found = Likelihood(**{name: Estimate(**value) for name, value in stored["likelihood"].items()})
    samples = [SampleScores(**each) for each in stored["samples"]]
    curve = [(step, nats) for step, nats in stored["curve"]]
    return Row(**stored | {"likelihood": found, "samples": samples, "curve": curve})


def as_json(board: Board) -> str:
    """What `read_board` reads."""
    rows = [
        row._asdict()
        | {"likelihood": {name: part._asdict() for name, part in row.likelihood._asdict().items()}}
        | {"samples": [each._asdict() for each in row.samples]}
        for row in board.rows
    ]
    return json_text({"evaluation": board.evaluation, "rows": rows}, indent=1) + "\n"


def columns(heads: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A table as text: the first column to the left, the others to the right."""
    table = [heads, *lines]
    first, *others = (max(map(len, column)) for column in zip(*table, strict=True))
    return "\n".join(
        "  ".join([name.ljust(first), *(cell.rjust(width) for cell, width in zip(cells, others, strict=True))])
        for name, *cells in table
    )


def by_likelihood(rows: Sequence[Row]) -> str:
    """The board by nats per token above the entropy, the best first."""
    nearest = sorted(rows, key=lambda row: row.likelihood.excess.mean)
    lines = [[row.title(), f"{row.parameters:,}", *map(str, row.likelihood)] for row in nearest]
    return columns(["nats a token", "parameters", "above the entropy", "model", "method"], lines)


def by_samples(rows: Sequence[Row], what: str = "valid") -> str:
    """Scores with 8, 16, 32, 64 calls (left to right: one per position), trained and exact: "valid" or "plot_kl"."""
    if what not in ("valid", "plot_kl"):
        raise ValueError(f"by_samples: what must be 'valid' or 'plot_kl', got {what!r}.")
    lines = []
    for row in rows:
        for sampler in dict.fromkeys(each.sampler for each in row.samples):
            for denoiser in ("trained", "exact"):
                found = {each.steps: getattr(each, what) for each in row.scores(denoiser, sampler)}
                found = found if len(found) > 1 else dict.fromkeys(STEPS[-1:], next(iter(found.values()), None))
                lines.append([f"{row.title()}, {sampler}", denoiser, *(_cell(found.get(n), what) for n in STEPS)])
    return columns([what, "", *(f"{n} steps" for n in STEPS)], lines)


def _cell(value: float | None, what: str) -> str:
    return "-" if value is None else f"{value:.0%}" if what == "valid" else f"{value:.2f}"
