"""Learning from a reward: stand-ins for log p(x), the reward-weighted bound, and the policy gradient.

The aim is J(q) = E_q r - beta KL(q || p_ref). Its optimum is known: p_ref(x) exp(r(x) / beta) / Z.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from diffkit.processes.base import Denoise
from diffkit.processes.masked import MaskedDiffusion
from diffkit.random import uniform_like

# A surrogate of log p(x): (process, denoise, x0 (B, L), rng) -> (B,) nats. For the ratio of two networks seed two
# generators alike, so that both see the same masks.


def one_step(process: MaskedDiffusion, denoise: Denoise, x0: Tensor, rng: Generator) -> Tensor:
    """log p as if all tokens were drawn in one step: the mean-field surrogate (arXiv:2504.12216, diffu-GRPO)."""
    return -process.token_loss(denoise, x0, torch.full_like(x0, process.mask_id), float(process.T)).sum(1)


def exact_count(process: MaskedDiffusion, denoise: Denoise, x0: Tensor, rng: Generator) -> Tensor:
    """Minus the bound with an exact number of masks, from one draw (arXiv:2502.09992, arXiv:2406.03736)."""
    L = x0.shape[1]
    count = 1 + (uniform_like(x0[:, 0], rng) * L).long().clamp(max=L - 1)
    return -process.count_loss(denoise, x0, count, rng).sum(1)


def coupled(process: MaskedDiffusion, denoise: Denoise, x0: Tensor, rng: Generator) -> Tensor:
    """Half of one_step plus a mask and its complement, each weighted by its rate (arXiv:2506.20639, coupled-GRPO).

    Every token is hidden in exactly one of the pair. A uniform model gets 3/2 of its log p.
    """
    rate = 0.2 + 0.6 * uniform_like(x0[:, :1], rng)
    is_masked = uniform_like(x0, rng) < rate
    nats = -one_step(process, denoise, x0, rng)
    for hidden, share in ((is_masked, rate), (~is_masked, 1 - rate)):
        xt, t = torch.where(hidden, process.mask_id, x0), process.schedule.time(share[:, 0])
        nats = nats + process.token_loss(denoise, x0, xt, t).sum(1) / share[:, 0]
    return -nats / 2


SURROGATES = {each.__name__: each for each in (one_step, exact_count, coupled)}


def reward_weights(rewards: Tensor, beta: float) -> Tensor:
    """The share of each of n samples of the reference in the optimum, (n,): exp(r / beta), normalised.

    It estimates Z by the same n samples, a bias of order 1 / n towards equal weights: n large, not a group of eight.
    """
    return (rewards.double() / beta).softmax(0)


def weighted_bound(process: MaskedDiffusion, denoise: Denoise, x0: Tensor, weights: Tensor, rng: Generator) -> Tensor:
    """The bound of the optimum, nats per text: samples x0 (n, L) of the reference, weighted by `reward_weights`.

    Its minimum over all denoisers is the entropy of the optimum, whose exact denoiser attains it.
    """
    return -(weights * exact_count(process, denoise, x0, rng)).sum()


def advantages(rewards: Tensor, log_ratio: Tensor, beta: float) -> Tensor:
    """r - beta log(q / p_ref) of each of n >= 2 samples, minus its mean over the others (leave-one-out): (n,)."""
    value = rewards - beta * log_ratio
    return (value - value.mean()) * len(value) / (len(value) - 1)


def policy_gradient(log_p: Tensor, rewards: Tensor, log_ratio: Tensor, beta: float) -> Tensor:
    """A loss whose gradient is that of -J, for samples of the policy: (n,) log p with gradients, the others without.

    Where they are drawn, log_ratio needs masks of its own: with those of log_p the leash also pulls at the variance
    over masks, and is far too short.
    """
    return -(advantages(rewards, log_ratio.detach(), beta) * log_p).mean()
