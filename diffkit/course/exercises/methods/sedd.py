"""Exercises of notebook 13_sedd."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Generator, Tensor

from diffkit.course.exercises.checks import exercise, not_these, tensor_of, worst
from diffkit.course.experiments.exact_chain import matrix
from diffkit.languages.story_language import load_language
from diffkit.processes import sedd
from diffkit.processes.sedd import SEDD


def concrete_score(p: Tensor, zt: Tensor) -> Tensor:
    """Probabilities (B, L, V) as ratios to that of the token which is there: (B, L, V)."""
    return p / p.gather(-1, zt[..., None])


def score_entropy(s: Tensor, r: Tensor, zt: Tensor, rate: Tensor) -> Tensor:
    """What `SEDD.score_entropy` computes from scores s, right ratios r and the rate into z_t: (B, L) nats."""
    # At z_t itself s = r = 1, which costs nothing.
    each = s - torch.where(r > 0, r * s.clamp(min=1e-300).log(), 0.0) + torch.special.xlogy(r, r) - r
    return rate * each.sum(-1)


def euler_step(s: Tensor, zt: Tensor, rate: Tensor, h: float) -> Tensor:
    """What the sampler `euler` draws from: jump to y with chance h times its reverse rate, else stay, (B, L, V)."""
    leave = (h * rate[..., None] * s).scatter(-1, zt[..., None], 0.0)
    weights = leave.scatter(-1, zt[..., None], (1 - leave.sum(-1, keepdim=True)).clamp(min=0))
    return weights / weights.sum(-1, keepdim=True)


def staggered_step(s: Tensor, zt: Tensor, Q_st: Tensor) -> Tensor:
    """What the sampler `tweedie` draws from: the scores taken back to s, weighed by the chance to lead to z_t."""
    weights = torch.linalg.solve(Q_st.T, s[..., None])[..., 0] * Q_st.T[zt]
    return weights / weights.sum(-1, keepdim=True)


# ----------------------------------------------------------------------------------------------------------- the checks

PAIRS = (("absorbing", "loglinear"), ("uniform", "geometric"))


@exercise
def check_score(score: Callable[[Tensor, Tensor], Any]) -> str:
    """score(p, zt) -> (B, L, V), how much more likely than the token that is there each token is."""
    for V, seed in ((3, 1), (5, 2)):
        rng = Generator().manual_seed(seed)
        p = torch.randn(2, 4, V, generator=rng, dtype=torch.float64).softmax(-1)
        zt = torch.randint(0, V, (2, 4), generator=rng)
        want = concrete_score(p, zt)
        mine = tensor_of(score, p, zt, shape=(2, 4, V), called="the score").double()
        not_these(
            mine,
            {
                "these are the probabilities themselves; divide by that of the token which is there": p,
                "the ratio is upside down": 1 / want,
                "these are logarithms; take the ratio itself": want.log(),
                "the score of the token itself is 1, a ratio like the others": want.scatter(-1, zt[..., None], 0.0),
                "you divide by the largest probability, not by that of the token which is there": p
                / p.amax(-1, keepdim=True),
            },
        )
        worst(mine, want, f"V = {V}", "the ratio", "Divide row [b, i] of p by its entry zt[b, i].")
    return "Any constant factor of p cancels: the network never has to make its numbers sum to one."


@exercise
def check_score_entropy(entropy: Callable[[Tensor, Tensor, Tensor, Tensor], Any]) -> str:
    """entropy(s, r, zt, rate) -> (B, L) nats per unit of time: rate times the sum over y of the score entropy."""
    language, rng = load_language("micro"), Generator().manual_seed(7)
    for (noise, schedule), t in zip((*PAIRS, PAIRS[0]), (400.0, 700.0, 900.0), strict=True):
        process = SEDD(language.vocab_size, language.mask_id, noise, schedule)
        x0 = language.sample(30, rng)
        zt, _ = process.corrupt(x0, t, rng)
        raw = torch.randn(*x0.shape, language.vocab_size, generator=rng, dtype=torch.float64)
        r = concrete_score(process.transitions.marginal(process.one_hot(x0), 0, t), zt)
        s, rate = process.log_score(raw, zt, t).exp(), process.rate_into(zt, t)
        mine = tensor_of(entropy, s, r, zt, rate, shape=tuple(x0.shape), called="the score entropy").double()
        want = process.score_entropy(raw, x0, zt, t)
        log_s, is_right = s.clamp(min=1e-300).log(), r > 0
        r_log_s, each = torch.where(is_right, r * log_s, 0.0), s - torch.where(is_right, r * log_s, 0.0)
        slips = {
            "without r (log r - 1) it is no longer zero at s = r: fine for a gradient, but no bound": rate
            * each.sum(-1),
            "the last part is r (log r - 1), not r log r": rate * (each + torch.special.xlogy(r, r)).sum(-1),
            "how often a token jumps is missing: multiply by the rate": want / rate,
            "that is the squared error; it lets s fall to zero and below": rate * (s - r).square().sum(-1),
            "that is a cross-entropy, r log s alone; a score need not sum to one, so s itself must be charged": -rate
            * r_log_s.sum(-1),
            "s and r are swapped": rate * (r - s * r.clamp(min=1e-300).log() + s * (log_s - 1)).sum(-1),
        }
        not_these(mine, {why: slip for why, slip in slips.items() if not torch.allclose(slip, want, atol=1e-5)})
        where = f"{noise} noise on micro, t = {t:.0f}"
        worst(mine, want, where, "it", "Rate times the sum over y of s - r log s + r (log r - 1); where r = 0, of s.")
    return "Zero at s = r and positive elsewhere, the same as `SEDD.score_entropy` to 1e-6 on micro."


@exercise
def check_euler(step: Callable[[Tensor, Tensor, Tensor, float], Any]) -> str:
    """step(s, zt, rate, h) -> (B, L, V) probabilities of z at t - h, to first order in h."""
    language, rng = load_language("micro"), Generator().manual_seed(8)
    process = SEDD(language.vocab_size, language.mask_id, "uniform", "geometric")
    for t, h in ((700.0, 10.0), (950.0, 150.0), (500.0, 50.0)):
        zt, _ = process.corrupt(language.sample(30, rng), t, rng)
        raw = torch.randn(*zt.shape, language.vocab_size, generator=rng, dtype=torch.float64)
        s, rate = process.log_score(raw, zt, t).exp(), process.rate_into(zt, t)
        mine = tensor_of(step, s, zt, rate, h, shape=tuple(s.shape), called="the probabilities").double()
        weights = sedd.euler(process, raw, zt, torch.full((30,), t), torch.full((30,), t - h))
        want = weights / weights.sum(-1, keepdim=True)
        stays = process.one_hot(zt)
        leave = h * rate[..., None] * s * (1 - stays)
        negative = leave + stays * (1 - leave.sum(-1, keepdim=True))
        slips = {
            "nobody stays: to stay has the probability that is left over": leave / leave.sum(-1, keepdim=True),
            "you also jump from the token to itself; leave its own score of 1 out of the jumps": h
            * rate[..., None] * s + stays * (1 - h * rate[..., None] * s.sum(-1, keepdim=True)).clamp(min=0),
            "for a long step a probability falls below zero; cut it off there": negative,
            "that does not sum to one where the step is so long that the jumps alone exceed one": weights,
            "you jump at the forward rate; the reverse rate is that times the score": h * rate[..., None] * (1 - stays)
            + stays * (1 - h * rate[..., None] * (1 - stays).sum(-1, keepdim=True)).clamp(min=0),
            "the time step h is missing": leave / h + stays * (1 - (leave / h).sum(-1, keepdim=True)).clamp(min=0),
        }  # fmt: skip
        not_these(mine, {why: slip for why, slip in slips.items() if not torch.allclose(slip, want, atol=1e-5)})
        worst(mine, want, f"t = {t:.0f}, h = {h:.0f}", "the probability", "h times rate times score for a jump, what "
               "is left over, but never less than 0, to stay; then over the sum.")  # fmt: skip
    return "The same as `euler` to 1e-6 on micro."


@exercise
def check_staggered(step: Callable[[Tensor, Tensor, Tensor], Any]) -> str:
    """step(s, zt, Q_st) -> (B, L, V) probabilities of z_s, by the staggered score."""
    rng = Generator().manual_seed(9)
    Q = torch.eye(4, dtype=torch.float64) * 0.6 + 0.4 * torch.rand(4, 4, generator=rng, dtype=torch.float64).softmax(-1)
    before = torch.randn(2, 3, 4, generator=rng, dtype=torch.float64).softmax(-1)
    zt = torch.randint(0, 4, (2, 3), generator=rng)
    s = concrete_score(before @ Q, zt)
    mine = tensor_of(step, s, zt, Q, shape=(2, 3, 4), called="the probabilities").double()
    earlier, turned = s @ torch.linalg.inv(Q), s @ torch.linalg.inv(Q).T
    slips = {
        "you weigh the scores of time t; take them back to s first, through the inverse of Q_st": s * Q.T[zt],
        "these are the scores at s; weigh each token by its chance to have become z_t": earlier,
        "you took the row z_t of Q_st; what leads to z_t is its column": earlier * Q[zt],
        "p_t = p_s Q_st is a row times a matrix; you inverted it from the other side": turned * Q.T[zt],
        "you took the scores forward; they have to go back in time": (s @ Q) * Q.T[zt],
        "to divide by the diagonal is not to invert": s / Q.diagonal() * Q.T[zt],
    }
    not_these(mine, {why: slip / slip.sum(-1, keepdim=True) for why, slip in slips.items()})
    worst(mine, staggered_step(s, zt, Q), "a random matrix", "the probability", "(s Q_st^-1)_y times [Q_st]_{y z_t}.")
    language = load_language("micro")
    for (noise, schedule), t in zip(PAIRS, (600.0, 800.0), strict=True):
        process = SEDD(language.vocab_size, language.mask_id, noise, schedule)
        zt, _ = process.corrupt(language.sample(20, rng), t, rng)
        raw = language.denoiser(process)(zt, torch.full((20,), t, dtype=torch.float64))
        weights = process.staggered_score(raw, zt, t, t / 2)
        mine = tensor_of(step, process.log_score(raw, zt, t).exp(), zt, matrix(process, t / 2, t),
                         shape=tuple(raw.shape), called="the probabilities").double()  # fmt: skip
        worst(mine, weights / weights.sum(-1, keepdim=True), f"{noise} noise on micro, from {t:.0f} to {t / 2:.0f}",
               "the probability", "(s Q_st^-1)_y times [Q_st]_{y z_t}, over its sum.")  # fmt: skip
    return "The same as `SEDD.staggered_score` to 1e-6 on micro, and exact for one position, however long the step."
