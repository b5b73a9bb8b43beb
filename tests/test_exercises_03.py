"""The exercises of notebook 03: worked solutions pass, likely mistakes are named, an untouched stub is no failure."""

import math

import pytest

from diffkit import exercises


def weight(gamma_t, gamma_s, T):
    return T * (gamma_t - gamma_s) / gamma_t


def estimate(nats, is_masked):
    return is_masked.shape[1] / is_masked.sum(1) * (nats * is_masked).sum(1)


def report(nats, tokens):
    rate = nats.sum() / tokens.sum()
    return rate.exp().item(), rate.item() / math.log(2)


def bits_of(nats, tokens):
    return report(nats, tokens)[1]


SOLUTIONS = [
    (exercises.check_discrete_weight, weight),
    (exercises.check_count_estimate, estimate),
    (exercises.check_report, report),
]
MISTAKES = [
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
    (exercises.check_count_estimate, lambda nats, is_masked: estimate(nats, is_masked).mean(), r"shape \(5,\)"),
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


@pytest.mark.parametrize(("check", "solution"), SOLUTIONS)
def test_the_worked_solution_passes(check, solution):
    assert check(solution).passed, check(solution)


@pytest.mark.parametrize(("check", "answer", "message"), MISTAKES)
def test_a_mistake_is_rejected_and_named(check, answer, message):
    verdict = check(answer)
    assert not verdict.passed
    with pytest.raises(ValueError, match=message):
        raise ValueError(repr(verdict))


@pytest.mark.parametrize("check", [check for check, _ in SOLUTIONS])
def test_an_untouched_or_raising_stub_is_met_kindly(check):
    assert "Not attempted yet" in repr(check(lambda *_: ...))
    assert "raised ZeroDivisionError" in repr(check(lambda *_: 1 / 0))
