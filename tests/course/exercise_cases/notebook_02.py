"""Exercises of notebook 02: worked solutions, and likely mistakes with what is said of them."""

import math

import numpy as np
import torch

from diffkit.course.exercises.foundations import noise_schedules as ex


def cosine(t, T):
    return 1 - torch.cos(math.pi / 2 * t / T)


def corrupt(x0, gamma, mask_id, rng):
    return torch.where(torch.rand(x0.shape, generator=rng) < gamma[:, None], mask_id, x0)


def corrupt_by_loop(x0, gamma, mask_id, rng):
    """As numbers from numpy, drawn in another order and compared on the other side."""
    draw = np.random.default_rng(rng.initial_seed()).random
    rates = gamma.tolist()
    return [[mask_id if draw() > 1 - rate else i for i in row] for row, rate in zip(x0.tolist(), rates, strict=True)]


def corrupt_by_count(x0, gamma, mask_id, rng):
    """Wrong: the number of masks is fixed."""
    order = torch.rand(x0.shape, generator=rng).argsort(1).argsort(1)
    return torch.where(order < (gamma * x0.shape[1]).round()[:, None], mask_id, x0)


def masked(which):
    """An answer to check_corrupt from who is masked, which(x0, gamma, rng)."""
    return lambda x0, gamma, mask_id, rng: torch.where(which(x0, gamma[:, None], rng), mask_id, x0)


def slope(t, T):
    return math.pi / (2 * T) * torch.sin(math.pi / 2 * t / T)


def slope_by_autograd(t, T):
    t = t.clone().requires_grad_()
    return torch.autograd.grad(cosine(t, T).sum(), t)[0]


def slope_by_differences(t, T):
    h = 1e-4 * T
    return (cosine(t + h, T) - cosine(t - h, T)) / (2 * h)


def reverse(x0, xt, gamma_s, gamma_t, mask_id, V):
    probs = torch.zeros(*x0.shape, V)
    stay = (xt == mask_id) * gamma_s / gamma_t
    probs.scatter_(2, x0[..., None], 1 - stay[..., None])
    probs[..., mask_id] = stay
    return probs


def reverse_by_bayes(x0, xt, gamma_s, gamma_t, mask_id, V):
    """q(x_s | x_0) q(x_t | x_s) for every value of x_s, scaled to 1."""
    B, L = x0.shape
    hit = (gamma_t - gamma_s) / (1 - gamma_s)  # of what is visible at s
    table = [[[0.0] * V for _ in range(L)] for _ in range(B)]
    for b in range(B):
        for i in range(L):
            for v in (mask_id, int(x0[b, i])):
                before = gamma_s if v == mask_id else 1 - gamma_s
                after = 1.0 if v == xt[b, i] == mask_id else hit if xt[b, i] == mask_id else float(v == xt[b, i])
                after = 1 - hit if v == xt[b, i] != mask_id else after
                table[b][i][v] = before * after
            total = sum(table[b][i])
            table[b][i] = [value / total for value in table[b][i]]
    return table


def mixed(stay):
    """An answer to check_reverse from the chance that a token is MASK at s, stay(is_masked, gamma_s, gamma_t)."""

    def answer(x0, xt, gamma_s, gamma_t, mask_id, V):
        share = stay((xt == mask_id).double(), gamma_s, gamma_t)[..., None]
        one_hot = torch.nn.functional.one_hot
        return share * one_hot(torch.tensor(mask_id), V) + (1 - share) * one_hot(x0, V)

    return answer


def own(t, T):
    tau = t / T
    return tau * tau * (3 - 2 * tau)


ENDS = torch.tensor([-5.0, 5.0]).sigmoid()
SOLUTIONS = {
    ex.check_corrupt: [
        corrupt,
        corrupt_by_loop,
        masked(lambda x0, gamma, rng: torch.rand(*x0.shape, generator=rng).ge(1 - gamma)),
    ],  # fmt: skip
    ex.check_slope: [slope, slope_by_autograd, slope_by_differences],
    ex.check_reverse: [reverse, reverse_by_bayes],
    ex.check_own_schedule: [  # at the ends these are 0 and 1 but for rounding, the last but for that of float32
        own,
        cosine,
        lambda t, T: (t / T) ** 2,
        lambda t, T: (torch.sigmoid(10 * (t / T - 0.5)) - ENDS[0]) / (ENDS[1] - ENDS[0]),
    ],  # fmt: skip
}
WRONG = [
    (ex.check_corrupt, "stays visible", masked(lambda x0, g, rng: torch.rand(x0.shape, generator=rng) > g)),
    (ex.check_corrupt, "should hide that share",
     masked(lambda x0, g, rng: torch.rand(x0.shape, generator=rng) < g.mean())),
    (ex.check_corrupt, "hides nothing", masked(lambda x0, g, rng: torch.ones_like(x0) > 0)),
    (ex.check_corrupt, "same number", corrupt_by_count),
    (ex.check_corrupt, "vanish together",
     masked(lambda x0, g, rng: (torch.rand(len(x0), 1, generator=rng) < g).expand(x0.shape))),
    (ex.check_corrupt, "should hide that share",
     masked(lambda x0, g, rng: (torch.rand(x0.shape[1], generator=rng) < g).expand(x0.shape))),
    (ex.check_corrupt, "second time", masked(lambda x0, g, rng: torch.rand(x0.shape) < g)),
    (ex.check_corrupt, "another seed",
     masked(lambda x0, g, rng: torch.rand(x0.shape, generator=rng.manual_seed(0)) < g)),
    (ex.check_corrupt, "becomes MASK",
     lambda x0, g, m, rng: torch.where(torch.rand(x0.shape, generator=rng) < g[:, None], 0, x0)),
    (ex.check_slope, "per unit of tau", lambda t, T: T * slope(t, T)),
    (ex.check_slope, "inner derivative is missing", lambda t, T: torch.sin(math.pi / 2 * t / T)),
    (ex.check_slope, "not 1 / T", lambda t, T: torch.sin(math.pi / 2 * t / T) / T),
    (ex.check_slope, "the sign", lambda t, T: -slope(t, T)),
    (ex.check_slope, "not cos", lambda t, T: math.pi / (2 * T) * torch.cos(math.pi / 2 * t / T)),
    (ex.check_slope, "gamma itself", cosine),
    (ex.check_reverse, "swapped", mixed(lambda m, s, t: m * (1 - s / t))),
    (ex.check_reverse, "divide by that chance", mixed(lambda m, s, t: m * s)),
    (ex.check_reverse, "what x_t shows must count", mixed(lambda m, s, t: torch.full_like(m, s))),
    (ex.check_reverse, "cannot have been masked", mixed(lambda m, s, t: torch.full_like(m, s / t))),
    (ex.check_reverse, "come back at once", mixed(lambda m, s, t: 0 * m)),
    (ex.check_reverse, "nothing ever comes back", mixed(lambda m, s, t: m)),
    (ex.check_own_schedule, "gamma(T) is 0.999", lambda t, T: 0.999 * t / T),
    (ex.check_own_schedule, "gamma(T) is 0.999999", lambda t, T: 0.999999 * t / T),
    (ex.check_own_schedule, "gamma(0)", lambda t, T: 0.001 + 0.999 * t / T),
    (ex.check_own_schedule, "T = 40", lambda t, T: (t / 1000).clamp(max=1)),
    (ex.check_own_schedule, "falls after", lambda t, T: (2.5 * math.pi * t / T).sin() ** 2),
    (ex.check_own_schedule, "gamma(0) is 1", lambda t, T: 1 - t / T),
]  # fmt: skip
