"""Exercises of notebook 05_training."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Generator, Tensor, nn

from diffkit.course.exercises.checks import Wrong, exercise, not_these, number, tensor_of
from diffkit.processes.base import Denoise
from diffkit.processes.masked import MaskedDiffusion


@exercise
def check_stratified(stratified: Callable[[Tensor, int], Tensor]) -> str:
    """stratified(u, T) -> whole times in 1..T, one from each of B equal slices, from (B,) uniform numbers in [0, 1)."""
    rng = Generator().manual_seed(5)
    for B, T in ((4, 1000), (8, 1000), (5, 60)):
        u = torch.rand(B, generator=rng)
        mine = tensor_of(stratified, u, T, shape=(B,), called="the times")
        if mine.is_floating_point() and not torch.equal(mine, mine.round()):
            raise Wrong(f"the times should be whole numbers, yours begin {mine[0]:.3f}; round down, then add 1.")
        slices = torch.arange(B)
        want = ((slices + u.double()) / B * T).long() + 1
        not_these(
            mine,
            {
                "that scatters each time over the whole axis; row i should stay in slice i of B": (u * T).long() + 1,
                "yours run from 0 to T - 1; the times are 1..T": want - 1,
                "every slice got the same offset: use its own u[i], not u[0]": ((slices + u[0]) / B * T).long() + 1,
                "the slices are there, but nothing is drawn within them: u is not used": (slices / B * T).long() + 1,
            },
        )
        nearest = ((slices + u.double()) / B * T).round().clamp(1, T)
        if torch.equal(mine.double(), nearest) and not torch.equal(nearest, want.double()):
            raise Wrong("you round to the nearest; round down, then add 1, so that all times are equally likely.")
        if mine.min() < 1 or mine.max() > T:
            raise Wrong(f"times lie in 1..{T}, yours in {mine.min():g}..{mine.max():g}. Divide by B to stay there.")
        off = mine.double().sort().values != want  # no time is so near a whole one that float32 matters
        if off.any():
            i = int(off.nonzero()[0])
            raise Wrong(
                f"B = {B}, T = {T}: slice {i} with u = {u[i]:.3f} gives time {int(want[i])}, yours is "
                f"{mine.sort().values[i]:g}."
            )
    last = tensor_of(stratified, torch.full((8,), 1 - 2**-24), 1000, shape=(8,), called="the times").max()
    if last > 1000:
        raise Wrong(
            "u can be as large as 1 - 2^-24, the last float32 below 1, and then your last time is T + 1: 7 + u rounds "
            "to 8. Clamp the times to T, or count in float64."
        )
    first = tensor_of(stratified, torch.zeros(8), 1000, shape=(8,), called="the times").min()
    if first < 1:
        raise Wrong("u can be 0, and then your first time is 0; times run from 1. Round down, then add 1.")
    return "One time in each slice, uniform within it, never 0 and never T + 1."


class _Seen(nn.Module):
    """A small network that remembers what it was shown."""

    def __init__(self, V: int, seed: int):
        super().__init__()
        rng = Generator().manual_seed(seed)
        self.own, self.mix = (nn.Parameter(torch.randn(V, V, generator=rng)) for _ in range(2))
        self.shown: Tensor | None = None
        self.scale = 1.0  # of the logits, and so of the gradient

    def forward(self, xt: Tensor, t: Tensor | float = 0.0, where: Tensor | None = None) -> Tensor:
        self.shown = xt.clone()
        logits = self.scale * (self.own[xt] + self.mix[xt].mean(1, keepdim=True))
        return logits if where is None else logits[where]

    def weights(self) -> Tensor:
        return torch.cat([p.detach().flatten() for p in self.parameters()]).double()


def training_step(
    process: MaskedDiffusion, network: Denoise, optimizer: torch.optim.Optimizer, x0: Tensor, t: Tensor, rng: Generator
) -> float:
    """One step on the mean loss of the hidden tokens, its gradient clipped to length 1; returns the loss."""
    xt, is_masked = process.corrupt(x0, t, rng)
    loss = process.token_loss(network, x0, xt, t).sum() / is_masked.sum()
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], 1.0)
    optimizer.step()
    return loss.item()


def _stepped(network: _Seen, x0: Tensor, lr: float, slip: str = "") -> Tensor:
    """The weights after a step on what a network was shown, with a slip or without."""
    other = copy.deepcopy(network)
    xt = torch.as_tensor(network.shown)
    process = MaskedDiffusion(len(other.own), 1, "linear")
    nats, is_masked = process.token_loss(other, x0, xt, torch.ones(len(x0))), xt == 1
    if slip == "per sequence":
        loss = (nats.sum(1) / is_masked.sum(1).clamp(min=1)).mean()
    else:
        loss = nats.sum() / (is_masked.sum() if slip != "all tokens" else x0.numel())
    loss.backward()
    if slip != "not clipped":
        nn.utils.clip_grad_norm_(other.parameters(), 1.0)
    with torch.no_grad():
        for p in other.parameters():
            p -= lr * p.grad * (-1 if slip == "uphill" else 1)  # type: ignore[operator,misc]
    return other.weights()


@exercise
def check_training_step(step: Callable[..., Any]) -> str:
    """step(process, network, optimizer, x0, t, rng) -> loss; changes the network's weights."""
    V, rng, lr = 6, Generator().manual_seed(9), 0.5
    process, network = MaskedDiffusion(V, 1, "linear"), _Seen(V, seed=3)
    optimizer = torch.optim.SGD(network.parameters(), lr=lr)
    for i in (1, 2):
        x0, t = torch.randint(2, V, (12, 7), generator=rng), torch.randint(100, 900, (12,), generator=rng)
        network.scale = (0.0, 1.0, 8.0)[i]  # in the second step the gradient is long enough to be clipped
        before, start = copy.deepcopy(network), network.weights()
        loss = number(step(process, network, optimizer, x0, t, rng), "the loss")
        if network.shown is None:
            raise Wrong("your function never calls the network.")
        is_masked, after, before.shown = network.shown == 1, network.weights(), network.shown
        if torch.equal(network.shown, x0):
            raise Wrong("the network was shown x0 itself, the answers included. Corrupt it first.")
        if torch.equal(after, start):
            raise Wrong("no weight changed. After loss.backward() comes optimizer.step().")
        slips = {
            "the mean runs over all tokens; divide by the number of hidden ones": "all tokens",
            "the gradient was not clipped; clip_grad_norm_ comes after backward and before the step": "not clipped",
            "the mean is taken within each row first; pool all hidden tokens of the batch": "per sequence",
            "the loss was climbed, not descended": "uphill",
        }
        want = _stepped(before, x0, lr)
        found = {why: _stepped(before, x0, lr, slip) for why, slip in slips.items()}
        not_these(after, {why: slip for why, slip in found.items() if not torch.allclose(slip, want, atol=1e-5)})
        if not torch.allclose(after, want, atol=1e-6):
            why = (
                "Is the loss the sum of process.token_loss over the batch, divided by the hidden tokens?"
                if i == 1
                else "The first step was right: do gradients of the step before linger? zero_grad()."
            )
            raise Wrong(f"step {i} moves the weights elsewhere, off by {(after - want).abs().max():.4f}. {why}")
        nats = process.token_loss(before, x0, before.shown, t).detach()
        if abs(loss - float(nats.sum() / is_masked.sum())) > 1e-5:
            raise Wrong(f"the weights are right; return the loss, {nats.sum() / is_masked.sum():.4f}, not {loss:.4f}.")
    return "Corrupt, predict, mean over the hidden, backward, clip, step; and no gradient is left over."


def ema(average: Tensor, weights: Tensor, steps_done: int, keep: float) -> Tensor:
    """The moving average of the weights; after n steps it keeps at most (1 + n) / (10 + n)."""
    keep = min(keep, (1 + steps_done) / (10 + steps_done))
    return keep * average + (1 - keep) * weights


@exercise
def check_ema(ema: Callable[[Tensor, Tensor, int, float], Tensor]) -> str:
    """ema(average, weights, steps_done, keep) -> the new average; early on it keeps less. (N,), (N,) to (N,)."""
    rng = Generator().manual_seed(6)
    average, weights = (torch.randn(5, generator=rng, dtype=torch.float64) for _ in range(2))
    for steps_done, keep in ((5000, 0.99), (0, 0.999), (30, 0.999), (171, 0.95)):
        mine = tensor_of(ema, average, weights, steps_done, keep, shape=(5,), called="the average").double()
        early = (1 + steps_done) / (10 + steps_done)
        kept = min(keep, early)
        want = kept * average + (1 - kept) * weights
        where = f"after {steps_done} steps with keep = {keep}"
        slips = {
            "the two weights are swapped: the past keeps `keep`, the new weights get 1 - keep": (
                (1 - kept) * average + kept * weights),
            "at the start it should forget faster: use (1 + n) / (10 + n) where that is smaller than keep": (
                keep * average + (1 - keep) * weights),
            "late in a run `keep` holds: take the smaller of the two numbers": early * average + (1 - early) * weights,
            "that is the new weights alone; nothing of the past is kept": weights,
        }  # fmt: skip
        not_these(
            mine, {f"{where}: {why}": slip for why, slip in slips.items() if not torch.allclose(slip, want, atol=1e-4)}
        )
        if not torch.allclose(mine, want, atol=1e-6):
            raise Wrong(f"{where} the first number should be {want[0]:.5f}, yours is {mine[0]:.5f}.")
    return "The average of the last 1 / (1 - keep) steps, and of fewer while there are few."


@exercise
def check_lr_scale(lr_scale: Callable[[int, int, int, float], Any]) -> str:
    """lr_scale(step, steps, warmup, decay) -> share of the full learning rate; step counts from 0."""
    for steps, warmup, decay in ((100, 10, 0.4), (240, 20, 0.25)):
        for step in (0, warmup // 2, warmup - 1, steps // 2, steps - steps // 10, steps - 1):
            left = (steps - step) / (decay * steps)
            cosine = 0.5 - 0.5 * math.cos(math.pi * min(1.0, left))
            want = min(1.0, (step + 1) / warmup) * cosine
            mine = tensor_of(lr_scale, step, steps, warmup, decay, shape=(), called="the share").double()
            where = f"at step {step} of {steps} (warmup {warmup}, decay {decay})"
            slips = {}
            if step < warmup:
                slips[f"{where} yours is step / warmup, so step 0 is lost at rate 0; use step + 1"] = step / warmup
                slips[f"{where} the warm-up is not over, but your rate is full"] = 1.0
            if left < 1:
                slips[f"{where} yours falls along a straight line; a half cosine is asked for"] = left
                slips[f"{where} your rate rises as the run ends: the cosine is upside down"] = 1 - cosine
                slips[f"{where} the decay has begun, but your rate is still full"] = 1.0
            whole = 0.5 + 0.5 * math.cos(math.pi * step / steps)
            slips[f"{where} your decay is spread over the whole run; it takes only the last share `decay`"] = whole
            slips = {why: slip for why, slip in slips.items() if abs(slip - want) > 1e-3}
            not_these(mine, {why: torch.tensor(slip) for why, slip in slips.items()})
            if abs(float(mine) - want) > 1e-4:
                raise Wrong(f"{where} the share should be {want:.4f}, yours is {float(mine):.4f}.")
    return "Up a straight line, along a plain, down half a cosine."
