"""Noise schedules: the masking rate gamma(t), its slope and its inverse."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from diffkit.processes.curves import CURVES, FAMILIES, Curve

NO_JUMP = 1e-8  # a smaller jump of gamma at an end costs less than a millionth of a nat for each token
MOST_STEPS = 10**6  # of the time axis: with more, float32 no longer tells them apart


@dataclass(frozen=True)
class Schedule:
    """Masking rate over time: gamma(t) is the probability that a token is MASK at time t in [0, T].

    gamma is exactly 0 at t=0 and 1 at t=T, whatever the formula rounds to: otherwise the bound on the likelihood would
    be infinite (a token still visible at t=T can never be generated from a canvas of masks). alpha = 1 - gamma.

    `gamma`, `alpha`, `dgamma` and `time_of` check what they are given. `rate`, `keep`, `slope` and `time`, the same
    numbers unchecked, are for a training or sampling step: they read nothing back from a device.
    """

    name: str
    curve: Curve
    T: int = 1000
    parameters: tuple[tuple[str, float], ...] = ()  # of the family: get_schedule(name, T, **dict(parameters)) is this

    def gamma(self, t: Tensor | float) -> Tensor:
        """Masking rate, same shape as t, float64.

        Raises: ValueError if t is NaN or outside [0, T]; TypeError if t is not a real number.
        """
        return self.rate(_real(t, self.T, f"{self.name} schedule: t"))

    def alpha(self, t: Tensor | float) -> Tensor:
        """Probability that a token is kept, 1 - gamma, exact also where gamma rounds to 1. Raises as gamma does."""
        return self.keep(_real(t, self.T, f"{self.name} schedule: t"))

    def dgamma(self, t: Tensor | float) -> Tensor:
        """Slope of gamma per unit of t, same shape as t, float64. Raises as gamma does."""
        return self.slope(_real(t, self.T, f"{self.name} schedule: t"))

    def time_of(self, gamma: Tensor | float) -> Tensor:
        """The time at which the masking rate is gamma, the inverse of `gamma`, float64. Raises as gamma does."""
        return self.time(_real(gamma, 1, "time_of: a masking rate"))

    def rate(self, t: Tensor | float) -> Tensor:
        """gamma(t) for times known to lie in [0, T]."""
        tau = torch.as_tensor(t, dtype=torch.float64) / self.T
        return torch.where(tau == 1, 1.0, torch.where(tau == 0, 0.0, self.curve.rate(tau))).clamp(0.0, 1.0)

    def keep(self, t: Tensor | float) -> Tensor:
        """alpha(t) for times known to lie in [0, T]."""
        tau = torch.as_tensor(t, dtype=torch.float64) / self.T
        return torch.where(tau == 1, 0.0, torch.where(tau == 0, 1.0, self.curve.keep(tau))).clamp(0.0, 1.0)

    def kept(self, s: Tensor | float, t: Tensor | float) -> Tensor:
        """alpha(t) / alpha(s), the share of the tokens kept until s < t that is kept until t; 0 if none were."""
        keep_s = self.keep(s)
        return torch.where(keep_s > 0, self.keep(t) / keep_s, 0.0)

    def lost(self, s: Tensor | float, t: Tensor | float) -> Tensor:
        """1 - kept(s, t), exact where it is small, too."""
        kept = self.kept(s, t)
        return torch.where(kept < 0.5, 1 - kept, (self.rate(t) - self.rate(s)) / self.keep(s))

    def slope(self, t: Tensor | float) -> Tensor:
        """dgamma(t) for times known to lie in [0, T]."""
        return self.curve.slope(torch.as_tensor(t, dtype=torch.float64) / self.T) / self.T

    def time(self, gamma: Tensor | float) -> Tensor:
        """time_of(gamma) for rates known to lie in [0, 1]."""
        gamma = torch.as_tensor(gamma, dtype=torch.float64)
        inside = self.curve.inverse(gamma).clamp(1e-300, 1.0)  # a rate below the first one of a curve: just after 0
        return torch.where(gamma == 1, 1.0, torch.where(gamma == 0, 0.0, inside)) * self.T

    @cached_property
    def jumps(self) -> tuple[float, float]:
        """By how much gamma jumps up just after 0, and just before T, where its formula does not reach 0 and 1."""
        start, end = torch.tensor([0.0, 1.0], dtype=torch.float64)
        both = self.curve.rate(start), self.curve.keep(end)
        return tuple(0.0 if jump < NO_JUMP else jump.item() for jump in both)  # type: ignore[return-value]

    def settings(self) -> dict[str, Any]:
        """Plain numbers and names, for JSON."""
        own = dict(self.parameters)
        return {"schedule": self.name, "T": self.T} | ({"schedule_parameters": own} if own else {})


def _real(value: Tensor | float, most: float, what: str) -> Tensor:
    number = torch.as_tensor(value)
    if number.dtype == torch.bool or number.is_complex():
        raise TypeError(f"{what} must be an integer or a real number, got {number.dtype}.")
    number = torch.as_tensor(value, dtype=torch.float64)  # a Python float never passes through float32
    if not ((number >= 0) & (number <= most)).all():
        raise ValueError(f"{what} must lie in [0, {most}], got {number.min():g}..{number.max():g}.")
    return number


def get_schedule(name: str, T: int = 1000, **parameters: float) -> Schedule:
    """A schedule by name.

    Args:   name: linear, cosine, quadratic, maskgit_cosine, cosine_sq, log, or one of the families poly (power),
                loglinear (eps), geometric and vp_linear (sigma_min, sigma_max), whose parameters are keywords.
            T: length of the time axis in steps.
            parameters: numbers of a family; each has a default.
    Returns: a Schedule: gamma(t), alpha(t) = 1 - gamma(t), the slope dgamma(t), and time_of(gamma), the inverse.
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
    curve = CURVES[name] if family is None else family(**settings)
    return Schedule(name, curve, int(T), tuple(settings.items()))
