"""Exercises of notebook 10: worked solutions, and likely mistakes with what is said of them."""

import math

import torch

from diffkit.course.exercises.methods import speed as ex


def calls(steps, L):
    return steps * (1 - (1 - 1 / steps) ** L)


def hit(gamma, is_masked, u, v):
    n = is_masked.sum(1)
    chosen = v.masked_fill(~is_masked, -1).argmax(1)
    reveal = is_masked & (torch.arange(is_masked.shape[1]) == chosen[:, None])
    return gamma * u ** (1 / n), reveal


def hit_by_the_lowest_lot(gamma, is_masked, u, v):
    n = is_masked.sum(1).clamp(min=1)
    lots = torch.where(is_masked, v, 2.0)
    return gamma * torch.exp(torch.log(1 - u) / n), (lots == lots.amin(1, keepdim=True)) & is_masked


def within(entropies, is_masked, bound):
    ranked, order = entropies.masked_fill(~is_masked, torch.inf).sort(1)
    before = torch.cat([torch.zeros(len(ranked), 1), ranked.cumsum(1)[:, :-1]], 1)
    return (before <= bound).gather(1, order.argsort(1)) & is_masked


def within_row_by_row(entropies, is_masked, bound):
    """Lists, a running total."""
    rows = []
    for nats, hidden in zip(entropies.tolist(), is_masked.tolist(), strict=True):
        total, row = 0.0, [False] * len(nats)
        for i in sorted((i for i in range(len(nats)) if hidden[i]), key=lambda i: nats[i]):
            if total > bound:
                break
            total, row[i] = total + nats[i], True
        rows.append(row)
    return rows


def remask(is_masked, is_own, gamma_t, gamma_s, eta, u):
    r = min(eta, gamma_s / max(1 - gamma_t, 1e-9))
    stay = (gamma_s - r * (1 - gamma_t)) / gamma_t
    return is_masked & (u >= stay), is_own & (u < r)


def remask_by_the_other_coin(is_masked, is_own, gamma_t, gamma_s, eta, u):
    r = min(eta, 1.0 if gamma_t == 1 else gamma_s / (1 - gamma_t))
    leave = (gamma_t - gamma_s + r * (1 - gamma_t)) / gamma_t
    return (u < leave) & is_masked, (1 - u < r) & is_own


SOLUTIONS = {
    ex.check_calls: [calls],
    ex.check_hit: [hit, hit_by_the_lowest_lot, ex.next_hit],
    ex.check_within: [within, within_row_by_row, ex.within_bound],
    ex.check_remask: [remask, remask_by_the_other_coin, ex.remask_move],
}


def at_rate(rate):
    """The right token at another rate."""
    return lambda gamma, is_masked, u, v: (rate(gamma, is_masked.sum(1), u), hit(gamma, is_masked, u, v)[1])


def choosing(reveal):
    """The right rate, another token."""
    return lambda gamma, is_masked, u, v: (hit(gamma, is_masked, u, v)[0], reveal(is_masked, u, v))


def surest(entropies, is_masked):
    lowest = entropies.masked_fill(~is_masked, torch.inf)
    return (lowest == lowest.amin(1, keepdim=True)) & is_masked


def whole_sum(entropies, is_masked, bound):
    ranked, order = entropies.masked_fill(~is_masked, torch.inf).sort(1)
    return (ranked.cumsum(1) <= bound).gather(1, order.argsort(1)) & is_masked


def over_the_batch(entropies, is_masked, bound):
    flat = entropies.masked_fill(~is_masked, torch.inf).flatten().sort()
    fits = torch.zeros(is_masked.numel(), dtype=torch.bool).scatter(0, flat.indices, flat.values.cumsum(0) <= bound)
    first = ex.highest(-entropies, is_masked, is_masked.sum(1).clamp(max=1))
    return fits.view_as(is_masked) & is_masked | first


def with_rate(r_of, stay_of):
    """A move with another cap, or another chance to stay masked."""

    def move(is_masked, is_own, gamma_t, gamma_s, eta, u):
        r = r_of(gamma_t, gamma_s, eta)
        return is_masked & (u >= stay_of(gamma_t, gamma_s, r)), is_own & (u < r)

    return move


def capped(gt, gs, eta):
    return min(eta, gs / max(1 - gt, 1e-9))


WRONG = [
    (ex.check_calls, "nothing happens", lambda steps, L: steps * (1 - 1 / steps) ** L),
    (ex.check_calls, "one given step", lambda steps, L: 1 - (1 - 1 / steps) ** L),
    (ex.check_calls, "share a step", min),
    (ex.check_calls, "is exact", lambda steps, L: steps * (1 - math.exp(-L / steps))),
    (ex.check_calls, "busy", lambda steps, L: steps / 2),
    (ex.check_hit, "single hidden token", at_rate(lambda g, n, u: g * u)),
    (ex.check_hit, "last of the n", at_rate(lambda g, n, u: g * u**n)),
    (ex.check_hit, "return the rate itself", at_rate(lambda g, n, u: g - g * u ** (1 / n))),
    (ex.check_hit, "start from gamma", at_rate(lambda g, n, u: u ** (1 / n))),
    (ex.check_hit, "average", at_rate(lambda g, n, u: g * n / (n + 1))),
    (ex.check_hit, "largest of n uniforms", at_rate(lambda g, n, u: g * u / n.clamp(min=1))),
    (ex.check_hit, "yours", at_rate(lambda g, n, u: g)),
    (ex.check_hit, "NaN", at_rate(lambda g, n, u: g * u ** (1 / n) * (n / n))),
    (ex.check_hit, "two things", lambda gamma, is_masked, u, v: gamma),
    (ex.check_hit, "visible already", choosing(lambda m, u, v: v == v.amax(1, keepdim=True))),
    (ex.check_hit, "revealed in a move", choosing(lambda m, u, v: m)),
    (ex.check_hit, "whatever u", choosing(lambda m, u, v: m & (m.cumsum(1) == 1))),
    (ex.check_hit, "whatever u", choosing(
        lambda m, u, v: m & (m.cumsum(1) == (u * m.sum(1)).long()[:, None] + 1))),
    (ex.check_within, "costs nothing", lambda h, m, b: whole_sum(h, m, b) | surest(h, m)),
    (ex.check_within, "no reveal at all", whole_sum),
    (ex.check_within, "by itself", lambda h, m, b: (m & (h <= b)) | surest(h, m)),
    (ex.check_within, "sort first", lambda h, m, b: m & (h.cumsum(1) - h <= b + 1e-9)),
    (ex.check_within, "not over the batch", over_the_batch),
    (ex.check_within, "visible already", lambda h, m, b: within(h, torch.ones_like(m), b)),
    (ex.check_within, "go together", lambda h, m, b: m),
    (ex.check_remask, "makes up for", with_rate(capped, lambda gt, gs, r: gs / gt)),
    (ex.check_remask, "at most gamma_s", with_rate(
        lambda gt, gs, eta: eta, lambda gt, gs, r: max(0.0, (gs - r * (1 - gt)) / gt))),
    (ex.check_remask, "to stay masked", with_rate(capped, lambda gt, gs, r: 1 - (gs - r * (1 - gt)) / gt)),
    (ex.check_remask, "the share 1 - gamma_t", with_rate(capped, lambda gt, gs, r: (gs - r * gt) / gt)),
    (ex.check_remask, "divide by gamma_t", with_rate(capped, lambda gt, gs, r: gs - r * (1 - gt))),
    (ex.check_remask, "only masked tokens", lambda m, own, gt, gs, eta, u: (u >= 0.5, own & (u < 0.5))),
    (ex.check_remask, "yours in", with_rate(lambda gt, gs, eta: 0.77, lambda gt, gs, r: 0.5)),
]  # fmt: skip
