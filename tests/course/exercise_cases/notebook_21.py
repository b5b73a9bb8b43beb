"""Exercises of notebook 21: worked solutions, and likely mistakes with what is said of them."""

import itertools
import math

import torch

from diffkit.course.exercises.recent import few_steps as ex
from diffkit.course.experiments.few_steps import total_correlation as tc


def total_correlation(joint):
    alone = [joint.sum([a for a in range(joint.ndim) if a != axis]) for axis in range(joint.ndim)]
    return sum(torch.special.entr(p).sum() for p in alone) - torch.special.entr(joint).sum()


def total_correlation_by_kl(joint):
    """KL of the table from the product of its marginals, word by word."""
    total = 0.0
    for cell in itertools.product(*map(range, joint.shape)):
        p = float(joint[cell])
        q = math.prod(float(joint.select(axis, v).sum()) for axis, v in enumerate(cell))
        total += p * math.log(p / q) if p else 0.0
    return total


def price(entropy, plan):
    seen, nats = [], 0.0
    for now in plan:
        nats += sum(entropy([*seen, i]) - entropy(seen) for i in now)
        seen = seen + now
    return nats - entropy(seen)


def targets(states, predictions, mask_id):
    target = predictions[0]
    for state, prediction in zip(states[:-1], predictions, strict=True):
        target = torch.where((state == mask_id)[:, None], prediction, target)
    return target


def best(texts, probs, hidden, steps):
    if steps == 1 or len(hidden) < 2:
        return tc(texts, probs, hidden)
    prices = []
    for n in range(1, len(hidden) + 1):
        for now in itertools.combinations(hidden, n):
            rest, cost = [i for i in hidden if i not in now], tc(texts, probs, now)
            for seen in texts[:, list(now)].unique(dim=0):
                same = (texts[:, list(now)] == seen).all(1)
                p = probs[same].sum()
                cost += float(p) * best(texts[same], probs[same] / p, rest, steps - 1) if rest else 0.0
            prices.append(cost)
    return min(prices)


def kl(log_q, log_p):
    legal = log_p > -torch.inf
    return (log_q - log_p)[legal].mean() - legal.double().mean().log()


SOLUTIONS = {
    ex.check_total_correlation: [total_correlation, total_correlation_by_kl],
    ex.check_plan_price: [price],
    ex.check_targets: [targets, lambda s, p, m: p[(s[1:-1] == m).sum(0), torch.arange(p.shape[1])]],
    ex.check_best_price: [best],
    ex.check_legal_kl: [kl],
}


def joint_entropy(joint):
    return torch.special.entr(joint).sum()


WRONG = [
    (ex.check_total_correlation, "joint entropy", joint_entropy),
    (ex.check_total_correlation, "subtract the joint", lambda j: total_correlation(j) + joint_entropy(j)),
    (ex.check_total_correlation, "sign", lambda j: -total_correlation(j)),
    (ex.check_total_correlation, "bits", lambda j: total_correlation(j) / math.log(2)),
    (ex.check_total_correlation, "NaN", lambda j: -(j * j.log()).sum()),
    (ex.check_plan_price, "as if nothing", lambda H, plan: sum(sum(H([i]) for i in now) - H(now) for now in plan)),
    (ex.check_plan_price, "too much", lambda H, plan: price(H, plan) + H(range(5))),
    (ex.check_plan_price, "cannot see each other", lambda H, plan: 0.0),
    (ex.check_plan_price, "nats, yours", lambda H, plan: price(H, plan[::-1])),
    (ex.check_targets, "teach nothing", lambda s, p, m: p[0]),
    (ex.check_targets, "last prediction", lambda s, p, m: p[-1]),
    (ex.check_targets, "mean over the steps", lambda s, p, m: p.mean(0)),
    (ex.check_targets, "is revealed by step", lambda s, p, m: targets(s, p.flip(0), m)),
    (ex.check_best_price, "one step", lambda texts, probs, hidden, steps: tc(texts, probs, hidden)),
    (ex.check_best_price, "*fixed*", ex.fixed_price),
    (ex.check_best_price, "nats, yours", lambda texts, probs, hidden, steps: best(texts, probs, hidden, steps + 1)),
    (ex.check_legal_kl, "divide by their share", lambda q, p: (q - p)[p > -torch.inf].mean()),
    (ex.check_legal_kl, "sign is wrong", lambda q, p: (p - q)[p > -torch.inf].mean()),
    (ex.check_legal_kl, "subtract the entropy", lambda q, p: -p[p > -torch.inf].mean()),
    (ex.check_legal_kl, "infinite", lambda q, p: (q - p).mean()),
    (ex.check_legal_kl, "other sign", lambda q, p: 2 * (q - p)[p > -torch.inf].mean() - kl(q, p)),
]
