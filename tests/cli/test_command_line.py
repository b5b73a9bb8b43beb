"""Every command from its first argument to its last line, on models made on the fly; and what a mistake looks like."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
import torch
from safetensors.torch import load_file

from diffkit.cli import generate, main, showing, train
from diffkit.data.tokenizer import load_tokenizer, word_level_tokenizer
from diffkit.languages.story_language import load_language
from diffkit.model import load_model
from diffkit.sampling.unmasking import UNMASKING_ORDERS
from diffkit.training.checkpoint import latest_checkpoint

ROOT = Path(__file__).resolve().parents[2]
MICRO = ["train", "--data.corpus=micro", "--data.batch_size=4", "--data.validation_sequences=8", "--train.warmup=1"]
MICRO += ["--model.size=pico"]
LETTERS = "abcdefghij"


pytestmark = pytest.mark.usefixtures("own_caches")


@pytest.fixture
def here(monkeypatch, tmp_path):
    """An empty folder to stand in."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


@pytest.fixture(scope="module")
def micro(tmp_path_factory):
    """A pico model after 5 steps on `micro`, trained by the command itself."""
    folder = tmp_path_factory.mktemp("run") / "micro"
    assert main.main([*MICRO, "--train.steps=5", f"--out={folder}"]) == 0
    return folder


@pytest.fixture(scope="module")
def letters(tmp_path_factory):
    """A text of letters and a tokenizer for it: (text file, tokenizer folder)."""
    folder = tmp_path_factory.mktemp("letters")
    lines = [" ".join(LETTERS[(i + k * k) % 10] for k in range(5 + i % 7)) for i in range(300)]
    (folder / "text.txt").write_text("\n".join(lines), encoding="utf-8")
    word_level_tokenizer(LETTERS).save_pretrained(folder / "tokenizer")
    return folder / "text.txt", folder / "tokenizer"


def mistake(capsys, *arguments):
    """Run a command that must fail: exit code 2, one line on stderr, which is returned."""
    capsys.readouterr()
    assert main.main([str(word) for word in arguments]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and "Traceback" not in lines[0], lines
    assert lines[0].startswith("diffkit"), lines[0]
    return lines[0]


# ---------------------------------------------------------------------------------------------------------------- help


@pytest.mark.parametrize("command", [[], *([name] for name in main.COMMANDS)], ids=" ".join)
def test_help_explains_every_option(command, capsys):
    with pytest.raises(SystemExit) as end:
        main.main([*command, "--help"])
    assert end.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert not re.findall(r"(--[\w.]+) \S+ \((?:required, )?type:", text), "options without an explanation"


def test_without_arguments_the_help_is_shown(capsys):
    with pytest.raises(SystemExit) as end:
        main.main([])
    assert end.value.code == 0 and "diffkit doctor" in capsys.readouterr().out


def test_the_overview_answers_without_torch():
    """`diffkit --help` and a wrong command import nothing heavy; `import diffkit` neither."""
    code = "import sys, diffkit\nfrom diffkit.cli.main import main\n"
    code += "for words in ([], ['--help'], ['--version'], ['nonsense']):\n"
    code += "    try:\n        main(words)\n    except SystemExit:\n        pass\n"
    code += "sys.exit(bool({'torch', 'transformers', 'jsonargparse'} & {*sys.modules}))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=ROOT).returncode == 0


def test_flags_and_defaults_are_filled_in():
    """A flag alone means true wherever it stands; a value is left alone."""
    assert main.normalised(["infill", "--animate", "a ___"]) == ["infill", "--animate=true", "a ___"]
    assert main.normalised(["sample", "--animate", "false"]) == ["sample", "--animate", "false"]
    given = main.normalised(["train", "--resume", "--out", "x"])
    assert given == ["train", "--config", str(ROOT / "configs" / "default.yaml"), "--resume=true", "--out", "x"]
    assert main.normalised(["train", "--config=a.yaml"]) == ["train", "--config=a.yaml"]
    assert main.normalised(["sample", "--top-k=3", "a-b", "--x=a-b"]) == ["sample", "--top_k=3", "a-b", "--x=a-b"]


# ----------------------------------------------------------------------------------------------------------------train


def test_train_leaves_a_model_that_samples(micro, capsys):
    records = train.read_log(micro)
    assert [record["step"] for record in records] == [1, 2, 3, 4, 5]
    assert records[-1]["validation"] > 0 and latest_checkpoint(micro / "checkpoints").name == "step-0000005"
    assert load_model(micro).config.language == "micro"
    assert main.main(["sample", "--model", str(micro), "--seed", "1"]) == 0
    first = capsys.readouterr().out
    assert main.main(["sample", "--model", str(micro), "--seed", "1"]) == 0
    assert capsys.readouterr().out == first and first.strip() and not re.search(r"\[(MASK|PAD|EOS)\]", first)


def test_a_log_with_a_broken_line_is_not_read(tmp_path):
    (tmp_path / "training.jsonl").write_text('{"step": 1}\n{"ste', encoding="utf-8")
    with pytest.raises(ValueError, match="line 2 of .*--resume"):
        train.read_log(tmp_path)


WITHOUT_MASK = [  # process, its own option, objective, why it cannot fill in blanks
    ("D3PM", "--model.process.noise=uniform", "hybrid", "uniform noise"),
    ("Plaid", "--model.process.width=6", "likelihood", "a process with MASK"),
]


@pytest.mark.parametrize(("process", "option", "objective", "why"), WITHOUT_MASK)
def test_methods_without_mask_are_trained_and_sampled_alike(here, capsys, process, option, objective, why):
    """They start from random words or points, not from MASK; filling in blanks is refused with a reason."""
    which = [f"--model.process={process}", option, f"--train.objective={objective}"]
    assert main.main([*MICRO, *which, "--train.steps=2", "--out=run"]) == 0
    capsys.readouterr()
    assert main.main(["sample", "--model", "run", "--n", "3", "--steps", "4", "--seed", "1"]) == 0
    printed = capsys.readouterr().out
    assert printed.strip() and "[MASK]" not in printed
    assert why in mistake(capsys, "infill", "Mia ___", "--model", "run")


def test_a_size_may_be_a_mapping(here, capsys):
    size = "--model.size={hidden_size: 16, num_layers: 1, num_heads: 2}"
    assert main.main([*MICRO, size, "--train.steps=1"]) == 0
    model = load_model(here / "runs" / "micro-mdlm-custom")
    assert model.denoiser.config.hidden_size == 16 and model.denoiser.config.num_layers == 1


def test_train_prints_entropy_and_validation(here, capsys):
    assert main.main([*MICRO, "--train.steps=4", "--train.validate_every=2"]) == 0
    printed = capsys.readouterr().out
    language = load_language("micro")
    assert f"exact entropy is {language.entropy() / language.length:.4f} nats per token" in printed
    assert "step 2: held-out bound" in printed and "step 4: held-out bound" in printed
    assert "Done." in printed and (here / "runs" / "micro-mdlm-pico" / "config.json").is_file()


def test_resuming_gives_the_weights_of_a_straight_run(here, monkeypatch, capsys):
    """Ctrl-C after step 3 saves; resuming ends with the very weights of a run that nobody stopped."""
    with_progress = train.with_progress

    def interrupted(records, settings):
        for record in records:
            if record.step == 3:
                signal.raise_signal(signal.SIGINT)
            yield record

    run = [*MICRO, "--train.steps=6"]
    assert main.main([*run, "--out=straight"]) == 0
    monkeypatch.setattr(train, "with_progress", interrupted)
    assert main.main([*run, "--out=parts"]) == 0
    assert "Stopped after 3 of 6 steps" in capsys.readouterr().out
    assert load_model(here / "parts").config.language == "micro"
    monkeypatch.setattr(train, "with_progress", with_progress)
    assert main.main([*run, "--out=parts", "--resume"]) == 0
    out, err = capsys.readouterr()
    assert "Resuming from step-0000003" in out and "Done." in out and "3/6" in err and "2/6" not in err
    straight, parts = (load_file(here / name / "model.safetensors") for name in ("straight", "parts"))
    assert straight.keys() == parts.keys() and all((straight[name] == parts[name]).all() for name in straight)
    losses = [[record["loss"] for record in train.read_log(here / name)] for name in ("straight", "parts")]
    assert losses[0] == losses[1] and len(losses[0]) == 6
    assert main.main([*run, "--out=parts", "--resume"]) == 0, "nothing is left to do, and that is no mistake"
    assert "Done." in capsys.readouterr().out


def test_resume_with_nothing_there_starts_afresh(here, capsys):
    assert main.main([*MICRO, "--train.steps=1", "--out=new", "--resume", "true"]) == 0
    assert "Nothing to resume" in capsys.readouterr().out


def test_a_tokenizer_is_learned_from_ones_own_text(here, letters, capsys):
    """From the training part only, saved as a folder that training takes; never over another one."""
    options = ["--config", str(ROOT / "configs/tiny.yaml"), f"--data.corpus={letters[0]}", "--data.length=16"]
    learn = ["data", *options, "--data.validation_fraction=0.2", "--train-tokenizer=pieces", "--vocab-size=265"]
    assert main.main(learn) == 0
    printed = capsys.readouterr().out
    assert "--data.tokenizer pieces" in printed and "vocabulary of 265 tokens" in printed
    assert len(load_tokenizer(here / "pieces")) == 265
    assert "is there already" in mistake(capsys, *learn)
    small = ["--model.size=pico", "--train.steps=1", "--out=own", "--data.tokenizer=pieces", "--data.batch_size=4"]
    assert main.main(["train", *options, *small, "--data.validation_sequences=4"]) == 0
    assert "entropy" not in capsys.readouterr().out
    assert main.main(["sample", "--model=own", "--n=2", "--prompt=a b ___ d"]) == 0
    assert capsys.readouterr().out.startswith("a b")
    assert main.main(["evaluate", "--model=own", f"--corpus={letters[0]}", "--fraction=1", "--n=8"]) == 0
    printed = capsys.readouterr().out
    assert "windows of 16 tokens" in printed and "8 windows" in printed and "gap" not in printed
    assert "character" in printed and "unknown" not in printed  # bytes know every word
    assert "at least 259" in mistake(capsys, *learn[:-2], "--train-tokenizer=few", "--vocab-size=10")
    assert "no documents" in mistake(capsys, "data", "--train-tokenizer=tales")
    assert not (here / "few").exists() and not (here / "tales").exists()


# -------------------------------------------------------------------------------------------- sample, infill, evaluate


def test_a_text_that_a_model_knows_nothing_of_is_named(letters, capsys):
    assert main.main(["evaluate", "--model=tales-mdlm", f"--corpus={letters[0]}", "--windows=2"]) == 0
    assert "this model never saw such text" in capsys.readouterr().out


def test_sampling_is_played_to_its_end(micro, capsys):
    """Not on a terminal: a few frames, the first all hidden, the last all words; nothing is printed twice."""
    assert main.main(["sample", "--model", str(micro), "--animate", "--seed", "3"]) == 0
    printed = capsys.readouterr().out
    length = load_language("micro").length
    assert printed.startswith("░░░") and f"[step 0 of {length}]" in printed
    assert printed.rstrip().endswith(f"[step {length} of {length}]") and "\033" not in printed
    assert "░" not in printed.splitlines()[-2] and "PAD" not in printed
    assert main.main(["sample", "--model", str(micro), "--seed", "3"]) == 0
    assert capsys.readouterr().out.splitlines()[0] in printed


def test_a_model_may_say_how_it_writes(micro, tmp_path, capsys):
    """generation_config.json beside the weights stands in for options that are not given."""

    def written(*options, model=tmp_path / "own"):
        assert main.main(["sample", f"--model={model}", "--n=8", "--seed=3", *options]) == 0
        return capsys.readouterr().out

    shutil.copytree(micro, tmp_path / "own")
    own = tmp_path / "own" / "generation_config.json"
    own.write_text('{"order": "left_to_right", "temperature": 0.3, "top_p": null}', encoding="utf-8")
    asked = written("--order=left_to_right", "--temperature=0.3", model=micro)
    assert written() == asked != written("--temperature=1", "--order=random") == written(model=micro)
    own.write_text('{"do_sample": true}', encoding="utf-8")
    assert main.main(["sample", f"--model={tmp_path / 'own'}"]) == 2 and "do_sample" in capsys.readouterr().err


def test_infill_keeps_the_words(micro, capsys):
    words = load_language("micro").tokenizer.decode(
        load_language("micro").sample(1, torch.Generator().manual_seed(0))[0], skip_special_tokens=True
    )
    first, *rest = words.split()
    blank = " ".join(["___", *rest])
    assert main.main(["infill", blank, "--model", str(micro), "--complete", "--n", "3", "--order", "confidence"]) == 0
    texts = capsys.readouterr().out.strip().split("\n\n")
    assert len(texts) == 3 and all(text.endswith(rest[-1]) for text in texts)
    assert "no blank" in mistake(capsys, "infill", words, "--model", micro, "--complete")


def test_evaluate_prints_and_writes_every_number(micro, here, capsys):
    arguments = ["--n=32", "--samples=16", "--json_file=found.json"]
    assert main.main(["evaluate", "--model", str(micro), *arguments]) == 0
    printed = capsys.readouterr().out
    for phrase in ("nats per sequence", "nats per token", "perplexity", "exact entropy", "gap to the entropy", "valid"):
        assert phrase in printed
    found = json.loads((here / "found.json").read_text(encoding="utf-8"))
    language = load_language("micro")
    assert found["entropy_nats_per_token"] == pytest.approx(language.entropy() / language.length)
    assert found["nats_per_sequence"] == pytest.approx(found["nats_per_token"] * language.length)
    assert found["gap_nats_per_token"] > 3 * found["gap_se"] > 0, "five steps teach little"
    assert 0 <= found["low"] <= found["valid"] <= found["high"] <= 1 and found["sequences"] == 32


def test_sagas_are_a_corpus_like_tales(here, capsys):
    """Trained with labels, sampled with one, reported on in full."""
    run = [
        "train",
        "--data.corpus=micro-sagas",
        *MICRO[2:],
        "--model.conditional=true",
        "--train.steps=2",
        "--out=saga",
    ]
    assert main.main(run) == 0
    assert main.main(["sample", "--model=saga", "--n=2", "--label=sad"]) == 0
    assert main.main(["evaluate", "--model=saga", "--n=32", "--samples=8", "--all"]) == 0
    language, found = load_language("micro-sagas"), json.loads((here / "reports/saga/report.json").read_text("utf-8"))
    assert f"exact entropy        {language.entropy() / language.length:.4f}" in capsys.readouterr().out
    assert found["true_stories"]["valid"] == 1 and {*found["true_stories"]["marginals"]} == {"plot", "ending", "length"}
    assert found["by_count"][-1]["count"] == language.length and found["gap_nats_per_token"] > 0


# ------------------------------------------------------------------------------------------------------------ mistakes


def test_every_unmasking_order_is_an_option():
    assert get_args(generate.Order) == ("ancestral", *UNMASKING_ORDERS)


def test_a_finished_run_is_not_trained_over(micro, capsys):
    before = (micro / "model.safetensors").read_bytes()
    assert "already holds a model" in mistake(capsys, *MICRO, f"--out={micro}")
    assert (micro / "model.safetensors").read_bytes() == before


def test_a_model_without_checkpoints_is_not_resumed_over(micro, tmp_path, capsys):
    """--resume on a folder that holds a model only would start afresh and replace it; it is not advised either."""
    shutil.copytree(micro, tmp_path / "shipped", ignore=shutil.ignore_patterns("checkpoints"))
    said = mistake(capsys, *MICRO, f"--out={tmp_path / 'shipped'}", "--resume")
    assert "already holds a model" in said and "--model.init" in said and "with --resume" not in said


def test_a_tracker_that_is_not_installed_is_named(here, monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "wandb is not installed" in mistake(capsys, *MICRO, "--track=wandb")
    assert not list(here.iterdir())


def test_stopping_is_no_crash(micro, monkeypatch, capsys):
    def interrupted(frames):
        raise KeyboardInterrupt

    monkeypatch.setattr(showing, "last_frame", interrupted)
    assert main.main(["sample", "--model", str(micro)]) == 130
    assert capsys.readouterr().err == "diffkit sample: stopped.\n"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="shell scripts")
def test_scripts_call_the_same_commands(micro, tmp_path, capsys):
    """From another folder, through a real process."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    command = [ROOT / "scripts/sample.sh", "--model", micro, "--seed", "5"]
    ran = subprocess.run(command, cwd=tmp_path, env={**os.environ, "PATH": path}, capture_output=True, text=True)
    assert main.main(["sample", "--model", str(micro), "--seed", "5"]) == 0
    assert (ran.returncode, ran.stderr, ran.stdout) == (0, "", capsys.readouterr().out)
    assert os.access(ROOT / "scripts/train.sh", os.X_OK) and not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """A conditional pico model after 3 steps on `micro`."""
    folder = tmp_path_factory.mktemp("run") / "labelled"
    assert main.main([*MICRO, "--train.steps=3", "--model.conditional=true", f"--out={folder}"]) == 0
    return folder


def test_a_conditional_model_is_trained_and_asked_for_an_ending(labelled, capsys):
    label = load_language("micro").labels[1]
    assert load_model(labelled).labels == len(load_language("micro").labels)
    capsys.readouterr()
    for more in ([], ["--guidance=3"]):
        assert main.main(["sample", f"--model={labelled}", f"--label={label}", "--seed=1", *more]) == 0
        assert capsys.readouterr().out.strip()
    assert main.main(["infill", "Mia ___{2}", f"--model={labelled}", f"--label={label}", "--seed=1"]) == 0
    assert capsys.readouterr().out.startswith("Mia")


def test_evaluate_all_leaves_a_report(micro, here, capsys):
    assert main.main(["evaluate", "--model", str(micro), "--n=16", "--samples=8", "--all", "--out=found"]) == 0
    printed = capsys.readouterr().out
    assert "true stories" in printed and "per character" in printed and "The report is in found" in printed
    assert {"README.md", "report.json"} == {path.name for path in (here / "found").iterdir()}
    assert "--all needs" in mistake(capsys, "evaluate", "--model", micro, "--all", "--samples=0")
