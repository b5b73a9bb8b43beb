"""How good is it: bounds with their standard errors, and samples held against a language that is known exactly."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from diffkit.checks import check_ids, check_whole
from diffkit.evaluation.statistics import Estimate, mean_of
from diffkit.languages.story_language import StoryLanguage
from diffkit.processes.base import Denoise, Process, as_denoiser, on_device_of
from diffkit.processes.masked import MaskedDiffusion, corrupt_count, masked_nll
from diffkit.processes.schedules import Schedule
from diffkit.random import uniform_numbers


def check_texts(process: Process, x0: Tensor, where: str) -> None:
    """Raise ValueError unless x0 is at least one clean text of the process's vocabulary, (N, L) ids without MASK."""
    check_ids(x0, process.vocab_size, where)
    if not x0.numel() or (x0 == process.mask_id).any():
        raise ValueError(f"{where}: needs clean text without MASK, at least one token, got x0 {tuple(x0.shape)}.")


@torch.no_grad()
def sequence_bounds(
    process: Process, denoise: Denoise, x0: Tensor, *, rng: Generator, draws: int = 4, batch_size: int = 64
) -> Tensor:
    """Unbiased estimate of each sequence's bound on -log p(x_0), (N,) float64 nats; exact where the process is.

    Each row is corrupted `draws` times, spread evenly, one from each of `draws` slices: masked diffusion draws the
    number of masks in this way (the exact-count estimator).
    Source: arXiv:2406.03736 and arXiv:2502.09992.
    """
    check_texts(process, x0, "sequence_bounds")
    check_whole(draws, "draws", "sequence_bounds")
    check_whole(batch_size, "batch_size", "sequence_bounds")
    draws = draws if process.bound_varies else 1
    u = (torch.arange(draws) + uniform_numbers((len(x0), draws), rng)) / draws
    bounds = []
    for rows, places in zip(on_device_of(denoise, x0).split(batch_size), u.split(batch_size), strict=True):
        nats = [process.bound(denoise, rows, place, rng).double().sum(1).cpu() for place in places.T]
        bounds.append(torch.stack(nats).mean(0))
    return torch.cat(bounds)


def nelbo(
    process: Process, denoise: Denoise, x0: Tensor, *, rng: Generator, draws: int = 4, batch_size: int = 64
) -> Estimate:
    """Mean bound on the negative log-likelihood, nats per sequence, its standard error over sequences.

    Args:    process: whose bound; denoise: a model, or any function (z_t, t) -> (B, L, head);
             x0: (N, L) clean sequences, PAD and EOS counted like any token; rng: of the maskings;
             draws: maskings per sequence; batch_size: sequences at a time, which changes no number but memory.
    Raises:  ValueError if x0 is empty.
    Source:  arXiv:2406.03736 and arXiv:2502.09992, the estimator with an exact number of masks.

    >>> from diffkit.diffusion import MaskedDiffusion
    >>> from diffkit.language import load_language
    >>> micro = load_language("micro")
    >>> process, x0 = MaskedDiffusion(micro.vocab_size, micro.mask_id), micro.sample(500, Generator().manual_seed(0))
    >>> bound = nelbo(process, micro.denoiser(process), x0, rng=Generator().manual_seed(1))
    >>> print(f"{bound} nats, in truth {-micro.log_prob(x0).mean():.4f}")
    2.4981 ± 0.0405 nats, in truth 2.5323
    """
    if len(x0) == 0:
        raise ValueError("nelbo: x0 holds no sequences. Is the validation split empty?")
    return mean_of(sequence_bounds(process, denoise, x0, rng=rng, draws=draws, batch_size=batch_size))


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
    process: Process, denoise: Denoise, language: StoryLanguage, n: int, *, rng: Generator, draws: int = 4
) -> Estimate:
    """How far a model's bound is above the truth, nats per sequence: mean over n fresh stories of bound + exact log p.

    Paired story by story and mask by mask: the exact denoiser sees the same masks, so that chance in stories and
    masks, which dwarfs the gap, cancels. At zero the model is the language.
    """
    x0 = language.sample(n, rng)
    seed = int(torch.randint(2**31, (), generator=rng))
    return paired_gap(
        lambda who, masks: sequence_bounds(process, who, x0, rng=masks, draws=draws),
        denoise, language.denoiser(process), seed=seed,
    )  # fmt: skip


@torch.no_grad()
def order_bounds(process: MaskedDiffusion, denoise: Denoise, x0: Tensor, orders: Tensor) -> Tensor:
    """-log p of each text by the model that writes its places in the given order, (N,) float64 nats: any-order AR.

    A masked denoiser is one autoregressive model for every order. Averaged over all orders their nats are the masked
    bound (for a network without time); a perfect denoiser gives -log p in every single one.

    Args:   x0: (N, L) ids; orders: (N, L), in each row every place once.
    Raises: ValueError if a row of orders is no permutation.
    Source: arXiv:2110.02037, section 3; arXiv:2406.03736, section 3.
    """
    check_texts(process, x0, "order_bounds")
    N, L = x0.shape
    if orders.shape != (N, L) or not torch.equal(orders.sort(1).values, torch.arange(L).expand(N, L)):
        raise ValueError(f"order_bounds: orders must be ({N}, {L}), in each row every place from 0 to {L - 1} once.")
    when = orders.argsort(1)  # of each place, the step that writes it
    x0, when = on_device_of(denoise, x0), on_device_of(denoise, when)
    nats = torch.zeros(N, dtype=torch.float64)
    for k in range(L):
        xt, is_next = torch.where(when >= k, process.mask_id, x0), when == k
        t = process.schedule.time_of(1 - k / L).expand(N)
        nats += masked_nll(as_denoiser(denoise)(xt, t, is_next), x0, is_next, process.mask_id).sum(1).cpu()
    return nats


class CountError(NamedTuple):
    """Loss per hidden token, in nats, when `count` tokens are hidden."""

    count: int  # type: ignore[assignment]  # tuple.count is not missed
    model: float
    exact: float
    gap: Estimate  # model minus exact, paired


@torch.no_grad()
def error_by_count(
    process: MaskedDiffusion,
    denoise: Denoise,
    language: StoryLanguage,
    *,
    counts: Iterable[int],
    n: int,
    rng: Generator,
) -> list[CountError]:
    """Where a model goes wrong: its loss per hidden token beside the exact one, by how many tokens are hidden.

    Few hidden: does it copy what a distant sentence says? All hidden: does it know how a blank page starts?
    """
    check_whole(n, "n", "error_by_count")
    x0, exact, rows = on_device_of(denoise, language.sample(n, rng)), language.denoiser(process), []
    for count in counts:
        check_whole(count, "count", "error_by_count", most=language.length)
        xt, _ = corrupt_count(x0, count, mask_id=process.mask_id, rng=rng)
        t = process.schedule.time_of(count / x0.shape[1]).expand(n)
        nats = [process.token_loss(who, x0, xt, t).double().sum(1).cpu() / count for who in (denoise, exact)]
        rows.append(CountError(count, nats[0].mean().item(), nats[1].mean().item(), mean_of(nats[0] - nats[1])))
    return rows


# ------------------------------------------------------------------------- every mask pattern of a canvas of few tokens


def mask_patterns(L: int) -> Tensor:
    """Every choice of hidden positions, none and all included: (2^L, L) bool; the second hides position 0 alone.

    Raises: ValueError if L is over 12: nobody waits for more.
    """
    check_whole(L, "L", "mask_patterns", most=12)  # a table of 2^L patterns
    return (torch.arange(2**L)[:, None] >> torch.arange(L)) % 2 == 1


@torch.no_grad()
def pattern_losses(process: MaskedDiffusion, denoise: Denoise, x0: Tensor) -> Tensor:
    """Loss of every text under every mask pattern, summed over the hidden tokens: (N, L) ids to (N, 2^L) float64 nats.

    Columns are in the order of `mask_patterns`. A denoiser with time sees the t whose rate is the hidden share.
    """
    check_texts(process, x0, "pattern_losses")
    N, L = x0.shape
    hidden = on_device_of(denoise, mask_patterns(L).repeat(N, 1))
    clean = on_device_of(denoise, x0).repeat_interleave(2**L, 0)
    xt = torch.where(hidden, process.mask_id, clean)
    t = process.schedule.time_of(hidden.double().mean(1))
    return process.token_loss(denoise, clean, xt, t).double().sum(1).cpu().reshape(N, -1)


def pattern_chances(schedule: Schedule, t: Tensor, L: int) -> Tensor:
    """Chance of every mask pattern at each time: (n,) times to (n, 2^L) float64, columns as in `mask_patterns`."""
    count = mask_patterns(L).sum(1)
    gamma = schedule.gamma(t)[:, None]
    return gamma**count * (1 - gamma) ** (L - count)
