"""Every state of a small language under uniform noise: a bound with nothing sampled, and the texts a chain writes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from diffkit.processes.base import Denoise
from diffkit.processes.d3pm import D3PM
from diffkit.processes.transitions import TransitionProcess

Answers = dict[int, Tensor]  # by time t in 1..T, (N, L, V): the denoiser's f at every state


def matrix(process: TransitionProcess, s: float, t: float) -> Tensor:
    """Q(s, t), (V, V) float64: row a says what token a at time s is at time t."""
    return process.transitions.marginal(torch.eye(process.vocab_size, dtype=torch.float64)[None], s, t)[0]


def all_states(process: D3PM, L: int) -> Tensor:
    """The canvases of L tokens without MASK, (N, L)."""
    return torch.cartesian_prod(*[torch.tensor([v for v in range(process.vocab_size) if v != process.mask_id])] * L)


@torch.no_grad()
def all_answers(process: D3PM, denoise: Denoise, states: Tensor) -> Answers:
    """Ask a denoiser for every state at every time."""
    times = {t: torch.full((len(states),), float(t), dtype=torch.float64) for t in range(1, process.T + 1)}
    return {t: process.log_probs(denoise(states, when)).exp() for t, when in times.items()}


def forward_probs(process: TransitionProcess, text: Tensor, states: Tensor, t: float) -> Tensor:
    """q(z_t | x_0) of every state, for one text (L,): (N,)."""
    row = matrix(process, 0, t)[text]  # (L, V)
    return torch.stack([row[i, states[:, i]] for i in range(len(text))]).prod(0)


StepNats = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]  # (f, x0, zt, Q_0s, Q_st) -> (N, L) nats


def step_costs(process: D3PM, answers: Answers, text: Tensor, states: Tensor, step_nats: StepNats) -> list[float]:
    """What each step of the chain costs one text (L,), t = 1..T, averaged over all states: nats."""
    costs = []
    for t, f in answers.items():
        nats = step_nats(f, text.expand_as(states), states, matrix(process, 0, t - 1), matrix(process, t - 1, t))
        costs.append(float(forward_probs(process, text, states, t) @ nats.sum(1)))
    return costs


Posterior = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]  # (weights, zt, Q_0s, Q_st) -> (N, L, V)


def path_nats(process: D3PM, answers: Answers, text: Tensor, states: Tensor, posterior: Posterior) -> float:
    """E log q(z_1 ... z_T | x_0) / p(x_0, z_1 ... z_T) over all paths of one text (L,): nats."""
    prior = process.transitions.limit()[states].log().sum(1)
    nats = -float(forward_probs(process, text, states, process.T) @ prior)
    for t, f in answers.items():
        first, second = matrix(process, 0, t - 1)[text], matrix(process, t - 1, t)  # (L, V), (V, V)
        nats += float((first @ torch.special.xlogy(second, second)).sum())  # of a forward step, q(z_t | z_s)
        x0 = process.one_hot(text.expand_as(states))
        q = posterior(x0, states, matrix(process, 0, t - 1), second)
        log_p = posterior(f, states, matrix(process, 0, t - 1), second).log()
        nats -= float(forward_probs(process, text, states, t) @ torch.where(q > 0, q * log_p, 0.0).sum((1, 2)))
    return nats


def chain_probs(process: D3PM, answers: Answers, states: Tensor, posterior: Posterior) -> Tensor:
    """p(x_0) of every state at the end of the T reverse steps, (N,).

    A step draws all positions at once, given z_t: its table over z_s is a product of one row for each position, and
    the sum over z_t one product of two matrices, positions on the left and on the right.
    """
    ids, L = states.unique(), states.shape[1]
    chance = process.transitions.limit()[states].prod(1)  # the prior
    for t in reversed(answers):
        p = posterior(answers[t], states, matrix(process, 0, t - 1), matrix(process, t - 1, t))[..., ids]
        left, right = chance[:, None], torch.ones_like(chance)[:, None]
        for i in range(L):
            if i < L // 2:
                left = (left[:, :, None] * p[:, i, None]).flatten(1)
            else:
                right = (right[:, :, None] * p[:, i, None]).flatten(1)
        chance = (left.T @ right).flatten()
    return chance
