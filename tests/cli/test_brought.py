"""What people bring to the command line: readers that leave, other consoles, words of YAML, names met twice."""

import ast
import io
import json
import os
import re
import sys
from pathlib import Path

import pytest
from jsonargparse import capture_parser

from diffkit.cli import main
from diffkit.cli.settings import read_config
from diffkit.io import json_text
from diffkit.model import model_folder
from diffkit.paths import PRETRAINED

ROOT = Path(__file__).resolve().parents[2]
TRAIN = ["train", "--data.corpus=micro", "--data.batch_size=4", "--data.validation_sequences=4", "--model.size=pico"]
TRAIN += ["--train.warmup=1", "--train.steps=2", "--out=run"]

pytestmark = pytest.mark.usefixtures("own_caches")


@pytest.fixture
def here(monkeypatch, tmp_path):
    """An empty folder to stand in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


# --------------------------------------------------------------------------------------------------------------- output


def test_a_run_outlives_its_reader(here, monkeypatch):
    """`diffkit train | head -n 1`: whoever reads has left before the first line, and the model is made all the same."""
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w", buffering=1, encoding="utf-8") as nobody:
        monkeypatch.setattr(sys, "stdout", nobody)
        monkeypatch.setattr(sys, "stderr", nobody)
        assert main.main(TRAIN) == 0
    assert (here / "run" / "config.json").is_file()


def test_a_command_needs_no_output_at_all(here, monkeypatch):
    """`>&- 2>&-`: Python has None in their place."""
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    assert main.main(["evaluate", "--model=pico-mdlm", "--n=2", "--samples=0", "--json_file=found.json"]) == 0
    assert json.loads((here / "found.json").read_text(encoding="utf-8"))["sequences"] == 2


def test_a_full_disk_behind_the_output_is_told(monkeypatch, capsys):
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    with open("/dev/full", "w", encoding="utf-8") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert main.main(["sample", "--model=pico-mdlm", "--steps=1"]) == 2
    assert "No space left" in capsys.readouterr().err


def test_a_console_need_not_know_every_letter(monkeypatch):
    screen = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", screen)
    assert main.main(["sample", "--model=pico-mdlm", "--steps=2", "--animate"]) == 0
    assert screen.buffer.getvalue().startswith(b"??? ???")


def refused(word):
    raise ValueError(f"{word} is no JSON")


def test_json_has_null_and_a_reason_for_what_is_no_number(here):
    """The error of one text is not defined; that of none valid neither."""
    command = ["evaluate", "--model=pico-mdlm", "--n=1", "--samples=1", "--steps=1", "--json_file=found.json"]
    assert main.main(command) == 0
    found = json.loads((here / "found.json").read_text(encoding="utf-8"), parse_constant=refused)
    assert found["gap_se"] is None and "not defined" in found["reasons_of_null"]["gap_se"]
    nested = json.loads(json_text({"a": [1.0, {"b": float("-inf")}]}))
    assert nested == {"a": [1.0, {"b": None}], "reasons_of_null": {"a.1.b": "minus infinity"}}


def test_all_json_is_json():
    """Nothing is written by json.dumps without `allow_nan=False`, which refuses NaN; data/ only makes digests of it."""
    for path in (path for folder in ("diffkit", "scripts", "benchmarks") for path in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if path.parent.name != "data" else ():
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("json.dumps", "json.dump"):
                assert "allow_nan" in [keyword.arg for keyword in node.keywords], f"{path.name}:{node.lineno}"


# --------------------------------------------------------------------------------------------- options, settings, names

COMMANDS_OF = {"train.py": ["data", "train"], "settings.py": ["train"], "generate.py": ["sample", "infill"]}
COMMANDS_OF |= {"evaluate.py": ["evaluate"], "report.py": ["evaluate"], "parser.py": ["train"]}


def test_every_option_that_a_message_names_exists():
    """In the command that says it, or in the `diffkit COMMAND` that it follows."""
    parsers = {name: capture_parser(lambda name=name: main.run([name])) for name in main.COMMANDS if name != "doctor"}
    options = {name: {*parser._option_string_actions} for name, parser in parsers.items()} | {"diffkit": {"--version"}}
    for path in (path for path in (ROOT / "diffkit").rglob("*.py") if "course" not in path.parts):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                commands = COMMANDS_OF.get(path.name, options)
                for part in re.split(r"(?=diffkit \w+)", node.value):
                    named = re.match(r"diffkit (\w+)", part)
                    own = [named[1]] if named and named[1] in options else commands
                    for option in re.findall(r"(?<![-\w])--[a-z][\w.-]*\w", part):
                        known = any(option.replace("-", "_")[2:] == each[2:] for name in own for each in options[name])
                        assert known, f"{path.name}: {option} is no option of {' or '.join(own)}"


def test_options_may_stand_before_the_command():
    assert main.normalised(["--config", "a.yaml", "train", "--out", "x"]) == main.normalised(
        ["train", "--config", "a.yaml", "--out", "x"]
    )


def test_yes_no_on_and_off_are_words(tmp_path):
    """`precision: no` is a setting, no Boolean; where a Boolean is asked for, they still serve."""
    text = "data: {corpus: 'no'}\nmodel: {size: pico, rotary: off, conditional: yes}\ntrain: {precision: no, clip: 2}\n"
    (tmp_path / "own.yaml").write_text(text, encoding="utf-8")
    run = read_config(tmp_path / "own.yaml")
    assert run.train.precision == "no" and run.data.corpus == "no" and run.train.clip == 2
    assert run.model.rotary is False and run.model.conditional is True


def test_an_empty_folder_hides_no_shipped_model(here, capsys):
    (here / "pico-mdlm").mkdir()
    assert model_folder("pico-mdlm") == PRETRAINED / "pico-mdlm"
    assert main.main(["sample", "--model=pico-mdlm", "--steps=1"]) == 0
    assert str(PRETRAINED / "pico-mdlm") in capsys.readouterr().err, "which of the two it was"
