"""Exercises of notebook 09: the worked solutions pass, and each likely mistake is named."""

import pytest
import torch

from diffkit import exercises


def length(ids, eos):
    is_end = ids == eos
    return torch.where(is_end.any(1), is_end.int().argmax(1), ids.shape[1])


def belief(probs, eos):
    return probs[:, eos] / probs[:, eos].sum()


def sees(L, block):
    number = torch.arange(L) // block
    return number[:, None] >= number


CHECKS = {
    exercises.check_length: [length, lambda ids, eos: ((ids == eos).cumsum(1) == 0).sum(1)],
    exercises.check_length_belief: [belief],
    exercises.check_sees: [sees],
}


@pytest.mark.parametrize(("check", "solution"), [(check, each) for check, all_ in CHECKS.items() for each in all_])
def test_the_worked_solution_passes(check, solution):
    verdict = check(solution)
    assert verdict.passed, verdict


def coins(probs, eos):
    p = probs[:, eos]
    chance = torch.cat([torch.ones(1), (1 - p).cumprod(0)[:-1]]) * p
    return chance / chance.sum()


def last_end(ids, eos):
    is_end = ids == eos
    return torch.where(is_end.any(1), ids.shape[1] - 1 - is_end.flip(1).int().argmax(1), ids.shape[1])


WRONG = [
    (exercises.check_length, lambda ids, eos: length(ids, eos) + 1, "does not belong"),
    (exercises.check_length, lambda ids, eos: (ids == eos).int().argmax(1), "argmax"),
    (exercises.check_length, lambda ids, eos: (ids != eos).sum(1), "no EOS"),
    (exercises.check_length, last_end, "last EOS"),
    (exercises.check_length, lambda ids, eos: length(ids, eos).clamp(max=4), "should be"),
    (exercises.check_length, lambda ids, eos: 3, "shape"),
    (exercises.check_length_belief, lambda p, eos: p[:, eos], "does not sum to 1"),
    (exercises.check_length_belief, lambda p, eos: p[:, eos].softmax(0), "softmax"),
    (exercises.check_length_belief, coins, "coin tosses"),
    (exercises.check_length_belief, lambda p, eos: p[:, 0] / p[:, 0].sum(), "should have"),
    (exercises.check_length_belief, lambda p, eos: p, "shape"),
    (exercises.check_sees, lambda L, b: sees(L, b).T, "turned round"),
    (exercises.check_sees, lambda L, b: torch.ones(L, L).tril(), "whole block"),
    (exercises.check_sees, lambda L, b: sees(L, b) & sees(L, b).T, "not only its own"),
    (exercises.check_sees, lambda L, b: ~sees(L, b).T, "own block as well"),
    (exercises.check_sees, lambda L, b: torch.ones(L, L), "later blocks"),
    (exercises.check_sees, lambda L, b: sees(L, b + 1), "does place"),
]  # fmt: skip


@pytest.mark.parametrize(("check", "answer", "says"), WRONG)
def test_a_plausible_mistake_is_named(check, answer, says):
    verdict = check(answer)
    assert not verdict.passed and says in verdict.message, verdict


@pytest.mark.parametrize("check", CHECKS)
def test_stubs_and_errors_are_met_kindly(check):
    def raising(*arguments):
        raise KeyError("oops")

    assert "Not attempted yet" in check(lambda *arguments: ...).message
    assert "KeyError" in check(raising).message
