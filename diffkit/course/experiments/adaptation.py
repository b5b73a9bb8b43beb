"""What notebook 19 teaches: the network of a left-to-right model as a denoiser, with logit shift and mask annealing."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from diffkit.evaluation.bounds import sequence_bounds
from diffkit.languages.story_language import StoryLanguage
from diffkit.model import DiffusionModel, build_model, load_model
from diffkit.network.cache import KeyValueCache
from diffkit.network.transformer import Denoiser, DenoiserConfig
from diffkit.paths import PRETRAINED
from diffkit.processes.base import Process

STORED = PRETRAINED.parent.parent / "benchmarks" / "results" / "adaptation.json"  # of benchmarks/adaptation.py


def annealed_mask(L: int, share: float) -> Tensor:
    """Attention between causal and full, (L, L) bool: the past and oneself always, of the future a random share.

    Source: arXiv:2410.17891 (DiffuLLaMA), section 3.2; one mask for all texts of a batch.
    """
    future = torch.ones(L, L, dtype=torch.bool).triu(1)
    return ~future | (torch.rand(L, L) < share)


class AdaptedDenoiser(Denoiser):
    """Our backbone that looks both ways, with the weights of one that looked left.

    Args: shift: read the token that starts a text in front of it, and let row i, which stands on token i - 1, predict
          token i, as the left-to-right model did; otherwise row i stands on token i.
          anneal: training passes over which the future comes into view; 0: all of it from the first one on.
    """

    def __init__(self, config: DenoiserConfig, shift: bool = False, anneal: int = 0):
        super().__init__(config)
        self.shift, self.anneal, self.passes = shift, anneal, 0

    def forward(
        self, xt: Tensor, t: Tensor | float, where: Tensor | None = None, cache: KeyValueCache | None = None,
        label: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        self.passes += self.training
        if not self.shift:
            return super().forward(xt, t, where, cache, label)
        start = torch.full_like(xt[:, :1], self.config.mask_token_id)  # tales-ar starts its texts with MASK
        if where is not None:
            where = torch.cat([where, torch.zeros_like(where[:, :1])], 1)
        raw = super().forward(torch.cat([start, xt], 1), t, where, cache, label)
        return raw[:, :-1] if where is None else raw

    def _mask(self, L: int, past: int, cache: KeyValueCache | None, device: torch.device) -> Tensor | None:
        if self.training and self.passes < self.anneal:
            return annealed_mask(L, self.passes / self.anneal).to(device)
        return super()._mask(L, past, cache, device)


@torch.no_grad()
def adapted_model(
    process: Process, name: str, *, shift: bool = False, anneal: int = 0, fresh: bool = False
) -> DiffusionModel:
    """A model of a process whose network starts from the weights of a trained left-to-right model.

    Args: name: of that model; shift, anneal: see AdaptedDenoiser; fresh: take its shape only, with random weights. A
          shifted network has one more position, which starts as a copy of the last.
    """
    given = load_model(name).denoiser
    shape = {key: getattr(given.config, key) for key in ("hidden_size", "num_layers", "num_heads", "rotary", "tied")}
    model = build_model(process, shape, max_length=given.config.max_length + shift)
    if fresh:
        return model.eval()
    network, weights = AdaptedDenoiser(model.denoiser.config, shift, anneal), given.state_dict()
    rows = weights["position_embedding.weight"]
    weights["position_embedding.weight"] = torch.cat([rows, rows[-1:]]) if shift else rows
    network.load_state_dict(weights)
    model.denoiser = network
    return model.eval()


def stories_gap(
    process: Process, language: StoryLanguage, n: int, seed: int
) -> Callable[[DiffusionModel], float]:
    """A function of a model: its gap to the entropy, nats per token, on n stories, the same masks for every model."""
    x0 = language.sample(n, torch.Generator().manual_seed(seed))

    def bounds(denoise: Any) -> Tensor:
        return sequence_bounds(process, denoise, x0, rng=torch.Generator().manual_seed(seed), draws=4)

    exact = bounds(language.denoiser(process))
    return lambda model: float((bounds(model) - exact).mean()) / language.length


def adaptation() -> tuple[dict[str, Any], list[int], dict[str, Tensor]]:
    """The settings; the steps at which the runs were judged; each start's gaps, (seeds, steps) nats a token."""
    stored = json.loads(STORED.read_text(encoding="utf-8"))
    gaps = {(row["start"], row["seed"], row["step"]): row["gap"] for row in stored["rows"]}
    starts, seeds, steps = ([*dict.fromkeys(key[i] for key in gaps)] for i in range(3))
    whole = [s for s in sorted(steps) if all((start, seed, s) in gaps for start in starts for seed in seeds)]
    table = {start: torch.tensor([[gaps[start, seed, s] for s in whole] for seed in seeds]) for start in starts}
    return stored["setting"], whole, table
