"""Bounds on the negative log-likelihood with their standard errors, and gaps to the exact values."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor

from diffkit.checks import check_ids, check_whole
from diffkit.evaluation.chain import chain_bound, in_batches
from diffkit.evaluation.statistics import Estimate, mean_of
from diffkit.languages.exact import Language
from diffkit.processes.base import Denoise, Process, on_device_of
from diffkit.random import uniform_numbers

TOGETHER = 64  # sequences corrupted at a time, so that their noise does not depend on the batch size


@torch.no_grad()
def sequence_bounds(
    process: Process, denoise: Denoise, x0: Tensor, *, rng: Generator, draws: int = 4, batch_size: int = TOGETHER,
    steps: int | None = None, frozen: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Unbiased estimate of each sequence's bound on -log p(x_0), (N,) float64 nats; exact where the process is.

    Each row is corrupted `draws` times, stratified: one draw from each of `draws` equal slices of [0, 1), from which
    masked diffusion takes the number of masks (the exact-count estimator).
    Args, Raises: as `nelbo`.
    Source: arXiv:2406.03736 and arXiv:2502.09992.
    """
    check_ids(x0, process.vocab_size, "nelbo")
    for name, value in (("draws", draws), ("batch_size", batch_size)):
        check_whole(value, name, "nelbo")
    if not x0.numel() or (x0 == process.mask_id).any():
        raise ValueError(f"nelbo: x0 must be clean text without MASK, not empty, got {tuple(x0.shape)}.")
    bound = process.bound if steps is None else chain_bound(process, steps)
    draws = draws if process.bound_varies else 1
    u = (torch.arange(draws) + uniform_numbers((len(x0), draws), rng)) / draws
    ask = denoise if batch_size >= TOGETHER else in_batches(denoise, batch_size)
    bounds = []
    for i in range(0, len(x0), TOGETHER):
        rows, quantiles = on_device_of(denoise, x0[i : i + TOGETHER].long()), u[i : i + TOGETHER]
        given = {} if frozen is None else {"frozen": on_device_of(denoise, frozen[i : i + TOGETHER])}
        nats = [bound(ask, rows, quantile, rng, **given).double().sum(1).cpu() for quantile in quantiles.T]
        bounds.append(torch.stack(nats).mean(0))
    found = torch.cat(bounds)
    if found.isnan().any():
        wrong = f"{int(found.isnan().sum())} of {len(x0)}"
        raise FloatingPointError(f"nelbo: the bound of {wrong} sequences is not a number. Did the denoiser return NaN?")
    return found


def nelbo(
    process: Process, denoise: Denoise, x0: Tensor, *, rng: Generator, draws: int = 4, batch_size: int = TOGETHER,
    steps: int | None = None, frozen: Tensor | None = None,
) -> Estimate:  # fmt: skip
    """Mean bound on the negative log-likelihood, nats per sequence, its standard error over sequences.

    Masked diffusion gives a network with time the t whose masking rate is the share of masked tokens. The chain that
    `denoise_frames` runs in the ancestral order gives it the time of its step: `steps` bounds that.

    Args:    process: whose bound; denoise: a model, or any function (z_t, t) -> (B, L, head);
             x0: (N, L) clean sequences, PAD and EOS counted like any token; rng: of the maskings;
             draws: maskings per sequence; batch_size: sequences that the network reads at a time, at most 64, which
             changes no number; steps: of the chain to bound, None for the process's own bound;
             frozen: (N, L) bool, positions that are given and cost nothing: a prompt, or padding.
    Raises:  ValueError for no draws, and unless x0 is clean text without MASK; FloatingPointError for a bound of NaN.
    Source:  arXiv:2406.03736 and arXiv:2502.09992, the estimator with an exact number of masks.

    >>> from diffkit import MaskedDiffusion, load_language
    >>> micro = load_language("micro")
    >>> process, x0 = MaskedDiffusion(micro.vocab_size, micro.mask_id), micro.sample(500, Generator().manual_seed(0))
    >>> bound = nelbo(process, micro.denoiser(process), x0, rng=Generator().manual_seed(1))
    >>> print(f"{bound} nats, in truth {-micro.log_prob(x0).mean():.4f}")
    2.4981 ± 0.0405 nats, in truth 2.5323
    """
    how = {"draws": draws, "batch_size": batch_size, "steps": steps, "frozen": frozen}
    return mean_of(sequence_bounds(process, denoise, x0, rng=rng, **how))  # type: ignore[arg-type]


def paired_gap(
    bounds: Callable[[Denoise, Generator], Tensor], denoise: Denoise, exact: Denoise, *, seed: int
) -> Estimate:
    """Mean of one denoiser's bounds minus another's, text by text, both with the same draws.

    Args: bounds: (denoiser, generator) to (n,) nats of the same n texts; seed: of the draws.
    """
    own, best = (bounds(who, Generator().manual_seed(seed)) for who in (denoise, exact))
    return mean_of(own - best)


@torch.no_grad()
def gap_to_entropy(
    process: Process, denoise: Denoise, language: Language, n: int, *, rng: Generator, draws: int = 4
) -> Estimate:
    """How far a model's bound lies above the exact one, nats per sequence: the mean over n fresh stories.

    Paired: the exact denoiser gets the same stories and masks, so that their variance, which dwarfs the gap, cancels.
    At zero the model is the language. A process without an exact denoiser is paired with -log p of the same stories.
    """
    x0 = language.sample(n, rng)
    if not process.aligned:
        return mean_of(sequence_bounds(process, denoise, x0, rng=rng, draws=draws) + language.log_prob(x0))
    seed = int(torch.randint(2**31, (), generator=rng))
    return paired_gap(
        lambda who, masks: sequence_bounds(process, who, x0, rng=masks, draws=draws),
        denoise, language.denoiser(process), seed=seed,
    )  # fmt: skip
