"""How good is a filling: what was given is kept, what was missing has an exact conditional probability."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from diffkit.checks import check_generator, check_ids, check_whole
from diffkit.evaluation.bounds import paired_gap
from diffkit.evaluation.statistics import Estimate
from diffkit.languages.story_language import StoryLanguage
from diffkit.processes.base import Denoise, on_device_of
from diffkit.processes.masked import MaskedDiffusion, corrupt_count
from diffkit.random import uniform_numbers


class Fillings(NamedTuple):
    """Filled canvases against the exact conditional p(missing | given)."""

    kept: bool  # is everything given still there
    valid: float  # share that are stories of the language
    log_p: float  # mean exact log p(missing | given) of the valid ones, nats
    accuracy: float  # share of missing tokens that are those of the original
    best_accuracy: float  # what the most likely token of each place would reach on average


def judge_fillings(language: StoryLanguage, canvas: Tensor, filled: Tensor, original: Tensor) -> Fillings:
    """Judge fillings (n, L) of canvases (n, L) in which MASK marks what was missing of the originals (n, L).

    Several fillings of a blank can be right, so accuracy has a ceiling: the best guess of each token alone, given all
    that was visible, is right with the probability `best_accuracy`.
    """
    if not canvas.shape == filled.shape == original.shape:
        shapes = [tuple(ids.shape) for ids in (canvas, filled, original)]
        raise ValueError(f"judge_fillings: canvas, filled and original must have one shape, got {shapes}.")
    missing = canvas == language.mask_id
    if not missing.any():
        raise ValueError(f"judge_fillings: no MASK is left in the canvas {tuple(canvas.shape)}, so nothing was filled.")
    given, told = language.log_prob(canvas), language.log_prob(filled)
    valid = (told > -torch.inf) & (filled != language.mask_id).all(1)
    _, probs = language.posterior(language.seen(canvas))
    return Fillings(
        kept=bool((filled == canvas)[~missing].all()),
        valid=valid.double().mean().item(),
        log_p=(told - given)[valid].mean().item() if valid.any() else -math.inf,
        accuracy=(filled == original)[missing].double().mean().item(),
        best_accuracy=probs.amax(-1)[missing].mean().item(),
    )


@torch.no_grad()
def conditional_bounds(
    process: MaskedDiffusion, denoise: Denoise, x0: Tensor, missing: Tensor, *, rng: Generator, draws: int = 4
) -> Tensor:
    """Unbiased estimate of each bound on -log p(x_0[missing] | x_0[given]), (N,) float64 nats.

    The exact-count bound on the missing tokens alone: hide k of a row's n, k uniform on 1..n, and weigh their loss by
    n / k. With the exact denoiser its mean is the exact conditional negative log-likelihood.

    Args:    x0: (N, L) originals; missing: (N, L) bool, at least one in each row.
    Raises:  ValueError if a row misses nothing.
    Source:  arXiv:2502.09992 for whole sequences; the same sum over the orders of the missing tokens.
    """
    check_ids(x0, process.vocab_size, "conditional_bounds")
    check_whole(draws, "draws", "conditional_bounds")
    if missing.shape != x0.shape or missing.dtype != torch.bool:
        raise ValueError(
            f"conditional_bounds: missing must be {tuple(x0.shape)} bool, got {missing.dtype} {tuple(missing.shape)}."
        )
    n = missing.sum(1).cpu()
    if (n < 1).any():
        raise ValueError(f"conditional_bounds: row {int((n < 1).int().argmax())} misses nothing; hide a token of it.")
    x0, missing, bounds = (
        on_device_of(denoise, x0),
        on_device_of(denoise, missing),
        torch.zeros(len(x0), dtype=torch.float64),
    )
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
    check_generator(rng)
    seed = int(torch.randint(2**31, (), generator=rng))
    return paired_gap(
        lambda who, masks: conditional_bounds(process, who, x0, missing, rng=masks),
        denoise, language.denoiser(process), seed=seed,
    )  # fmt: skip
