"""What training minimises: at which times, and which loss."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from diffkit.processes.base import Denoise, Process
from diffkit.processes.d3pm import D3PM
from diffkit.processes.gaussian.diffusion_lm import DiffusionLM
from diffkit.processes.gaussian.plaid import Plaid
from diffkit.processes.masked import MaskedDiffusion
from diffkit.processes.sedd import SEDD
from diffkit.random import uniform_like
from diffkit.training.pooling import pooled


def low_discrepancy(B: int, T: int, rng: Generator) -> Tensor:
    """(B,) whole times in 1..T, one from each of B equal slices of the axis, in random order.

    Each of them is uniform, whatever its row, and the batch is spread evenly.

    Source: arXiv:2107.00630, appendix on low-discrepancy sampling; the MDLM code calls this form "antithetic".
    """
    u = (torch.randperm(B, generator=rng) + torch.rand(B, generator=rng, dtype=torch.float64)) / B
    return (u * T).long().clamp(max=T - 1) + 1


def uniform(B: int, T: int, rng: Generator) -> Tensor:
    """(B,) whole times in 1..T, independent."""
    return torch.randint(1, T + 1, (B,), generator=rng)


TIME_SAMPLERS = {"low_discrepancy": low_discrepancy, "uniform": uniform}


def cross_entropy(process: MaskedDiffusion, denoise: Denoise, x0: Tensor, t: Tensor, rng: Generator) -> Tensor:
    """Mean cross-entropy of all masked tokens of the batch: the simplest objective, but no bound; do not report it."""
    xt, is_masked = process.corrupt(x0, t, rng)
    return pooled(process.token_loss(denoise, x0, xt, t).sum(), is_masked.sum())


def sequence_mean(process: MaskedDiffusion, denoise: Denoise, x0: Tensor, t: Tensor, rng: Generator) -> Tensor:
    """Mean within each sequence, then over the sequences that have a mask.

    With the linear schedule its expectation is the bound per token, up to 1/T.
    """
    xt, is_masked = process.corrupt(x0, t, rng)
    count = is_masked.sum(1)
    means = process.token_loss(denoise, x0, xt, t).sum(1) / count.clamp(min=1)
    return pooled(means.sum(), (count > 0).sum())


def bound(process: Process, denoise: Denoise, x0: Tensor, t: Tensor, rng: Generator) -> Tensor:
    """The bound on the negative log-likelihood, nats per token: the sum of its terms."""
    return torch.stack(process.loss(denoise, x0, t, rng)).sum(0).mean()


def _counts(process: MaskedDiffusion, x0: Tensor, t: Tensor, rng: Generator) -> Tensor:
    """How many tokens to mask in the step that ends at t, (B,): the expected number at a moment within it, rounded up.

    With the linear schedule and t uniform on 1..T, the counts are uniform on 1..L.
    """
    moment = t - uniform_like(t, rng)
    return (process.schedule.rate(moment) * x0.shape[1]).ceil().long().clamp(1, x0.shape[1]).to(x0.device)


def count_cross_entropy(process: MaskedDiffusion, denoise: Denoise, x0: Tensor, t: Tensor, rng: Generator) -> Tensor:
    """As cross_entropy, with the number of masks in a row set by its time, not drawn: less noise in the gradient."""
    count = _counts(process, x0, t, rng)
    xt, _ = process.corrupt_count(x0, count, rng)
    return pooled(process.token_loss(denoise, x0, xt, t).sum(), count.sum())


def count_bound(process: MaskedDiffusion, denoise: Denoise, x0: Tensor, t: Tensor, rng: Generator) -> Tensor:
    """The exact-count bound, nats per token: unbiased with the linear schedule, where the counts are uniform."""
    return process.count_loss(denoise, x0, _counts(process, x0, t, rng), rng).mean()


def hybrid(process: D3PM, denoise: Denoise, x0: Tensor, t: Tensor, rng: Generator) -> Tensor:
    """D3PM's own: the bound plus `auxiliary` times the cross-entropy of the same prediction, nats per token.

    The bound has the factor T here. The paper's code leaves it out, so that its weight 0.001 at T = 1000 is our 1.
    Source: arXiv:2107.03006, Eq. 5.
    """
    zt, _ = process.corrupt(x0, t, rng)
    logits = denoise(zt, t)
    nats = torch.stack(process.terms(logits, x0, zt, t)).sum(0)
    return (nats + process.auxiliary * process.cross_entropy(logits, x0, zt, t)).mean()


def score_entropy(process: SEDD, denoise: Denoise, x0: Tensor, t: Tensor, rng: Generator) -> Tensor:
    """SEDD's own: the bound's integral over time, nats per token, with t / T the share of the noise axis."""
    u = (t - uniform_like(t, rng)) / process.T
    moment, speed = process.even_noise(u)
    zt, _ = process.corrupt(x0, moment, rng)
    return (speed[:, None] * process.T * process.score_entropy(denoise(zt, moment), x0, zt, moment)).mean()


def end_to_end(process: DiffusionLM, denoise: Denoise, x0: Tensor, t: Tensor, rng: Generator) -> Tensor:
    """Diffusion-LM's own: squared error, rounding and the prior term; see `DiffusionLM.end_to_end`."""
    return process.end_to_end(denoise, x0, t, rng)


def likelihood(process: Plaid, denoise: Denoise, x0: Tensor, t: Tensor, rng: Generator) -> Tensor:
    """Plaid's own: the bound in continuous time, nats per token, and the loss that trains its distribution of times.

    An eighth of the batch is enough for the reconstruction term, which is nearly zero once the schedule's ends are
    learned.
    """
    moment = t - uniform_like(t, rng)
    nats = process.diffusion_loss(denoise, x0, moment, rng)
    few = x0[: max(1, len(x0) // 8)]
    ends = process.reconstruction_loss(denoise, few, rng).mean() + process.prior_loss(x0).mean()
    return nats.mean() + ends + process.even_loss(nats, moment)


# By name; the attribute `objectives` of a process lists those that fit it.
OBJECTIVES = {
    objective.__name__: objective
    for objective in (
        cross_entropy, sequence_mean, bound, count_cross_entropy, count_bound, hybrid, score_entropy, end_to_end,
        likelihood,
    )
}  # fmt: skip
