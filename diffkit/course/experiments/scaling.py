"""Scaling: one training run as a point, and its gap to the known entropy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from datasets import Dataset
from torch import Generator, Tensor

from diffkit.checks import check_whole
from diffkit.data.batches import ChunkBatches
from diffkit.evaluation.bounds import paired_gap, sequence_bounds
from diffkit.evaluation.statistics import Estimate
from diffkit.languages.story_language import StoryLanguage
from diffkit.model import DiffusionModel, build_model
from diffkit.network.transformer import parameter_count
from diffkit.processes.autoregressive import Autoregressive
from diffkit.processes.base import Denoise
from diffkit.processes.masked import MaskedDiffusion
from diffkit.training.config import Curriculum, TrainConfig

BATCH, EVALUATED, DRAWS = 32, 512, 8  # stories in a batch; fresh stories of an evaluation; maskings of each


class Point(NamedTuple):
    """One run."""

    process: str  # mdlm or autoregressive
    width: int
    layers: int
    steps: int
    stories: int  # different stories to learn from; 0: a fresh one every time
    length: int  # tokens read of each story

    def name(self) -> str:
        """Its folder."""
        return "-".join(f"{key[0]}{value}" for key, value in self._asdict().items())


class Prefixes:
    """Endless fresh stories, or the same finite set again and again, cut to their first tokens."""

    def __init__(self, language: StoryLanguage, point: Point, seed: int):
        self.language, self.length, self.seed, self.position = language, point.length, seed, 0
        self.finite = None
        if point.stories:
            stories = language.sample(point.stories, Generator().manual_seed(seed))
            rows = Dataset.from_dict({"input_ids": stories[:, : point.length].numpy()})
            self.finite = ChunkBatches(rows, BATCH, seed)

    def __iter__(self) -> Prefixes:
        return self

    def __next__(self) -> Tensor:
        self.position += 1
        if self.finite is not None:
            return next(self.finite)
        rng = Generator().manual_seed(1_000_003 * self.seed + self.position)
        return self.language.sample(BATCH, rng)[:, : self.length]

    def state_dict(self) -> dict[str, Any]:
        """The position in the data."""
        return {"position": self.position, "finite": self.finite and self.finite.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from that position."""
        self.position = state["position"]
        if self.finite is not None:
            self.finite.load_state_dict(state["finite"])


def check_process(point: Point, where: str) -> None:
    """Raise ValueError, in the name of `where`, for a process that is not compared."""
    if point.process not in ("mdlm", "autoregressive"):
        raise ValueError(f"{where}: process must be 'mdlm' or 'autoregressive', got {point.process!r}.")


def train_config(point: Point, seed: int = 0) -> TrainConfig:
    """The same settings for every point of a process: the rates of the fastest record of benchmarks/speedrun.

    Args: seed: of times and masks.
    """
    check_process(point, "train_config")
    common = TrainConfig(
        steps=point.steps, optimizer="muon", lr=0.01, muon_lr=0.02, warmup=20, decay=0.5, ema=0.99, save_every=200,
        seed=seed,
    )  # fmt: skip
    if point.process == "autoregressive":
        return replace(common, objective="bound")
    easy_first = Curriculum(start=0.25, hold=0.15, ramp=0.25)
    return replace(common, objective="count_bound", curriculum=easy_first)


def build_point(point: Point, language: StoryLanguage, seed: int = 0) -> DiffusionModel:
    """A fresh model of the point's shape, its weights drawn with the seed; heads are 16 wide."""
    check_process(point, "build_point")
    check_whole(point.width / 16, "width / 16", f"build_point, width={point.width}")
    words = {"vocab_size": language.vocab_size, "mask_id": language.mask_id}
    process = MaskedDiffusion(schedule="linear", **words) if point.process == "mdlm" else Autoregressive(**words)
    torch.manual_seed(seed)
    shape = {"hidden_size": point.width, "num_layers": point.layers, "num_heads": point.width // 16, "tied": False}
    return build_model(process, shape, max_length=point.length)


def exact_on_prefixes(language: StoryLanguage, model: DiffusionModel, length: int) -> Denoise:
    """The exact denoiser of the first `length` tokens: what follows is hidden from it."""
    exact = language.denoiser(model.process)

    def denoise(xt: Tensor, t: Tensor) -> Tensor:
        rest = torch.full((len(xt), language.length - length), language.mask_id)
        return exact(torch.cat([xt, rest], 1), t)[:, :length]

    return denoise


def evaluate_point(model: DiffusionModel, point: Point, language: StoryLanguage) -> tuple[Estimate, float]:
    """The gap to the exact denoiser and the exact loss, both in nats per token."""
    x0 = language.sample(EVALUATED, Generator().manual_seed(777))
    prefix = x0[:, : point.length]
    exact = exact_on_prefixes(language, model, point.length)
    gap = paired_gap(
        lambda who, masks: sequence_bounds(model.process, who, prefix, rng=masks, draws=DRAWS), model, exact, seed=778
    )
    hidden = x0.clone()
    hidden[:, point.length :] = language.mask_id
    return gap / point.length, -language.log_prob(hidden).mean().item() / point.length


def parameter_counts(model: DiffusionModel) -> tuple[int, int]:
    """Parameters of a model: all of them, and those between the embeddings and the head."""
    network = model.denoiser
    parts = [network.token_embedding.weight, network.position_embedding.weight, network.head_bias]
    parts += [] if network.head is None else [network.head.weight]
    whole = parameter_count(model)
    return whole, whole - sum(part.numel() for part in parts)


def frontier(compute: Sequence[float], gap: Sequence[float]) -> list[int]:
    """Indices of the runs that no cheaper run beats, in order of compute."""
    if len(compute) != len(gap):
        raise ValueError(f"frontier: needs a gap for each run, got {len(compute)} of compute and {len(gap)} gaps.")
    order, best = sorted(range(len(compute)), key=lambda i: (compute[i], gap[i])), math.inf
    kept = []
    for i in order:
        if gap[i] < best:
            kept.append(i)
            best = gap[i]
    return kept
