"""Exercises of notebook 05: worked solutions, and likely mistakes with what is said of them."""

import math

import torch

from diffkit.course.exercises.foundations import training as ex


def stratified(u, T):
    B = len(u)
    return ((torch.arange(B) + u) / B * T).long().clamp(max=T - 1) + 1


def stratified_in_any_order(u, T):
    return stratified(u.double(), T).flip(0)


def average(values, keep):
    mean = values[0]
    for value in values[1:]:
        mean = keep * mean + (1 - keep) * value
    return mean


def lr_scale(step, steps, warmup, decay):
    left = (steps - step) / (decay * steps)
    return min(1.0, (step + 1) / warmup) * (0.5 - 0.5 * math.cos(math.pi * min(1.0, left)))


def reach(progress, start, hold, ramp):
    if progress < hold:
        return start
    return min(1.0, start + (1 - start) * (progress - hold) / ramp)


SOLUTIONS = {
    ex.check_stratified: [stratified, stratified_in_any_order],
    ex.check_average: [average],
    ex.check_lr_scale: [lr_scale],
    ex.check_reach: [reach],
}


def average_from_zero(values, keep):
    return average(torch.cat([torch.zeros(1), values]), keep)


WRONG = [
    (ex.check_stratified, "whole axis", lambda u, T: (u * T).long() + 1),
    (ex.check_stratified, "0 to T - 1", lambda u, T: stratified(u, T) - 1),
    (ex.check_stratified, "u[0]", lambda u, T: stratified(u[0].expand(len(u)), T)),
    (ex.check_stratified, "not used", lambda u, T: stratified(u * 0, T)),
    (ex.check_stratified, "T + 1", lambda u, T: ((torch.arange(len(u)) + u) / len(u) * T).long() + 1),
    (ex.check_stratified, "Divide by B", lambda u, T: ((torch.arange(len(u)) + u) * T).long() + 1),
    (ex.check_stratified, "whole numbers", lambda u, T: (torch.arange(len(u)) + u) / len(u) * T),
    (ex.check_average, "swapped", lambda values, keep: average(values, 1 - keep)),
    (ex.check_average, "started from 0", average_from_zero),
    (ex.check_average, "plain mean", lambda values, keep: values.mean()),
    (ex.check_average, "last value alone", lambda values, keep: values[-1]),
    (ex.check_average, "12 values", lambda values, keep: average(values[1:], keep)),
    (
        ex.check_lr_scale,
        "step + 1",
        lambda s, n, w, d: lr_scale(s - 1, n, w, d) if s < w else lr_scale(s, n, w, d),
    ),
    (ex.check_lr_scale, "straight line", lambda s, n, w, d: min(1.0, (s + 1) / w, (n - s) / (d * n))),
    (ex.check_lr_scale, "warm-up is not over", lambda s, n, w, d: lr_scale(s, n, 1, d)),
    (ex.check_lr_scale, "still full", lambda s, n, w, d: min(1.0, (s + 1) / w)),
    (
        ex.check_lr_scale,
        "whole run",
        lambda s, n, w, d: min(1.0, (s + 1) / w) if s < n / 2 else 0.5 + 0.5 * math.cos(math.pi * s / n),
    ),
    (
        ex.check_lr_scale,
        "rises",
        lambda s, n, w, d: lr_scale(s, n, w, d) if s < n * 0.7 else 1 - lr_scale(s, n, w, d),
    ),
    (ex.check_reach, "hold comes first", lambda p, start, hold, ramp: start + (1 - start) * p / ramp),
    (
        ex.check_reach,
        "beyond T",
        lambda p, start, hold, ramp: start if p < hold else start + (1 - start) * (p - hold) / ramp,
    ),
    (ex.check_reach, "not from start", lambda p, s, hold, ramp: s if p < hold else min(1.0, (p - hold) / ramp)),
    (
        ex.check_reach,
        "only 1 - start",
        lambda p, s, hold, ramp: s if p < hold else min(1.0, s + (p - hold) / ramp),
    ),
    (ex.check_reach, "little by little", lambda p, start, hold, ramp: start if p <= hold else 1.0),
]
