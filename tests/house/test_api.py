"""The front door: what `from diffkit import *` gives, and every example in a docstring runs as printed."""

import doctest
import importlib
import inspect
import pkgutil
from pathlib import Path

import pytest
from toys import MICRO, L

import diffkit
from diffkit.data.batches import StoryBatches

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


def test_a_path_may_be_a_string(tmp_path):
    """Wherever a public function takes a Path."""
    for name in diffkit.__all__:
        kinds = inspect.get_annotations(getattr(diffkit, name)).values()
        assert all("str" in kind for kind in kinds if isinstance(kind, str) and "Path" in kind), name
    process = diffkit.MaskedDiffusion(MICRO.vocab_size, MICRO.mask_id)
    model, batches = diffkit.build_model(process, "pico", max_length=L), StoryBatches(MICRO, 4, 0)
    assert len(list(diffkit.fit(model, batches, diffkit.TrainConfig(steps=1, warmup=1), folder=str(tmp_path)))) == 1
    assert (tmp_path / "step-0000001").is_dir()


@pytest.mark.parametrize("name", SHOWING)
def test_examples_run_as_printed(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0
