"""How an exercise is checked: fresh random cases, and a counterexample in the learner's own terms.

A check takes the learner's function and returns a Verdict, which a cell shows by ending on the call. An untouched stub
(it returns `...` or None, or raises NotImplementedError) is "not attempted yet", so a notebook still runs from top to
bottom.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Verdict(NamedTuple):
    """What a check found."""

    passed: bool
    message: str

    def __repr__(self) -> str:
        return self.message


class Wrong(Exception):
    """Raised inside a check with what is wrong, said to the learner."""


class Untouched(Exception):
    """Raised inside a check when the stub has not been filled in."""


def exercise(check: Callable[..., str]) -> Callable[..., Verdict]:
    """Turn a function that raises Wrong, or returns praise, into one that always returns a Verdict."""

    @wraps(check)
    def judged(*answer: Any) -> Verdict:
        try:
            return Verdict(True, f"Correct. {check(*answer)}")
        except (Untouched, NotImplementedError):
            return Verdict(False, "Not attempted yet. Replace the ... in the function above, then run this cell again.")
        except Wrong as wrong:
            return Verdict(False, f"Not yet: {wrong}")
        except Exception as error:
            return Verdict(False, f"Not yet: your function raised {type(error).__name__}: {error}")

    return judged


def answer_of(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call the learner's function. Raises Untouched if it returns nothing."""
    value = function(*arguments)
    if value is None or value is ...:
        raise Untouched
    return value


def tensor_of(function: Callable[..., Any], *arguments: Any, shape: tuple[int, ...], called: str) -> Tensor:
    """As answer_of, and check that the result is a tensor (or number) of this shape. Raises Wrong if it is not."""
    value = torch.as_tensor(answer_of(function, *arguments))
    if tuple(value.shape) != shape:
        raise Wrong(f"{called} should have the shape {shape}, yours has {tuple(value.shape)}.")
    if value.is_floating_point() and torch.isnan(value).any():
        raise Wrong(f"{called} holds NaN. Is there a 0 / 0, or a log of 0?")
    return value


def not_these(mine: Tensor, slips: dict[str, Tensor]) -> None:
    """Raise Wrong with the explanation of a known wrong answer if the learner's is that one."""
    for why, slip in slips.items():
        if mine.shape == slip.shape and torch.allclose(mine.double(), slip.double(), atol=1e-5):
            raise Wrong(f"{why}.")


def first_off(mine: Tensor, want: Tensor, by: float) -> int | None:
    """The first place (n,) where an answer is off by more than `by`; None if there is none."""
    off = ((mine - want).abs() > by).nonzero()
    return int(off[0]) if len(off) else None


def counterexample(mine: Tensor, want: Tensor, cases: Sequence[object], what: str) -> None:
    """Raise Wrong with the first case (one per row) at which an answer is not the wanted one."""
    bad = (~torch.isclose(mine.double(), want.double(), rtol=1e-5, atol=1e-6)).nonzero()
    if len(bad):
        i = int(bad[0])
        raise Wrong(f"for {cases[i]} {what} should be {want[i]:.5g}, yours is {mine[i]:.5g}.")
