"""What notebook 05 reads and adds up: the ablation of time samplers, and the exact bound on `micro`."""

from __future__ import annotations

import json
import math
from typing import Any

import torch
from torch import Tensor, nn

from diffkit.course.orders import mask_patterns, pattern_losses
from diffkit.languages.story_language import StoryLanguage
from diffkit.paths import RESULTS
from diffkit.processes.masked import MaskedDiffusion

ARMS, SEEDS = ("uniform", "bell", "counts", "curriculum"), (0, 1, 2)
STORED = {  # of benchmarks/time_samplers.py
    "tales": RESULTS / "time_samplers.json",
    "micro": RESULTS / "time_samplers_micro.json",
}


def time_samplers(language: str) -> tuple[list[dict[str, Any]], list[int], dict[str, Tensor]]:
    """The stored rows; the steps at which all runs were judged; each sampler's gaps, (seeds, steps) nats a token."""
    rows = json.loads(STORED[language].read_text(encoding="utf-8"))["rows"]
    gaps = {(row["arm"], row["seed"], row["step"]): row["gap"] for row in rows}
    steps = [n for n in sorted({row["step"] for row in rows}) if all((a, i, n) in gaps for a in ARMS for i in SEEDS)]
    table = {arm: torch.tensor([[gaps[arm, i, n] for n in steps] for i in SEEDS], dtype=torch.float64) for arm in ARMS}
    return rows, steps, table


def steps_to(level: float, judged: list[int], gaps: Tensor) -> list[int | None]:
    """For each seed the first step judged at which its gap, (seeds, steps), was at most `level`; None if at none."""
    return [next((n for n, gap in zip(judged, own, strict=True) if gap <= level), None) for own in gaps.tolist()]


def exact_bound(process: MaskedDiffusion, network: nn.Module, language: StoryLanguage, texts: Tensor) -> float:
    """The mean bound of a small language, nats a text, added up over all its texts and all masks."""
    L = language.length
    weight = [1 / (k * math.comb(L, k)) if k else 0.0 for k in mask_patterns(L).sum(1).tolist()]
    losses = pattern_losses(process, network.eval(), texts)
    return float(language.log_prob(texts).exp() @ losses @ torch.tensor(weight).double())
