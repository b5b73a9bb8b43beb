"""Exercises of notebook 10_speed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Generator, Tensor

from diffkit.course.exercises.checks import Wrong, exercise, far_from, not_these, read, tensor_of
from diffkit.languages.story_language import load_language
from diffkit.processes.masked import MaskedDiffusion
from diffkit.random import highest
from diffkit.sampling.parallel import scores
from diffkit.sampling.remasking import stay_masked
from diffkit.sampling.unmasking import probs_at


def next_hit(gamma: Tensor, is_masked: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """One move of `FirstHitting`: the masking rates (B,) of the next reveals, and which tokens they reveal, (B, L)."""
    n = is_masked.sum(1)
    return gamma * u ** (1 / n.clamp(min=1)), highest(v, is_masked, n.clamp(max=1))


def within_bound(entropies: Tensor, is_masked: Tensor, bound: float) -> Tensor:
    """What `within_entropy` reveals, (B, L) bool, from entropies (B, L)."""
    ranked, order = torch.where(is_masked, entropies, torch.inf).sort(dim=1, stable=True)
    before = torch.cat([torch.zeros_like(ranked[:, :1]), ranked.cumsum(1)[:, :-1]], 1)
    return is_masked & torch.zeros_like(is_masked).scatter(1, order, before <= bound + 1e-9)


def remask_move(
    is_masked: Tensor, is_own: Tensor, gamma_t: float, gamma_s: float, eta: float, u: Tensor
) -> tuple[Tensor, Tensor]:
    """One step of `Remasking` with `cap(eta)`: what is revealed and what is masked again, (B, L) bool each."""
    r = min(eta, gamma_s / (1 - gamma_t)) if gamma_t < 1 else eta
    return is_masked & (u >= stay_masked(gamma_t, gamma_s, r)), is_own & (u < r)


# ----------------------------------------------------------------------------------------------------------- the checks


@exercise
def check_calls(calls: Callable[[int, int], Any]) -> str:
    """calls(steps, L) -> mean number of steps that reveal at least one of L tokens, each equally likely at any step."""
    for steps, L in ((1000, 48), (64, 128), (10, 1), (1, 7)):
        mine = tensor_of(calls, steps, L, shape=(), called="the number").double()
        quiet = torch.tensor((1 - 1 / steps) ** L).double()
        want = steps * (1 - quiet)
        slips = {
            "those are the steps in which nothing happens; the others are wanted": steps * quiet,
            "that is the chance that one given step reveals something; there are `steps` of them": 1 - quiet,
            "two tokens may share a step, so it is less than the smaller of the two numbers": torch.tensor(
                float(min(steps, L))
            ),
            "that is the limit of long texts; 1 - 1/steps to the power L is exact": steps
            * (1 - torch.tensor(-L / steps).double().exp()),
        }
        not_these(mine, {why: slip.double() for why, slip in slips.items() if abs(float(slip - want)) > 1e-4})
        if abs(float(mine - want)) > 1e-6 * float(want):
            raise Wrong(f"{L} tokens in {steps} steps keep {want:.3f} of the steps busy, yours is {float(mine):.3f}.")
    return "Every step is quiet with chance (1 - 1/N)^L, and there are N of them."


def _pair(answer: Any, names: tuple[str, str], shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> list[Tensor]:
    """Two tensors of these shapes. Raises Wrong if the answer is something else."""
    if not isinstance(answer, tuple | list) or len(answer) != 2:
        raise Wrong(f"return two things, {names[0]} and {names[1]}.")
    parts = [read(part, name) for part, name in zip(answer, names, strict=True)]
    for part, name, shape in zip(parts, names, shapes, strict=True):
        if tuple(part.shape) != shape:
            raise Wrong(f"{name} should have the shape {shape}, yours has {tuple(part.shape)}.")
    return parts


@exercise
def check_hit(hit: Callable[..., Any]) -> str:
    """hit(gamma, is_masked, u, v) -> (rates (B,) at the next reveals, (B, L) bool: which token each reveals)."""
    for patterns in ("11111 01101", "10000 10110 00000"):
        rows, rng = 3000, Generator().manual_seed(4)
        groups = [torch.tensor([c == "1" for c in pattern]) for pattern in patterns.split()]
        is_masked = torch.cat([group.expand(rows, -1) for group in groups])
        gamma, u = torch.rand(2, len(is_masked), generator=rng, dtype=torch.float64)
        v = torch.rand(is_masked.shape, generator=rng, dtype=torch.float64)
        mine, reveal = _pair(hit(gamma, is_masked, u, v), ("the rates", "`reveal`"), (gamma.shape, is_masked.shape))
        _check_rates(mine.double(), gamma, is_masked, u)
        _check_choice(reveal.bool(), groups, rows, u)
    return "The largest of n rates, uniform below gamma, is distributed as gamma u^(1/n); each token is as likely."


def _check_rates(mine: Tensor, gamma: Tensor, is_masked: Tensor, u: Tensor) -> None:
    n = is_masked.sum(1)
    if torch.isnan(mine).any():
        raise Wrong("the rates hold NaN. What if nothing is hidden any more, n = 0?")
    some, many = n > 0, n > 1
    want = gamma * u ** (1 / n.clamp(min=1))
    if torch.allclose(mine[some], (gamma * (1 - u) ** (1 / n.clamp(min=1)))[some], atol=1e-6):
        return  # 1 - u is as uniform as u
    slips = {
        "that is right for a single hidden token; the first of n reveals comes sooner (at a larger rate)": gamma * u,
        "that is the last of the n reveals; time runs back, so the next one has the largest rate": gamma * u**n,
        "that is how much the rate falls until then; return the rate itself": gamma - want,
        "that forgets where you are: start from gamma, not from 1": u ** (1 / n),
        "that is the average; it is to be drawn, with u": gamma * n / (n + 1),
        "dividing u by n does not give the largest of n uniforms": gamma * u / n,
    }
    if many.any():
        not_these(mine[many], {why: slip[many] for why, slip in slips.items()})
    off = (mine - want).abs().masked_fill(~some, 0.0)
    if off.max() > 1e-6:
        i = int(off.argmax())
        raise Wrong(f"gamma = {gamma[i]:.3f}, n = {n[i]}, u = {u[i]:.3f}: next {want[i]:.4f}, yours {mine[i]:.4f}.")


def _check_choice(reveal: Tensor, groups: list[Tensor], rows: int, u: Tensor) -> None:
    """Exactly one masked token a row, all of them equally likely, whatever u was."""
    for k, group in enumerate(groups):
        mine, n = reveal[k * rows : (k + 1) * rows], int(group.sum())
        if (mine & ~group).any():
            raise Wrong("a token is revealed that is visible already; choose among those of `is_masked`.")
        if (mine.sum(1) != min(n, 1)).any():
            raise Wrong(f"with {n} hidden tokens {min(n, 1)} is revealed in a move; yours reveals {mine.sum(1).max()}.")
        late = u[k * rows : (k + 1) * rows] < 0.5
        for part in (mine[late], mine[~late]) if n else ():
            for i in group.nonzero()[:, 0].tolist():
                share = float(part[:, i].double().mean())
                if far_from(share, 1 / n, len(part)):
                    raise Wrong(
                        f"each of {n} hidden tokens is next with chance {1 / n:.3f}, whatever u; yours takes position "
                        f"{i} in {share:.3f} of the moves. v has a fair lot for every position."
                    )


def _canvases() -> tuple[Tensor, Tensor]:
    """Half-written texts of `micro` and the exact entropies: is_masked (B, L), nats (B, L), in whole 1e-4."""
    micro, rng = load_language("micro"), Generator().manual_seed(6)
    process = MaskedDiffusion(micro.vocab_size, micro.mask_id)
    zt, is_masked = process.corrupt(micro.sample(60, rng), 800.0, rng)
    probs = probs_at(process, micro.denoiser(process), zt, torch.full((60,), 800.0), is_masked)
    return is_masked, -scores(-torch.special.entr(probs).sum(-1), is_masked) / 1e4


@exercise
def check_within(within: Callable[[Tensor, Tensor, float], Any]) -> str:
    """within(entropies, is_masked, bound) -> (B, L) bool: the most certain positions that the bound allows."""
    is_masked, exact = _canvases()
    rng = Generator().manual_seed(7)
    made_up = torch.rand(exact.shape, generator=rng, dtype=torch.float64) ** 2
    for entropies in (made_up, exact):
        nats = torch.where(is_masked, entropies, 0.0)
        for bound in (0.35, 0.0, 0.77, 1.5):
            mine = tensor_of(within, nats, is_masked, bound, shape=(60, 5), called="the choice").bool()
            want = within_bound(nats, is_masked, bound)
            _name_slips(mine, nats, is_masked, bound)
            size, least = mine.sum(1), torch.where(want, nats, 0.0).sum(1)
            off = ((size != want.sum(1)) | ((torch.where(mine, nats, 0.0).sum(1) - least).abs() > 1e-6)).nonzero()
            if len(off):
                i = int(off[0])
                listed = [round(x, 4) for x in nats[i][is_masked[i]].tolist()]
                raise Wrong(
                    f"hidden positions with {listed} nats and a bound of {bound}: {int(want[i].sum())} go together, "
                    f"{float(least[i]):.3f} nats in all; yours takes {int(size[i])}."
                )
    return "Sorted, summed, the largest left out: what is left bounds the price of drawing them independently."


def _name_slips(mine: Tensor, nats: Tensor, is_masked: Tensor, bound: float) -> None:
    """Raise Wrong for a choice that is known to be wrong."""
    want = within_bound(nats, is_masked, bound)
    if (mine & ~is_masked).any():
        raise Wrong("positions are chosen that are visible already; their entropy of 0 must not count.")
    if (is_masked.any(1) & ~mine.any(1)).any():
        raise Wrong(f"with a bound of {bound} a text gets no reveal at all; one token alone costs nothing.")
    ranked, order = torch.where(is_masked, nats, torch.inf).sort(dim=1)
    whole = is_masked & torch.zeros_like(is_masked).scatter(1, order, ranked.cumsum(1) <= bound + 1e-9)
    first = highest(-nats, is_masked, is_masked.sum(1).clamp(max=1))
    running = torch.where(is_masked, nats, 0.0).cumsum(1) - nats
    flat = torch.where(is_masked, nats, torch.inf).flatten().sort()
    budget = torch.zeros_like(is_masked).flatten().scatter(0, flat.indices, flat.values.cumsum(0) <= bound + 1e-9)
    slips = {
        "the largest of the set costs nothing (alone it is drawn exactly): leave it out before you compare": (
            whole | first
        ),
        "each position fits the bound by itself; it is their sum that counts": (is_masked & (nats <= bound)) | first,
        "start with the most certain positions: sort first": is_masked & (running <= bound + 1e-9),
        "every text has a bound of its own; sum along the row, not over the batch": (
            budget.view_as(is_masked) & is_masked
        )
        | first,
    }
    for why, slip in slips.items():
        if torch.equal(mine, slip) and not torch.equal(slip, want):
            raise Wrong(f"{why}.")


@exercise
def check_remask(move: Callable[..., Any]) -> str:
    """move(is_masked, is_own, gamma_t, gamma_s, eta, u) -> (reveal, remask), (B, L) bool each."""
    cases = ((0.5, 0.4, 0.0), (0.8, 0.6, 0.3), (0.5, 0.5, 0.2), (0.3, 0.21, 0.6), (0.4, 0.0, 0.3), (1.0, 0.9, 0.5))
    for gamma_t, gamma_s, eta in cases:
        rng = Generator().manual_seed(8)
        u, kind = torch.rand(2, 400, 50, generator=rng, dtype=torch.float64)
        is_masked = kind < 0.45
        is_own = (kind > 0.5) & (gamma_t < 1)  # the others are given
        answer = move(is_masked, is_own, gamma_t, gamma_s, eta, u)
        parts = _pair(answer, ("`reveal`", "`remask`"), (u.shape, u.shape))
        reveal, remask = (part.bool() for part in parts)
        if (reveal & ~is_masked).any() or (remask & ~is_own).any():
            raise Wrong("only masked tokens are revealed, and only the sampler's own are masked again: `&` with these.")
        r = min(eta, gamma_s / (1 - gamma_t)) if gamma_t < 1 else eta
        at = f"gamma {gamma_t} to {gamma_s}, eta = {eta}"
        _compare(remask[is_own], r, at, "a visible token is masked again", {
            f"{at}: with r = eta not enough can be revealed to make up for it; r is at most gamma_s / (1 - gamma_t)":
                eta,
        })  # fmt: skip
        _compare(reveal[is_masked], 1 - stay_masked(gamma_t, gamma_s, r), at, "a masked token is revealed", {
            "as many are masked again as before, but nothing makes up for them: the text never gets finished":
                1 - gamma_s / gamma_t,
            "that is the chance to stay masked": stay_masked(gamma_t, gamma_s, r),
            "the visible tokens are the share 1 - gamma_t, not gamma_t": 1 - (gamma_s - r * gamma_t) / gamma_t,
            "divide by gamma_t: only the masked tokens can stay masked": 1 - (gamma_s - r * (1 - gamma_t)),
        })  # fmt: skip
    return "Masked before and still masked, plus visible and masked again, make gamma_s together."


def _compare(hits: Tensor, want: float | Tensor, at: str, what: str, slips: dict[str, Any]) -> None:
    """Raise Wrong if the share of hits is not the chance wanted, with the reason if it is that of a slip."""
    if not len(hits):
        return
    share, chance = float(hits.double().mean()), float(want)
    if far_from(share, chance, len(hits)):
        for why, slip in slips.items():
            if not far_from(share, min(max(float(slip), 0.0), 1.0), len(hits)):
                raise Wrong(f"{why}.")
        raise Wrong(f"{at}: {what} with chance {chance:.3f}, yours in {share:.3f} of {len(hits)}.")
