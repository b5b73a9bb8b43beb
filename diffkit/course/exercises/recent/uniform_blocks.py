"""Exercises of notebook 18_uniform_blocks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Generator, Tensor

from diffkit.course.exercises.checks import Wrong, counterexample, exercise, far_from, not_these, tensor_of
from diffkit.languages.story_language import load_language
from diffkit.processes.hybrid import HybridDiffusion, to_leave_one_out
from diffkit.random import inverse_cdf, uniform_like
from diffkit.sampling.parallel import within_entropy

Curve = Callable[[Tensor], Tensor]


def noise_law(share: float, vocab_size: int, mask_id: int) -> Tensor:
    """(V,) what a hit token turns into: any token but MASK with probability `share` in all, else MASK."""
    law = torch.full((vocab_size,), share / (vocab_size - 1), dtype=torch.float64)
    law[mask_id] = 1 - share
    return law


# ----------------------------------------------------------------------------------------------------------- exercise 1


def hybrid_corrupt(x0: Tensor, alpha: float, share: float, vocab_size: int, mask_id: int, rng: Generator) -> Tensor:
    """Keep each token with probability alpha, or draw it from `noise_law`."""
    drawn = inverse_cdf(noise_law(share, vocab_size, mask_id).expand(*x0.shape, -1), uniform_like(x0, rng))
    return torch.where(uniform_like(x0, rng) < alpha, x0, drawn)


@exercise
def check_hybrid_corrupt(corrupt: Callable[..., Any]) -> str:
    """corrupt(x0, alpha, share, vocab_size, mask_id, rng) -> (B, L) noisy ids."""
    V, mask, n = 6, 2, 8000
    x0 = torch.tensor([[4, 0, 5]]).expand(n, 3).clone()
    for alpha, share in ((1.0, 0.5), (0.0, 0.0), (0.3, 1.0), (0.6, 0.25)):
        called = f"corrupt(x0, alpha={alpha:g}, share={share:g}, ...)"
        zt = tensor_of(corrupt, x0, alpha, share, V, mask, Generator().manual_seed(1), shape=(n, 3), called=called)
        for i, clean in enumerate((4, 0, 5)):
            _check_column(zt[:, i].long(), clean, alpha, noise_law(share, V, mask), called, mask)
        _check_fates(zt, x0, mask, called)
    return "One draw of fate for each token: stay, MASK, or a word. At share 0 this is MDLM's noise, at 1 it is UDLM's."


def _check_column(column: Tensor, clean: int, alpha: float, law: Tensor, called: str, mask: int) -> None:
    """Raise Wrong where the shares of the tokens at one position are not what they should be."""
    n, want = len(column), (1 - alpha) * law
    want[clean] += alpha
    found = torch.bincount(column.clamp(min=0), minlength=len(law)).double() / n
    if len(found) > len(law):
        raise Wrong(f"{called} holds the id {int(column.max())}, outside the vocabulary of {len(law)}.")
    for v in (mask, clean, *range(len(law))):
        if far_from(float(found[v]), float(want[v]), n):
            what = "is MASK" if v == mask else "is still the clean token" if v == clean else f"is token {v}"
            raise Wrong(
                f"in {called} a token {what} with probability {want[v]:.3f}; yours in {found[v]:.1%} of {n} draws. A "
                "uniform token may be the clean one again, but never MASK."
            )


def _check_fates(zt: Tensor, x0: Tensor, mask: int, called: str) -> None:
    """Raise Wrong where positions of a row share their fate."""
    fates = {"kept or hit": zt == x0, "MASK or a word": zt == mask, "the same word": zt == 1}  # 1 is never clean here
    for what, here in fates.items():
        together = float((here[:, 0] & here[:, 1]).double().mean())
        apart = float(here[:, 0].double().mean() * here[:, 1].double().mean())
        if far_from(together, apart, len(zt)):
            raise Wrong(f"in {called} the tokens of a row are {what} together: each needs draws of its own.")


# ----------------------------------------------------------------------------------------------------------- exercise 2


def leave_one_out(log_f: Tensor, zt: Tensor, alpha: float, noise: Tensor) -> Tensor:
    """Take the evidence of each position's own token out of the posterior."""
    d = torch.log1p(alpha / noise[zt])[..., None]
    own = torch.nn.functional.one_hot(zt, log_f.shape[-1])
    return (log_f - d * own).log_softmax(-1)


@exercise
def check_leave_one_out(leave_one_out: Callable[..., Any]) -> str:
    """leave_one_out(log_f, zt, alpha, noise) -> (B, L, V) log r, noise (V,) the probability that noise puts a token."""
    micro = load_language("micro")
    V, mask, words = micro.vocab_size, micro.mask_id, torch.arange(micro.vocab_size) != micro.mask_id
    for share, t in ((1.0, 500.0), (0.3, 200.0)):
        process, rng = HybridDiffusion(V, mask, share), Generator().manual_seed(2)
        zt, _ = process.corrupt(micro.sample(8, rng), t, rng)
        log_f = micro.posterior(process.log_likelihood(zt, torch.full((8,), t)))[1].log().clamp(min=-40)
        alpha, noise = 1 - t / 1000, t / 1000 * noise_law(share, V, mask)
        shape, called = (8, micro.length, V), "leave_one_out(log_f, zt, alpha, noise)"
        mine = tensor_of(leave_one_out, log_f, zt, alpha, noise, shape=shape, called=called).double()
        own = torch.nn.functional.one_hot(zt, V).double()
        d = torch.log1p(alpha / noise)[zt][..., None]
        want = to_leave_one_out(process, log_f, zt, t).exp()
        slips = {
            "it is not normalised: after the shift take log_softmax, before anything is mixed with it": log_f - d * own,
            "the logit of the token moves the wrong way; f holds its evidence, r must not": log_f + d * own,
            "every logit is moved, which changes nothing; only that of z_t itself holds its evidence": log_f - d,
            "if z_t is the clean token it was kept or drawn again: alpha + noise over noise, not alpha over noise":
                log_f - torch.log(alpha / noise)[zt][..., None] * own,
        }  # fmt: skip
        not_these(mine[..., words].exp(), {why: slip[..., words].exp() for why, slip in list(slips.items())[:1]})
        normal = {why: slip.log_softmax(-1)[..., words].exp() for why, slip in list(slips.items())[1:]}
        not_these(mine.log_softmax(-1)[..., words].exp(), normal)
        cases = [f"position {i % micro.length + 1} of row {i // micro.length}" for i in range(8 * micro.length)]
        best = want[..., words].amax(-1).flatten()
        counterexample(mine[..., words].exp().amax(-1).flatten(), best, cases, "the likeliest r")
        counterexample(mine[..., words].exp().flatten(), want[..., words].flatten(), ["a token"] * want.numel(), "r")
    return "One logit moves, by log(1 + alpha / noise): that is all the difference between the two predictions."


# ----------------------------------------------------------------------------------------------------------- exercise 3


def accept_by_entropy(entropies: Tensor, bound: float) -> Tensor:
    """The longest run of smallest entropies that, the largest of them left out, sum to at most the bound."""
    ranked, order = entropies.sort(1)
    return torch.zeros_like(entropies, dtype=torch.bool).scatter(1, order, ranked.cumsum(1) - ranked <= bound)


@exercise
def check_accept(accept: Callable[..., Any]) -> str:
    """accept(entropies, bound) -> (B, L) bool: the tokens to keep, entropies (B, L) in nats."""
    entropies = torch.tensor([[0.9, 0.03, 0.5, 0.04, 0.06], [1.1, 0.8, 0.7, 1.3, 0.9], [0.01, 0.02, 0.005, 0.03, 0.02]])
    called = "accept(entropies, bound)"
    for bound in (0.1, 0.0, 1.0, 1.65):
        mine = tensor_of(accept, entropies, bound, shape=(3, 5), called=called).double()
        want = accept_by_entropy(entropies, bound).double()
        ranked, order = entropies.sort(1)
        whole = torch.zeros_like(want).scatter(1, order, (ranked.cumsum(1) <= bound).double())
        slips = {
            "the largest entropy of the run does not count: one token alone is always exact, so one is always taken":
                whole,
            "these are the tokens to refill with noise; return those to keep": 1 - want,
            "each entropy alone is held against the bound; it is their sum that must not pass it":
                (entropies <= bound).double(),
            "the run goes by position; sort by entropy first":
                (entropies.cumsum(1) - entropies <= bound).double(),
        }  # fmt: skip
        not_these(mine, {why: slip for why, slip in slips.items() if not torch.equal(slip, want)})
        cases = [f"entropies {row.tolist()} and bound {bound:g}" for row in entropies]
        counterexample(mine.sum(1), want.sum(1), cases, "the number accepted")
        counterexample(mine.flatten(), want.flatten(), [case for case in cases for _ in range(5)], "an entry")
    return (
        "The sum bounds what is lost by drawing them at once; whether it still does amid fresh noise is another matter."
    )


def accepted(probs: Tensor, bound: float) -> Tensor:
    """The package's choice for predictions (B, L, V)."""
    return within_entropy(bound)(probs.flatten(0, 1), torch.ones(probs.shape[:2], dtype=torch.bool))


# ----------------------------------------------------------------------------------------------------------- exercise 4


def gidd(p_u: float, power: float, vocab_size: int = 5, mask_id: int = 0) -> tuple[Curve, Curve]:
    """alpha(t) and b(t) (V,) of GIDD for t in (0, 1): noise whose share of uniform tokens is p_u at t = 1/2.

    Source: arXiv:2503.04482, its mixing schedule.
    """
    words = noise_law(1.0, vocab_size, mask_id)
    masked = noise_law(0.0, vocab_size, mask_id)

    def c(t: Tensor) -> Tensor:
        return 2**power * p_u / (1 - p_u) * (t * (1 - t)) ** (power / 2)

    return lambda t: (1 - t) / (1 + c(t)), lambda t: (t * masked + c(t) * words) / (1 + c(t))


def jump_rates(alpha: Curve, noise: Curve, t: float) -> Tensor:
    """(V,) the rates b'(z) - alpha' / alpha b(z) at which tokens jump to z."""
    moment = torch.tensor(t, dtype=torch.float64)
    slope_a, slope_b = (torch.autograd.functional.jacobian(curve, moment) for curve in (alpha, noise))
    return slope_b - slope_a / alpha(moment) * noise(moment)


@exercise
def check_jump_rates(rates: Callable[..., Any]) -> str:
    """rates(alpha, noise, t) -> (V,) the rate of jumps to each token, alpha and noise functions of the time."""
    fixed = (lambda t: 1 - t, lambda t: t * noise_law(0.3, 5, 0))
    for name, (alpha, noise) in {"a fixed share of 0.3": fixed, "GIDD, p_u = 0.2": gidd(0.2, 1.0)}.items():
        for t in (0.2, 0.5, 0.9):
            called = "rates(alpha, noise, t)"
            mine = tensor_of(rates, alpha, noise, t, shape=(5,), called=called).double()
            want, here = jump_rates(alpha, noise, t), torch.tensor(t, dtype=torch.float64)
            a, b = alpha(here), noise(here)
            slope_a = torch.autograd.functional.jacobian(alpha, here)
            slope_b = want + slope_a / a * b
            slips = {
                "b'(z) alone is the change of what is there; tokens that arrived earlier are hit again": slope_b,
                "the sign of the second part: alpha falls, so -alpha' / alpha is positive": slope_b + slope_a / a * b,
                "divide by alpha: only the share alpha that is left can be hit anew": slope_b - slope_a * b,
            }
            not_these(mine, {why: slip for why, slip in slips.items() if (slip - want).abs().max() > 1e-4})
            near = torch.where((mine - want).abs() < 1e-3 * want.abs().clamp(min=0.1), want, mine)  # a small difference
            counterexample(near, want, [f"{name}, t = {t:g}, token {v}" for v in range(5)], "the rate")
    return "Where every rate is at least 0 there is a process with these marginals; GIDD with a power above 2 has none."
