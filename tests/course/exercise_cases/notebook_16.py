"""Exercises of notebook 16: worked solutions, and likely mistakes with what is said of them."""

import math

import torch

from diffkit.course.exercises.methods import capstone
from diffkit.course.exercises.methods import leaderboard as ex
from diffkit.course.parallel_cost import shipped_plans


def apart(a, b):
    return abs(a.mean - b.mean) > 2 * math.hypot(a.standard_error, b.standard_error)


def apart_by_tensors(a, b):
    return torch.tensor(a.mean - b.mean).abs() > 2 * torch.tensor([a.standard_error, b.standard_error]).norm()


def least_valid(gap, L):
    return math.exp(-gap * L)


def order_nats(log_prob, x0, order, mask_id):
    xt, nats = torch.full_like(x0, mask_id), 0.0
    for place in order:
        nats -= log_prob(xt)[place, x0[place]]
        xt[place] = x0[place]
    return nats


def late(log_prob, x0, order, mask_id):
    """Reveals before it asks."""
    xt, nats = torch.full_like(x0, mask_id), 0.0
    for place in order:
        xt[place] = x0[place]
        nats -= log_prob(xt)[place, x0[place]]
    return nats


def blind(log_prob, x0, order, mask_id):
    """Never reveals."""
    return -log_prob(torch.full_like(x0, mask_id)).gather(1, x0[:, None]).sum()


def spoils(log_prob, x0, order, mask_id):
    """The right number, and the text is gone."""
    nats = order_nats(log_prob, x0.clone(), order, mask_id)
    x0[:] = mask_id
    return nats


def in_reading_order(log_prob, x0, order, mask_id):
    return order_nats(log_prob, x0, order.sort().values, mask_id)


def sure_and(number, far=True):
    """A plan: what is known already, the most open place, and `number` - 1 more: far from it, or the next open."""

    def plan(probs, is_masked, steps_left):
        doubt = torch.special.entr(probs).sum(-1).masked_fill(~is_masked, -1)
        reveal = is_masked & (doubt < 1e-3)
        hardest = doubt.argmax(1, keepdim=True)
        distance = (torch.arange(probs.shape[1]) - hardest).abs()
        rank = (distance if far else doubt).masked_fill(~is_masked | reveal, -1)
        for places in (hardest, rank.topk(number - 1, dim=1).indices):
            reveal = reveal | torch.zeros_like(reveal).scatter(1, places, True) & is_masked
        return reveal

    return plan


def two_far_apart(probs, is_masked, steps_left):
    return sure_and(2)(probs, is_masked, steps_left)


def strangers(probs, is_masked, steps_left):
    """What is known, and up to three open places that share no word and stand eight apart."""
    doubt = torch.special.entr(probs).sum(-1).masked_fill(~is_masked, -1)
    reveal = is_masked & (doubt < 1e-3)
    free, here = is_masked & ~reveal, torch.arange(probs.shape[1])
    for _ in range(3):
        top = doubt.masked_fill(~free, -1).argmax(1, keepdim=True)
        reveal = reveal | torch.zeros_like(reveal).scatter(1, top, True) & free
        shared = torch.minimum(probs, probs.gather(1, top[..., None].expand(-1, 1, probs.shape[-1]))).sum(-1)
        free = free & (shared < 1e-6) & ((here - top).abs() >= 8)
    return reveal


def as_many_as_are_due(probs, is_masked, steps_left):
    """The surest places, the number that must go anyway."""
    due = (is_masked.sum(1, keepdim=True) / steps_left).ceil()
    rank = probs.amax(-1).masked_fill(~is_masked, -1).argsort(1, descending=True).argsort(1)
    return is_masked & (rank < due)


def wait(probs, is_masked, steps_left):
    return torch.zeros_like(is_masked)


SOLUTIONS = {
    ex.check_apart: [apart, apart_by_tensors, ex.apart],
    ex.check_least_valid: [least_valid, ex.least_valid],
    ex.check_order_nats: [order_nats, ex.order_nats],
    capstone.check_reveal_plan: [two_far_apart, strangers],
}


WRONG = [
    (ex.check_apart, "better or worse", lambda a, b: a.mean - b.mean > 2 * math.hypot(a[1], b[1])),
    (ex.check_apart, "both rows have one", lambda a, b: abs(a.mean - b.mean) > 2 * a[1]),
    (ex.check_apart, "add as squares", lambda a, b: abs(a.mean - b.mean) > 2 * (a[1] + b[1])),
    (ex.check_apart, "not apart", lambda a, b: abs(a.mean - b.mean) > math.hypot(a[1], b[1])),
    (ex.check_apart, "True or False", lambda a, b: abs(a.mean - b.mean) / math.hypot(a[1], b[1])),
    (ex.check_least_valid, "per token", lambda gap, L: math.exp(-gap)),
    (ex.check_least_valid, "exp of minus", lambda gap, L: gap * L),
    (ex.check_least_valid, "small gaps", lambda gap, L: 1 - gap * L),
    (ex.check_least_valid, "one minus", lambda gap, L: 1 - math.exp(-gap * L)),
    (ex.check_order_nats, "still be hidden", late),
    (ex.check_order_nats, "left to right", in_reading_order),
    (ex.check_order_nats, "empty canvas", blind),
    (ex.check_order_nats, "sign is wrong", lambda *given: -order_nats(*given)),
    (ex.check_order_nats, "do not average", lambda *given: order_nats(*given) / 5),
    (ex.check_order_nats, "changes its argument", spoils),
    (capstone.check_reveal_plan, "`one open question`", sure_and(1)),
    (capstone.check_reveal_plan, "drawn independently", sure_and(2, far=False)),
    (capstone.check_reveal_plan, "the best so far", sure_and(9)),
    (capstone.check_reveal_plan, "may show", as_many_as_are_due),
    (capstone.check_reveal_plan, "`margin`", shipped_plans()["margin"]),
    (capstone.check_reveal_plan, "nats a story", lambda probs, is_masked, left: is_masked),
    (capstone.check_reveal_plan, "wasted", wait),
    (capstone.check_reveal_plan, "revealed twice", lambda probs, is_masked, left: probs.amax(-1) > 0.9),
    (
        capstone.check_reveal_plan,
        "other stories",
        lambda probs, is_masked, left: is_masked & (probs > 0.9).any(2).any(0),
    ),
    (capstone.check_reveal_plan, "a bool tensor", lambda probs, is_masked, left: probs.amax(-1) * is_masked),
    (capstone.check_reveal_plan, "yes or no for every", lambda probs, is_masked, left: probs.amax(-1).topk(3).indices),
]
