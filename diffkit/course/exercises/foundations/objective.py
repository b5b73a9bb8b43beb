"""Exercises of notebook 03_objective."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from diffkit.course.exercises.checks import (
    Untouched,
    Wrong,
    exercise,
    first_off,
    not_these,
    number,
    parts_of,
    tensor_of,
)
from diffkit.processes.base import Denoise, as_denoiser
from diffkit.processes.masked import corrupt, corrupt_count, discrete_weight, masked_nll
from diffkit.processes.schedules import Schedule, get_schedule

FIVE_SIGMA = 5.5  # a right draw is rejected once in some ten million checks


def step_kl(probs: Tensor, word: int, gamma_t: float, gamma_s: float) -> Tensor:
    """KL(q(x_s | x_t = MASK, x_0 = word) || p(x_s | x_t = MASK)) in nats, added up over MASK and all words."""
    stay = torch.as_tensor([gamma_s / gamma_t], dtype=torch.float64)
    q = torch.cat([stay, (1 - stay) * F.one_hot(torch.tensor(word), len(probs))])
    p = torch.cat([stay, (1 - stay) * probs])
    return (q[q > 0] * (q[q > 0] / p[q > 0]).log()).sum()


@exercise
def check_step_kl(kl: Callable[[Tensor, int, float, float], Any]) -> str:
    """kl(probs, word, gamma_t, gamma_s) -> KL of one reverse step at one masked position, nats; (V,) to a number."""
    probs = torch.tensor([0.5, 0.2, 0.25, 0.05], dtype=torch.float64)
    for word, gamma_t, gamma_s in ((1, 0.8, 0.6), (2, 0.5, 0.1), (3, 0.9, 0.3), (0, 0.4, 0.0)):
        mine = number(kl(probs, word, gamma_t, gamma_s), "the KL")
        want, nats = float(step_kl(probs, word, gamma_t, gamma_s)), -math.log(probs[word])
        where = f"word {word} with p = {probs[word]:.2f}, gamma_t = {gamma_t}, gamma_s = {gamma_s}"
        if math.isnan(mine) or math.isinf(mine):
            raise Wrong(f"{where}: yours is {mine}. Leave out what q gives no chance: 0 log 0 counts as 0.")
        slips = {
            "that is the cross-entropy alone; q reveals the word only with chance (gamma_t - gamma_s) / gamma_t": nats,
            "that weighs by the chance to stay masked; what stays masked costs nothing": gamma_s / gamma_t * nats,
            "that is minus the KL; it is q's logarithm minus p's": -want,
            "you multiply by the chance to be hit on the way there; here the token is known to be masked, so divide "
            "by gamma_t": (gamma_t - gamma_s) * nats,
        }
        not_these(torch.tensor(mine), {f"{where}: {why}": torch.tensor(slip) for why, slip in slips.items()
                                       if abs(slip - want) > 1e-4})  # fmt: skip
        if abs(mine - want) > 1e-6:
            raise Wrong(f"{where}: the KL should be {want:.6f}, yours is {mine:.6f}.")
    return "The MASK terms cancel, and what is left is the chance to be revealed times -log p(word)."


def masked_loss(denoise: Denoise, x0: Tensor, t: Tensor, schedule: Schedule, mask_id: int, rng: Generator) -> Tensor:
    """What `MaskedDiffusion.loss` computes, summed over each row: (B,) nats."""
    xt, is_masked = corrupt(x0, t, schedule=schedule, mask_id=mask_id, rng=rng)
    nats = masked_nll(as_denoiser(denoise)(xt, t, is_masked), x0, is_masked, mask_id)
    return discrete_weight(schedule, t).to(nats) * nats.sum(1)


def count_loss(denoise: Denoise, x0: Tensor, count: Tensor, mask_id: int, rng: Generator) -> Tensor:
    """What `MaskedDiffusion.count_loss` computes for the linear schedule, summed over each row: (B,) nats."""
    xt, is_masked = corrupt_count(x0, count, mask_id=mask_id, rng=rng)
    share = count.double() / x0.shape[1]
    nats = masked_nll(as_denoiser(denoise)(xt, 1000 * share, is_masked), x0, is_masked, mask_id)
    return nats.sum(1) / share.to(nats)


class _Recorded:
    """A denoiser, a table of logits for each canvas, that remembers what it was shown."""

    def __init__(self, V: int, mask_id: int):
        self.mask_id = mask_id
        self.shown: Tensor | None = None
        rng = Generator().manual_seed(11)
        self.own, self.mix = (torch.randn(V, V, generator=rng, dtype=torch.float64) for _ in range(2))

    def __call__(self, xt: Tensor, t: Tensor | float = 0.0, where: Tensor | None = None) -> Tensor:
        self.shown = xt.clone()
        logits = self.own[xt] + self.mix[xt].mean(1, keepdim=True)
        logits[..., self.mask_id] = -torch.inf
        return logits if where is None else logits[where]

    def nats(self, x0: Tensor, xt: Tensor) -> Tensor:
        """-log p(x_0[i] | x_t), (B, L), at every position."""
        return -self(xt).log_softmax(-1).gather(-1, x0[..., None])[..., 0]


def _seen(denoise: _Recorded, x0: Tensor) -> tuple[Tensor, Tensor]:
    """What the denoiser was shown, and what was hidden. Raises Wrong unless it is x0 with some tokens hidden."""
    xt = denoise.shown
    if xt is None:
        raise Wrong("your function never calls the denoiser.")
    if xt.shape != x0.shape:
        raise Wrong(f"the denoiser should see a canvas of the shape {tuple(x0.shape)}, yours is {tuple(xt.shape)}.")
    is_masked = xt == denoise.mask_id
    if not torch.equal(torch.where(is_masked, x0, xt), x0):
        raise Wrong("the denoiser should see MASK or the true token at every position; you changed other tokens.")
    if not is_masked.any():
        raise Wrong("the denoiser was shown x0 itself, the answers included. Hide the tokens first.")
    return xt, is_masked


def _compare(mine: Tensor, want: Tensor, slips: dict[str, Tensor], unit: str) -> None:
    not_these(mine, {why: slip for why, slip in slips.items() if not torch.allclose(slip, want, atol=1e-4)})
    size = want.abs().clamp(min=1.0)
    if (i := first_off(mine / size, want / size, 2e-6)) is not None:  # float32 will do
        raise Wrong(f"row {i}: with what your denoiser was shown, {unit} is {want[i]:.4f} nats, yours {mine[i]:.4f}.")


@exercise
def check_masked_loss(loss: Callable[[Any, Tensor, Tensor, Schedule, int, Generator], Tensor]) -> str:
    """loss(denoise, x0, t, schedule, mask_id, rng) -> (B,) nats: each row's bound, estimated at its own time t."""
    V, mask_id, B, L = 6, 1, 240, 10
    rng = Generator().manual_seed(5)
    x0 = torch.randint(2, V, (B, L), generator=rng)
    for name, T in (("cosine", 50), ("linear", 200)):
        schedule, denoise = get_schedule(name, T), _Recorded(V, mask_id)
        t = torch.arange(B) % T + 1
        mine = tensor_of(loss, denoise, x0, t, schedule, mask_id, rng, shape=(B,), called="the loss").double()
        xt, is_masked = _seen(denoise, x0)
        gamma, before = schedule.gamma(t), schedule.gamma(t - 1)
        if not any((is_masked[i] & ~is_masked[i + 1]).any() for i in range(T - 1)):
            raise Wrong("all rows hide the same positions, late rows a few more; draw for every token of every row.")
        z = (is_masked.sum() - L * gamma.sum()) / (L * gamma * (1 - gamma)).sum().sqrt()
        late, early = is_masked[gamma > 0.6].double().mean(), is_masked[gamma < 0.4].double().mean()
        if abs(z) > FIVE_SIGMA or late < 0.6 or early > 0.4:
            raise Wrong(f"{name} schedule: at rate gamma(t) about {gamma.mean():.0%} of the tokens should be hidden, "
                        f"more of them in late rows; yours hides {is_masked.double().mean():.0%}.")  # fmt: skip
        nats, weight = denoise.nats(x0, xt), T * (gamma - before) / gamma
        hidden, everywhere = (nats * is_masked).sum(1), nats.sum(1)
        slips = {
            "that is the sum over hidden tokens without its weight T (gamma_t - gamma_s) / gamma_t": hidden,
            "that is one term of the sum over t; a draw of t stands for all T of them, so multiply by T": weight
            / T * hidden,
            "you divide by the number of hidden tokens as well as weighing; the weight alone is right": (
                weight * hidden / is_masked.sum(1).clamp(min=1)),
            "that is per token; sum over the tokens of a row": weight * hidden / L,
            "you charge for visible tokens, too; only hidden ones cost": weight * everywhere,
            "1 / gamma_t is the weight of the linear schedule only": hidden / gamma,
        }  # fmt: skip
        _compare(mine, weight * hidden, slips, "the weighted sum over its hidden tokens")
    return "Hide at rate gamma(t), sum the hidden tokens' nats, weigh by T (gamma_t - gamma_s) / gamma_t."


@exercise
def check_count_loss(loss: Callable[[Any, Tensor, Tensor, int, Generator], Tensor]) -> str:
    """loss(denoise, x0, count, mask_id, rng) -> (B,) nats: each row's bound, from exactly count[i] hidden tokens."""
    V, mask_id, B = 6, 1, 600
    rng = Generator().manual_seed(6)
    for L in (8, 5):
        x0, count = torch.randint(2, V, (B, L), generator=rng), torch.arange(B) % L + 1
        denoise = _Recorded(V, mask_id)
        mine = tensor_of(loss, denoise, x0, count, mask_id, rng, shape=(B,), called="the loss").double()
        xt, is_masked = _seen(denoise, x0)
        hidden = is_masked.sum(1)
        if not torch.equal(hidden, count):
            i = int((hidden != count).nonzero()[0])
            raise Wrong(
                f"row {i} should have exactly {int(count[i])} of {L} tokens hidden, yours has {int(hidden[i])}."
            )
        expected = (count / L).sum()
        spread = (count / L * (1 - count / L)).sum().sqrt()
        if ((is_masked.sum(0) - expected).abs() > FIVE_SIGMA * spread).any():
            i = int((is_masked.sum(0) - expected).abs().argmax())
            raise Wrong(f"every position should be hidden equally often, about {expected:.0f} times in {B} rows; yours "
                        f"hides position {i} {int(is_masked[:, i].sum())} times.")  # fmt: skip
        few = is_masked[count == 2]
        if len({tuple(row) for row in few.tolist()}) < min(len(few), math.comb(L, 2)) / 3:
            raise Wrong("your rows share their hidden positions; every choice of positions should be possible.")
        nats = (denoise.nats(x0, xt) * is_masked).sum(1)
        slips = {
            "that is the plain sum; few masks then look cheap. Scale each row by its own L / k": nats,
            "that is nats per hidden token; times L it estimates the bound of the whole text": nats / count,
            "you divide by L; multiply by L and divide by the number of masks k": nats / L,
            "your factor is upside down: L / k, not k / L": nats * count / L,
            "you divide by the average count; each row has its own k": L * nats / count.double().mean(),
        }
        _compare(mine, L / count * nats, slips, "L / k times the loss of its hidden tokens")
    return "Exactly k hidden, every choice alike, L / k times their loss: unbiased when k is uniform on 1..L."


@exercise
def check_report(report: Callable[[Tensor, Tensor], Any]) -> str:
    """report(nats, tokens) -> (perplexity, bits per token) of a test set: bounds (N,) nats and lengths (N,) tokens."""
    tokens = torch.tensor([4, 30, 12, 7])
    nats = tokens * torch.tensor([2.1, 0.4, 1.3, 3.0], dtype=torch.float64)
    answer = parts_of(report(nats, tokens))
    if not isinstance(answer, tuple | list) or len(answer) != 2:
        raise Wrong(f"return two numbers, (perplexity, bits per token); yours is {type(answer).__name__}.")
    if all(part is ... or part is None for part in answer):
        raise Untouched
    perplexity, bits = (number(part, "each of the two") for part in answer)
    rate = nats.sum() / tokens.sum()
    not_these(
        torch.tensor(perplexity),
        {
            "you average perplexities; average nats first, exponentiate last": (nats / tokens).exp().mean(),
            "a short text weighs as much as a long one; divide all nats by all tokens": (nats / tokens).mean().exp(),
            "that is the perplexity of a whole text; divide by tokens before exp": nats.mean().exp(),
            "these are nats, so the base is e, not 2": 2**rate,
        },
    )
    not_these(
        torch.tensor(bits),
        {
            "1 nat is 1.4427 bits: divide by ln 2, do not multiply": rate * math.log(2),
            "the second number is still in nats; divide by ln 2": rate,
            "bits: a short text weighs as much as a long one": (nats / tokens).mean() / math.log(2),
        },
    )
    for name, value, want in (("perplexity", perplexity, rate.exp()), ("bits per token", bits, rate / math.log(2))):
        if not abs(value - float(want)) < 1e-3:
            raise Wrong(f"{nats.sum():.1f} nats in {tokens.sum()} tokens are {want:.3f} {name}, yours is {value:.3f}.")
    return "All nats over all tokens, and only then exp or / ln 2."
