"""Exercises of notebook 02_noise_schedules."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from diffkit.course.exercises.checks import Wrong, exercise, first_off, not_these, tensor_of
from diffkit.processes.curves import CURVES
from diffkit.processes.schedules import get_schedule


def corrupt(x0: Tensor, gamma: Tensor, mask_id: int, rng: Generator) -> Tensor:
    """x_t: every token of row b is MASK with probability gamma_b. (B, L) ids and (B,) rates to (B, L)."""
    return torch.where(torch.rand(x0.shape, generator=rng) < gamma[:, None], mask_id, x0)


@exercise
def check_corrupt(mine: Callable[[Tensor, Tensor, int, Generator], Tensor]) -> str:
    """corrupt(x0, gamma, mask_id, rng) -> x_t, right in law: (B, L) ids and (B,) rates to (B, L)."""
    mask_id, (B, L) = 1, (3000, 8)
    x0 = torch.randint(2, 9, (B, L), generator=Generator().manual_seed(3))

    def corrupted(gamma: Tensor, seed: int) -> Tensor:
        answer = tensor_of(mine, x0, gamma, mask_id, Generator().manual_seed(seed), shape=(B, L), called="xt")
        odd = ((answer != x0) & (answer != mask_id)).nonzero()
        if len(odd):
            i, j = odd[0].tolist()
            raise Wrong(f"a token is kept or becomes MASK (here 1), but {int(x0[i, j])} became {answer[i, j]:g}.")
        return answer == mask_id

    if corrupted(torch.zeros(B), 0).all() and not corrupted(torch.ones(B), 0).any():
        raise Wrong("the share gamma stays visible; it should be hidden. Which side of gamma is hidden, u < or u >?")
    for rate in (0.0, 1.0):
        if (hidden := corrupted(torch.full((B,), rate), 0)).double().mean() != rate:
            raise Wrong(f"gamma = {rate:g} hides {'nothing' if rate == 0 else 'every token'}, but yours hid "
                        f"{int(hidden.sum())} of {B * L}.")  # fmt: skip
    gamma = torch.tensor([0.25, 0.5, 0.75]).repeat_interleave(B // 3)
    hidden = corrupted(gamma, 4)
    if not torch.equal(hidden, corrupted(gamma, 4)):
        raise Wrong("the same seed hides other tokens the second time. Hand rng on to the draw: generator=rng.")
    if torch.equal(hidden, corrupted(gamma, 5)):
        raise Wrong("another seed hides the very same tokens. Hand rng on to the draw: generator=rng.")
    share = hidden.double().view(3, -1).mean(1)
    want = torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)
    not_near = (share - want).abs() > 0.04  # eight standard errors at least
    if not_near.any():
        i = int(not_near.nonzero()[0])
        raise Wrong(f"rows with gamma = {want[i]:g} should hide that share, yours hide {share[i]:.3f}. One rate a row: "
                    "gamma[:, None].")  # fmt: skip
    counts = hidden[B // 3 : 2 * B // 3].sum(1).double()  # binomial of 8 halves: variance 2
    if counts.var() < 0.5:
        raise Wrong("every row of one gamma hides the same number of tokens; each token has a draw of its own, so that "
                    "the number varies.")  # fmt: skip
    if counts.var() > 4:
        raise Wrong("the tokens of a row vanish together: one draw a row. Each token needs its own: rand(x0.shape).")
    if (hidden.view(3, -1, L).double().mean(1) - want[:, None]).abs().max() > 0.12:
        raise Wrong("some positions are hidden more often than others; every token has the same chance.")
    rows = hidden[B // 3 : 2 * B // 3]
    if (rows == rows[0]).all():
        raise Wrong("all rows hide the same positions; each row needs draws of its own: rand(x0.shape).")
    return "One uniform draw a token, one comparison: that is the whole forward process."


@exercise
def check_slope(slope: Callable[[Tensor, int], Tensor]) -> str:
    """slope(t, T) -> gamma'(t) of the cosine schedule, per unit of t: (B,) times to (B,)."""
    for T in (1000, 40):
        t = torch.linspace(0, T, 9, dtype=torch.float64)
        mine = tensor_of(slope, t, T, shape=(9,), called="the slope").double()
        want, angle = get_schedule("cosine", T).dgamma(t), math.pi / 2 * t / T
        not_these(
            mine * T,
            {
                "that is the slope per unit of tau = t / T; per unit of t it is T times smaller": want * T * T,
                "the inner derivative is missing: the angle pi t / 2T grows by pi / 2T per unit of t": T * angle.sin(),
                "the inner derivative is pi / 2T, not 1 / T": angle.sin(),
                "the sign: the derivative of cos is -sin, and there is a minus in front already": -want * T,
                "the derivative of cos is -sin, not cos": math.pi / 2 * angle.cos(),
                "that is gamma itself, not its slope": T * (1 - angle.cos()),
            },
        )
        if (i := first_off(mine * T, want * T, 2e-3)) is not None:
            raise Wrong(
                f"with T = {T}, at t = {t[i]:g} gamma grows by {want[i]:.3g} per unit of t, yours by {mine[i]:.3g}."
            )
    return "(pi / 2T) sin(pi t / 2T): flat at the start, steepest at the end."


def reverse(x0: Tensor, xt: Tensor, gamma_s: float, gamma_t: float, mask_id: int, V: int) -> Tensor:
    """q(x_s | x_t, x_0), what a token was at the earlier time s: (B, L) ids, twice, to (B, L, V) probabilities."""
    stay = torch.where(xt == mask_id, gamma_s / gamma_t, 0.0)[..., None]
    return stay * F.one_hot(torch.tensor(mask_id), V) + (1 - stay) * F.one_hot(x0, V)


@exercise
def check_reverse(mine: Callable[[Tensor, Tensor, float, float, int, int], Tensor]) -> str:
    """reverse(x0, xt, gamma_s, gamma_t, mask_id, V) -> q(x_s | x_t, x_0): (B, L) ids, twice, to (B, L, V)."""
    rng, V, mask_id = Generator().manual_seed(6), 6, 2
    for gamma_s, gamma_t in ((0.3, 0.5), (0.0, 0.7), (0.6, 0.9)):
        x0 = torch.tensor([0, 1, 3, 4, 5])[torch.randint(0, 5, (2, 7), generator=rng)]
        is_masked = torch.rand(2, 7, generator=rng) < 0.6
        is_masked[0, 0], is_masked[0, 1] = True, False
        xt = x0.masked_fill(is_masked, mask_id)
        answer = tensor_of(mine, x0, xt, gamma_s, gamma_t, mask_id, V, shape=(2, 7, V), called="the table").double()
        clean, hidden = F.one_hot(x0, V).double(), F.one_hot(torch.tensor(mask_id), V).double()
        masked = is_masked[..., None]

        def mix(stay: Tensor | float, clean: Tensor = clean, hidden: Tensor = hidden) -> Tensor:
            return stay * hidden + (1 - stay) * clean

        stay = torch.where(
            masked, gamma_s / gamma_t, 0.0
        ).double()  # Bayes, by hand: q(x_s | x_0) q(x_t | x_s) / q(x_t)
        want = mix(stay)
        if torch.allclose(answer, want, atol=1e-6):
            continue
        not_these(
            answer,
            {
                "the two shares are swapped: gamma_s / gamma_t of the masked tokens are masked at s already": mix(
                    torch.where(masked, 1 - gamma_s / gamma_t, 0.0).double()
                ),
                "you know that the token is masked at t; divide by that chance, gamma_t": mix(
                    torch.where(masked, gamma_s, 0.0).double()
                ),
                "that is q(x_s | x_0); what x_t shows must count: a token visible at t was visible at s": mix(gamma_s),
                "a token that is visible at t cannot have been masked at s": mix(gamma_s / gamma_t),
                "all masked tokens come back at once; the share gamma_s / gamma_t is still masked at s": clean,
                "nothing ever comes back; the share 1 - gamma_s / gamma_t is visible at s": F.one_hot(xt, V).double(),
            },
        )
        if (i := first_off(answer.sum(2).flatten(), torch.ones(14).double(), 1e-5)) is not None:
            raise Wrong(f"the V chances of a token sum to 1; yours sum to {answer.sum(2).flatten()[i]:.3f}.")
        b, i, v = (answer - want).abs().gt(1e-6).nonzero()[0].tolist()
        raise Wrong(
            f"with gamma_s = {gamma_s}, gamma_t = {gamma_t}, x_0 = {int(x0[b, i])}, x_t = {int(xt[b, i])} (MASK is 2) "
            f"the chance that x_s is {v} should be {want[b, i, v]:.4f}, yours is {answer[b, i, v]:.4f}."
        )
    return "Visible stays visible; of the masked, gamma_s / gamma_t were masked already and the rest show x_0."


ROUNDING = 2e-7  # of float32; `Schedule` mends it


@exercise
def check_own_schedule(gamma: Callable[[Tensor, int], Tensor]) -> str:
    """gamma(t, T) -> any masking rate that a bound can live with: 0 at 0, 1 at T, never falling; (B,) to (B,)."""
    for T, n in ((40, 201), (1000, 301)):
        t = torch.linspace(0, T, n, dtype=torch.float64)
        mine = tensor_of(gamma, t, T, shape=(n,), called="gamma").double()
        if abs(mine[0]) > ROUNDING:
            raise Wrong(f"gamma(0) is {float(mine[0]):g} and must be 0: clean text has no masks.")
        if abs(mine[-1] - 1) > ROUNDING:
            raise Wrong(
                f"gamma(T) is {float(mine[-1]):.9g} for T = {T} and must be 1. A formula in tau = t / T serves every T."
            )
        falls = (mine.diff() < -ROUNDING).nonzero()
        if len(falls):
            raise Wrong(f"with T = {T}, gamma falls after t = {t[int(falls[0])]:g}. What is masked must stay masked.")
    for name in CURVES:
        if torch.allclose(mine, get_schedule(name, T).gamma(t), atol=1e-3):
            return f"It is a schedule, and a known one: {name}. Try one that the table does not have."
    half = t[int((mine >= 0.5).nonzero()[0])] / T
    return f"A schedule of your own: half of the text is gone at t / T = {half:.2f}."
