"""The curves that schedules follow: a masking rate over [0, 1], with its slope and inverse in closed form."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

Function = Callable[[Tensor], Tensor]  # float64
HALF_PI = math.pi / 2


class Curve(NamedTuple):
    """A masking rate over tau = t / T in [0, 1], and 1 - rate by a formula of its own, exact where rate rounds to 1."""

    rate: Function
    keep: Function
    slope: Function  # of the rate, per unit of tau
    inverse: Function  # tau of a rate; what lies outside [0, 1] stands for the end next to it


# Other names for the same curves are in the notebook 02_noise_schedules. Cosines and sines are taken of the angle that
# is left where they are small: 1 - cos(x) = 2 sin(x / 2)^2 does not round to 0 while its slope is still positive.
CURVES: dict[str, Curve] = {
    "linear": Curve(lambda tau: tau, lambda tau: 1 - tau, torch.ones_like, lambda gamma: gamma),
    "cosine": Curve(
        lambda tau: 2 * (HALF_PI / 2 * tau).sin() ** 2,
        lambda tau: (HALF_PI * (1 - tau)).sin(),
        lambda tau: HALF_PI * (HALF_PI * tau).sin(),
        lambda gamma: (gamma / 2).sqrt().asin() / (HALF_PI / 2),
    ),
    "quadratic": Curve(
        lambda tau: tau * (2 - tau),
        lambda tau: (1 - tau) ** 2,
        lambda tau: 2 * (1 - tau),
        lambda gamma: gamma / (1 + (1 - gamma).sqrt()),
    ),
    "maskgit_cosine": Curve(
        lambda tau: (HALF_PI * tau).sin(),
        lambda tau: 2 * (HALF_PI / 2 * (1 - tau)).sin() ** 2,
        lambda tau: HALF_PI * (HALF_PI * tau).cos(),
        lambda gamma: gamma.asin() / HALF_PI,
    ),
    "cosine_sq": Curve(
        lambda tau: (HALF_PI * tau).sin() ** 2,
        lambda tau: (HALF_PI * (1 - tau)).sin() ** 2,
        lambda tau: HALF_PI * (math.pi * tau).sin(),
        lambda gamma: gamma.sqrt().asin() / HALF_PI,
    ),
    "log": Curve(
        lambda tau: tau.log1p() / math.log(2),
        lambda tau: -((tau - 1) / 2).log1p() / math.log(2),
        lambda tau: 1 / ((1 + tau) * math.log(2)),
        lambda gamma: (gamma * math.log(2)).expm1(),
    ),
}


def polynomial(power: float) -> Curve:
    """gamma = tau ** power (BD3-LM calls power 2 "square", 1/2 "square_root")."""
    return Curve(
        lambda tau: tau**power,
        lambda tau: -torch.expm1(power * tau.log()),
        lambda tau: power * tau ** (power - 1),
        lambda gamma: gamma ** (1 / power),
    )


def loglinear(eps: float) -> Curve:
    """gamma = (1 - eps) tau, what MDLM, SEDD and RADD call log-linear: its total noise is -log(1 - (1 - eps) tau)."""
    if eps >= 1:
        raise ValueError(f"get_schedule: loglinear needs eps below 1, got eps={eps}.")
    return Curve(
        lambda tau: (1 - eps) * tau,
        lambda tau: 1 - tau + eps * tau,
        lambda tau: torch.full_like(tau, 1 - eps),
        lambda gamma: gamma / (1 - eps),
    )


def _from_noise(total: Function, slope: Function, inverse: Function) -> Curve:
    """gamma = 1 - exp(-sigma) for a total noise sigma over tau."""
    return Curve(
        lambda tau: -torch.expm1(-total(tau)),
        lambda tau: (-total(tau)).exp(),
        lambda tau: slope(tau) * (-total(tau)).exp(),
        lambda gamma: inverse(-torch.log1p(-gamma)),
    )


def geometric(sigma_min: float, sigma_max: float) -> Curve:
    """gamma = 1 - exp(-sigma) with total noise sigma growing geometrically from sigma_min to sigma_max (SEDD)."""
    _check_growth("geometric", sigma_min, sigma_max)
    ratio = math.log(sigma_max / sigma_min)

    def sigma(tau: Tensor) -> Tensor:
        return sigma_min * (ratio * tau).exp()

    return _from_noise(sigma, lambda tau: ratio * sigma(tau), lambda noise: (noise / sigma_min).log() / ratio)


def vp_linear(sigma_min: float, sigma_max: float) -> Curve:
    """gamma = 1 - exp(-sigma) with total noise sigma growing linearly (the MDLM code calls it linear)."""
    _check_growth("vp_linear", sigma_min, sigma_max)
    growth = sigma_max - sigma_min
    return _from_noise(
        lambda tau: sigma_min + growth * tau, lambda tau: growth * torch.ones_like(tau),
        lambda noise: (noise - sigma_min) / growth,
    )  # fmt: skip


def _check_growth(name: str, sigma_min: float, sigma_max: float) -> None:
    if sigma_min >= sigma_max:
        raise ValueError(f"get_schedule: {name} needs sigma_min < sigma_max, got {sigma_min} and {sigma_max}.")


FAMILIES: dict[str, tuple[Callable[..., Curve], dict[str, float]]] = {
    "poly": (polynomial, {"power": 2.0}),
    "loglinear": (loglinear, {"eps": 1e-3}),
    "geometric": (geometric, {"sigma_min": 1e-4, "sigma_max": 20.0}),
    "vp_linear": (vp_linear, {"sigma_min": 1e-4, "sigma_max": 20.0}),
}
