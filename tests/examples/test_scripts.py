"""The examples of a page each: run small, in this process, on stories of `tales` as if they were somebody's text."""

import runpy
import sys
from pathlib import Path

import pytest
from toys import TALES, generator

from diffkit import load_model

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
RUNS = {
    "own_text": ["--steps=2", "--length=16", "--vocabulary=300", "--size=pico"],
    "fine_tune": ["--steps=1", "--batch-size=4"],
    "many_gpus": ["--steps=2", "--length=16", "--size=pico", "--batch-size=8", "--tokenizer=words"],
}


@pytest.fixture
def text(tmp_path, monkeypatch, own_caches):
    """A file of stories, and a tokenizer in the folder `words`."""
    monkeypatch.chdir(tmp_path)
    TALES.tokenizer.save_pretrained("words")
    lines = "\n".join(TALES.decode(TALES.sample(500, generator(2))))
    Path("my.txt").write_text(lines, encoding="utf-8")
    return "my.txt"


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_an_example_runs_and_leaves_a_model(name, text, monkeypatch, capsys):
    script = EXAMPLES / f"{name}.py"
    assert len(script.read_text(encoding="utf-8").splitlines()) <= 60
    monkeypatch.setattr(sys, "argv", [str(script), text, "--out=made", *RUNS[name]])
    runpy.run_path(str(script), run_name="__main__")
    assert "held out" in capsys.readouterr().out and load_model("made").config.language is None
