"""Exercises of notebook 05: worked solutions, and likely mistakes with what is said of them."""

import math

import torch

from diffkit.course.exercises.foundations import training as exercises


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
    exercises.check_stratified: [stratified, stratified_in_any_order],
    exercises.check_average: [average],
    exercises.check_lr_scale: [lr_scale],
    exercises.check_reach: [reach],
}


def average_from_zero(values, keep):
    return average(torch.cat([torch.zeros(1), values]), keep)


WRONG = [
    (exercises.check_stratified, lambda u, T: (u * T).long() + 1, "whole axis"),
    (exercises.check_stratified, lambda u, T: stratified(u, T) - 1, "0 to T - 1"),
    (exercises.check_stratified, lambda u, T: stratified(u[0].expand(len(u)), T), "u[0]"),
    (exercises.check_stratified, lambda u, T: stratified(u * 0, T), "not used"),
    (exercises.check_stratified, lambda u, T: ((torch.arange(len(u)) + u) / len(u) * T).long() + 1, "T + 1"),
    (exercises.check_stratified, lambda u, T: ((torch.arange(len(u)) + u) * T).long() + 1, "Divide by B"),
    (exercises.check_stratified, lambda u, T: (torch.arange(len(u)) + u) / len(u) * T, "whole numbers"),
    (exercises.check_stratified, lambda u, T: stratified(u, T)[:2], "shape"),
    (exercises.check_average, lambda values, keep: average(values, 1 - keep), "swapped"),
    (exercises.check_average, average_from_zero, "started from 0"),
    (exercises.check_average, lambda values, keep: values.mean(), "plain mean"),
    (exercises.check_average, lambda values, keep: values[-1], "last value alone"),
    (exercises.check_average, lambda values, keep: values, "shape"),
    (exercises.check_average, lambda values, keep: average(values[1:], keep), "12 values"),
    (
        exercises.check_lr_scale,
        lambda s, n, w, d: lr_scale(s - 1, n, w, d) if s < w else lr_scale(s, n, w, d),
        "step + 1",
    ),
    (exercises.check_lr_scale, lambda s, n, w, d: min(1.0, (s + 1) / w, (n - s) / (d * n)), "straight line"),
    (exercises.check_lr_scale, lambda s, n, w, d: lr_scale(s, n, 1, d), "warm-up is not over"),
    (exercises.check_lr_scale, lambda s, n, w, d: min(1.0, (s + 1) / w), "still full"),
    (
        exercises.check_lr_scale,
        lambda s, n, w, d: min(1.0, (s + 1) / w) if s < n / 2 else 0.5 + 0.5 * math.cos(math.pi * s / n),
        "whole run",
    ),
    (
        exercises.check_lr_scale,
        lambda s, n, w, d: lr_scale(s, n, w, d) if s < n * 0.7 else 1 - lr_scale(s, n, w, d),
        "rises",
    ),
    (exercises.check_lr_scale, lambda s, n, w, d: 0.123, "should be"),
    (exercises.check_reach, lambda p, start, hold, ramp: start + (1 - start) * p / ramp, "hold comes first"),
    (
        exercises.check_reach,
        lambda p, start, hold, ramp: start if p < hold else start + (1 - start) * (p - hold) / ramp,
        "beyond T",
    ),
    (exercises.check_reach, lambda p, s, hold, ramp: s if p < hold else min(1.0, (p - hold) / ramp), "not from start"),
    (
        exercises.check_reach,
        lambda p, s, hold, ramp: s if p < hold else min(1.0, s + (p - hold) / ramp),
        "only 1 - start",
    ),
    (exercises.check_reach, lambda p, start, hold, ramp: start if p <= hold else 1.0, "little by little"),
    (exercises.check_reach, lambda p, start, hold, ramp: start, "should be"),
]
