"""What is done again and again keeps nothing: no object, no widget, no figure, and no memory beyond the allocator's."""

import importlib
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))
long_use = importlib.import_module("long_use")

TIMES = {  # the half of it is enough for one object a time to show, and more displays than stay open
    "samplings": 20, "players made and shown": 60, "one player shown": 40, "boards made and shown": 60, "loadings": 8,
    "figures": 8,
}  # fmt: skip
MEGABYTES = 12.0


@pytest.fixture(scope="module")
def loops():
    return {name: act for name, (_, act) in long_use.loops().items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", TIMES)
def test_again_and_again_keeps_nothing(loops, name):
    """Between the half and the end of the way.

    Objects, tensors and widgets are counted, not measured, so nothing but a leak can raise them by one a time: once
    24 displays are open every new one closes an old one. Memory may jump by a page or an arena of the allocator; in
    1,000 samplings it moved by 1.2 MB at most, in 100 figures by 9, as font files come and go (benchmarks/long_use.py).
    """
    act = loops[name]
    looks = long_use.again(act, TIMES[name], looks=2)
    half, end = looks
    assert end["objects"] - half["objects"] < TIMES[name] / 2
    assert end["tensors"] <= half["tensors"] and end["widgets"] <= half["widgets"]
    assert end["mb"] - half["mb"] < MEGABYTES


@pytest.mark.parametrize(("kept", "grows"), [("objects", list), ("tensors", lambda: long_use.torch.zeros(1))])
def test_a_leak_is_seen(kept, grows):
    """The checker itself."""
    hoard = []
    half, end = long_use.again(lambda _: hoard.append([grows()]), 20, looks=2)
    assert end[kept] - half[kept] >= 10
