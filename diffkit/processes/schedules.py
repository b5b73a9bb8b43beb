"""How text is destroyed: schedules for the masking rate gamma(t), and the corruption they drive."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Curve = Callable[[Tensor], Tensor]  # of tau = t / T in [0, 1], float64


@dataclass(frozen=True)
class Schedule:
    """Masking rate over time: gamma(t) is the chance that a token is MASK at time t in [0, T].

    gamma is 0 at t=0 and 1 at t=T, exactly, whatever the formula rounds to: the bound on the likelihood would otherwise
    be infinite (a token that survives at t=T can never be made from a canvas of masks).
    """

    name: str
    rate: Curve
    slope_of: Curve
    T: int = 1000
    parameters: tuple[tuple[str, float], ...] = ()  # of the family: get_schedule(name, T, **dict(parameters)) is this

    def gamma(self, t: Tensor | float) -> Tensor:
        """Masking rate, same shape as t, float64.

        Raises: ValueError if t is NaN or outside [0, T]; TypeError if t is not a real number.
        """
        tau = self._tau(t)
        gamma = torch.where(tau == 1, 1.0, torch.where(tau == 0, 0.0, self.rate(tau)))
        return gamma.clamp(0.0, 1.0)

    def dgamma(self, t: Tensor | float) -> Tensor:
        """Slope of gamma per unit of t, same shape as t, float64. Raises as gamma does."""
        return self.slope_of(self._tau(t)) / self.T

    def time_of(self, gamma: Tensor | float) -> Tensor:
        """The time at which the masking rate is gamma (inverse of `gamma`), by bisection to 1e-12 of T; float64."""
        target = _real(gamma, "time_of", "gamma")
        if not ((target >= 0) & (target <= 1)).all():
            raise ValueError(f"time_of: a masking rate lies in [0, 1], got {_extremes(target)}.")
        low, high = torch.zeros_like(target), torch.full_like(target, self.T)
        for _ in range(60):
            middle = (low + high) / 2
            too_early = self.gamma(middle) < target
            low, high = torch.where(too_early, middle, low), torch.where(too_early, high, middle)
        return high

    def _tau(self, t: Tensor | float) -> Tensor:
        t = _real(t, f"{self.name} schedule", "t")
        if not ((t >= 0) & (t <= self.T)).all():
            raise ValueError(
                f"{self.name} schedule: t must lie in [0, {self.T}], got {_extremes(t)}. "
                f"Time counts steps; multiply a fraction of time by T={self.T}."
            )
        return t / self.T


def _real(value: Tensor | float, where: str, name: str) -> Tensor:
    number = torch.as_tensor(value)
    if number.dtype == torch.bool or number.is_complex():
        raise TypeError(f"{where}: {name} must be an integer or a real number, got {number.dtype}.")
    number = torch.as_tensor(value, dtype=torch.float64)  # a Python float never passes through float32
    if torch.isnan(number).any():
        raise ValueError(f"{where}: {name} holds NaN.")
    return number


def _extremes(values: Tensor) -> str:
    return f"{values.min():g}..{values.max():g}" if values.numel() else "nothing"


HALF_PI = math.pi / 2

# name -> (gamma of tau, its slope in tau). Other names for the same curves are in the notebook 02_noise_schedules.
CURVES: dict[str, tuple[Curve, Curve]] = {
    "linear": (lambda tau: tau, torch.ones_like),
    # 1 - cos(x) as 2 sin(x / 2)^2, which does not round to 0 while its slope is still positive
    "cosine": (lambda tau: 2 * (HALF_PI / 2 * tau).sin() ** 2, lambda tau: HALF_PI * (HALF_PI * tau).sin()),
    "quadratic": (lambda tau: tau * (2 - tau), lambda tau: 2 * (1 - tau)),
    "maskgit_cosine": (lambda tau: (HALF_PI * tau).sin(), lambda tau: HALF_PI * (HALF_PI * tau).cos()),
    "cosine_sq": (lambda tau: (HALF_PI * tau).sin() ** 2, lambda tau: HALF_PI * (math.pi * tau).sin()),
    "log": (lambda tau: tau.log1p() / math.log(2), lambda tau: 1 / ((1 + tau) * math.log(2))),
}


def polynomial(power: float) -> tuple[Curve, Curve]:
    """gamma = tau ** power (BD3-LM calls power 2 "square", 1/2 "square_root")."""
    return lambda tau: tau**power, lambda tau: power * tau ** (power - 1)


def loglinear(eps: float) -> tuple[Curve, Curve]:
    """gamma = (1 - eps) tau, what MDLM, SEDD and RADD call log-linear: its total noise is -log(1 - (1 - eps) tau)."""
    if eps >= 1:
        raise ValueError(f"get_schedule: loglinear needs eps below 1, got eps={eps}.")
    return lambda tau: (1 - eps) * tau, lambda tau: torch.full_like(tau, 1 - eps)


def geometric(sigma_min: float, sigma_max: float) -> tuple[Curve, Curve]:
    """gamma = 1 - exp(-sigma) with total noise sigma growing geometrically from sigma_min to sigma_max (SEDD)."""
    _check_growth("geometric", sigma_min, sigma_max)
    ratio = math.log(sigma_max / sigma_min)

    def sigma(tau: Tensor) -> Tensor:
        return sigma_min * (ratio * tau).exp()

    return lambda tau: -torch.expm1(-sigma(tau)), lambda tau: ratio * sigma(tau) * (-sigma(tau)).exp()


def vp_linear(sigma_min: float, sigma_max: float) -> tuple[Curve, Curve]:
    """gamma = 1 - exp(-sigma) with total noise sigma growing linearly (the MDLM code calls it linear)."""
    _check_growth("vp_linear", sigma_min, sigma_max)
    growth = sigma_max - sigma_min

    def sigma(tau: Tensor) -> Tensor:
        return sigma_min + growth * tau

    return lambda tau: -torch.expm1(-sigma(tau)), lambda tau: growth * (-sigma(tau)).exp()


def _check_growth(name: str, sigma_min: float, sigma_max: float) -> None:
    if sigma_min >= sigma_max:
        raise ValueError(
            f"get_schedule: {name} needs sigma_min < sigma_max, got {sigma_min} and {sigma_max}. Swap them?"
        )


MOST_STEPS = 10**6  # of the time axis: with more, float32 no longer tells them apart
FAMILIES: dict[str, tuple[Callable[..., tuple[Curve, Curve]], dict[str, float]]] = {
    "poly": (polynomial, {"power": 2.0}),
    "loglinear": (loglinear, {"eps": 1e-3}),
    "geometric": (geometric, {"sigma_min": 1e-4, "sigma_max": 20.0}),
    "vp_linear": (vp_linear, {"sigma_min": 1e-4, "sigma_max": 20.0}),
}


def get_schedule(name: str, T: int = 1000, **parameters: float) -> Schedule:
    """A schedule by name.

    Args:   name: linear, cosine, quadratic, maskgit_cosine, cosine_sq, log, or one of the families poly (power),
                loglinear (eps), geometric and vp_linear (sigma_min, sigma_max), whose parameters are keywords.
            T: length of the time axis in steps.
            parameters: numbers of a family; each has a default.
    Returns: a Schedule: gamma(t), its slope dgamma(t), and time_of(gamma), the inverse.
    Raises: ValueError for an unknown name, an unknown or non-positive parameter, or T < 1.
    Source: arXiv:2406.07524 and its code; arXiv:2406.04329 (maskgit_cosine); arXiv:2310.16834 (geometric).

    >>> get_schedule("quadratic", T=4).gamma(torch.arange(5)).tolist()
    [0.0, 0.4375, 0.75, 0.9375, 1.0]
    """
    if not 1 <= T <= MOST_STEPS or T != int(T):
        raise ValueError(
            f"get_schedule: T counts steps, {MOST_STEPS:,} at most, and must be a whole number >= 1, got {T}."
        )
    if name == "log-linear":
        warnings.warn(
            'get_schedule: "log-linear" has two meanings. Here it is gamma = 1 - (1 - tau)^2, also called "quadratic"; '
            'in the SEDD and MDLM papers it is gamma = (1 - eps) tau, whose name here is "loglinear" (or "linear").',
            stacklevel=2,
        )
        name = "quadratic"
    family, defaults = FAMILIES.get(name, (None, {}))
    unknown = sorted(set(parameters) - set(defaults))
    if name not in CURVES and family is None:
        raise ValueError(f"get_schedule: the schedules are {sorted([*CURVES, *FAMILIES])}, got {name!r}.")
    if unknown:
        raise ValueError(f"get_schedule: {name} has the parameters {sorted(defaults)}, got {unknown}.")
    settings = defaults | parameters
    if any(not 0 < value < math.inf for value in settings.values()):
        raise ValueError(f"get_schedule: the parameters of {name} must be positive and finite, got {settings}.")
    rate, slope = CURVES[name] if family is None else family(**settings)
    return Schedule(name, rate, slope, int(T), tuple(settings.items()))


def schedule_settings(schedule: Schedule) -> dict[str, Any]:
    """Plain numbers and names that `schedule_from` makes this schedule of again; JSON can hold them."""
    own = dict(schedule.parameters)
    return {"schedule": schedule.name, "T": schedule.T} | ({"schedule_parameters": own} if own else {})


def schedule_from(settings: dict[str, Any]) -> Schedule:
    """Build from what `schedule_settings` returns."""
    return get_schedule(settings["schedule"], settings["T"], **settings.get("schedule_parameters", {}))
