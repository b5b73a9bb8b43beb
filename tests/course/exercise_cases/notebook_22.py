"""Exercises of notebook 22: worked solutions, and likely mistakes with what is said of them."""

import math

import torch

from diffkit.course.exercises.recent import reward as ex


def best_value(log_ref, rewards, beta):
    return beta * (log_ref + rewards / beta).logsumexp(0)


def best_value_of_the_optimum(log_ref, rewards, beta):
    log_q = (log_ref + rewards / beta).log_softmax(0)
    return log_q.exp() @ (rewards - beta * (log_q - log_ref))


def own(log_prob, x0, hidden, mask_id):
    return log_prob(torch.where(hidden, mask_id, x0))[torch.arange(len(x0)), x0][hidden].sum()


def coupled(log_prob, x0, is_masked, rate, mask_id):
    nats = own(log_prob, x0, torch.ones_like(is_masked), mask_id)
    for hidden, share in ((is_masked, rate), (~is_masked, 1 - rate)):
        nats = nats + own(log_prob, x0, hidden, mask_id) / share
    return nats / 2


def group(v, beta, G):
    boost, total = math.exp(1 / beta), 0.0
    for k in range(G + 1):
        chance = math.comb(G, k) * v**k * (1 - v) ** (G - k)
        total += chance * k * boost / (k * boost + G - k)
    return total


def gradient(theta, log_ref, rewards, beta):
    log_q = theta.log_softmax(0)
    worth = rewards - beta * (log_q - log_ref)
    return log_q.exp() * (worth - log_q.exp() @ worth)


def gradient_by_differences(theta, log_ref, rewards, beta):
    def J(theta):
        log_q = theta.log_softmax(0)
        return log_q.exp() @ (rewards - beta * (log_q - log_ref))

    bumps = 1e-5 * torch.eye(len(theta), dtype=theta.dtype)
    return torch.stack([(J(theta + bump) - J(theta - bump)) / 2e-5 for bump in bumps])


SOLUTIONS = {
    ex.check_best_value: [best_value, best_value_of_the_optimum],
    ex.check_coupled: [coupled],
    ex.check_group: [group],
    ex.check_gradient: [gradient, gradient_by_differences],
}


def worth_of(theta, log_ref, rewards, beta):
    return theta.softmax(0), rewards - beta * (theta.log_softmax(0) - log_ref)


def alone(v, beta, G):
    boost = math.exp(1 / beta)
    chance = [math.comb(G, k) * v**k * (1 - v) ** (G - k) for k in range(G + 1)]
    return sum(p * min(k, 1) * boost / (k * boost + G - k) for k, p in enumerate(chance))


def two_masks(log_prob, x0, is_masked, rate, mask_id):
    return sum(own(log_prob, x0, hidden, mask_id) for hidden in (torch.ones_like(is_masked), is_masked, ~is_masked)) / 2


WRONG = [
    (ex.check_best_value, "multiply by beta", lambda p, r, b: (p + r / b).logsumexp(0)),
    (ex.check_best_value, "E r at the optimum", lambda p, r, b: (p + r / b).softmax(0) @ r),
    (ex.check_best_value, "largest reward", lambda p, r, b: r.max()),
    (ex.check_best_value, "p_ref itself", lambda p, r, b: p.exp() @ r),
    (ex.check_best_value, "not multiplied", lambda p, r, b: b * (p + b * r).logsumexp(0)),
    (ex.check_best_value, "logsumexp", lambda p, r, b: b * (p.exp() @ (r / b).exp()).log()),
    (ex.check_coupled, "its own rate", lambda f, x, m, t, i: (
        own(f, x, torch.ones_like(m), i) + (own(f, x, m, i) + own(f, x, ~m, i)) / t) / 2),
    (ex.check_coupled, "without its rates", two_masks),
    (ex.check_coupled, "divide by 2", lambda *given: 2 * coupled(*given)),
    (ex.check_coupled, "empty canvas", lambda f, x, m, t, i: (own(f, x, m, i) / t + own(f, x, ~m, i) / (1 - t)) / 2),
    (ex.check_group, "limit of a large group", lambda v, b, G: v * math.exp(1 / b) / (1 + v * (math.exp(1 / b) - 1))),
    (ex.check_group, "without any reward", lambda v, b, G: v),
    (ex.check_group, "one of them alone", alone),
    (ex.check_group, "groups of", lambda v, b, G: group(v, b, G + 1)),
    (ex.check_gradient, "subtract the mean", lambda *given: worth_of(*given)[0] * worth_of(*given)[1]),
    (ex.check_gradient, "penalty is missing", lambda t, p, r, b: gradient(t, p, r, 0.0)),
    (ex.check_gradient, "other sign", lambda t, p, r, b: gradient(t, p, r, -b)),
    (ex.check_gradient, "gradient of -J", lambda *given: -gradient(*given)),
]  # fmt: skip
