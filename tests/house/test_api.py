"""The public names: what `from diffkit import *` gives is documented whole, and every example runs as printed."""

import doctest
import importlib
import inspect
import pkgutil

import pytest

import diffkit

NAMES = sorted(diffkit.__all__)
MODULES = [module.name for module in pkgutil.iter_modules(diffkit.__path__) if module.name != "__main__"]


def test_a_star_gives_the_public_names():
    given = {}
    exec("from diffkit import *", given)
    assert {*given} - {"__builtins__"} == {*NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_a_public_docstring_is_whole(name):
    """It names every argument, says what is raised, and shows an example (not load_model)."""
    thing = getattr(diffkit, name)
    told = inspect.getdoc(thing)
    arguments = [argument for argument in inspect.signature(thing).parameters if argument not in ("args", "kwargs")]
    assert not [argument for argument in arguments if argument not in told]
    assert "Raises:" in told
    assert ">>>" in told or name == "load_model"


@pytest.mark.parametrize("name", MODULES)
def test_examples_run_as_printed(name):
    module = importlib.import_module(f"diffkit.{name}")
    assert doctest.testmod(module).failed == 0
