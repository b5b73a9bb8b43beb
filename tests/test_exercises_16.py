"""Exercises of notebook 16: the worked solutions pass, and each likely mistake is named."""

import math

import pytest
import torch
from exercise_cases import assert_met_kindly, assert_named, assert_passes

from diffkit import exercises


def apart(a, b):
    return abs(a.mean - b.mean) > 2 * math.hypot(a.standard_error, b.standard_error)


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


CHECKS = {
    exercises.check_apart: apart,
    exercises.check_least_valid: least_valid,
    exercises.check_order_nats: order_nats,
}


@pytest.mark.parametrize(("check", "solution"), CHECKS.items())
def test_the_worked_solution_passes(check, solution):
    assert_passes(check, solution)


WRONG = [
    (exercises.check_apart, lambda a, b: a.mean - b.mean > 2 * math.hypot(a[1], b[1]), "better or worse"),
    (exercises.check_apart, lambda a, b: abs(a.mean - b.mean) > 2 * a[1], "both rows have one"),
    (exercises.check_apart, lambda a, b: abs(a.mean - b.mean) > 2 * (a[1] + b[1]), "add as squares"),
    (exercises.check_apart, lambda a, b: abs(a.mean - b.mean) > math.hypot(a[1], b[1]), "not apart"),
    (exercises.check_apart, lambda a, b: abs(a.mean - b.mean) / math.hypot(a[1], b[1]), "True or False"),
    (exercises.check_least_valid, lambda gap, L: math.exp(-gap), "per token"),
    (exercises.check_least_valid, lambda gap, L: gap * L, "exp of minus"),
    (exercises.check_least_valid, lambda gap, L: 1 - gap * L, "small gaps"),
    (exercises.check_least_valid, lambda gap, L: 1 - math.exp(-gap * L), "one minus"),
    (exercises.check_least_valid, lambda gap, L: 2 ** (-gap * L), "should be"),
    (exercises.check_order_nats, late, "still be hidden"),
    (exercises.check_order_nats, in_reading_order, "left to right"),
    (exercises.check_order_nats, blind, "empty canvas"),
    (exercises.check_order_nats, lambda *given: -order_nats(*given), "sign is wrong"),
    (exercises.check_order_nats, lambda *given: order_nats(*given) / 5, "do not average"),
    (exercises.check_order_nats, lambda *given: 2 * order_nats(*given), "should be"),
    (exercises.check_order_nats, spoils, "copy"),
]


@pytest.mark.parametrize(("check", "answer", "says"), WRONG)
def test_a_plausible_mistake_is_named(check, answer, says):
    assert_named(check, answer, says)


@pytest.mark.parametrize("check", CHECKS)
def test_stubs_and_errors_are_met_kindly(check):
    assert_met_kindly(check)
