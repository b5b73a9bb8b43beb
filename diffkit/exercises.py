"""Checks for the exercises of the notebooks: fresh random cases, and a counterexample in the learner's own terms.

A check takes the learner's function and returns a Verdict, which a cell shows by ending on the call. An untouched stub (it
returns `...` or None, or raises NotImplementedError) is "not attempted yet", so a notebook still runs from top to bottom.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor

from diffkit.noise import get_schedule


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


# ------------------------------------------------------------------------------------------------------- 02_noise_schedules


@exercise
def check_cosine_gamma(gamma: Callable[[Tensor, int], Tensor]) -> str:
    """gamma(t, T) -> masking rate of the cosine schedule, (B,) times to (B,) rates."""
    T = int(torch.randint(10, 2000, (), generator=Generator().manual_seed(0)))
    t = torch.linspace(0, T, 7, dtype=torch.float64)
    mine = tensor_of(gamma, t, T, shape=(7,), called="gamma")
    want = get_schedule("cosine", T).gamma(t)
    if torch.allclose(mine.double(), get_schedule("maskgit_cosine", T).gamma(t), atol=1e-4):
        raise Wrong("that is the mirrored cosine (MaskGIT's), which hides early. Ours starts slowly: 1 - cos(pi t / 2T).")
    wrong = (mine.double() - want).abs() > 1e-4
    if wrong.any():
        i = int(wrong.nonzero()[0])
        raise Wrong(f"with T = {T}, at t = {t[i]:.1f} the rate should be {want[i]:.4f}, yours is {float(mine[i]):.4f}.")
    return "Slow at first, then faster: 1 - cos(pi t / 2T)."
