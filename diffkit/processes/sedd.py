"""SEDD: learn ratios of probabilities (the concrete score), and run noise backwards with them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import torch
from torch import Generator, Tensor

from diffkit.processes.base import Denoise, LossTerms, Process, Time, as_rows, keep_given, not_counted, without_mask
from diffkit.processes.schedules import NO_JUMP, Schedule
from diffkit.processes.transitions import (
    LIMITS,
    Mixing,
    TransitionProcess,
    divergence,
    get_transitions,
    last_time,
    leave_one_out,
)  # fmt: skip
from diffkit.random import categorical

LEAST = 1e-3  # share of its score that a token keeps in the reconstruction
# The share alpha of the text that is left where noise ends costs a billionth of a nat a token: alpha times a log,
# or alpha^2 where a uniform token is drawn instead. Beyond, scores round to 1, and an error of one costs 1 / alpha.
LEFT, LEFT_BY_UNIFORM = 1e-9, 3e-5

# (process, raw, z_t, t, s) -> weights of z_s, (B, L, V)
Sampler = Callable[["SEDD", Tensor, Tensor, Tensor, Tensor], Tensor]


def tweedie(process: SEDD, raw: Tensor, zt: Tensor, t: Tensor, s: Tensor) -> Tensor:
    """Tweedie tau-leaping: all positions jump at once, each by its staggered score.

    Source: arXiv:2310.16834, section 4 (called analytic in its code).
    """
    return process.staggered_score(raw, zt, t, s)


def euler(process: SEDD, raw: Tensor, zt: Tensor, t: Tensor, s: Tensor) -> Tensor:
    """One step of (t - s) along the reverse rates: first order in t - s; the last step, to s = 0, is `tweedie`.

    The probability to stay is 1 minus that to leave, and set to zero where a step is so long that it would be negative.
    Source: arXiv:2310.16834, section 4 and its appendix.
    """
    score, stays = process.log_score(raw, zt, t).exp(), process.one_hot(zt)
    leave = process.rate_into(zt, t)[..., None] * (t - s).reshape(-1, 1, 1).to(score) * score * (1 - stays)
    weights = leave + stays * (1 - leave.sum(-1, keepdim=True)).clamp(min=0)
    is_last = (s == 0).reshape(-1, 1, 1).to(zt.device)
    return torch.where(is_last, tweedie(process, raw, zt, t, s), weights)


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
    learns_ratios = True
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
    def end(self) -> float:
        is_ratio_near_1 = self.noise == "uniform" and (self.learns_ratios or self.table_dtype == torch.float32)
        return last_time(self.schedule, LEFT_BY_UNIFORM if is_ratio_near_1 else LEFT)

    @cached_property
    def starts_noisy(self) -> bool:
        """Has the schedule jumped off zero, so that z at t = 0 must be read?"""
        return bool(self.schedule.rate(self.start) >= NO_JUMP)

    def inside(self, t: Time) -> Tensor:
        """Times in `start`..`end`, float64: there every rate and ratio is finite."""
        return self.before_end(t).clamp(min=self.start)

    # -------------------------------------------------------------------------------------------------- forward process

    def possible(self, t: Time, like: Tensor | None = None) -> Tensor:
        """(1 or B, 1, V), the distribution at t of a token that was uniform at 0; device and dtype of `like`."""
        tokens = LIMITS["uniform"](self.vocab_size, self.mask_id)
        tokens = tokens if like is None else tokens.to(like)
        return self.transitions.marginal(tokens.expand(1, 1, -1), 0, t)

    def prior(self, B: int, L: int, rng: Generator) -> Tensor:
        """Uniform tokens with all of the noise: MASK, or uniform; exact for a schedule that stops short of 1 too."""
        return categorical(self.possible(self.inside(self.T)).expand(B, L, -1), rng)

    def corrupt(self, x0: Tensor, t: Time, rng: Generator) -> tuple[Tensor, Tensor]:
        zt = self.add_noise(x0, 0, self.inside(t), rng)
        return zt, zt != x0

    def rate_into(self, zt: Tensor, t: Time) -> Tensor:
        """sigma'(t) R[y, z_t] for any y other than z_t, (B, L) per unit of t: how fast noise arrives here."""
        t = self.inside(t)
        slope = self.schedule.slope(t) / self.schedule.keep(t)
        limit = self.transitions.limit(zt.device).to(self.table_dtype)
        return slope.reshape(-1, 1).to(limit) * limit[zt]

    # -------------------------------------------------------------------------------------------------------- the score

    def token_logits(self, raw: Tensor, zt: Tensor) -> Tensor:
        """The scores of the tokens to change to, log s up to a constant: neither MASK nor z_t itself."""
        logits = without_mask(self.columns(raw).to(self.table_dtype), self.mask_id)
        return logits.masked_fill(self.one_hot(zt) > 0, -torch.inf)

    def with_token_logits(self, raw: Tensor, zt: Tensor, logits: Tensor) -> Tensor:
        """log s = log of the sum of all scores, the rate of a change, which stays + log-probabilities of tokens."""
        rate = self.token_logits(raw, zt).logsumexp(-1, keepdim=True)
        return (rate + logits.log_softmax(-1)).masked_fill(rate == -torch.inf, -torch.inf)

    def log_score(self, raw: Tensor, zt: Tensor, t: Time) -> Tensor:
        """The denoiser's output as log s, (B, L, V): 0 at z_t itself, -inf at what cannot be.

        Raw zeros mean the score of uniform text. For absorbing noise that takes log(e^sigma - 1) and log(V - 1) off the
        output, as the paper's code does; for uniform noise it is a score of 1.
        """
        never = torch.arange(self.vocab_size, device=raw.device) == self.mask_id
        raw = self.columns(raw).to(self.table_dtype).masked_fill(never, 0.0)
        known = self.possible(self.inside(t), raw).log().expand(*zt.shape, -1)  # (B, L, V)
        log_s = raw + known - known.gather(-1, zt[..., None].long())
        return torch.where(self.one_hot(zt) > 0, 0.0, log_s)

    def score_entropy(self, raw: Tensor, x0: Tensor, zt: Tensor, t: Time) -> Tensor:
        """Denoising score entropy, (B, L) nats per unit of t: rate times the sum over y of s - r log s + r (log r - 1).

        r = q(y | x_0) / q(z_t | x_0) is what a score would be if x_0 were known. Zero at s = r, else positive. The
        part without s has no gradient, but with it the integral over t is a bound.
        Source: arXiv:2310.16834, theorems 3.4 and 3.6.
        """
        marginal = self.transitions.marginal(self.one_hot(x0), 0, self.inside(t))
        r = marginal / marginal.gather(-1, zt[..., None].long())
        log_s = self.log_score(raw, zt, t)
        entropy = log_s.exp() - torch.where(r > 0, r * log_s, 0.0) + torch.special.xlogy(r, r) - r  # (B, L, V)
        is_other = torch.arange(self.vocab_size, device=zt.device) != zt[..., None]
        rate = self.rate_into(zt, t)
        return rate * torch.where(is_other & (rate > 0)[..., None], entropy, 0.0).sum(-1)

    # -------------------------------------------------------------------------------------------------------- the bound

    def loss(self, denoise: Denoise, x0: Tensor, t: Time, rng: Generator, frozen: Tensor | None = None) -> LossTerms:
        """T times the score entropy at t, what the start of the noise costs, and its end.

        Source: arXiv:2310.16834, theorem 3.6; its code leaves out the start and the end.
        """
        x0, t = as_rows(x0, t)
        zt, _ = self.corrupt(x0, t, rng)
        diffusion = self.T * self.score_entropy(denoise(keep_given(zt, x0, frozen), t), x0, zt, t)
        if self.end < self.T * (1 - 1e-9):  # later noise is no part of the chain
            diffusion = diffusion * (t <= self.end).to(diffusion)[:, None]
        terms = diffusion, self.reconstruction_loss(denoise, x0, rng, frozen), self.prior_loss(x0)
        return LossTerms(*(not_counted(part, frozen) for part in terms))

    def reconstruction_loss(self, denoise: Denoise, x0: Tensor, rng: Generator, frozen: Tensor | None = None) -> Tensor:
        """-log p(x_0 | z) for z just after t = 0, (B, L) nats; none where the schedule starts at no noise.

        No token loses all of its probability to a score that is a little off: one such token would make the bound
        infinite.
        """
        if not self.starts_noisy:
            return torch.zeros(x0.shape, dtype=self.table_dtype, device=x0.device)
        t = torch.full((len(x0),), self.start, dtype=torch.float64, device=x0.device)
        z, _ = self.corrupt(x0, t, rng)
        raw = denoise(keep_given(z, x0, frozen), t)
        return divergence(self.one_hot(x0), self.token_probs(raw, z, t, LEAST))

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

    def bound(self, denoise: Denoise, x0: Tensor, u: Tensor, rng: Generator, frozen: Tensor | None = None) -> Tensor:
        """The bound, with the score entropy taken where the share u^3 of all noise is reached, times 3 u^2.

        At little noise few tokens are hit, each of which costs much: with the share u itself the variance is infinite.
        """
        u = u.to(x0.device)
        t, speed = self.even_noise(u**3)
        terms = self.loss(denoise, x0, t, rng, frozen)
        return (3 * u**2 * speed)[:, None] * terms.diffusion + terms.reconstruction + terms.prior

    # -------------------------------------------------------------------------------------------------- reverse process

    def earlier_score(self, raw: Tensor, zt: Tensor, t: Tensor, s: Tensor, least: float) -> Tensor:
        """exp(-d R) score, the scores at s if other positions stood still; d: noise from s to t.

        Exact for one position and an exact score. With a learned one an entry may fall below zero: it is set to the
        share `least` of what the score was.
        """
        score = self.log_score(raw, zt, t).exp()
        alpha, redrawn = self.transitions.keep(s, t, score)
        limit, others = self.transitions.limit().to(score), score.masked_fill(self.one_hot(zt) > 0, 0.0)
        excess = score - limit - limit * others.sum(-1, keepdim=True)  # score - limit * sum(score), to the last digit
        return (score + redrawn / alpha * excess).maximum(least * score)

    def staggered_score(self, raw: Tensor, zt: Tensor, t: Time, s: Time, least: float = 0.0) -> Tensor:
        """`earlier_score` times Q(s, t) to z_t: weights of z_s, (B, L, V)."""
        (zt, t), (_, s) = as_rows(zt, self.inside(t)), as_rows(zt, self.before_end(s))
        earlier = self.earlier_score(raw, zt, t, s, least)
        is_possible = self.possible(s, earlier) > 0  # no MASK at s = 0
        return earlier * self.transitions.likelihood(self.one_hot(zt), s, t) * is_possible

    def token_probs(self, raw: Tensor, zt: Tensor, t: Time, least: float = 0.0) -> Tensor:
        """Prediction of the clean tokens by the score, (B, L, V): one step to s = 0."""
        weights = self.staggered_score(raw, zt, t, 0.0, least)
        return weights / weights.sum(-1, keepdim=True)

    def reverse_step(self, raw: Tensor, zt: Tensor, t: Time, s: Time, rng: Generator) -> Tensor:
        (zt, t), (_, s) = as_rows(zt, self.inside(t)), as_rows(zt, self.before_end(s))
        return categorical(SAMPLERS[self.sampler](self, raw, zt, t, s), rng)

    def log_likelihood(self, zt: Tensor, t: Time) -> Tensor:
        return self.transitions.likelihood(self.one_hot(zt), 0, self.inside(t)).log()

    def ideal_output(self, log_posterior: Tensor, zt: Tensor, t: Time) -> Tensor:
        """The prediction from the other positions with noise, as a ratio: p_t(y | others) / p_t(z_t | others)."""
        others = leave_one_out(log_posterior, self.log_likelihood(zt, t)).softmax(-1)
        log_p = self.transitions.marginal(others, 0, self.inside(t)).log()
        known = self.possible(self.inside(t), others).log().expand(*zt.shape, -1)
        return ((log_p - known) - (log_p - known).gather(-1, zt[..., None].long())).nan_to_num(nan=-torch.inf)


class UDLM(SEDD):
    """Uniform diffusion in continuous time that predicts tokens: SEDD's bound with scores made from the prediction.

    The denoiser's output f predicts from the other positions, as in D3PM. With the noise of time t it gives a
    distribution of z_t[i], and the score is a ratio of two of its entries, so scores always fit together. Then
    the bound is the simplified one of the paper, the limit of D3PM's for many steps; with absorbing noise, MDLM's.

    Args:   as SEDD.
    Source: arXiv:2412.10193, section 4.
    """

    name = "udlm"
    learns_ratios = False

    def __init__(
        self, vocab_size: int, mask_id: int, noise: str = "uniform", schedule: Schedule | str = "linear", *,
        sampler: str = "tweedie", dtype: torch.dtype = torch.float64,
    ):  # fmt: skip
        super().__init__(vocab_size, mask_id, noise, schedule, sampler=sampler, dtype=dtype)

    token_logits, with_token_logits = Process.token_logits, Process.with_token_logits  # f says only which token

    def marginal(self, raw: Tensor, t: Time) -> Tensor:
        """f with the noise of time t, (B, L, V)."""
        f = Process.token_logits(self, raw.to(self.table_dtype), raw).softmax(-1)
        return self.transitions.marginal(f, 0, t)

    def log_score(self, raw: Tensor, zt: Tensor, t: Time) -> Tensor:
        """Log of the ratio of the probabilities that f with noise gives to each token and to z_t, (B, L, V)."""
        p = self.marginal(raw, self.inside(t))
        is_possible = p > 0
        log_p = torch.where(is_possible, p, 1.0).log().masked_fill(~is_possible, -torch.inf)  # log 0 has no slope
        return log_p - log_p.gather(-1, zt[..., None].long())

    def earlier_score(self, raw: Tensor, zt: Tensor, t: Tensor, s: Tensor, least: float) -> Tensor:
        """f with the noise of s: no score need be taken back to it."""
        return self.marginal(raw, s) / self.marginal(raw, t).gather(-1, zt[..., None])

    def ideal_output(self, log_posterior: Tensor, zt: Tensor, t: Time) -> Tensor:
        """The prediction from the other positions itself."""
        return leave_one_out(log_posterior, self.log_likelihood(zt, t))
