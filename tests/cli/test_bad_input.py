"""Bad input at the command line: each case gives one line and exit status 2, and leaves nothing behind.

A case is a command and the name or value that the line must contain.
"""

import dataclasses
import json
import shutil
import struct
from argparse import ArgumentError
from pathlib import Path

import pytest
import torch
import yaml
from datasets import Dataset
from safetensors.torch import load_file, save_file

from diffkit.cli import main
from diffkit.cli.settings import DataSettings, ModelSettings, read_config
from diffkit.data.tokenizer import word_level_tokenizer
from diffkit.processes import PROCESSES
from diffkit.training.config import Curriculum, TrainConfig

ROOT = Path(__file__).resolve().parents[2]
LETTERS = "abcdefghij"
TEXT = "\n".join(" ".join(LETTERS[(i + k * k) % 10] for k in range(5 + i % 7)) for i in range(80))
ROWS = "".join(json.dumps({"text": line}) + "\n" for line in TEXT.splitlines())
MICRO = ["--data.corpus=micro", "--data.batch_size=4", "--data.validation_sequences=4", "--model.size=pico"]
MICRO += ["--train.warmup=1", "--train.steps=1"]
OWN = ["--data.tokenizer=@/tokenizer", "--data.length=4", "--data.validation_fraction=0.2", "--data.batch_size=2"]
OWN += ["--data.validation_sequences=2", "--model.size=pico", "--train.steps=1"]
HUGE = "9" * 23

pytestmark = pytest.mark.usefixtures("own_caches")

TEXTS = {  # name: bytes
    "text.txt": TEXT.encode(), "empty.txt": b"", "blank.txt": b" \n\n", "binary.txt": bytes(range(256)),
    "latin.txt": "a\ncaf\xe9".encode("latin-1"), "utf16.txt": TEXT.encode("utf-16"), "one.txt": b"a b c",
    "unknown.txt": b"one two\nthree four\nfive six", "text.docx": TEXT.encode(),
    "crlf.txt": TEXT.replace("\n", "\r\n").encode(), "bom.txt": b"\xef\xbb\xbf" + TEXT.encode(),
    "rows.jsonl": ROWS.encode(), "broken.jsonl": (ROWS + "{oops\n" + ROWS).encode(), "cut.jsonl": ROWS.encode()[:-4],
    "mixed.jsonl": ROWS.encode() + b'{"text": 5}\n', "null.jsonl": b'{"text": null}\n' * 9,
    "field.jsonl": b'{"story": "a b"}\n' * 9, "latin.jsonl": ROWS.encode() + '{"text": "\xe9"}\n'.encode("latin-1"),
    "crlf.jsonl": ROWS.replace("\n", "\r\n").encode(), "bom.jsonl": b"\xef\xbb\xbf" + ROWS.encode(),
    "binary.parquet": b"PAR1" + bytes(99) + b"PAR1",
}  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with the texts, a tokenizer, a model of `micro` and one of letters; called @ in the cases."""
    home = tmp_path_factory.mktemp("world")
    for name, content in TEXTS.items():
        (home / name).write_bytes(content)
    Dataset.from_dict({"text": [1] * 9}).to_parquet(home / "numbers.parquet")
    Dataset.from_dict({"text": []}).to_parquet(home / "no-rows.parquet")
    for name in ("folder.txt", "two kinds"):
        (home / name).mkdir()
    for name in ("text.txt", "rows.jsonl"):
        shutil.copy(home / name, home / "two kinds")
    word_level_tokenizer(LETTERS).save_pretrained(home / "tokenizer")
    assert main.main(["train", *MICRO, f"--out={home / 'micro'}"]) == 0
    own = [word.replace("@", str(home)) for word in OWN]
    assert main.main(["train", *own, f"--data.corpus={home / 'text.txt'}", f"--out={home / 'own'}"]) == 0
    return home


def state_of(folder):
    """Everything below a folder: name, size, time of the last change of files."""
    found = [(path, path.lstat()) for path in sorted(folder.rglob("*"))]
    return [(str(path), not path.is_dir() and (about.st_size, about.st_mtime_ns)) for path, about in found]


@pytest.fixture
def refused(world, tmp_path, monkeypatch, capfd):
    """Run a command that must fail with one line that contains `said`; nothing is changed, here or in the world."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def run(*words, said, at=world):
        before = state_of(at), state_of(tmp_path)
        capfd.readouterr()
        assert main.main([str(word).replace("@", str(at)) for word in words]) == 2
        assert (state_of(at), state_of(tmp_path)) == before, "something was left behind"
        printed = capfd.readouterr().err.replace("\r", "\n").splitlines()
        lines = [line for line in printed if line.strip() and "/s]" not in line]  # without progress bars
        assert len(lines) == 1 and lines[0].startswith("diffkit") and len(lines[0]) < 1400, printed
        assert said in lines[0], lines[0]

    return run


# -------------------------------------------------------------------------------------------------- numbers of settings

SECTIONS = {"data": DataSettings, "model": ModelSettings, "train": TrainConfig, "train.curriculum": Curriculum}
NUMBERS = {
    f"{section}.{field.name}"
    for section, settings in SECTIONS.items()
    for field in dataclasses.fields(settings)
    if str(field.type) in ("int", "float")
}
ZERO = {
    "data.limit", "model.anneal", "model.dropout", "model.lora", "train.weight_decay",
    "train.warmup", "train.decay", "train.ema",
    "train.drop_label", "train.sample_every", "train.seed", "train.curriculum.hold", "train.curriculum.ramp",
}  # fmt: skip
LARGE = {"train.lr", "train.muon_lr", "train.weight_decay", "train.clip"}  # a run that these spoil says so itself
ACCEPTED = {(name, "0") for name in ZERO} | {(name, HUGE) for name in LARGE}
ACCEPTED |= {("train.clip", ".inf"), ("train.seed", "-1")}


@pytest.mark.parametrize("name", sorted(NUMBERS))
def test_numbers_that_no_run_can_have_are_refused(name):
    """By the class that holds the setting, whoever makes it."""
    section, _, field = name.rpartition(".")
    settings, others = SECTIONS[section], {"data": {"corpus": "micro"}, "model": {"size": "pico"}}.get(section, {})
    for value in ("-1", "0", HUGE, ".nan", ".inf"):
        number = yaml.safe_load(value)
        if isinstance(number, float) and str(settings.__dataclass_fields__[field].type) == "int":
            continue  # of the wrong type, see below
        if (name, value) in ACCEPTED:
            settings(**{**others, field: number})
        else:
            with pytest.raises(ValueError, match=field):
                settings(**{**others, field: number})


@pytest.mark.parametrize(
    "line", ["data: {corpus: micro, length: %s}", "train: {lr: %s}", "train: {curriculum: {hold: %s}}"]
)
def test_what_is_no_number_is_refused_by_the_file(line, tmp_path):
    for value in ("abc", "[1]", "null", *[".nan"] * ("length" in line)):
        data = "" if line.startswith("data") else "data: {corpus: micro}\n"
        (tmp_path / "own.yaml").write_text(f"{data}{line % value}\nmodel: {{size: pico}}\n", encoding="utf-8")
        with pytest.raises((ValueError, ArgumentError), match=line.split(": %s")[0].split(" ")[-1].strip("{")):
            read_config(tmp_path / "own.yaml")


def test_zeros_that_mean_something_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    zeros = [f"--{name}=0" for name in sorted(ZERO)]
    assert main.main(["train", *MICRO, *zeros, "--train.clip=.inf", "--out=run"]) == 0


# ---------------------------------------------------------------------------------------------- options of the commands

SAMPLE, INFILL = ["sample", "--model=@/micro"], ["infill", "___ ran", "--model=@/micro"]
EVALUATE, DATA = ["evaluate", "--model=@/micro", "--n=2", "--samples=1"], ["data", *OWN, "--data.corpus=@/text.txt"]
TRAIN, LEARN = ["train", *MICRO, "--out=run"], [*DATA, "--train-tokenizer=pieces"]
OPTIONS = [  # command, {option: what the line contains}
    (SAMPLE, {
        f"--n={HUGE}": "--n", "--n=abc": "--n must be a whole number, got abc", "--steps=0": "steps",
        f"--steps={HUGE}": "steps", "--temperature=.nan": "temperature", "--top_k=-1": "-1", "--top_p=2": "2",
        "--top_k=1.5": "--top_k must be a whole", f"--length={HUGE}": "--length", f"--seed={HUGE}": "seed",
        "--label=lost": "label", "--order=best": "one of",
        "--animate=maybe": "animate", "--prompt=Mia Mia Mia Mia Mia Mia": "tokens", "--prompt=zebra": "'zebra'; use",
        f"--prompt=___{{{HUGE}}}": HUGE, "--prompt=\udcff": "UTF-8", "--prompt=Mia \x1b[2J": "2J",
        "--model=": "config.json", "--model=/dev/null": "/dev/null", "--model=../../../etc": "etc",
        "--model=bert-base-uncased": "bert-base-uncased", "--speed=3": "--speed", "--config=none.yaml": "none.yaml",
    }),
    (["sample", "--model=tales-mdlm-conditional", "--steps=2"], {"--label=x": "'x'", "--guidance=1": "label"}),
    (["sample", "--model=tales-mdlm-conditional", "--steps=2", "--label=lost"], {"--guidance=.nan": "nan"}),
    (["sample", "--model=pico-plaid", "--steps=1"], {"--order=confidence": "order", "--prompt=One": "MASK"}),
    (["sample", "--model=pico-diffusion-lm", "--steps=1"], {"--top_k=1": "top_k"}),
    (INFILL, {"--n=0": "--n", "--length=3": "length", "--complete=maybe": "complete", "more": "more"}),
    (["infill"], {"--n=1": "text"}), (["infill", "___ ran"], {"--input=@/text.txt": "either one text"}),
    (["infill", "--model=@/micro"], {"zebra ___": "zebra"}),
    (EVALUATE, {
        f"--n={HUGE}": "--n", "--samples=-1": "--samples", "--steps=0": "steps", "--fraction=2": "fraction",
        "--corpus=tales": "tales", "--corpus=@/nowhere.txt": "nowhere.txt", "--corpus=@/text.txt": "",
        "--json_file=@/text.txt/x.json": "text.txt", "--json_file=/dev/full": "/dev/full", "--model=@/own": "--corpus",
    }),
    ([*EVALUATE, "--all"], {"--samples=0": "--all", "--json_file=x.json": "--all", "--out=@/text.txt": "text.txt"}),
    (["evaluate", "--model=@/own", "--n=2"], {"--corpus=@/unknown.txt": "", "--corpus=micro": "micro"}),
    (TRAIN, {
        "--model.size=giant": "giant", "--model.process=x": "a class such as",
        "--model.process.schedule=wavy": "wavy", "--model.process.noise=x": "noise", "--model.time=x": "'x'",
        "--model.process={class_path: D3PM, init_args: {reverse: x}}": "'x'", "--train.precision=fp16": "fp16",
        f"--model.process={{class_path: Plaid, init_args: {{width: {HUGE}}}}}": "process", "--train.stepz=3": "stepz",
        "--train.curriculum={start: 1, foo: 2}": "foo", "--data.corpus=": "corpus",
        "--config=@/nowhere.yaml": "nowhere",
        "--config=@/micro/model.safetensors": "settings", "--model.init=@/nowhere": "nowhere", "--track=x": "track",
        "--model.init=tales-mdlm": "tales-mdlm", "--out=@/micro": "micro", "--out=@/text.txt/run": "text.txt",
        "--data.batch_size=1000000000": "batch_size", "--train.lr=1e30": "learning rate", "extra": "extra",
    }),
    (["train", "--model.process=D3PM", *TRAIN[1:]], {"--train.objective=end_to_end": "end_to_end"}),
    (DATA, {
        **{f"--data.corpus=@/{name}": name for name in (
            "nowhere.txt", "empty.txt", "blank.txt", "binary.txt", "latin.txt", "utf16.txt", "text.docx", "folder.txt",
            "two kinds", "broken.jsonl", "cut.jsonl", "mixed.jsonl", "null.jsonl", "field.jsonl", "latin.jsonl",
            "binary.parquet", "numbers.parquet", "no-rows.parquet",
        )},
        "--data.corpus=@/one.txt": "document", "--data.length=1000": "1000",
        "--model.conditional=true": "needs labels",
        "--data.tokenizer=@/nowhere": "nowhere", "--data.tokenizer=@/folder.txt": "folder.txt",
    }),
    (LEARN, {"--vocab-size=0": "vocab_size", f"--vocab-size={HUGE}": HUGE, "--train-tokenizer=@": "there already"}),
    (["doctor"], {"--n=3": "--n=3"}), (["nonsense"], {"": "nonsense"}), (["--bogus"], {"": "--bogus"}),
]  # fmt: skip
CASES = [(command, option, said) for command, options in OPTIONS for option, said in options.items()]


@pytest.mark.parametrize(("command", "option", "said"), CASES, ids=lambda word: ascii(word)[1:30])
def test_a_bad_option_is_refused(refused, monkeypatch, command, option, said):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    refused(*command, *[option] * bool(option), said=said)


@pytest.mark.parametrize("option", ["--temperature=0", f"--top_k={HUGE}", "--seed=-1", "--prompt=", "--n=70"])
def test_extremes_that_mean_something_run(world, option, capsys):
    assert main.main(["sample", f"--model={world / 'micro'}", option]) == 0
    assert capsys.readouterr().err == ""


def test_running_out_of_memory_is_one_line(world, monkeypatch, capsys):
    """Another RuntimeError is a bug of ours, and keeps its traceback."""

    def fail(error):
        def raise_it(_):
            raise error

        monkeypatch.setattr("diffkit.cli.showing.last_frame", raise_it)
        return main.main(["sample", f"--model={world / 'micro'}"])

    for error in (MemoryError(), RuntimeError("can't allocate memory"), torch.OutOfMemoryError("CUDA out of memory")):
        assert fail(error) == 2 and "memory" in capsys.readouterr().err
    with pytest.raises(RuntimeError, match="size mismatch"):
        fail(RuntimeError("size mismatch"))


# ---------------------------------------------------------------------------------------------------- files of settings

SETTINGS = "data: {corpus: micro, batch_size: 2, validation_sequences: 2}\nmodel: {size: pico}\ntrain: {steps: 1}\n"
BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{after}: &{after} [{', '.join([f'*{name}'] * 9)}]\n" for name, after in zip("abcdefgh", "bcdefghi", strict=True)
)
MARK = "a-tag-ran"
CONFIGS = {  # name: (content, what the line contains)
    "empty": (b"", ""), "binary": (bytes(range(256)), "UTF-8"), "utf16": (SETTINGS.encode("utf-16"), "UTF-8"),
    "prose": (TEXT.encode(), ""), "list": (b"- a\n- b\n", ""), "cut": (SETTINGS.encode()[:-2], "line 3"),
    "unknown key": (SETTINGS.replace("steps", "stepps").encode(), "stepps"),
    "section twice": (f"{SETTINGS}train: {{steps: 2}}\n".encode(), "train"),
    "key twice": (SETTINGS.replace("steps: 1", "steps: 1, steps: 2").encode(), "steps"),
    "tag that runs": (f'!!python/object/apply:os.system ["touch {MARK}"]\n'.encode(), "python/object"),
    "tag of a name": (SETTINGS.replace("pico", '!!python/name:os.system ""').encode(), "python/name"),
    "class of another package": (SETTINGS.replace("pico}", "pico, process: os.getpid}").encode(), "os.getpid"),
    "list for a number": (SETTINGS.replace("steps: 1", "steps: [1, 2]").encode(), "train.steps"),
    "null": (SETTINGS.replace("steps: 1", "steps: null").encode(), "steps"),
    "bomb of aliases": (BOMB.encode(), "alias"), "deep lists": (b"data: " + b"[" * 5000 + b"]" * 5000, "brackets"),
    "a huge name": (SETTINGS.replace("micro", "x" * 200_000).encode(), "100,000"),
}  # fmt: skip


@pytest.mark.parametrize("name", CONFIGS)
def test_a_bad_config_is_refused(refused, tmp_path, name):
    content, said = CONFIGS[name]
    (tmp_path / "own.yaml").write_bytes(content)
    refused("train", f"--config={tmp_path / 'own.yaml'}", "--out=run", said=said)
    assert not list(tmp_path.rglob(MARK)), "a tag was run"


@pytest.mark.parametrize("content", [SETTINGS.replace("\n", "\r\n").encode(), SETTINGS.encode("utf-8-sig")])
def test_a_config_may_be_written_on_windows(tmp_path, content):
    (tmp_path / "own.yaml").write_bytes(content)
    assert read_config(tmp_path / "own.yaml").train.steps == 1


@pytest.mark.parametrize("kind", ["txt", "jsonl"])
def test_windows_line_ends_and_a_byte_order_mark_change_nothing(world, monkeypatch, tmp_path, capsys, kind):
    monkeypatch.chdir(tmp_path)
    own, printed = [word.replace("@", str(world)) for word in OWN], set()
    for name in ("text" if kind == "txt" else "rows", "crlf", "bom"):
        assert main.main(["data", *own, f"--data.corpus={world / name}.{kind}"]) == 0
        printed.add(capsys.readouterr().out.partition("\n\n")[2])
    assert len(printed) == 1 and "One sequence of 4 tokens" in printed.pop()


# --------------------------------------------------------------------------------------------------------------- models


def rewritten(name, change):
    """A function that changes the bytes of a file in a model's folder."""
    return lambda folder: (folder / name).write_bytes(change((folder / name).read_bytes()))


def reweighted(change):
    """A function that changes the tensors of a model."""

    def spoil(folder):
        tensors = load_file(folder / "model.safetensors")
        save_file(change(dict(tensors)), folder / "model.safetensors", metadata={"format": "pt"})

    return spoil


def reconfigured(section, **settings):
    """A function that changes the settings of a model, and leaves its weights alone."""

    def spoil(folder):
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        (config[section] if section else config).update(settings)
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")

    return spoil


def one_nan(tensors):
    tensors["denoiser.blocks.1.attention.key.weight"][3, 4] = torch.nan
    return tensors


SPOILED = {  # what was done to a model's folder: how, what the line contains
    "empty config": (rewritten("config.json", lambda _: b""), "load_model"),
    "list for a config": (rewritten("config.json", lambda _: b"[1]"), "load_model"),
    "no config": (lambda folder: (folder / "config.json").unlink(), "config.json"),
    "cut tokenizer": (rewritten("tokenizer.json", lambda data: data[:200]), "tokenizer"),
    "no tokenizer": (lambda folder: (folder / "tokenizer.json").unlink(), "tokenizer"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), ".safetensors"),
    "binary weights": (rewritten("model.safetensors", lambda _: bytes(range(256))), "load_model"),
    "a pickle by that name": (rewritten("model.safetensors", lambda _: b"PK\x03\x04" + bytes(99)), "load_model"),
    "another tokenizer": (lambda folder: word_level_tokenizer("ab").save_pretrained(folder), "tokenizer"),
    "cut weights": (rewritten("model.safetensors", lambda data: data[: len(data) // 2]), "load_model"),
    "huge header": (rewritten("model.safetensors", lambda d: struct.pack("<Q", 2**40) + d[8:]), "load_model"),
    "one weight NaN": (reweighted(one_nan), "denoiser.blocks.1.attention.key.weight"),
    "a weight missing": (reweighted(lambda own: dict([*own.items()][1:])), "config.json"),
    "a weight too many": (reweighted(lambda own: own | {"x": torch.zeros(2)}), " x"),
    "other shapes": (reweighted(lambda own: {k: v[:1].clone() for k, v in own.items()}), "config.json"),
    "another kind": (reconfigured("", model_type="bert"), "bert"),
    "unknown process": (reconfigured("process", name="magic"), "magic"),
    "T = 0": (reconfigured("process", T=0), "T"),
    "mask outside": (reconfigured("process", mask_id=999), "mask_id"),
    "no heads": (reconfigured("denoiser", num_heads=0), "num_heads"),
    "10^9 layers": (reconfigured("denoiser", num_layers=10**9), "num_layers"),
    "size is a word": (reconfigured("denoiser", hidden_size="wide"), "load_model"),
    "unknown setting": (reconfigured("denoiser", colour="red"), "colour"),
}


@pytest.mark.parametrize("how", SPOILED)
def test_a_broken_model_is_refused(refused, world, tmp_path_factory, how):
    folder = tmp_path_factory.mktemp("spoiled") / "model"
    shutil.copytree(world / "micro", folder, ignore=shutil.ignore_patterns("checkpoints"))
    change, said = SPOILED[how]
    change(folder)
    refused("sample", "--model=@", said=said, at=folder)
    if how == "one weight NaN":
        refused(*TRAIN, "--model.init=@", said=said, at=folder)


def test_the_checkpoint_of_another_run_is_refused(refused):
    refused("train", *MICRO, "--out=@/own", "--resume", said="vocab_size")


@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
def test_an_objective_of_another_process_is_refused(refused, process):
    other = (
        "hybrid"
        if process.name == "sedd"
        else "score_entropy"
        if process.name not in ("udlm", "hybrid")
        else "likelihood"
    )
    block = ["--model.process.block=2"] * (process.name == "block")
    refused(*TRAIN, f"--model.process={process.__name__}", *block, f"--train.objective={other}", said=other)
