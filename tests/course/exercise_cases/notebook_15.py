"""Exercises of notebook 15: worked solutions, and likely mistakes with what is said of them."""

import torch

from diffkit.course.exercises.methods import plaid as exercises


def alpha_sigma(g):
    return torch.sigmoid(-g).sqrt(), torch.sigmoid(g).sqrt()


def step_weight(g_s, g_t):
    return ((-g_s).exp() - (-g_t).exp()) / 2


def own_evidence(z, vectors, alpha, sigma):
    return alpha / sigma**2 * (vectors @ z)


SOLUTIONS = {
    exercises.check_alpha_sigma: [alpha_sigma],
    exercises.check_step_weight: [step_weight],
    exercises.check_own_evidence: [
        own_evidence, lambda z, vectors, a, b: -(z - a * vectors).square().sum(-1) / (2 * b * b),
    ],
}  # fmt: skip


WRONG = [
    (exercises.check_alpha_sigma, lambda g: (torch.sigmoid(-g), torch.sigmoid(g)), "take roots"),
    (exercises.check_alpha_sigma, lambda g: alpha_sigma(-g), "are swapped"),
    (exercises.check_alpha_sigma, lambda g: alpha_sigma(2 * g), "its square"),
    (exercises.check_alpha_sigma, lambda g: alpha_sigma(g)[0], "two tensors"),
    (exercises.check_alpha_sigma, lambda g: (alpha_sigma(g)[0], 1 - alpha_sigma(g)[0]), "sigma should be"),
    (exercises.check_step_weight, lambda s, t: 2 * step_weight(s, t), "half is missing"),
    (exercises.check_step_weight, lambda s, t: step_weight(t, s), "sign is wrong"),
    (exercises.check_step_weight, lambda s, t: (t - s) / 2, "log SNR"),
    (exercises.check_step_weight, lambda s, t: step_weight(-t, -s), "not exp(g)"),
    (exercises.check_step_weight, lambda s, t: (-s).exp() / 2, "should be"),
    (exercises.check_own_evidence, lambda z, e, a, b: a / b * (e @ z), "sigma squared"),
    (exercises.check_own_evidence, lambda z, e, a, b: (e @ z) / b**2, "alpha is missing"),
    (exercises.check_own_evidence, lambda z, e, a, b: -own_evidence(z, e, a, b), "the sign"),
    (exercises.check_own_evidence, lambda z, e, a, b: -(z - a * e).square().sum(-1) / b**2, "cancels"),
    (exercises.check_own_evidence, lambda z, e, a, b: e @ z, "products alone"),
    (exercises.check_own_evidence, lambda z, e, a, b: torch.ones(len(e)), "should be"),
]
