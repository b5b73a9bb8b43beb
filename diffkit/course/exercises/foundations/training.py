"""Exercises of notebook 05_training."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Generator, Tensor

from diffkit.course.exercises.checks import Wrong, exercise, not_these, tensor_of


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
        if mine.min() < 1 or mine.max() > T:
            raise Wrong(f"times lie in 1..{T}, yours in {mine.min():g}..{mine.max():g}. Divide by B to stay there.")
        off = (mine.double().sort().values - want).abs() > 1  # 1: rounding in float32 is forgiven
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
    return "One time in each slice, uniform within it, never 0 and never T + 1."


@exercise
def check_average(average: Callable[[Tensor, float], Any]) -> str:
    """average(values, keep) -> exponential moving average after the last value; it starts at the first. (N,) to ()."""
    values = torch.randn(12, generator=Generator().manual_seed(6), dtype=torch.float64) + 2
    for keep in (0.9, 0.7):
        want, swapped, from_zero = values[0].clone(), values[0].clone(), torch.zeros((), dtype=torch.float64)
        for value in values[1:]:
            want, swapped = keep * want + (1 - keep) * value, (1 - keep) * swapped + keep * value
        for value in values:
            from_zero = keep * from_zero + (1 - keep) * value
        mine = tensor_of(average, values, keep, shape=(), called="the average").double()
        slips = {
            "that is the plain mean; the latest value should weigh most": values.mean(),
            "that is the last value alone; nothing of the past is kept": values[-1],
            "you started from 0, which drags the average down; start at the first value": from_zero,
            "the two weights are swapped: the past keeps `keep`, the new value gets 1 - keep": swapped,
        }
        not_these(mine, slips)
        if not torch.isclose(mine, want, atol=1e-6):
            raise Wrong(f"12 values with keep = {keep} end at {want:.4f}, yours at {mine:.4f}.")
    return "Started at the first value, and most of its weight lies on the last 1 / (1 - keep) values."


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


@exercise
def check_reach(reach: Callable[[float, float, float, float], Any]) -> str:
    """reach(progress, start, hold, ramp) -> largest t / T after this share of the run."""
    for start, hold, ramp in ((0.25, 0.4, 0.3), (0.1, 0.2, 0.5)):
        for progress in (0.0, hold / 2, hold, hold + ramp / 3, hold + ramp / 2, hold + ramp, 0.95):
            climbed = (progress - hold) / ramp
            want = start if progress < hold else min(1.0, start + (1 - start) * climbed)
            mine = float(tensor_of(reach, progress, start, hold, ramp, shape=(), called="the reach"))
            where = f"at progress {progress:.2f} (start {start}, hold {hold}, ramp {ramp})"
            slips = {
                "yours passes 1, a time beyond T; stop there": (start + (1 - start) * climbed, mine > 1),
                "yours rises from 0, not from start": (climbed, True),
                "yours begins to widen at once; hold comes first": (start + (1 - start) * progress / ramp, True),
                "ramp is how long the widening takes, not where it ends": (
                    start + (1 - start) * (progress - hold) / (ramp - hold) if ramp != hold else math.nan, True,
                ),
                "yours adds a whole 1; only 1 - start is left to climb": (start + climbed, True),
                "yours jumps to the full range; it should widen little by little": (1.0, progress > hold),
            }  # fmt: skip
            for why, (slip, possible) in slips.items():
                if possible and abs(slip - want) > 1e-4 and abs(mine - slip) < 1e-6:
                    raise Wrong(f"{where}: {why}.")
            if abs(mine - want) > 1e-6:
                raise Wrong(f"{where} the reach should be {want:.4f}, yours is {mine:.4f}.")
    return "Little first, then more, then everything."
