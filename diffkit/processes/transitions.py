"""Noise on single tokens: transition matrices, applied without being made."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, partial
from typing import Any, Protocol

import torch
from torch import Generator, Tensor

from diffkit.processes.base import Process, Time, check_mask_id, one_hot
from diffkit.processes.schedules import Schedule, get_schedule
from diffkit.random import categorical

LARGEST_TABLE = 50_000_000  # numbers, 400 MB


class Transitions(Protocol):
    """Q(s, t), a (V, V) matrix with rows that sum to one: [a, b] is the chance that token a at time s is b at t > s.

    limit: (V,) float64, the distribution of every token in the end, the prior.
    marginal: distributions of tokens at s to distributions at t, p Q(s, t): (B, L, V) -> (B, L, V), dtype of p.
    likelihood: likelihoods given the token at t to likelihoods given the token at s, Q(s, t) f: same shapes.
    parameters: settings besides vocabulary and schedule.
    """

    name: str
    vocab_size: int
    mask_id: int
    schedule: Schedule

    def limit(self, device: torch.device | str = "cpu") -> Tensor: ...
    def marginal(self, p: Tensor, s: Time, t: Time) -> Tensor: ...
    def likelihood(self, f: Tensor, s: Time, t: Time) -> Tensor: ...
    def parameters(self) -> dict[str, Any]: ...


def _column(t: Time, device: torch.device) -> Tensor:
    """One time for all rows, or (B,) times, as (1 or B, 1, 1) float64."""
    return torch.as_tensor(t, dtype=torch.float64, device=device).reshape(-1, 1, 1)


def uniform_over_tokens(vocab_size: int, mask_id: int) -> Tensor:
    """(V,) float64, every id but MASK equally likely."""
    probs = torch.full((vocab_size,), 1 / (vocab_size - 1), dtype=torch.float64)
    probs[mask_id] = 0
    return probs


def point_mass_at_mask(vocab_size: int, mask_id: int) -> Tensor:
    """(V,) float64, all on MASK."""
    probs = torch.zeros(vocab_size, dtype=torch.float64)
    probs[mask_id] = 1
    return probs


LIMITS: dict[str, Callable[[int, int], Tensor]] = {"uniform": uniform_over_tokens, "absorbing": point_mass_at_mask}


class Mixing:
    """Keep a token with probability alpha, else draw it from `limit`: Q = alpha I + (1 - alpha) 1 limit^T.

    The product of two such matrices is a third, its alpha the product of theirs. So alpha(s, t) = alpha(t) /
    alpha(s) is known for any real times s <= t, and no matrix is ever made.
    Source: arXiv:2107.03006, appendix A.2; arXiv:2310.16834, where alpha = exp(-sigma) and Q = exp(sigma R).
    """

    def __init__(self, noise: str, vocab_size: int, mask_id: int, schedule: Schedule):
        self.vocab_size, self.mask_id, self.schedule, self.name = vocab_size, mask_id, schedule, noise

    def parameters(self) -> dict[str, Any]:
        return {}

    def limit(self, device: torch.device | str = "cpu") -> Tensor:
        return LIMITS[self.name](self.vocab_size, self.mask_id).to(device)

    def keep(self, s: Time, t: Time, like: Tensor) -> tuple[Tensor, Tensor]:
        """alpha(s, t), the probability that a token is not drawn again between s and t; 1 - alpha. (1 or B, 1, 1)."""
        s, t = _column(s, like.device), _column(t, like.device)
        return self.schedule.kept(s, t).to(like.dtype), self.schedule.lost(s, t).to(like.dtype)

    def marginal(self, p: Tensor, s: Time, t: Time) -> Tensor:
        alpha, redrawn = self.keep(s, t, p)
        return alpha * p + redrawn * p.sum(-1, keepdim=True) * self.limit().to(p)

    def likelihood(self, f: Tensor, s: Time, t: Time) -> Tensor:
        alpha, redrawn = self.keep(s, t, f)
        return alpha * f + redrawn * (f * self.limit().to(f)).sum(-1, keepdim=True)


class Gaussian:
    """Steps to neighbouring ids, as if tokens were grey values: near ids are likelier than far ones.

    Off the diagonal Q_t is exp(-4 d^2 / ((K - 1)^2 beta_t)), d the distance of two of the K = V - 1 ids that are not
    MASK, over its sum for all d in -(K - 1)..K - 1; what is missing stays. No closed form for products is known, so
    they are kept in a table of (T + 1) V^2 numbers, read on the CPU. Times are whole; others go to the nearest.

    Args:   schedule: beta_t rises from beta_first to beta_last as gamma does; by default 0.1 / T and 20 / T.
    Raises: ValueError for betas that are not positive, or a table that memory cannot hold.
    Source: arXiv:2107.03006, appendix A.2.3; made for images. Token ids have no such order.
    """

    name = "gaussian"

    def __init__(
        self, vocab_size: int, mask_id: int, schedule: Schedule, beta_first: float = 0.0, beta_last: float = 0.0
    ):
        self.vocab_size, self.mask_id, self.schedule = vocab_size, mask_id, schedule
        self.beta_first, self.beta_last = beta_first or 0.1 / schedule.T, beta_last or 20 / schedule.T
        if not (self.beta_first > 0 and self.beta_last > 0):
            raise ValueError(f"Gaussian: betas must be positive, got {self.beta_first} and {self.beta_last}.")
        if (schedule.T + 1) * vocab_size**2 > LARGEST_TABLE:
            raise ValueError(
                f"Gaussian: its products are a table of {(schedule.T + 1) * vocab_size**2:,} numbers, too large. "
                "Choose a smaller T, or uniform noise, which needs no table."
            )

    def parameters(self) -> dict[str, Any]:
        return {"beta_first": self.beta_first, "beta_last": self.beta_last}

    def limit(self, device: torch.device | str = "cpu") -> Tensor:
        return uniform_over_tokens(self.vocab_size, self.mask_id).to(device)

    def one_step(self, t: int) -> Tensor:
        """Q_t, (V, V) float64; MASK goes nowhere and is never reached."""
        beta = self.beta_first + (self.beta_last - self.beta_first) * self.schedule.rate(t)
        K = self.vocab_size - 1
        weight = torch.exp(-4 * torch.arange(K, dtype=torch.float64) ** 2 / (max(1, K - 1) ** 2 * beta))  # by distance
        rank = torch.arange(K)
        moves = (weight / (2 * weight.sum() - weight[0]))[(rank[:, None] - rank).abs()].fill_diagonal_(0)
        matrix = torch.eye(self.vocab_size, dtype=torch.float64)
        ids = torch.tensor([v for v in range(self.vocab_size) if v != self.mask_id])
        matrix[ids[:, None], ids] = moves + torch.diag(1 - moves.sum(1))
        return matrix

    @cached_property
    def products(self) -> Tensor:
        """Q_1 Q_2 ... Q_t for t = 0..T: (T + 1, V, V) float64."""
        table = [torch.eye(self.vocab_size, dtype=torch.float64)]
        for t in range(1, self.schedule.T + 1):
            table.append(table[-1] @ self.one_step(t))
        return torch.stack(table)

    def matrix(self, s: Time, t: Time, device: torch.device) -> Tensor:
        """Q(s, t) for one pair of times or for one of each row: (1 or B, V, V) float64."""
        s, t = _column(s, device), _column(t, device)
        times = torch.broadcast_tensors(*((time + 0.5).floor().long().flatten() for time in (s, t)))
        pairs, which = torch.stack(times, 1).unique(dim=0, return_inverse=True)
        made = torch.stack([self._between(int(a), int(b)) for a, b in pairs]).to(device)
        return made if len(made) == 1 else made[which]

    def _between(self, s: int, t: int) -> Tensor:
        product = self.products[t] if s == 0 else torch.eye(self.vocab_size, dtype=torch.float64)
        for r in range(s + 1, t + 1) if s else ():
            product = product @ self.one_step(r)
        return product

    def marginal(self, p: Tensor, s: Time, t: Time) -> Tensor:
        return p @ self.matrix(s, t, p.device).to(p.dtype)

    def likelihood(self, f: Tensor, s: Time, t: Time) -> Tensor:
        return f @ self.matrix(s, t, f.device).mT.to(f.dtype)


TRANSITIONS: dict[str, Callable[..., Transitions]] = {name: partial(Mixing, name) for name in LIMITS}
TRANSITIONS["gaussian"] = Gaussian


def get_transitions(
    noise: str, vocab_size: int, mask_id: int, schedule: Schedule | str, **parameters: float
) -> Transitions:
    """The transitions of a kind of noise: "uniform", "absorbing" or "gaussian" (with beta_first and beta_last).

    Raises: ValueError for an unknown kind of noise or schedule, or a mask_id outside the vocabulary.
    """
    if noise not in TRANSITIONS:
        raise ValueError(f"get_transitions: the kinds of noise are {sorted(TRANSITIONS)}, got {noise!r}.")
    check_mask_id(vocab_size, mask_id, "get_transitions")
    known = ("beta_first", "beta_last") if noise == "gaussian" else ()
    if unknown := sorted(set(parameters) - {*known}):
        raise ValueError(f"get_transitions: {noise} noise has the parameters {[*known]}, got {unknown}.")
    curve = get_schedule(schedule) if isinstance(schedule, str) else schedule
    return TRANSITIONS[noise](vocab_size, mask_id, curve, **parameters)


class TransitionProcess(Process):
    """What D3PM and SEDD share: tokens change by transitions. Each adds its noise, its loss and its reverse step.

    Args: dtype: of all (B, L, V) tables; float32 halves time and memory, and rounds probabilities to seven digits.
    """

    def __init__(self, transitions: Transitions, dtype: torch.dtype = torch.float64):
        super().__init__(transitions.vocab_size, transitions.mask_id, transitions.schedule.T)
        self.transitions, self.schedule, self.noise = transitions, transitions.schedule, transitions.name
        self.noise_parameters, self.table_dtype = transitions.parameters(), dtype

    @cached_property
    def end(self) -> float:
        """Just before T, or earlier where alpha no longer fits a float."""
        end = self.T * (1 - 1e-9)
        return end if self.schedule.keep(end) > 1e-30 else last_time(self.schedule, 1e-9)

    def before_end(self, t: Time) -> Tensor:
        """Times, none later than `end`, float64.

        At T itself nothing is left of the clean text: a rate of change may be infinite, and a token that is visible all
        the same, as in infilling, could not have come from anywhere.
        """
        return torch.as_tensor(t, dtype=torch.float64).clamp(max=self.end)

    def one_hot(self, z: Tensor) -> Tensor:
        """(B, L) ids to (B, L, V)."""
        return one_hot(z, self.vocab_size, self.table_dtype)

    def add_noise(self, zs: Tensor, s: Time, t: Time, rng: Generator) -> Tensor:
        """Draw z_t ~ q(z_t | z_s) for s < t: a forward step."""
        return categorical(self.transitions.marginal(self.one_hot(zs), s, t), rng)

    def check_start(self, z: Tensor) -> None:
        super().check_start(z)
        if self.transitions.limit()[self.mask_id] == 0 and (z == self.mask_id).any():
            raise ValueError(
                f"{type(self).__name__}: the canvas holds MASK, which {self.noise} noise never makes. Infilling needs "
                "a process with MASK: absorbing noise, or mdlm."
            )


def last_time(schedule: Schedule, alpha: float) -> float:
    """Just before T; for noise without limit, the time at which a share alpha of all tokens is kept."""
    stops_short = schedule.curve.keep(torch.ones((), dtype=torch.float64)) > 1e-12
    return schedule.T * (1 - 1e-9) if stops_short else schedule.time(1 - alpha).item()


def leave_one_out(log_posterior: Tensor, log_likelihood: Tensor) -> Tensor:
    """log p(x_0[i] | z_t at all positions but i), up to a constant: divide the evidence of position i out.

    Tokens that position i rules out are left out: the posterior no longer knows of them, and no step depends on them.
    """
    others = torch.where(log_likelihood > -torch.inf, log_posterior - log_likelihood, -torch.inf)
    return others.clamp(min=-1e4)  # a row of nothing but -inf would have no softmax


def divergence(q: Tensor, p: Tensor) -> Tensor:
    """KL(q || p) over the last axis, nats; infinite where p rules out what q allows."""
    log_p = torch.where(q > 0, p, 1.0).log()  # not log 0 where q is 0: its gradient would be NaN
    return (torch.special.xlogy(q, q) - q * log_p).sum(-1)
