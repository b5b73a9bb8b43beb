"""SEDD: learn ratios of probabilities (the concrete score), and run noise backwards with them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import torch
from torch import Generator, Tensor

from diffkit.processes.base import Denoise, LossTerms, without_mask
from diffkit.processes.schedules import Schedule
from diffkit.processes.transitions import (
    LIMITS,
    Mixing,
    TransitionProcess,
    before_end,
    divergence,
    get_transitions,
    leave_one_out,
)
from diffkit.random import categorical

LEAST = 1e-3  # share of its score that a token keeps in the reconstruction
NO_NOISE = 1e-8  # a masking rate at t = 0 below this costs less than a millionth of a nat for each token

Sampler = Callable[
    ["SEDD", Tensor, Tensor, Tensor, Tensor], Tensor
]  # (process, score, z_t, t, s) -> (B, L, V) weights of z_s


def staggered_score(process: SEDD, score: Tensor, zt: Tensor, t: Tensor, s: Tensor, least: float = 0.0) -> Tensor:
    """exp(-d R) score, the scores at s if other positions stood still, times Q(s, t) to z_t; d: noise from s to t.

    Exact for one position and an exact score. With a learned one an entry may fall below zero: it is set to the share
    `least` of what the score was.
    """
    earlier = process.transitions.unmix(score, s, t)
    is_possible = process.possible(s, score) > 0  # no MASK at s = 0
    return earlier.maximum(least * score) * process.transitions.likelihood(process.one_hot(zt), s, t) * is_possible


def tweedie(process: SEDD, score: Tensor, zt: Tensor, t: Tensor, s: Tensor) -> Tensor:
    """Tweedie tau-leaping: all positions jump at once.

    Source: arXiv:2310.16834, section 4 (called analytic in its code).
    """
    return staggered_score(process, score, zt, t, s)


def euler(process: SEDD, score: Tensor, zt: Tensor, t: Tensor, s: Tensor) -> Tensor:
    """One step of (t - s) along the reverse rates: first order in t - s; the last step, to s = 0, is `tweedie`.

    The probability to stay is 1 minus that to leave, and set to zero where a step is so long that it would be less.
    Source: arXiv:2310.16834, section 4 and its appendix.
    """
    leave = process.rate_into(zt, t)[..., None] * (t - s).reshape(-1, 1, 1).to(score) * score
    leave = leave * (1 - process.one_hot(zt))
    weights = leave + process.one_hot(zt) * (1 - leave.sum(-1, keepdim=True)).clamp(min=0)
    is_last = (s == 0).reshape(-1, 1, 1).to(zt.device)
    return torch.where(is_last, tweedie(process, score, zt, t, s), weights)


SAMPLERS: dict[str, Sampler] = {"tweedie": tweedie, "euler": euler}


class SEDD(TransitionProcess):
    """Score-entropy discrete diffusion: tokens change in continuous time; the network gives ratios of probabilities.

    The rate of change from token a to token b at time t is sigma'(t) R[a, b] with R = 1 limit^T - I, so that alpha =
    exp(-sigma) = 1 - gamma. The score s[i, y] stands for p_t(z_t with y at position i) / p_t(z_t).

    Args:    vocab_size: V, special tokens included; mask_id: id of MASK, which clean text never holds;
             noise: "uniform" or "absorbing"; schedule: a Schedule or its name; the paper pairs absorbing with
             "loglinear" and uniform with "geometric"; sampler: "tweedie" or "euler"; dtype: of tables, see
             TransitionProcess.
    Source:  arXiv:2310.16834, sections 3 and 4.
    """

    name = "sedd"
    objectives: tuple[str, ...] = ("bound", "score_entropy")
    transitions: Mixing

    def __init__(
        self, vocab_size: int, mask_id: int, noise: str = "absorbing", schedule: Schedule | str = "loglinear", *,
        sampler: str = "tweedie", dtype: torch.dtype = torch.float64,
    ):  # fmt: skip
        for name, value, known in (("noise", noise, LIMITS), ("sampler", sampler, SAMPLERS)):
            if value not in known:
                raise ValueError(f"{type(self).__name__}: {name} must be one of {sorted(known)}, got {value!r}.")
        super().__init__(get_transitions(noise, vocab_size, mask_id, schedule), dtype)
        self.sampler = sampler
        self.start = self.T * 1e-9  # just after t = 0, where a schedule such as geometric has jumped off zero

    @cached_property
    def starts_noisy(self) -> bool:
        """Has the schedule jumped off zero, so that z at t = 0 must be read?"""
        return bool(self.schedule.rate(self.start) >= NO_NOISE)

    def inside(self, t: Tensor | float) -> Tensor:
        """Times a billionth of T away from both ends, float64: there every rate and ratio is finite."""
        return before_end(t, self.T).clamp(min=self.start)

    # -------------------------------------------------------------------------------------------------- forward process

    def possible(self, t: Tensor | float, like: Tensor | None = None) -> Tensor:
        """(1 or B, 1, V), the distribution at t of a token that was uniform at 0; device and dtype of `like`."""
        tokens = LIMITS["uniform"](self.vocab_size, self.mask_id)
        tokens = tokens if like is None else tokens.to(like)
        return self.transitions.marginal(tokens.expand(1, 1, -1), 0, t)

    def prior(self, B: int, L: int, rng: Generator) -> Tensor:
        """Uniform tokens with all of the noise: MASK, or uniform; exact for a schedule that stops short of 1 too."""
        return categorical(self.possible(self.inside(self.T)).expand(B, L, -1), rng)

    def corrupt(self, x0: Tensor, t: Tensor, rng: Generator) -> tuple[Tensor, Tensor]:
        zt = self.add_noise(x0, 0, self.inside(t), rng)
        return zt, zt != x0

    def rate_into(self, zt: Tensor, t: Tensor) -> Tensor:
        """sigma'(t) R[y, z_t] for any y other than z_t, (B, L) per unit of t: how fast noise arrives here."""
        t = self.inside(t)
        slope = self.schedule.slope(t) / (1 - self.schedule.rate(t))
        limit = self.transitions.limit(zt.device).to(self.table_dtype)
        return slope.reshape(-1, 1).to(limit) * limit[zt]

    # -------------------------------------------------------------------------------------------------------- the score

    def log_score(self, raw: Tensor, zt: Tensor, t: Tensor) -> Tensor:
        """The denoiser's output as log s, (B, L, V): 0 at z_t itself, -inf at what cannot be.

        Raw zeros mean the score of uniform text. For absorbing noise that takes log(e^sigma - 1) and log(V - 1) off the
        output, as the paper's code does; for uniform noise it is a score of 1.
        """
        never = torch.arange(self.vocab_size, device=raw.device) == self.mask_id
        raw = raw.to(self.table_dtype).masked_fill(never, 0.0)
        known = self.possible(self.inside(t), raw).log().expand(*zt.shape, -1)  # (B, L, V)
        log_s = raw + known - known.gather(-1, zt[..., None])
        return torch.where(self.one_hot(zt) > 0, 0.0, log_s)

    def score_entropy(self, raw: Tensor, x0: Tensor, zt: Tensor, t: Tensor) -> Tensor:
        """Denoising score entropy, (B, L) nats per unit of t: rate times the sum over y of s - r log s + r (log r - 1).

        r = q(y | x_0) / q(z_t | x_0) is what a score would be if x_0 were known. Zero at s = r, and never less: the
        part without s teaches nothing, but with it the integral over t is a bound.
        Source: arXiv:2310.16834, theorems 3.4 and 3.6.
        """
        marginal = self.transitions.marginal(self.one_hot(x0), 0, self.inside(t))
        r = marginal / marginal.gather(-1, zt[..., None])
        log_s = self.log_score(raw, zt, t)
        entropy = log_s.exp() - torch.where(r > 0, r * log_s, 0.0) + torch.special.xlogy(r, r) - r  # (B, L, V)
        is_other = torch.arange(self.vocab_size, device=zt.device) != zt[..., None]
        rate = self.rate_into(zt, t)
        return rate * torch.where(is_other & (rate > 0)[..., None], entropy, 0.0).sum(-1)

    # -------------------------------------------------------------------------------------------------------- the bound

    def loss(self, denoise: Denoise, x0: Tensor, t: Tensor, rng: Generator) -> LossTerms:
        """T times the score entropy at t, what the start of the noise costs, and its end.

        Source: arXiv:2310.16834, theorem 3.6; its code leaves out the start and the end.
        """
        zt, _ = self.corrupt(x0, t, rng)
        diffusion = self.T * self.score_entropy(denoise(zt, t), x0, zt, t)
        return LossTerms(diffusion, self.reconstruction_loss(denoise, x0, rng), self.prior_loss(x0))

    def reconstruction_loss(self, denoise: Denoise, x0: Tensor, rng: Generator) -> Tensor:
        """-log p(x_0 | z) for z just after t = 0, (B, L) nats; none where the schedule starts at no noise.

        No token loses all of its probability to a score that is a little off: one such token would make the bound
        infinite.
        """
        if not self.starts_noisy:
            return torch.zeros(x0.shape, dtype=self.table_dtype, device=x0.device)
        t = torch.full((len(x0),), self.start, dtype=torch.float64, device=x0.device)
        z, _ = self.corrupt(x0, t, rng)
        return divergence(self.one_hot(x0), self.token_probs(denoise(z, t), z, t, LEAST))

    def prior_loss(self, x0: Tensor) -> Tensor:
        """KL(q(z_T | x_0) || prior), (B, L) nats."""
        end = self.inside(self.T)
        marginal = self.transitions.marginal(self.one_hot(x0), 0, end)
        return divergence(marginal, self.possible(end, marginal))

    def even_noise(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """The times (B,) at which the share u of all noise is reached, and dt / du in units of T.

        Spread over masking rates rather than times, an average is the same for every schedule and varies less: a
        geometric one spends half of its time where nothing happens yet.
        """
        first, last = self.schedule.rate(self.inside(torch.tensor([0, self.T], device=u.device)))
        t = self.inside(self.schedule.time(first + u * (last - first)))
        return t, (last - first) / (self.T * self.schedule.slope(t))

    def bound(self, denoise: Denoise, x0: Tensor, u: Tensor, rng: Generator) -> Tensor:
        """The bound, with the score entropy taken where the share u of all noise is reached."""
        t, speed = self.even_noise(u.to(x0.device))
        terms = self.loss(denoise, x0, t, rng)
        return speed[:, None] * terms.diffusion + terms.reconstruction + terms.prior

    # -------------------------------------------------------------------------------------------------- reverse process

    def token_probs(self, raw: Tensor, zt: Tensor, t: Tensor, least: float = 0.0) -> Tensor:
        """Prediction of the clean tokens by the score, (B, L, V): one step to s = 0."""
        t = self.inside(t)
        weights = staggered_score(self, self.log_score(raw, zt, t).exp(), zt, t, torch.zeros_like(t), least)
        return weights / weights.sum(-1, keepdim=True)

    def reverse_step(self, raw: Tensor, zt: Tensor, t: Tensor, s: Tensor, rng: Generator) -> Tensor:
        t = self.inside(t)
        return categorical(SAMPLERS[self.sampler](self, self.log_score(raw, zt, t).exp(), zt, t, s.double()), rng)

    def log_likelihood(self, zt: Tensor, t: Tensor) -> Tensor:
        return self.transitions.likelihood(self.one_hot(zt), 0, self.inside(t)).log()

    def ideal_output(self, log_posterior: Tensor, zt: Tensor, t: Tensor) -> Tensor:
        """The prediction from the other positions with noise, as a ratio: p_t(y | others) / p_t(z_t | others)."""
        others = leave_one_out(log_posterior, self.log_likelihood(zt, t)).softmax(-1)
        log_p = self.transitions.marginal(others, 0, self.inside(t)).log()
        known = self.possible(self.inside(t), others).log().expand(*zt.shape, -1)
        return ((log_p - known) - (log_p - known).gather(-1, zt[..., None])).nan_to_num(nan=-torch.inf)


class UDLM(SEDD):
    """Uniform diffusion in continuous time that predicts tokens: SEDD's bound with scores made from the prediction.

    The denoiser's output f predicts from the other positions, as in D3PM. With the noise of time t it gives a
    distribution of z_t[i], and the score is a ratio of two of its entries, so scores always fit together. Then
    the bound is the simplified one of the paper, the limit of D3PM's for many steps; with absorbing noise, MDLM's.

    Args:   as SEDD.
    Source: arXiv:2412.10193, section 4.
    """

    name = "udlm"

    def __init__(
        self, vocab_size: int, mask_id: int, noise: str = "uniform", schedule: Schedule | str = "linear", *,
        sampler: str = "tweedie", dtype: torch.dtype = torch.float64,
    ):  # fmt: skip
        super().__init__(vocab_size, mask_id, noise, schedule, sampler=sampler, dtype=dtype)

    def log_score(self, raw: Tensor, zt: Tensor, t: Tensor) -> Tensor:
        """Log of the ratio of the probabilities that f with noise gives to each token and to z_t, (B, L, V)."""
        f = without_mask(raw.to(self.table_dtype), self.mask_id).softmax(-1)
        p = self.transitions.marginal(f, 0, self.inside(t))
        is_possible = p > 0
        log_p = torch.where(is_possible, p, 1.0).log().masked_fill(~is_possible, -torch.inf)  # log 0 has no slope
        return log_p - log_p.gather(-1, zt[..., None])

    def ideal_output(self, log_posterior: Tensor, zt: Tensor, t: Tensor) -> Tensor:
        """The prediction from the other positions itself."""
        return leave_one_out(log_posterior, self.log_likelihood(zt, t))
