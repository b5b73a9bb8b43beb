"""How an exercise is checked: fresh random cases, and a counterexample in the terms of the exercise.

A check takes the learner's function and returns a Verdict, which a cell shows by ending on the call. An untouched
stub (it returns `...` or nothing, or raises NotImplementedError) is "not attempted yet", so a notebook still runs from
top to bottom.
"""

from __future__ import annotations

import copy
import dis
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
    """Raised inside a check with what is wrong, for the learner."""


class Untouched(Exception):
    """Raised inside a check when the stub has not been filled in."""


def exercise(check: Callable[..., str]) -> Callable[..., Verdict]:
    """Turn a function that raises Wrong, or returns praise, into one that always returns a Verdict."""

    @wraps(check)
    def judged(*answer: Any) -> Verdict:
        watched = [Watched(each) if callable(each) else each for each in answer]
        try:
            praise = f"Correct. {check(*watched)}"
            kind = next((each.kind for each in watched if isinstance(each, Watched) and each.kind), None)
            return Verdict(True, praise if kind is None else f"{praise} {BETTER_A_TENSOR.format(kind)}")
        except (Untouched, NotImplementedError):
            return Verdict(False, "Not attempted yet. Replace the ... in the function above, then run this cell again.")
        except Wrong as wrong:
            return Verdict(False, f"Not yet: {wrong}")
        except Exception as error:
            return Verdict(False, f"Not yet: your function raised {type(error).__name__}: {error}")

    return judged


BETTER_A_TENSOR = "But it returns a {}, and the cells below may need a tensor: torch.as_tensor(...)."


class Watched:
    """The learner's function, called as before; sees to mistakes that any function can make.

    Raises: Untouched for a stub; Wrong for a function that returns nothing, always or in one of its branches, or that
            changes what it was given.
    """

    def __init__(self, function: Callable[..., Any]):
        self.function, self.answered = function, False
        self.kind: str | None = None  # what it returned in place of a tensor

    def __call__(self, *given: Any) -> Any:
        before = [copy.deepcopy(each) if isinstance(each, Tensor | list) else None for each in given]
        value = self.function(*given)
        if value is ... or (value is None and not self.answered and is_stub(self.function)):
            raise Untouched
        if value is None:
            branch = f" for {shown(before, given)}. Does every branch end" if self.answered else ". Does it end"
            raise Wrong(f"your function returns nothing{branch} in `return`?")
        for i, (old, new) in enumerate(zip(before, given, strict=True)):
            if old is not None and not same(old, new):
                raise Wrong(f"your function changes its argument number {i + 1}, which others still need; a copy is "
                            "safe: .clone() of a tensor, list(...) of a list.")  # fmt: skip
        self.answered = True
        return value


def is_stub(function: Callable[..., Any]) -> bool:
    """Whether a function does nothing but return a constant, as one does whose body is `...`."""
    nothing = {"RESUME", "NOP", "CACHE", "POP_TOP", "LOAD_CONST", "RETURN_CONST", "RETURN_VALUE", "COPY_FREE_VARS"}
    try:
        return all(step.opname in nothing for step in dis.get_instructions(function))
    except TypeError:  # not written in Python
        return False


def same(old: Any, new: Any) -> bool:
    """Equality of tensors, numbers and lists of them."""
    if isinstance(old, Tensor):
        return isinstance(new, Tensor) and old.shape == new.shape and bool(((old == new) | (old != old)).all())
    if isinstance(old, list):
        return isinstance(new, list) and len(old) == len(new) and all(map(same, old, new))
    return bool(old == new)


def shown(before: Sequence[Any], given: Sequence[Any]) -> str:
    """Arguments as they were, in short."""
    old = (each if kept is None else kept for kept, each in zip(before, given, strict=True))
    words = ", ".join(str(each.tolist() if isinstance(each, Tensor) else each) for each in old)
    return words if len(words) < 120 else words[:120] + " ..."


def number_of(function: Callable[..., Any], *arguments: Any, called: str) -> float:
    """Call the learner's function and check that the result is one number. Raises Wrong if it is not."""
    return float(tensor_of(function, *arguments, shape=(), called=called))


def tensor_of(function: Callable[..., Any], *arguments: Any, shape: tuple[int, ...], called: str) -> Tensor:
    """Call the learner's function; its result as a tensor of this shape, () for a number. Raises Wrong if it is not."""
    answer = function(*arguments)
    value = read(answer, called)
    if shape and isinstance(function, Watched) and not isinstance(answer, Tensor):
        function.kind = type(answer).__name__
    if tuple(value.shape) != shape:
        raise Wrong(f"{called} should have the shape {shape}, yours has {tuple(value.shape)}.")
    if value.is_floating_point() and torch.isnan(value).any():
        raise Wrong(f"{called} holds NaN. Is there a 0 / 0, or a log of 0?")
    return value.detach()


def read(answer: Any, called: str) -> Tensor:
    """An answer as a tensor; Python's numbers keep their double precision. Raises Wrong if there are none in it."""
    try:
        value = torch.as_tensor(answer)
        plain = not hasattr(answer, "dtype") and value.is_floating_point()
        return torch.as_tensor(answer, dtype=torch.float64) if plain else value
    except (TypeError, ValueError, RuntimeError):
        raise Wrong(f"{called} should be numbers, yours is a {type(answer).__name__}: {str(answer)[:60]}.") from None


def parts_of(answer: Any) -> Any:
    """An answer of several numbers: a tensor or an array as a list, anything else as it is."""
    return answer.tolist() if getattr(answer, "ndim", 0) == 1 else answer


def must_teach(loss: Any) -> None:
    """Raise Wrong unless a gradient can flow back from a right loss."""
    if not (isinstance(loss, Tensor) and loss.requires_grad):
        raise Wrong(
            "the numbers are right, but the notebook trains with them, and no gradient comes back. Keep to tensors "
            "throughout: no float(), no .item(), no math.log, no .detach()."
        )


def number(answer: Any, called: str) -> float:
    """An answer as one number. Raises Wrong if it is none."""
    value = read(answer, called)
    if value.numel() != 1:
        raise Wrong(f"{called} should be one number, yours has the shape {tuple(value.shape)}.")
    return float(value.detach())


def rows_of(answer: Any, called: str) -> list[list[int]]:
    """An answer as lists of whole numbers. Raises Wrong if it is none."""
    if isinstance(answer, Tensor):
        answer = answer.tolist()
    if not isinstance(answer, list | tuple) or not all(isinstance(row, list | tuple | Tensor) for row in answer):
        raise Wrong(
            f"{called} should be a list of lists of ids, yours is a {type(answer).__name__}: {str(answer)[:60]}."
        )
    return [read(list(row) if isinstance(row, tuple) else row, called).long().tolist() for row in answer]


def not_these(mine: Tensor, slips: dict[str, Tensor]) -> None:
    """Raise Wrong with the explanation of a known wrong answer if the learner's is that one."""
    for why, slip in slips.items():
        if mine.shape == slip.shape and torch.allclose(mine.double(), slip.double(), atol=1e-5):
            raise Wrong(f"{why}.")


def far_from(share: float, p: float, n: int) -> bool:
    """Whether a share of n draws is too far from its probability p for chance: five standard deviations, and a half."""
    return abs(share - p) > 5 * (p * (1 - p) / n) ** 0.5 + 0.5 / n + 1e-9


def first_off(mine: Tensor, want: Tensor, by: float) -> int | None:
    """The first index of (n,) where an answer is off by more than `by`; None if there is none."""
    off = ((mine - want).abs() > by).nonzero()
    return int(off[0]) if len(off) else None


def must_have_slope(answer: Any, by: Tensor, cure: str) -> None:
    """Raise Wrong for an answer, right as a number, whose gradient by a tensor is NaN or cannot be taken."""
    if not isinstance(answer, Tensor) or not answer.requires_grad:
        raise Wrong("the numbers are right, but PyTorch cannot take their slope: no .item(), no list, no detach.")
    if torch.autograd.grad(answer.sum(), by)[0].isnan().any():
        raise Wrong(f"the numbers are right, but their slope is NaN. {cure}")


def differ(want: Any, mine: Any) -> str:
    """Two numbers in words, with as many digits as it takes to see that they differ."""
    pairs = [(f"{float(want):.{digits}g}", f"{float(mine):.{digits}g}") for digits in (5, 8, 12)]
    want, mine = next((pair for pair in pairs if pair[0] != pair[1]), pairs[-1])
    return f"should be {want}, yours is {mine}"


def counterexample(mine: Tensor, want: Tensor, cases: Sequence[object], what: str) -> None:
    """Raise Wrong with the first case (one per row) at which an answer is not the wanted one."""
    bad = (~torch.isclose(mine.double(), want.double(), rtol=1e-5, atol=1e-6)).nonzero()
    if len(bad):
        i = int(bad[0])
        raise Wrong(f"for {cases[i]} {what} {differ(want[i], mine[i])}.")


def worst(mine: Tensor, want: Tensor, where: str, what: str, why: str) -> None:
    """Raise Wrong with the number that is furthest off, if it is off by more than 1e-6 of its size."""
    off = (mine - want).abs() / want.abs().clamp(min=1.0)
    if not off.max() <= 1e-6:
        at = tuple((off == off.max()).nonzero()[0].tolist())
        raise Wrong(f"{where}, at {list(at)} {what} {differ(want[at], mine[at])}. {why}")
