"""Exercises of notebook 15: worked solutions, and likely mistakes with what is said of them."""

import torch

from diffkit.course.exercises.methods import plaid as ex


def alpha_sigma(g):
    return torch.sigmoid(-g).sqrt(), torch.sigmoid(g).sqrt()


def step_weight(g_s, g_t):
    return ((-g_s).exp() - (-g_t).exp()) / 2


def own_evidence(z, vectors, alpha, sigma):
    return alpha / sigma**2 * (vectors @ z)


SOLUTIONS = {
    ex.check_alpha_sigma: [alpha_sigma, lambda g: torch.stack(alpha_sigma(g))],
    ex.check_step_weight: [step_weight],
    ex.check_own_evidence: [
        own_evidence, lambda z, vectors, a, b: -(z - a * vectors).square().sum(-1) / (2 * b * b),
    ],
}  # fmt: skip


WRONG = [
    (ex.check_alpha_sigma, "take roots", lambda g: (torch.sigmoid(-g), torch.sigmoid(g))),
    (ex.check_alpha_sigma, "are swapped", lambda g: alpha_sigma(-g)),
    (ex.check_alpha_sigma, "its square", lambda g: alpha_sigma(2 * g)),
    (ex.check_alpha_sigma, "two tensors", lambda g: alpha_sigma(g)[0]),
    (ex.check_step_weight, "half is missing", lambda s, t: 2 * step_weight(s, t)),
    (ex.check_step_weight, "sign is wrong", lambda s, t: step_weight(t, s)),
    (ex.check_step_weight, "log SNR", lambda s, t: (t - s) / 2),
    (ex.check_step_weight, "not exp(g)", lambda s, t: step_weight(-t, -s)),
    (ex.check_own_evidence, "sigma squared", lambda z, e, a, b: a / b * (e @ z)),
    (ex.check_own_evidence, "alpha is missing", lambda z, e, a, b: (e @ z) / b**2),
    (ex.check_own_evidence, "the sign", lambda z, e, a, b: -own_evidence(z, e, a, b)),
    (ex.check_own_evidence, "cancels", lambda z, e, a, b: -(z - a * e).square().sum(-1) / b**2),
    (ex.check_own_evidence, "products alone", lambda z, e, a, b: e @ z),
]
