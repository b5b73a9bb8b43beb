"""Exercises of notebook 02: worked solutions, and likely mistakes with what is said of them."""

import math

import torch

from diffkit.course.exercises.foundations import noise_schedules as exercises


def cosine(t, T):
    return 1 - torch.cos(math.pi / 2 * t / T)


def expected(gamma, frozen):
    return gamma * (~frozen).sum(1)


def stay(gamma_t, gamma_s):
    return gamma_s / gamma_t


def own(t, T):
    tau = t / T
    return tau * tau * (3 - 2 * tau)


SOLUTIONS = {
    exercises.check_cosine_gamma: [cosine],
    exercises.check_expected_masks: [expected],
    exercises.check_stay_masked: [stay],
    exercises.check_own_schedule: [own],
}
WRONG = [
    (exercises.check_cosine_gamma, lambda t, T: torch.sin(math.pi / 2 * t / T), "mirrored"),
    (exercises.check_cosine_gamma, lambda t, T: torch.cos(math.pi / 2 * t / T), "still visible"),
    (exercises.check_cosine_gamma, lambda t, T: 1 - torch.cos(math.pi / 2 * t), "not with t"),
    (exercises.check_cosine_gamma, lambda t, T: 1 - torch.cos(math.pi * t / T), "half turn"),
    (exercises.check_cosine_gamma, lambda t, T: 1 - torch.cos(math.pi / 2 * t / T) ** 2, "another schedule"),
    (exercises.check_cosine_gamma, lambda t, T: t / T, "the rate should be"),
    (exercises.check_cosine_gamma, lambda t, T: cosine(t, T)[:, None], "shape (7,)"),
    (exercises.check_expected_masks, lambda gamma, frozen: gamma * frozen.shape[1], "count frozen positions too"),
    (exercises.check_expected_masks, lambda gamma, frozen: gamma * frozen.sum(1), "not the free ones"),
    (exercises.check_expected_masks, lambda gamma, frozen: (1 - gamma) * (~frozen).sum(1), "stay visible"),
    (exercises.check_expected_masks, lambda gamma, frozen: gamma * (~frozen).double().mean(1), "share of hidden"),
    (exercises.check_expected_masks, lambda gamma, frozen: gamma[:, None] * ~frozen, "shape (4,)"),
    (exercises.check_expected_masks, lambda gamma, frozen: (gamma * (~frozen).sum(1)).round(), "on average, yours is"),
    (exercises.check_stay_masked, lambda gamma_t, gamma_s: 1 - gamma_s / gamma_t, "revealed between"),
    (exercises.check_stay_masked, lambda gamma_t, gamma_s: gamma_s, "knowing nothing"),
    (exercises.check_stay_masked, lambda gamma_t, gamma_s: (1 - gamma_t) / (1 - gamma_s), "runs forward"),
    (exercises.check_stay_masked, lambda gamma_t, gamma_s: gamma_t / gamma_s, "lies in [0, 1]"),
    (exercises.check_stay_masked, lambda gamma_t, gamma_s: gamma_t - gamma_s, "hit between s and t"),
    (exercises.check_stay_masked, lambda gamma_t, gamma_s: gamma_s / gamma_t / 2, "were masked already"),
    (exercises.check_own_schedule, lambda t, T: 0.999 * t / T, "gamma(T) is 0.99"),
    (exercises.check_own_schedule, lambda t, T: 0.001 + 0.999 * t / T, "gamma(0)"),
    (exercises.check_own_schedule, lambda t, T: (t / 1000).clamp(max=1), "T = 40"),
    (exercises.check_own_schedule, lambda t, T: (2.5 * math.pi * t / T).sin() ** 2, "falls after"),
    (exercises.check_own_schedule, lambda t, T: 1 - t / T, "gamma(0) is 1"),
]
