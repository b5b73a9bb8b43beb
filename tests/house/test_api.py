"""The front door: what `from diffkit import *` gives, and every example in a docstring runs as printed."""

import doctest
import importlib
import pkgutil
from pathlib import Path

import pytest

import diffkit

MODULES = [
    module.name for module in pkgutil.walk_packages(diffkit.__path__, "diffkit.") if "__main__" not in module.name
]
SHOWING = [name for name in MODULES if ">>>" in Path(importlib.util.find_spec(name).origin).read_text(encoding="utf-8")]


def test_a_star_gives_the_public_names():
    given = {}
    exec("from diffkit import *", given)
    assert {*given} - {"__builtins__"} == {*diffkit.__all__}


def test_no_public_name_hides_a_module():
    """`import diffkit.model` must give the module, whatever else the package is asked for."""
    assert not {f"diffkit.{name}" for name in diffkit.__all__} & {*MODULES}


@pytest.mark.parametrize("name", SHOWING)
def test_examples_run_as_printed(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0
