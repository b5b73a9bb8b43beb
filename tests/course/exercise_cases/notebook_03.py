"""Exercises of notebook 03: worked solutions, and likely mistakes with what is said of them."""

import math

from diffkit.course.exercises.foundations import objective as exercises


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
    exercises.check_discrete_weight: [weight],
    exercises.check_count_estimate: [estimate],
    exercises.check_report: [report],
}
WRONG = [
    (exercises.check_discrete_weight, lambda t, s, T: (t - s) / t, "one term of the sum"),
    (exercises.check_discrete_weight, lambda t, s, T: T * s / t, "stay masked"),
    (exercises.check_discrete_weight, lambda t, s, T: T * (t - s), "divide by what is known"),
    (exercises.check_discrete_weight, lambda t, s, T: 1 / t, "linear schedule only"),
    (exercises.check_discrete_weight, lambda t, s, T: T * (t - s) / s, "below the line"),
    (exercises.check_discrete_weight, lambda t, s, T: T * (t - s) / (t + 1e-2), "the weight should be"),
    (exercises.check_count_estimate, lambda nats, is_masked: nats.sum(1), "plain sum"),
    (exercises.check_count_estimate, lambda nats, is_masked: nats.sum(1) / is_masked.sum(1), "per masked token"),
    (exercises.check_count_estimate, lambda nats, is_masked: nats.mean(1), "you divide by L"),
    (exercises.check_count_estimate, lambda nats, is_masked: is_masked.double().mean(1) * nats.sum(1), "upside down"),
    (
        exercises.check_count_estimate,
        lambda nats, is_masked: 8 * nats.sum(1) / is_masked.sum(1).double().mean(),
        "own k",
    ),
    (exercises.check_count_estimate, lambda nats, is_masked: estimate(nats, is_masked).mean(), "shape (5,)"),
    (exercises.check_count_estimate, lambda nats, is_masked: 2 * estimate(nats, is_masked), "in all estimates"),
    (
        exercises.check_report,
        lambda nats, tokens: ((nats / tokens).exp().mean(), bits_of(nats, tokens)),
        "average perplex",
    ),
    (exercises.check_report, lambda nats, tokens: ((nats / tokens).mean().exp(), bits_of(nats, tokens)), "short text"),
    (exercises.check_report, lambda nats, tokens: (nats.mean().exp(), bits_of(nats, tokens)), "whole text"),
    (
        exercises.check_report,
        lambda nats, tokens: (report(nats, tokens)[0], nats.sum() / tokens.sum()),
        "still in nats",
    ),
    (
        exercises.check_report,
        lambda nats, tokens: (report(nats, tokens)[0], bits_of(nats, tokens) / 3),
        "bits per token",
    ),
    (exercises.check_report, lambda nats, tokens: report(nats, tokens)[0], "return two numbers"),
]
