"""The exercises: solutions pass, likely mistakes are named, stubs are met kindly; and no notebook is left out."""

import importlib
import pkgutil
import re
import time
from pathlib import Path

import nbformat
import pytest
import torch
from exercise_cases import CASES

from diffkit.course.exercises import foundations, methods, recent
from diffkit.course.exercises.foundations import one_page, sampling
from diffkit.course.exercises.methods import capstone, d3pm, diffusion_lm, variable_length

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("[0-9]*.ipynb"))
MODULES = [
    importlib.import_module(f"{folder.__name__}.{module.name}")
    for folder in (foundations, methods, recent)
    for module in pkgutil.iter_modules(folder.__path__)
]
NAME_OF = {check: name for module in MODULES for name, check in vars(module).items() if name.startswith("check_")}
PUBLIC = {name: check for check, name in NAME_OF.items()}

SOLUTIONS = [(check, each) for cases in CASES for check, all_ in cases.solutions.items() for each in all_]
WRONG = [wrong for cases in CASES for wrong in cases.wrong]
FIRST = {check: all_[0] for cases in CASES for check, all_ in cases.solutions.items()}
SECONDS = 5  # of processor time: other work on the machine does not count

each_check = pytest.mark.parametrize("check", FIRST, ids=NAME_OF.get)


def named(value):
    """A readable id for a check; functions and messages get a number."""
    return NAME_OF.get(value) if callable(value) else None


@pytest.mark.parametrize(("check", "solution"), SOLUTIONS, ids=named)
def test_the_worked_solution_passes_in_time(check, solution):
    started = time.process_time()
    verdict = check(solution)
    assert verdict.passed and verdict.message.startswith("Correct."), verdict
    assert time.process_time() - started < SECONDS


@pytest.mark.parametrize(("check", "says", "answer"), WRONG, ids=named)
def test_a_plausible_mistake_is_named(check, says, answer):
    verdict = check(answer)
    assert not verdict.passed and verdict.message.startswith("Not yet:") and says in verdict.message, verdict


# --------------------------------------------------------------------------------- mistakes that any function can make


def raising(*given):
    raise KeyError("oops")


def forgetful(*given):
    answer = given[0]  # noqa: F841


@each_check
def test_untouched_and_broken_functions_are_met_kindly(check):
    untouched = "Not attempted yet. Replace the ... in the function above, then run this cell again."
    for stub in (lambda *given: ..., lambda *given: None):
        assert check(stub).message == untouched
    assert "your function raised KeyError: 'oops'" in check(raising).message
    assert "returns nothing. Does it end in `return`?" in check(forgetful).message


@each_check
def test_a_branch_without_return_is_found(check):
    calls = []

    def once(*given):
        calls.append(given)
        return FIRST[check](*given) if len(calls) == 1 else None

    verdict = check(once)
    if len(calls) > 1:  # some checks ask one question with many rows
        assert "Does every branch end in `return`?" in verdict.message, verdict


@each_check
def test_an_input_that_is_overwritten_is_noticed(check):
    spoilt = []

    def spoiler(*given):
        answer = FIRST[check](*given)
        for each in given:
            if isinstance(each, torch.Tensor) and each.numel() and not spoilt:
                spoilt.append(each.view(-1)[0].logical_not_() if each.dtype == torch.bool else each.view(-1)[0].add_(1))
            elif isinstance(each, list) and each and not spoilt:
                spoilt.append(each.pop())
        return answer

    verdict = check(spoiler)
    if spoilt:
        assert not verdict.passed and "changes its argument number" in verdict.message, verdict


@each_check
@pytest.mark.parametrize("answer", ["soon", {"a": 1}, [1, [2, 3]]], ids=["text", "dict", "ragged"])
def test_an_answer_of_the_wrong_kind_is_said_to_be_one(check, answer):
    verdict = check(lambda *given: answer)
    assert not verdict.passed and "raised" not in verdict.message, verdict


def as_plain(answer):
    """A tensor as Python numbers."""
    if isinstance(answer, torch.Tensor):
        return answer.tolist()
    return tuple(map(as_plain, answer)) if isinstance(answer, tuple) else answer


TENSORS_ONLY = {  # all but the first two are asked for a slope
    capstone.check_unmasking_order, capstone.check_reveal_plan, d3pm.check_step_nats, diffusion_lm.check_log_known,
    one_page.check_hidden_loss, variable_length.check_block_bound,
}  # fmt: skip


@each_check
def test_python_numbers_and_lists_will_do(check):
    if check not in TENSORS_ONLY:
        verdict = check(lambda *given: as_plain(FIRST[check](*given)))
        assert verdict.passed, verdict


def in_float32(answer):
    """Torch's own kind of number in place of Python's."""
    if isinstance(answer, torch.Tensor):
        return answer.float() if answer.is_floating_point() else answer
    return tuple(map(in_float32, answer)) if isinstance(answer, tuple) else answer


@each_check
def test_float32_will_do(check):
    verdict = check(lambda *given: in_float32(FIRST[check](*given)))
    assert verdict.passed, verdict


def test_whoever_returns_a_list_learns_that_a_tensor_serves_better():
    """The answer is right, but the notebook goes on with it."""
    check = one_page.check_shift
    assert "may need a tensor" in check(lambda x, start: one_page.shift(x, start).tolist()).message
    assert "may need a tensor" not in check(one_page.shift).message


def changed(answer, how):
    """The answer with every number changed."""
    if isinstance(answer, tuple):
        return type(answer)(*(changed(each, how) for each in answer)) if hasattr(answer, "_fields") else tuple(
            changed(each, how) for each in answer)  # fmt: skip
    if isinstance(answer, list | range):
        return [changed(each, how) for each in answer]
    if isinstance(answer, torch.Tensor) and answer.dtype == torch.bool:
        return ~answer
    return (not answer) if isinstance(answer, bool) else how(answer)


SLIPS = {
    "one too many": lambda answer: answer + 1,
    "half": lambda answer: answer * 0.5,
    "the other sign": lambda answer: -answer,
    "nothing": lambda answer: answer * 0,
}


ALIKE = {  # an order is the same for larger numbers
    (capstone.check_unmasking_order, "one too many"),
    (capstone.check_unmasking_order, "half"),
    (sampling.check_order, "one too many"),
    (sampling.check_order, "half"),
}


@each_check
@pytest.mark.parametrize("slip", SLIPS)
def test_a_right_answer_that_is_bent_is_rejected(check, slip):
    if (check, slip) in ALIKE:
        return
    verdict = check(lambda *given: changed(FIRST[check](*given), SLIPS[slip]))
    assert not verdict.passed and "raised" not in verdict.message, verdict


@each_check
def test_the_answer_of_the_first_case_does_not_pass_for_the_others(check):
    first = []

    def hard_coded(*given):
        first.append(FIRST[check](*given) if not first else None)
        return first[0]

    verdict = check(hard_coded)
    assert not verdict.passed if len(first) > 1 else verdict.passed, verdict


# ------------------------------------------------------------------------------------------------- nothing is left out


def test_every_check_has_a_solution_and_three_wrong_answers():
    assert set(FIRST) == set(PUBLIC.values()), "a check without cases, or a case without a public check"
    for check, name in NAME_OF.items():
        found = {says for each, says, _ in WRONG if each is check}
        assert len(found) >= 3, f"{name}: {sorted(found)} are fewer than three mistakes, each named in its own words"


CALL = r"^(?:verdict = )?(?:exercises|capstone)\.(check_\w+)\((\w+)\)$"


def exercises_of(path):
    """Yield (check's name, name of the learner's function, the code cell, the markdown that follows it)."""
    cells = nbformat.read(path, as_version=4).cells
    for i, cell in enumerate(cells):
        for check, function in re.findall(CALL, cell.source, re.M):
            yield (
                check,
                function,
                "\n".join(each.source for each in cells[max(0, i - 3) : i]),
                cell.source,
                cells[i + 1].source,
            )


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_has_three_to_five_exercises_in_form(path):
    found = list(exercises_of(path))
    cases = next(cases for cases in CASES if cases.notebook == path.stem.split("_")[0])
    assert 3 <= len(found) <= 5
    assert {PUBLIC[check] for check, *_ in found} == set(cases.solutions)
    for check, function, before, stub, after in found:
        assert re.search(r"\((easy|medium|hard), \d+ minutes\)|\(\d+ minutes, (easy|medium|hard)\)", before), (
            f"{check}: how hard, how long?"
        )
        assert f"def {function}(" in stub and "..." in stub, f"{check}: no stub in its cell"
        assert re.search(r"<details>\s*<summary>Hint</summary>", after), f"{check}: no hint after its cell"


def namespace_of(path):
    """What the notebook has imported, and the functions it defines, without running its experiments."""
    space = {}
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "code":
            lines = re.findall(r"^(?:from|import) (?:[^(\n]*\([^)]*\)|[^\n]*)$", cell.source, re.M)
            exec("\n".join(line for line in lines if "diffkit.course.widgets" not in line), space)
    return space


def solution_of(after):
    """The Python of the details block behind an exercise that is called a solution."""
    block = re.search(r"<summary>[^<]*[Ss]olution[^<]*</summary>(.*?)</details>", after, re.S)
    return "\n".join(re.findall(r"```python\n(.*?)```", block[1], re.S)) if block else ""


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_solution_printed_in_the_notebook_passes(path):
    for check, function, _, _, after in exercises_of(path):
        space = namespace_of(path)
        if "load_language" in space:
            space |= {"tales": space["load_language"]("tales")}
        source = solution_of(after)
        assert f"def {function}(" in source, f"{check}: the solution does not define {function}"
        exec(source, space)
        verdict = PUBLIC[check](space[function])
        assert verdict.passed, f"{check}: {verdict}"
