"""`make quickstart`: a vocabulary, three models and stories from one command, which goes on where it was stopped."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from torch import Generator

from diffkit import load_language, load_model

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def run(tmp_path, monkeypatch, own_caches):
    """Runs the command, in this process and at a size that takes seconds."""
    monkeypatch.chdir(tmp_path)

    def command(*more):
        words = ["stories.txt", "--size=pico", "--batch=4", "--steps=2", "--out=run"]
        monkeypatch.setattr(sys, "argv", ["train_stories.py", *words, *more])
        runpy.run_path(str(ROOT / "scripts" / "train_stories.py"), run_name="__main__")

    return command


@pytest.mark.slow
def test_it_runs_to_the_stories_and_goes_on_where_it_was(tmp_path, run):
    tales = load_language("tales")
    texts = tales.decode(tales.sample(1500, Generator().manual_seed(0)))
    (tmp_path / "stories.txt").write_text("\n<|endoftext|>\n".join(texts), encoding="utf-8")
    run("--stages", "ar")
    finished = (tmp_path / "run/ar/model.safetensors").stat().st_mtime_ns
    run()
    assert (tmp_path / "run/ar/model.safetensors").stat().st_mtime_ns == finished, "a finished stage is repeated"
    assert json.loads((tmp_path / "run/plan.json").read_text(encoding="utf-8")) == {"ar": 2, "mdlm": 2, "block": 2}
    models = [load_model(tmp_path / "run" / stage) for stage in ("ar", "mdlm", "block")]
    assert [model.process.name for model in models] == ["autoregressive", "mdlm", "block"]


def test_make_calls_it():
    made = subprocess.run(
        ["make", "-n", "quickstart", "QUICKSTART_ARGS=my.txt"], cwd=ROOT, capture_output=True, text=True
    )
    assert "scripts/train_stories.py --out runs/quickstart my.txt" in made.stdout
