"""Exercises of notebook 03: worked solutions, and likely mistakes with what is said of them."""

import math

from diffkit.course.exercises.foundations import objective as ex


def weight(gamma_t, gamma_s, T):
    return T * (gamma_t - gamma_s) / gamma_t


def estimate(nats, is_masked):
    return is_masked.shape[1] / is_masked.sum(1) * (nats * is_masked).sum(1)


def report(nats, tokens):
    rate = nats.sum() / tokens.sum()
    return rate.exp().item(), rate.item() / math.log(2)


def bits_of(nats, tokens):
    return report(nats, tokens)[1]


SOLUTIONS = {
    ex.check_discrete_weight: [weight],
    ex.check_count_estimate: [estimate],
    ex.check_report: [report],
}
WRONG = [
    (ex.check_discrete_weight, "one term of the sum", lambda t, s, T: (t - s) / t),
    (ex.check_discrete_weight, "stay masked", lambda t, s, T: T * s / t),
    (ex.check_discrete_weight, "divide by what is known", lambda t, s, T: T * (t - s)),
    (ex.check_discrete_weight, "linear schedule only", lambda t, s, T: 1 / t),
    (ex.check_discrete_weight, "below the line", lambda t, s, T: T * (t - s) / s),
    (ex.check_count_estimate, "plain sum", lambda nats, is_masked: nats.sum(1)),
    (ex.check_count_estimate, "per masked token", lambda nats, is_masked: nats.sum(1) / is_masked.sum(1)),
    (ex.check_count_estimate, "you divide by L", lambda nats, is_masked: nats.mean(1)),
    (ex.check_count_estimate, "upside down", lambda nats, is_masked: is_masked.double().mean(1) * nats.sum(1)),
    (
        ex.check_count_estimate,
        "own k",
        lambda nats, is_masked: 8 * nats.sum(1) / is_masked.sum(1).double().mean(),
    ),
    (ex.check_count_estimate, "in all estimates", lambda nats, is_masked: 2 * estimate(nats, is_masked)),
    (
        ex.check_report,
        "average perplex",
        lambda nats, tokens: ((nats / tokens).exp().mean(), bits_of(nats, tokens)),
    ),
    (ex.check_report, "short text", lambda nats, tokens: ((nats / tokens).mean().exp(), bits_of(nats, tokens))),
    (ex.check_report, "whole text", lambda nats, tokens: (nats.mean().exp(), bits_of(nats, tokens))),
    (
        ex.check_report,
        "still in nats",
        lambda nats, tokens: (report(nats, tokens)[0], nats.sum() / tokens.sum()),
    ),
    (
        ex.check_report,
        "bits per token",
        lambda nats, tokens: (report(nats, tokens)[0], bits_of(nats, tokens) / 3),
    ),
    (ex.check_report, "return two numbers", lambda nats, tokens: report(nats, tokens)[0]),
]
