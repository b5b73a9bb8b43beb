"""Exercises of notebook 15_plaid."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Generator, Tensor

from diffkit.course.exercises.checks import Wrong, counterexample, exercise, not_these, tensor_of


@exercise
def check_alpha_sigma(alpha_sigma: Callable[[Tensor], Any]) -> str:
    """alpha_sigma(g) -> alpha and sigma for g = -log(alpha^2 / sigma^2), alpha^2 + sigma^2 = 1."""
    g = torch.tensor([-4.0, -0.5, 0.3, 2.0, 9.0], dtype=torch.float64)
    both = alpha_sigma(g)
    both = list(both) if isinstance(both, Tensor) and both.ndim == 2 else both  # stacked
    if not isinstance(both, (tuple, list)) or len(both) != 2:
        raise Wrong("return two tensors, alpha and sigma.")
    alpha, sigma = (torch.as_tensor(part).double() for part in both)
    right = (-g).sigmoid().sqrt(), g.sigmoid().sqrt()
    if alpha.shape != g.shape or sigma.shape != g.shape:
        raise Wrong(f"alpha and sigma should have the shape of g, {tuple(g.shape)}, yours {tuple(alpha.shape)}.")
    not_these(
        alpha,
        {
            "these are the squares; take roots": right[0].square(),
            "alpha and sigma are swapped: alpha is near one where there is little noise": right[1],
            "alpha^2 / sigma^2 must be exp(-g), yours is its square": (-2 * g).sigmoid().sqrt(),
        },
    )
    cases = [f"g = {value:g}" for value in g]
    counterexample(alpha, right[0], cases, "alpha")
    counterexample(sigma, right[1], cases, "sigma")
    return "One number, any real number, describes the noise."


@exercise
def check_step_weight(step_weight: Callable[[Tensor, Tensor], Any]) -> str:
    """step_weight(g_s, g_t) -> nats that a squared error of one costs in the step from t to the earlier s."""
    g_s, g_t = torch.tensor([[-1.0, 0.0, 2.0, -3.0], [0.0, 0.5, 7.0, -2.9]], dtype=torch.float64)
    mine = tensor_of(step_weight, g_s, g_t, shape=(4,), called="step_weight(g_s, g_t)").double()
    want = ((-g_s).exp() - (-g_t).exp()) / 2
    not_these(
        mine,
        {
            "the half is missing: KL of two normals is the squared distance over twice the variance": 2 * want,
            "the sign is wrong: SNR is larger at s, the earlier time": -want,
            "that is the difference of log SNR; take SNR itself": (g_t - g_s) / 2,
            "SNR is exp(-g), not exp(g)": (g_t.exp() - g_s.exp()) / 2,
        },
    )
    counterexample(mine, want, [f"g_s = {a:g}, g_t = {b:g}" for a, b in zip(g_s, g_t, strict=True)], "the weight")
    return "Summed over all steps the weights are half of the whole fall of SNR, however the steps are cut."


@exercise
def check_own_evidence(own_evidence: Callable[[Tensor, Tensor, float, float], Any]) -> str:
    """own_evidence(z, vectors, alpha, sigma) -> (V,) log q(z | w) up to a constant, vectors of one length."""
    for seed, alpha, sigma in ((1, 0.8, 0.6), (2, 0.28, 0.96)):
        rng = Generator().manual_seed(seed)
        vectors = torch.nn.functional.normalize(torch.randn(6, 4, generator=rng, dtype=torch.float64), dim=-1) * 2
        z = torch.randn(4, generator=rng, dtype=torch.float64)
        mine = tensor_of(own_evidence, z, vectors, alpha, sigma, shape=(6,), called="own_evidence(...)").double()
        mine, product = mine - mine.mean(), vectors @ z - (vectors @ z).mean()
        want = alpha / sigma**2 * product
        slips = {
            "divide by sigma squared, the variance": alpha / sigma * product,
            "z holds alpha e(w), not e(w): alpha is missing": product / sigma**2,
            "the nearer word must get the larger number; the sign is wrong": -want,
            "the square of a difference has the product twice, and the 2 below cancels it": 2 * want,
            "these are products alone; how sure they are depends on the noise": product,
        }
        not_these(mine, slips)
        cases = [f"alpha = {alpha}, sigma = {sigma}, word {w}" for w in range(6)]
        counterexample(
            mine,
            want,
            cases,
            "-|z - alpha e|^2 / (2 sigma^2) less its mean (only alpha / sigma^2 <z, e> is left of it)",
        )
    return "Exact, and it costs one matrix product. The network need not learn it."
