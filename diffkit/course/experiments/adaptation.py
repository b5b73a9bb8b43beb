"""What notebook 19 teaches: the network of a left-to-right model as a denoiser, with logit shift and mask annealing."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Generator, Tensor

from diffkit.evaluation.bounds import sequence_bounds
from diffkit.languages.story_language import StoryLanguage
from diffkit.model import DiffusionModel, build_model, load_model
from diffkit.network.cache import KeyValueCache
from diffkit.network.transformer import Denoiser, DenoiserConfig
from diffkit.paths import RESULTS
from diffkit.processes.base import Process

STORED = RESULTS / "adaptation.json"  # of benchmarks/adaptation.py


Network = Callable[[Tensor], Tensor]  # (B, n) ids to (B, n, V) logits
Shift = Callable[[Network, Tensor, int], Tensor]


def logit_shift(network: Network, xt: Tensor, start: int) -> Tensor:
    """Logits of every token (B, L, V) from a network whose row of token i - 1 predicts token i: `start` goes in front.

    Source: arXiv:2410.17891 (DiffuLLaMA), section 3.2, where token 0 is given instead.
    """
    front = torch.full_like(xt[:, :1], start)
    return network(torch.cat([front, xt], 1))[:, :-1]


def annealed_mask(L: int, share: float, rng: Generator) -> Tensor:
    """Attention between causal and full, (L, L) bool: the past and oneself always, of the future a random share.

    Source: arXiv:2410.17891, section 3.2; one mask for all texts of a batch.
    """
    future = torch.ones(L, L, dtype=torch.bool).triu(1)
    return ~future | (torch.rand(L, L, generator=rng) < share)


class AdaptedDenoiser(Denoiser):
    """Our backbone that looks both ways, with the weights of one that looked left.

    Args: shift: how the logits of a text come from the network's rows, `logit_shift`; None: row i predicts token i.
          anneal: training passes over which the future comes into view, by `mask`; 0: all of it from the first one on.
    """

    def __init__(
        self, config: DenoiserConfig, shift: Shift | None = None, anneal: int = 0,
        mask: Callable[[int, float, Generator], Tensor] = annealed_mask,
    ):  # fmt: skip
        super().__init__(config)
        self.shift, self.anneal, self.passes = shift, anneal, 0
        self.mask, self.rng = mask, Generator().manual_seed(0)

    def forward(
        self, xt: Tensor, t: Tensor | float, where: Tensor | None = None, cache: KeyValueCache | None = None,
        label: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        self.passes += self.training
        if self.shift is None:
            return super().forward(xt, t, where, cache, label)
        start = cast(int, self.config.mask_token_id)  # our left-to-right models start with MASK
        raw = self.shift(partial(super().forward, t=t), xt, start)
        return raw if where is None else raw[where]

    def _mask(self, L: int, past: int, cache: KeyValueCache | None, device: torch.device) -> Tensor | None:
        if self.training and self.passes < self.anneal:
            return torch.as_tensor(self.mask(L, self.passes / self.anneal, self.rng), device=device).bool()
        return super()._mask(L, past, cache, device)


@torch.no_grad()
def adapted_model(
    process: Process, name: str | Path, *, shift: Shift | None = None, fresh: bool = False, **how: Any
) -> DiffusionModel:
    """A model of a process whose network starts from the weights of a trained left-to-right model.

    Args: name: of that model, or its folder; shift, how: see AdaptedDenoiser; fresh: take its shape only, with random
          weights. A shifted network has one more position, which starts as a copy of the last.
    """
    given = load_model(name).denoiser
    shape = {key: getattr(given.config, key) for key in ("hidden_size", "num_layers", "num_heads", "rotary", "tied")}
    model = build_model(process, shape, max_length=given.config.max_length + (shift is not None))
    if fresh:
        return model.eval()
    network, weights = AdaptedDenoiser(model.denoiser.config, shift, **how), given.state_dict()
    rows = weights["position_embedding.weight"]
    weights["position_embedding.weight"] = torch.cat([rows, rows[-1:]]) if shift else rows
    network.load_state_dict(weights)
    model.denoiser = network
    return model.eval()


def stories_gap(process: Process, language: StoryLanguage, n: int, seed: int) -> Callable[[DiffusionModel], float]:
    """A function of a model: its gap to the entropy, nats per token, on n stories, the same masks for every model."""
    x0 = language.sample(n, Generator().manual_seed(seed))

    def bounds(denoise: Any) -> Tensor:
        return sequence_bounds(process, denoise, x0, rng=Generator().manual_seed(seed + 1), draws=4)

    exact = bounds(language.denoiser(process))
    return lambda model: float((bounds(model) - exact).mean()) / language.length


def adaptation() -> tuple[dict[str, Any], list[int], dict[str, Tensor]]:
    """The settings; the steps at which all runs were judged; each start's gaps, (its seeds, steps) nats a token."""
    stored = json.loads(STORED.read_text(encoding="utf-8"))
    runs: dict[str, dict[int, dict[int, float]]] = {}
    for row in stored["rows"]:
        runs.setdefault(row["start"], {}).setdefault(row["seed"], {})[row["step"]] = row["gap"]
    judged = [set(gaps) for seeds in runs.values() for gaps in seeds.values()]
    steps = sorted(set.intersection(*judged))
    table = {
        start: torch.tensor([[gaps[s] for s in steps] for gaps in seeds.values()]) for start, seeds in runs.items()
    }
    return stored["setting"], steps, table
