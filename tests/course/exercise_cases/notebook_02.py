"""Exercises of notebook 02: worked solutions, and likely mistakes with what is said of them."""

import math

import torch

from diffkit.course.exercises.foundations import noise_schedules as ex


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
    ex.check_cosine_gamma: [cosine],
    ex.check_expected_masks: [expected],
    ex.check_stay_masked: [stay],
    ex.check_own_schedule: [own],
}
WRONG = [
    (ex.check_cosine_gamma, "mirrored", lambda t, T: torch.sin(math.pi / 2 * t / T)),
    (ex.check_cosine_gamma, "still visible", lambda t, T: torch.cos(math.pi / 2 * t / T)),
    (ex.check_cosine_gamma, "not with t", lambda t, T: 1 - torch.cos(math.pi / 2 * t)),
    (ex.check_cosine_gamma, "half turn", lambda t, T: 1 - torch.cos(math.pi * t / T)),
    (ex.check_cosine_gamma, "another schedule", lambda t, T: 1 - torch.cos(math.pi / 2 * t / T) ** 2),
    (ex.check_expected_masks, "count frozen positions too", lambda gamma, frozen: gamma * frozen.shape[1]),
    (ex.check_expected_masks, "not the free ones", lambda gamma, frozen: gamma * frozen.sum(1)),
    (ex.check_expected_masks, "stay visible", lambda gamma, frozen: (1 - gamma) * (~frozen).sum(1)),
    (ex.check_expected_masks, "share of hidden", lambda gamma, frozen: gamma * (~frozen).double().mean(1)),
    (ex.check_expected_masks, "on average, yours is", lambda gamma, frozen: (gamma * (~frozen).sum(1)).round()),
    (ex.check_stay_masked, "revealed between", lambda gamma_t, gamma_s: 1 - gamma_s / gamma_t),
    (ex.check_stay_masked, "knowing nothing", lambda gamma_t, gamma_s: gamma_s),
    (ex.check_stay_masked, "runs forward", lambda gamma_t, gamma_s: (1 - gamma_t) / (1 - gamma_s)),
    (ex.check_stay_masked, "lies in [0, 1]", lambda gamma_t, gamma_s: gamma_t / gamma_s),
    (ex.check_stay_masked, "hit between s and t", lambda gamma_t, gamma_s: gamma_t - gamma_s),
    (ex.check_stay_masked, "were masked already", lambda gamma_t, gamma_s: gamma_s / gamma_t / 2),
    (ex.check_own_schedule, "gamma(T) is 0.99", lambda t, T: 0.999 * t / T),
    (ex.check_own_schedule, "gamma(0)", lambda t, T: 0.001 + 0.999 * t / T),
    (ex.check_own_schedule, "T = 40", lambda t, T: (t / 1000).clamp(max=1)),
    (ex.check_own_schedule, "falls after", lambda t, T: (2.5 * math.pi * t / T).sin() ** 2),
    (ex.check_own_schedule, "gamma(0) is 1", lambda t, T: 1 - t / T),
]
