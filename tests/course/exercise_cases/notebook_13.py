"""Exercises of notebook 13: worked solutions, and likely mistakes with what is said of them."""

import torch
from torch.nn import functional as F

from diffkit.course.exercises.methods import sedd as ex


def score(p, zt):
    return p / p.gather(-1, zt[..., None])


def score_by_one_hot(p, zt):
    return p / (p * F.one_hot(zt, p.shape[-1])).sum(-1, keepdim=True)


def entropy(s, r, zt, rate):
    each = torch.where(r > 0, s - r * s.log() + r * (r.log() - 1), s)
    return rate * each.sum(-1)


def entropy_of_others(s, r, zt, rate):
    """The token itself left out, and one loop over y."""
    total = torch.zeros(zt.shape, dtype=torch.float64)
    for y in range(s.shape[-1]):
        a, b = s[..., y], r[..., y]
        each = a - torch.special.xlogy(b, a) + torch.special.xlogy(b, b) - b
        total += torch.where(zt != y, each, 0.0)
    return rate * total


def euler(s, zt, rate, h):
    own = F.one_hot(zt, s.shape[-1]).bool()
    leave = torch.where(own, 0.0, h * rate[..., None] * s)
    stay = (1 - leave.sum(-1, keepdim=True)).clamp(min=0)
    weights = torch.where(own, stay, leave)
    return weights / weights.sum(-1, keepdim=True)


def euler_parts(s, zt, rate, h):
    own = F.one_hot(zt, s.shape[-1]).double()
    return h * rate[..., None] * s * (1 - own), own


def staggered(s, zt, Q_st):
    weights = torch.linalg.solve(Q_st.T, s[..., None])[..., 0] * Q_st.T[zt]
    return weights / weights.sum(-1, keepdim=True)


def staggered_by_inverse(s, zt, Q_st):
    weights = (s @ torch.linalg.inv(Q_st)) * Q_st[:, zt].movedim(0, -1)
    return weights / weights.sum(-1, keepdim=True)


def normal(weights):
    return lambda s, z, Q: weights(s, z, Q) / weights(s, z, Q).sum(-1, keepdim=True)


SOLUTIONS = {
    ex.check_score: [score, score_by_one_hot, ex.concrete_score],
    ex.check_score_entropy: [entropy, entropy_of_others, ex.score_entropy],
    ex.check_euler: [euler, ex.euler_step],
    ex.check_staggered: [staggered, staggered_by_inverse],
}


def total(each):
    """Rate times the sum over y of each(s, r, r log s)."""
    return lambda s, r, zt, rate: rate * each(s, r, torch.special.xlogy(r, s)).sum(-1)


def jumps_to_itself(s, zt, rate, h):
    _, own = euler_parts(s, zt, rate, h)
    leave = h * rate[..., None] * s
    return leave + own * (1 - leave.sum(-1, keepdim=True)).clamp(min=0)


def below_zero(s, zt, rate, h):
    leave, own = euler_parts(s, zt, rate, h)
    return leave + own * (1 - leave.sum(-1, keepdim=True))


def above_one(s, zt, rate, h):
    leave, own = euler_parts(s, zt, rate, h)
    return leave + own * (1 - leave.sum(-1, keepdim=True)).clamp(min=0)


def nobody_stays(s, zt, rate, h):
    leave, _ = euler_parts(s, zt, rate, h)
    return leave / leave.sum(-1, keepdim=True)


def forward_rate(s, zt, rate, h):
    return above_one(torch.ones_like(s), zt, rate, h)


WRONG = [
    (ex.check_score, "divide by that of the token", lambda p, zt: p),
    (ex.check_score, "upside down", lambda p, zt: 1 / score(p, zt)),
    (ex.check_score, "logarithms", lambda p, zt: score(p, zt).log()),
    (ex.check_score, "score of the token itself", lambda p, zt: score(p, zt).scatter(-1, zt[..., None], 0.0)),
    (ex.check_score, "largest probability", lambda p, zt: p / p.amax(-1, keepdim=True)),
    (ex.check_score_entropy, "no bound", total(lambda s, r, r_log_s: s - r_log_s)),
    (ex.check_score_entropy, "not r log r", total(lambda s, r, r_log_s: s - r_log_s + torch.special.xlogy(r, r))),
    (ex.check_score_entropy, "squared error", total(lambda s, r, r_log_s: (s - r) ** 2)),
    (ex.check_score_entropy, "cross-entropy", total(lambda s, r, r_log_s: -r_log_s)),
    (ex.check_score_entropy, "NaN", total(lambda s, r, r_log_s: s - r * s.log() + r * (r.log() - 1))),
    (ex.check_score_entropy, "where r = 0", lambda s, r, zt, rate: 2 * entropy(s, r, zt, rate)),
    (ex.check_euler, "nobody stays", nobody_stays),
    (ex.check_euler, "to itself", jumps_to_itself),
    (ex.check_euler, "below zero", below_zero),
    (ex.check_euler, "does not sum to one", above_one),
    (ex.check_euler, "forward rate", forward_rate),
    (ex.check_euler, "h is missing", lambda s, zt, rate, h: above_one(s, zt, rate, 1.0)),
    (ex.check_euler, "never less than 0", lambda s, zt, rate, h: euler(s, zt, rate, 0.5 * h)),
    (ex.check_staggered, "take them back", normal(lambda s, z, Q: s * Q.T[z])),
    (ex.check_staggered, "weigh each token", normal(lambda s, z, Q: s @ torch.linalg.inv(Q))),
    (ex.check_staggered, "its column", normal(lambda s, z, Q: (s @ torch.linalg.inv(Q)) * Q[z])),
    (ex.check_staggered, "other side", normal(lambda s, z, Q: (s @ torch.linalg.inv(Q).T) * Q.T[z])),
    (ex.check_staggered, "back in time", normal(lambda s, z, Q: (s @ Q) * Q.T[z])),
    (ex.check_staggered, "not to invert", normal(lambda s, z, Q: s / Q.diagonal() * Q.T[z])),
    (ex.check_staggered, "Q_st^-1", lambda s, z, Q: torch.ones_like(s) / s.shape[-1]),
]
