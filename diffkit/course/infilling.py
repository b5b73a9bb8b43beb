"""Quality of infilling: given tokens are kept, and the missing ones have an exact conditional probability."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from diffkit.evaluation.bounds import paired_gap
from diffkit.evaluation.statistics import Estimate
from diffkit.languages.story_language import StoryLanguage
from diffkit.processes.base import Denoise, on_device_of
from diffkit.processes.masked import MaskedDiffusion, corrupt_count
from diffkit.random import uniform_numbers


class Fillings(NamedTuple):
    """Filled canvases against the exact conditional p(missing | given)."""

    kept: bool  # are all given tokens unchanged
    valid: float  # share that are stories of the language
    log_p: float  # mean exact log p(missing | given) of the valid ones, nats
    accuracy: float  # share of missing tokens that are those of the original
    best_accuracy: float  # of the most likely token at each position, on average


def judge_fillings(language: StoryLanguage, canvas: Tensor, filled: Tensor, original: Tensor) -> Fillings:
    """Judge fillings (n, L) of canvases (n, L) in which MASK marks what was missing of the originals (n, L).

    Several fillings of a blank can be right, so accuracy has a ceiling: the best guess of each token alone, given all
    visible ones, is right with probability `best_accuracy`.
    """
    missing = canvas == language.mask_id
    log_p_given, log_p = language.log_prob(canvas), language.log_prob(filled)
    valid = (log_p > -torch.inf) & (filled != language.mask_id).all(1)
    _, probs = language.posterior(language.seen(canvas))
    return Fillings(
        kept=bool((filled == canvas)[~missing].all()),
        valid=valid.double().mean().item(),
        log_p=(log_p - log_p_given)[valid].mean().item() if valid.any() else -math.inf,
        accuracy=(filled == original)[missing].double().mean().item(),
        best_accuracy=probs.amax(-1)[missing].mean().item(),
    )


@torch.no_grad()
def conditional_bounds(
    process: MaskedDiffusion, denoise: Denoise, x0: Tensor, missing: Tensor, *, rng: Generator, draws: int = 4
) -> Tensor:
    """Unbiased estimate of each bound on -log p(x_0[missing] | x_0[given]), (N,) float64 nats.

    The exact-count bound on the missing tokens alone: mask k of a row's n, k uniform on 1..n, and weight their loss by
    n / k. With the exact denoiser its mean is the exact conditional negative log-likelihood.

    Args:    x0: (N, L) originals; missing: (N, L) bool, at least one in each row.
    Source:  arXiv:2502.09992 for whole sequences; the same sum over the orders of the missing tokens.
    """
    n, bounds = missing.sum(1).cpu(), torch.zeros(len(x0), dtype=torch.float64)
    x0, missing = on_device_of(denoise, x0), on_device_of(denoise, missing)
    for i in range(draws):
        u = (i + uniform_numbers((len(x0),), rng)) / draws
        count = (u * n).long().clamp(max=n - 1) + 1
        xt, _ = corrupt_count(x0, count, mask_id=process.mask_id, rng=rng, frozen=~missing)
        t = process.schedule.time_of(count / x0.shape[1])
        nats = process.token_loss(denoise, x0, xt, t).double().sum(1).cpu()
        bounds += nats * n / count / draws
    return bounds


def conditional_gap(
    process: MaskedDiffusion, denoise: Denoise, language: StoryLanguage, x0: Tensor, missing: Tensor, *, rng: Generator
) -> Estimate:
    """How far a model's conditional bound is above the exact one, nats per text: paired on the same masks."""
    seed = int(torch.randint(2**31, (), generator=rng))
    return paired_gap(
        lambda who, masks: conditional_bounds(process, who, x0, missing, rng=masks),
        denoise, language.denoiser(process), seed=seed,
    )  # fmt: skip
