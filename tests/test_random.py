"""Categorical draws: the inverse CDF with chosen uniform numbers, and chi-square where the numbers are random."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from toys import generator

from diffkit.random import categorical, highest

BIGGEST = 1 - 2**-53  # the largest number that torch.rand returns in float64


@pytest.fixture
def chosen(monkeypatch):
    """Draw with uniform numbers of our choice: chosen(probs, u)."""

    def draw(probs, u):
        with monkeypatch.context() as patch:
            patch.setattr(torch, "rand", lambda shape, **how: torch.full(shape, u, dtype=torch.float64))
            return categorical(probs, generator())

    return draw


@pytest.mark.parametrize(("u", "index"), [(0.0, 0), (0.2499, 0), (0.25, 1), (0.7499, 1), (0.75, 2), (BIGGEST, 2)])
def test_inverse_cdf(chosen, u, index):
    """Outcome i is drawn exactly for u in [cdf(i - 1), cdf(i))."""
    assert chosen(torch.tensor([[0.25, 0.5, 0.25]]), u).tolist() == [index]
    assert chosen(torch.tensor([[1.0, 2.0, 1.0]]), u).tolist() == [index], "rows need not be normalised"


def test_a_rare_outcome_has_its_share_of_the_uniform_numbers(chosen):
    """Probability 1e-7, where float32 noise draws a quarter too few: the outcome owns exactly u >= 1 - 1e-7."""
    probs = torch.tensor([1 - 1e-7, 1e-7], dtype=torch.float64)
    assert chosen(probs, 1 - 1.0001e-7) == 0
    assert chosen(probs, 1 - 0.9999e-7) == 1


def test_rare_outcomes_come_as_often_as_they_should():
    """Two outcomes of 1e-4 in 400,000 draws, expected 40 each; chi-square, fails by chance once in a million seeds."""
    probs = torch.tensor([1e-4, 0.7, 1e-4, 0.2998], dtype=torch.float64)
    counts = torch.bincount(categorical(probs.expand(400_000, -1), generator(1)), minlength=4)
    assert stats.chisquare(counts, 400_000 * probs).pvalue > 1e-6


@given(
    weights=st.lists(st.one_of(st.just(0.0), st.floats(1e-30, 1e30)), min_size=1, max_size=9).filter(any),
    u=st.sampled_from([0.0, 2**-53, 0.5, BIGGEST]),
)
def test_what_has_no_probability_is_never_drawn(weights, u):
    """Whatever rounding does at the ends of the table."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "rand", lambda shape, **how: torch.full(shape, u, dtype=torch.float64))
        assert weights[categorical(torch.tensor(weights, dtype=torch.float64), generator())] > 0


def test_shape_and_seed():
    probs = torch.rand(3, 5, 7, generator=generator(2))
    first = categorical(probs, generator(3))
    assert first.shape == (3, 5) and first.dtype == torch.int64
    assert torch.equal(first, categorical(probs, generator(3)))
    assert not torch.equal(first, categorical(probs, generator(4)))


@pytest.mark.parametrize("row", [[0.0, 0.0], [-0.1, 1.1], [torch.nan, 1.0], [torch.inf, 1.0]])
def test_a_row_that_is_no_distribution_raises(row):
    with pytest.raises(ValueError, match="categorical: every row needs"):
        categorical(torch.tensor([[0.5, 0.5], row]), generator())


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=8), st.integers(0, 9))
def test_the_highest_are_those_that_a_sort_puts_first(places, count):
    """Few different scores, so that ties are common: the lower place wins."""
    score, among = torch.tensor([[float(value) for value, _ in places]]), torch.tensor([[is_in for _, is_in in places]])
    ranked = sorted((i for i, (_, is_in) in enumerate(places) if is_in), key=lambda i: (-places[i][0], i))
    assert highest(score, among, torch.tensor([count]))[0].nonzero().flatten().tolist() == sorted(ranked[:count])
