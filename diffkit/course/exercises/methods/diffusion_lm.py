"""Exercises of notebook 14_diffusion_lm."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Generator, Tensor

from diffkit.course.exercises.checks import Wrong, counterexample, exercise, not_these, tensor_of


@exercise
def check_signal(signal: Callable[[Tensor], Any]) -> str:
    """signal(tau) -> alpha^2, the share of the variance that is still the word, on the square-root schedule."""
    tau = torch.tensor([0.0, 0.01, 0.25, 0.5, 0.9], dtype=torch.float64)
    mine = tensor_of(signal, tau, shape=(5,), called="signal(tau)").double()
    want = 1 - (tau + 1e-4).sqrt()
    not_these(
        mine,
        {
            "that is the share of the noise": 1 - want,
            "the root of this is alpha; asked is alpha^2": want.sqrt(),
            "the small 0.0001 is missing: at tau = 0 there must be some noise already": 1 - tau.sqrt(),
            "the 0.0001 stands under the root": 1 - tau.sqrt() - 1e-4,
        },
    )
    counterexample(mine, want, [f"tau = {value:g}" for value in tau], "alpha^2")
    return "A tenth of the way in, a third of the variance is noise: words need strong noise to be lost."


@exercise
def check_nearest(nearest: Callable[[Tensor, Tensor], Any]) -> str:
    """nearest(x, vectors) -> number of the word vector (V, E) nearest to the point x (E,)."""
    rng, cases = Generator().manual_seed(3), []
    for _ in range(30):
        vectors = torch.randn(7, 3, generator=rng, dtype=torch.float64) * (0.3 + 3 * torch.rand(7, 1, generator=rng))
        x = torch.randn(3, generator=rng, dtype=torch.float64)
        mine = int(tensor_of(nearest, x, vectors, shape=(), called="nearest(x, vectors)"))
        if not 0 <= mine < 7:
            raise Wrong(f"there are words 0 to 6, yours is {mine}.")
        cases.append((mine, (vectors - x).square().sum(1).sqrt(), vectors @ x, vectors @ x / vectors.norm(dim=1)))
    if all(mine == int(distance.argmin()) for mine, distance, *_ in cases):
        return "For vectors of one length product and distance agree; learned ones differ in length."
    if all(mine == int(product.argmax()) for mine, _, product, _ in cases):
        raise Wrong("the largest product is not the nearest: a long vector wins everywhere. Take off half its square.")
    if all(mine == int(angle.argmax()) for mine, _, _, angle in cases):
        raise Wrong("the smallest angle is not the nearest: vectors differ in length, so do not normalise them.")
    if all(mine == int(distance.argmax()) for mine, distance, *_ in cases):
        raise Wrong("that is the farthest.")
    mine, distance, *_ = next(case for case in cases if case[0] != int(case[1].argmin()))
    raise Wrong(f"word {int(distance.argmin())} is nearest, {distance.min():.2f} away; yours is {mine}.")


@exercise
def check_gradient_step(push: Callable[[Tensor, Tensor, float, float, float], Any]) -> str:
    """push(x, slope, alpha, sigma, strength) -> the guess moved by a classifier, slope its gradient by z_t."""
    for seed, alpha, sigma, strength in ((1, 0.8, 0.6, 1.0), (2, 0.28, 0.96, 2.0)):
        x, slope = torch.randn(2, 4, generator=Generator().manual_seed(seed), dtype=torch.float64)
        mine = tensor_of(push, x, slope, alpha, sigma, strength, shape=(4,), called="push(...)").double()
        want = x + strength * sigma**2 / alpha * slope
        not_these(
            mine,
            {
                "the push goes uphill: add it": x - strength * sigma**2 / alpha * slope,
                "that is the push alone; add it to x": strength * sigma**2 / alpha * slope,
                "divide by alpha: the slope is that by z, and z holds alpha x": x + strength * sigma**2 * slope,
                "how far to go is the variance, sigma squared": x + strength * sigma / alpha * slope,
                "how far to go depends on the noise": x + strength * slope,
            },
        )
        counterexample(
            mine, want, [f"alpha = {alpha}, number {i}" for i in range(4)], "x + strength sigma^2 / alpha slope"
        )
    return "At strength 1 it is Bayes' rule (Tweedie's formula), if guess and classifier are exact."
