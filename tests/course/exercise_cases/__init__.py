"""Every exercise of the course: its worked solutions, and likely mistakes with what is said of each.

A file notebook_NN.py holds `SOLUTIONS`, {check: [functions that pass]}, and `WRONG`, [(check, words of the message,
function)].
"""

import importlib
from pathlib import Path
from typing import NamedTuple


class Cases(NamedTuple):
    """Of one notebook."""

    notebook: str  # its number, "00", "00b", "01" and so on
    solutions: dict
    wrong: list


def cases_of(path):
    module = importlib.import_module(f"exercise_cases.{path.stem}")
    return Cases(path.stem.removeprefix("notebook_"), module.SOLUTIONS, module.WRONG)


CASES = [cases_of(path) for path in sorted(Path(__file__).parent.glob("notebook_*.py"))]
