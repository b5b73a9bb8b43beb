"""What the set-up check finds, and what it advises when something is wrong."""

import shutil

import pytest

from diffkit.cli import doctor, main
from diffkit.cli.doctor import Finding, line_of
from diffkit.languages.story_language import load_language
from diffkit.model import build_model
from diffkit.processes.masked import MaskedDiffusion


@pytest.fixture
def shipped_folder(monkeypatch, tmp_path):
    """A folder of shipped models with one sound model in it."""
    language = load_language("micro")
    process = MaskedDiffusion(language.vocab_size, language.mask_id)
    shape = {"hidden_size": 16, "num_layers": 1, "num_heads": 2}
    build_model(process, shape, max_length=language.length).save_pretrained(tmp_path / "small")
    monkeypatch.setattr(doctor, "PRETRAINED", tmp_path)
    return tmp_path


def found(section):
    return {finding.name: finding for finding in section()}


def test_a_sound_machine_is_told_so(shipped_folder, monkeypatch, capsys):
    monkeypatch.setattr(doctor, "seconds_per_step", lambda: 0.25)
    monkeypatch.setattr(doctor, "MEMORY_NEEDED_GB", 0.0)
    monkeypatch.setattr(doctor, "PACKAGES", ("torch", "transformers"))
    assert main.main(["doctor"]) == 0
    told = capsys.readouterr().out
    for name in ("Python", "torch", "device", "threads", "free memory", "model small", "training step"):
        assert f"ok    {name}" in told
    assert "0.25 s for 64 stories" in told and told.endswith("Everything works.\n")


def test_what_is_wrong_is_counted(monkeypatch, capsys):
    wrong = Finding("bicycle", "flat", False, "Pump it up.")
    monkeypatch.setattr(doctor, "SECTIONS", (lambda: iter([wrong]),))
    assert main.main(["doctor"]) == 0
    told = capsys.readouterr().out
    assert "LOOK  bicycle" in told and "      Pump it up." in told and "1 to look at" in told


def test_advice_is_given_only_where_it_is_needed():
    assert line_of(Finding("wheel", "round", True, "Never said.")).split() == ["ok", "wheel", "round"]
    for folder in doctor.PRETRAINED.iterdir():  # the longest names keep a space behind them
        assert line_of(Finding(f"model {folder.name}", "loads", True)).split() == ["ok", "model", folder.name, "loads"]
    assert line_of(Finding("wheel", "square", False, "Round it.")).endswith("\n      Round it.")


def test_no_shipped_model_gives_advice(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "PRETRAINED", tmp_path / "gone")
    (finding,) = doctor._models()
    assert not finding.ok and "install diffkit again" in finding.advice


@pytest.mark.parametrize("harm", ["cut", "lost"])
def test_a_damaged_model_gives_advice(shipped_folder, harm):
    weights = shipped_folder / "small" / "model.safetensors"
    if harm == "cut":
        weights.write_bytes(weights.read_bytes()[:100])
    else:
        weights.unlink()
    finding = found(doctor._models)["model small"]
    assert not finding.ok and "git checkout data/pretrained" in finding.advice


def test_the_shipped_model_is_meant_not_a_folder_of_that_name(shipped_folder, monkeypatch, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    monkeypatch.chdir(elsewhere)
    (elsewhere / "small").mkdir()
    assert found(doctor._models)["model small"].ok
    shutil.rmtree(shipped_folder / "small")
    (shipped_folder / "small").mkdir()
    assert not found(doctor._models)["model small"].ok


def test_a_missing_package_gives_advice(monkeypatch):
    monkeypatch.setattr(doctor, "PACKAGES", ("torch", "no-such-package"))
    findings = found(doctor._packages)
    assert findings["torch"].ok and findings["Python"].ok
    assert not findings["no-such-package"].ok and "make lab" in findings["no-such-package"].advice


@pytest.mark.parametrize(("needed", "ok"), [(1e9, False), (0.0, True)])
def test_little_memory_gives_advice(monkeypatch, needed, ok):
    monkeypatch.setattr(doctor, "MEMORY_NEEDED_GB", needed)
    finding = found(doctor._hardware)["free memory"]
    assert finding.ok == ok and "Close other programs" in finding.advice


@pytest.mark.parametrize(("seconds", "ok"), [(0.1, True), (30.0, False)])
def test_a_slow_machine_gives_advice(monkeypatch, seconds, ok):
    monkeypatch.setattr(doctor, "seconds_per_step", lambda: seconds)
    (finding,) = doctor._speed()
    assert finding.ok == ok and f"{seconds:.2f} s" in finding.value


def test_measurements_are_plausible():
    assert 0 < doctor.seconds_per_step(batch_size=2, repeats=1) < 60
    assert doctor.device() in ("cuda", "mps", "cpu")
