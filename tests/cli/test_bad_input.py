"""Bad input at the command line, as one table: each gives one clear line and exit status 2, and leaves nothing behind.

A case is a command, what is wrong with it, and a word or two of what must be said. tests/test_cli.py and
tests/test_faults.py hold the mistakes that need a story of their own: runs killed, resumed, shared.
"""

import dataclasses
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
from argparse import ArgumentError
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file, save_file

from diffkit.cli import main
from diffkit.cli.settings import DataSettings, ModelSettings, read_config
from diffkit.data.tokenizer import word_level_tokenizer
from diffkit.processes import PROCESSES
from diffkit.training.config import Curriculum, TrainConfig
from diffkit.training.losses import OBJECTIVES

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


# --------------------------------------------------------------------------------------------------------------- things

TEXTS = {  # name: bytes
    "text.txt": TEXT.encode(), "empty.txt": b"", "blank.txt": b" \n\n", "binary.txt": bytes(range(256)),
    "latin.txt": "a\ncaf\xe9".encode("latin-1"), "utf16.txt": TEXT.encode("utf-16"), "one.txt": b"a b c",
    "two.txt": b"a b c\nd e f", "unknown.txt": b"one two\nthree four\nfive six", "text.docx": TEXT.encode(),
    "crlf.txt": TEXT.replace("\n", "\r\n").encode(), "bom.txt": b"\xef\xbb\xbf" + TEXT.encode(),
    "rows.jsonl": ROWS.encode(), "empty.jsonl": b"", "binary.jsonl": bytes(range(1, 256)),
    "broken.jsonl": (ROWS + "{oops\n" + ROWS).encode(), "cut.jsonl": ROWS.encode()[:-4],
    "numbers.jsonl": b'{"text": 5}\n' * 9, "mixed.jsonl": ROWS.encode() + b'{"text": 5}\n',
    "null.jsonl": b'{"text": null}\n' * 9, "list.jsonl": b'{"text": ["a"]}\n' * 9, "arrays.jsonl": b"[1, 2]\n" * 9,
    "field.jsonl": b'{"story": "a b"}\n' * 9, "latin.jsonl": ROWS.encode() + '{"text": "\xe9"}\n'.encode("latin-1"),
    "utf16.jsonl": ROWS.encode("utf-16"), "crlf.jsonl": ROWS.replace("\n", "\r\n").encode(),
    "bom.jsonl": b"\xef\xbb\xbf" + ROWS.encode(), "empty.parquet": b"", "binary.parquet": b"PAR1" + bytes(99) + b"PAR1",
}  # fmt: skip
SETTINGS = "data: {corpus: micro, batch_size: 2, validation_sequences: 2}\nmodel: {size: pico}\ntrain: {steps: 1}\n"
BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{after}: &{after} [{', '.join([f'*{name}'] * 9)}]\n" for name, after in zip("abcdefgh", "bcdefghi", strict=True)
)
MARK = "a-tag-ran"
CONFIGS = {  # name: (content, what is said)
    "empty": (b"", "a file of settings has sections"),
    "blank": (b"\n\n", "a file of settings has sections"),
    "binary": (bytes(range(256)), "no UTF-8 text"),
    "latin": ("# caf\xe9\n".encode("latin-1") + SETTINGS.encode(), "no UTF-8 text.*Save it as UTF-8"),
    "utf16": (SETTINGS.encode("utf-16"), "no UTF-8 text"),
    "prose": (TEXT.encode(), "a file of settings has sections"),
    "list": (b"- a\n- b\n", "a file of settings has sections"),
    "number": (b"5", "a file of settings has sections"),
    "tab": (b"data:\n\tcorpus: micro\n", "line 2"),
    "cut": (SETTINGS.encode()[:-2], "line 4"),
    "two documents": (f"{SETTINGS}---\n{SETTINGS}".encode(), "another document"),
    "unknown key": (SETTINGS.replace("steps", "stepps").encode(), "stepps"),
    "key is a number": (f"{SETTINGS}5: 6\n".encode(), "5"),
    "section twice": (f"{SETTINGS}train: {{steps: 2}}\n".encode(), "line 4: 'train' is set a second time"),
    "key twice": (SETTINGS.replace("steps: 1", "steps: 1, steps: 2").encode(), "'steps' is set a second time"),
    "tag that runs": (f'!!python/object/apply:os.system ["touch {MARK}"]\n'.encode(), "python/object"),
    "tag inside": (
        SETTINGS.replace("micro", f'!!python/object/apply:os.system ["touch {MARK}"]').encode(),
        "python/obj",
    ),
    "tag of a name": (SETTINGS.replace("pico", '!!python/name:os.system ""').encode(), "python/name"),
    "unknown tag": (SETTINGS.replace("pico", "!size pico").encode(), "!size"),
    "list for a number": (SETTINGS.replace("steps: 1", "steps: [1, 2]").encode(), r"train.steps.*\[1, 2\]"),
    "section for a number": (SETTINGS.replace("steps: 1", "steps: {a: 1}").encode(), "train.steps.*'a'"),
    "null": (SETTINGS.replace("steps: 1", "steps: null").encode(), "steps needs a value, got null"),
    "yes for a number": (SETTINGS.replace("steps: 1", "steps: true").encode(), "train.steps.*True"),
    "empty sections": (b"data:\nmodel:\ntrain:\n", "corpus"),
    "bomb of aliases": (BOMB.encode(), r"\*a stands for another place"),
    "an alias": (b"data: &a {corpus: micro}\nmodel: *a\n", r"line 2: \*a stands for another place"),
    "undefined alias": (b"data: *a\n", r"\*a stands for another place"),
    "deep lists": (b"data: " + b"[" * 500 + b"]" * 500, "brackets within brackets"),
    "deep sections": (b"data: " + b"{a: " * 500 + b"}" * 500, "brackets within brackets"),
    "a huge name": (SETTINGS.replace("micro", "x" * 200_000).encode(), "at most 100,000 characters"),
}


def rewritten(name, change):
    """Something that changes the bytes of a file in a model's folder."""
    return lambda folder: (folder / name).write_bytes(change((folder / name).read_bytes()))


def reweighted(change):
    """Something that changes the tensors of a model."""

    def spoil(folder):
        tensors = load_file(folder / "model.safetensors")
        save_file(change(dict(tensors)), folder / "model.safetensors", metadata={"format": "pt"})

    return spoil


def reconfigured(section, **settings):
    """Something that changes the settings of a model, with its weights left alone."""

    def spoil(folder):
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        (config[section] if section else config).update(settings)
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")

    return spoil


def a_folder_named(name):
    """A folder in the place of a file."""

    def spoil(folder):
        (folder / name).unlink()
        (folder / name).mkdir()

    return spoil


def one_nan(tensors):
    """One weight in the middle of the network is no number."""
    tensors["denoiser.blocks.1.attention.key.weight"][3, 4] = torch.nan
    return tensors


def flipped(data):
    """One bit among the weights."""
    return data[:-100] + bytes([data[-100] ^ 64]) + data[-99:]


SPOILED = {  # what was done to a model's folder: (how, what is said)
    **{
        f"{kind} {name}": (rewritten(name, change), said)
        for name, said in (("config.json", "damaged or not whole"), ("tokenizer.json", "no tokenizer that can be read"))
        for kind, change in (
            ("empty", lambda _: b""), ("binary", lambda _: bytes(range(256))), ("cut", lambda data: data[:200]),
            ("utf16", lambda data: data.decode().encode("utf-16")), ("null", lambda _: b"null"),
            ("list", lambda _: b"[1]"),
        )
    },
    "folder config.json": (a_folder_named("config.json"), "no folder with a config.json"),
    "folder tokenizer.json": (a_folder_named("tokenizer.json"), "no tokenizer that can be read"),
    "folder model.safetensors": (a_folder_named("model.safetensors"), "damaged or not whole"),
    "no config.json": (lambda folder: (folder / "config.json").unlink(), "no folder with a config.json"),
    "no tokenizer.json": (lambda folder: (folder / "tokenizer.json").unlink(), "no tokenizer that can be read"),
    "no model.safetensors": (lambda folder: (folder / "model.safetensors").unlink(), "no .safetensors weights"),
    "empty weights": (rewritten("model.safetensors", lambda _: b""), "damaged or not whole"),
    "binary weights": (rewritten("model.safetensors", lambda _: bytes(range(256))), "damaged or not whole"),
    "weights cut short": (rewritten("model.safetensors", lambda data: data[: len(data) // 2]), "damaged or not whole"),
    "a bit of a weight": (rewritten("model.safetensors", flipped), "not those that were saved"),
    "huge header": (rewritten("model.safetensors", lambda d: struct.pack("<Q", 2**40) + d[8:]), "damaged or not whole"),
    "one weight NaN": (reweighted(one_nan), "not all numbers: denoiser.blocks.1.attention.key.weight"),
    "all weights infinite": (reweighted(lambda own: {k: v + torch.inf for k, v in own.items()}), "not all numbers"),
    "whole numbers": (reweighted(lambda own: {k: v.long() for k, v in own.items()}), "damaged or not whole"),
    "a weight missing": (reweighted(lambda own: dict([*own.items()][1:])), "are not those of its config"),
    "a weight too many": (reweighted(lambda own: own | {"x": torch.zeros(2)}), "are not those of its config.* x"),
    "other shapes": (reweighted(lambda own: {k: v[:1].clone() for k, v in own.items()}), "are not those of its config"),
    "another kind": (reconfigured("", model_type="bert"), "'bert' model"),
    "no process": (reconfigured("", process={}), "process must be one of"),
    "unknown process": (reconfigured("process", name="magic"), "process must be one of.*magic"),
    "process of another": (reconfigured("process", name="d3pm"), "damaged or not whole"),
    "T = 0": (reconfigured("process", T=0), "whole number >= 1"),
    "T = 10^30": (reconfigured("process", T=10**30), "T counts steps, 1,000,000 at most"),
    "T = NaN": (reconfigured("process", T=float("nan")), "damaged or not whole"),
    "mask outside": (reconfigured("process", mask_id=999), "mask_id"),
    "network = list": (reconfigured("", denoiser=[]), "load_model"),
    "no heads": (reconfigured("denoiser", num_heads=0), "num_heads must lie in 1"),
    "no words": (reconfigured("denoiser", vocab_size=0), "vocab_size must lie in 1"),
    "10^12 words": (reconfigured("denoiser", vocab_size=10**12), "vocab_size must lie in 1"),
    "10^9 layers": (reconfigured("denoiser", num_layers=10**9), "num_layers must lie in 1"),
    "10^12 places": (reconfigured("denoiser", max_length=10**12), "max_length must lie in 1"),
    "size is a word": (reconfigured("denoiser", hidden_size="wide"), "damaged or not whole"),
    "unknown setting": (reconfigured("denoiser", colour="red"), "colour"),
}  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with the texts, a tokenizer, a model of `micro` and one of letters; called @ in the table."""
    home = tmp_path_factory.mktemp("world")
    for name, content in TEXTS.items():
        (home / name).write_bytes(content)
    lines = {"text": TEXT.splitlines()}
    Dataset.from_dict(lines).to_parquet(home / "rows.parquet")
    (home / "cut.parquet").write_bytes((home / "rows.parquet").read_bytes()[:-50])
    Dataset.from_dict({"story": ["a b"] * 9}).to_parquet(home / "field.parquet")
    Dataset.from_dict({"text": [1] * 9}).to_parquet(home / "numbers.parquet")
    Dataset.from_dict({"text": []}).to_parquet(home / "no-rows.parquet")
    for name in ("folder.txt", "empty folder", "two kinds"):
        (home / name).mkdir()
    for name in ("text.txt", "rows.jsonl"):
        shutil.copy(home / name, home / "two kinds")
    (home / "dangling.txt").symlink_to(home / "nowhere")
    word_level_tokenizer(LETTERS).save_pretrained(home / "tokenizer")
    assert main.main(["train", *MICRO, f"--out={home / 'micro'}"]) == 0
    own = [word.replace("@", str(home)) for word in OWN]
    assert main.main(["train", *own, f"--data.corpus={home / 'text.txt'}", f"--out={home / 'own'}"]) == 0
    return home


def state_of(folder):
    """Everything below a folder: name, size, time of the last change."""
    found = [(path, path.lstat()) for path in sorted(folder.rglob("*"))]
    return [(str(path), about.st_size, about.st_mtime_ns) for path, about in found if not path.is_dir()] + [
        str(path) for path, _ in found if path.is_dir()
    ]


@pytest.fixture
def refused(world, tmp_path, monkeypatch, capfd):
    """Run a command that must fail: one line, which is returned; nothing is changed, here or among the things."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def run(*words, said, at=world):
        before = state_of(at), state_of(tmp_path)
        capfd.readouterr()
        assert main.main([str(word).replace("@", str(at)) for word in words]) == 2
        assert (state_of(at), state_of(tmp_path)) == before, "something was left behind"
        told = capfd.readouterr().err.replace("\r", "\n").splitlines()
        lines = [line for line in told if line.strip() and "/s]" not in line]  # without bars of progress
        assert len(lines) == 1 and lines[0].startswith("diffkit ") and len(lines[0]) < 1400, told
        assert re.search(said, lines[0]), lines[0]
        return lines[0]

    return run


# -------------------------------------------------------------------------------------------------- numbers of settings

SECTIONS = {"data": DataSettings, "model": ModelSettings, "train": TrainConfig, "train.curriculum": Curriculum}
NUMBERS = {
    f"{section}.{field.name}": str(field.type)
    for section, settings in SECTIONS.items()
    for field in dataclasses.fields(settings)
    if str(field.type) in ("int", "float")
}
VALUES = ["-1", "0", HUGE]
OTHER_VALUES = ["abc", ".nan", ".inf", "[1]", "null"]
LARGE = {  # so large a number is one of these: a run that it spoils says so itself, or it asks for no limit
    "model.auxiliary", "train.lr", "train.muon_lr", "train.weight_decay", "train.clip",
}  # fmt: skip
ACCEPTED = {(name, value) for name in LARGE for value in (HUGE,)} | {
    ("train.clip", ".inf"),
    ("train.seed", "-1"),
}
ACCEPTED |= {
    (name, "0")
    for name in (
        "data.limit", "model.auxiliary", "model.dropout", "train.weight_decay", "train.warmup", "train.decay",
        "train.ema",
        "train.drop_label", "train.seed", "train.curriculum.hold", "train.curriculum.ramp",
    )
}  # fmt: skip


def with_setting(name, value):
    """A config with one setting."""
    text = f"{name.split('.')[-1]}: {value}"
    for section in reversed(name.split(".")[:-1]):
        text = f"{section}: {{{text}}}"
    base = {"data": "data: {corpus: micro}", "model": "model: {size: pico}", "train": ""}
    own = name.split(".")[0]
    given = {"data": "corpus: micro, ", "model": "size: pico, ", "train": ""}[own]
    text = text.replace(f"{own}: {{", f"{own}: {{{given}", 1)
    return "\n".join([text, *(line for section, line in base.items() if section != own)])


def test_every_number_of_the_default_config_is_in_the_table():
    """And every key of a setting is one that the tables know, so that a new one is tried as well."""
    assert len(NUMBERS) >= 27 and {name for name, _ in ACCEPTED} <= NUMBERS.keys()


@pytest.mark.parametrize(
    ("name", "value"), [(n, v) for n in NUMBERS for v in VALUES if (n, v) not in ACCEPTED], ids=lambda word: word[:20]
)
def test_a_number_that_no_run_can_have_is_refused(refused, name, value):
    """By train, before anything is built; the line names the setting."""
    refused("train", *MICRO, f"--{name}={value}", "--out=run", said=name.split(".")[-1])


@pytest.mark.parametrize("name", NUMBERS)
def test_what_is_no_number_is_refused_and_what_is_one_is_read(name, tmp_path):
    """In a config; zeros that mean something, and numbers that are only very large, are accepted."""
    for value in OTHER_VALUES + [value for value in VALUES if (name, value) in ACCEPTED]:
        (tmp_path / "own.yaml").write_text(with_setting(name, value), encoding="utf-8")
        if (name, value) in ACCEPTED:
            read_config(tmp_path / "own.yaml")
        else:
            with pytest.raises((ValueError, ArgumentError), match=name.split(".")[-1]):
                read_config(tmp_path / "own.yaml")


def test_zeros_that_mean_something_run(world, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    zeros = [f"--{name}={value}" for name, value in sorted(ACCEPTED) if value == "0"]
    assert main.main(["train", *MICRO, *zeros, "--train.clip=.inf", "--out=run"]) == 0


# ---------------------------------------------------------------------------------------------- options of the commands

SAMPLE, INFILL = ["sample", "--model=@/micro"], ["infill", "___ ran", "--model=@/micro"]
EVALUATE, DATA = ["evaluate", "--model=@/micro", "--n=2", "--samples=1"], ["data", *OWN, "--data.corpus=@/text.txt"]
TRAIN, LEARN = ["train", *MICRO, "--out=run"], [*DATA, "--train-tokenizer=pieces"]
CONDITIONAL = ["sample", "--model=tales-mdlm-conditional", "--steps=2"]
OPTIONS = {  # command: {option: what is said}
    "sample": (SAMPLE, {
        "--n=-1": "--n must be at least 1", f"--n={HUGE}": "--n must be at least 1 and at most",
        "--n=1e30": "n.*int", "--n=abc": "n.*abc", "--n=": "n", "--steps=-1": "steps", f"--steps={HUGE}": "steps",
        "--steps=1e12": "steps", "--temperature=.nan": "temperature must be 0 or more",
        "--temperature=.inf": "temperature must be 0 or more", "--temperature=hot": "temperature.*hot",
        "--top_k=-1": "k must be", "--top_k=1.5": "top_k", "--top_p=0": "p is a share", "--top_p=-1": "p is a share",
        "--top_p=.nan": "p is a share", "--top_p=1e30": "p is a share", f"--length={HUGE}": "--length must lie in",
        "--length=-1": "--length must lie in", f"--seed={HUGE}": "seed", "--seed=1.5": "seed", "--seed=abc": "seed",
        "--guidance=1": "knows no labels", "--guidance=.nan": "knows no labels", "--label=lost": "knows no labels",
        "--order=": "order", "--animate=maybe": "animate", "--prompt=Mia Mia Mia Mia Mia Mia": "Shorten the text",
        "--prompt=___{0} zebra zebra": "lacks 'zebra'; use", "--prompt=___{99}": "99 blanks.*Shorten",
        "--prompt=___{9999999999}": "9999999999 blanks", f"--prompt=___{{{HUGE}}}": "blanks",
        "--prompt=\udcff": "no UTF-8",
        "--prompt=Mia \x1b[2J": "lacks", "--model=": "no folder with a config.json", "--model=@/text.txt": "no folder",
        "--model=@/micro/config.json": "no folder", "--model=/dev/null": "no folder",
        "--model=@/empty folder": "no folder",
        "--model=../../../etc": "no folder", "--model=bert-base-uncased": "no folder", "--bogus": "bogus",
        "extra": "extra",
    }),
    "conditional": (CONDITIONAL, {
        "--label=x": "--label must be one of", "--guidance=1": "--label must be one of",
    }),
    "guided": ([*CONDITIONAL, "--label=lost"], {
        "--guidance=.nan": "guidance|finite", "--guidance=.inf": "guidance|finite",
        "--guidance=-.inf": "guidance|finite",
    }),
    "plaid": (["sample", "--model=pico-plaid", "--steps=1"], {
        "--order=confidence": "its own way", "--prompt=One": "needs a process with MASK",
    }),
    "diffusion_lm": (["sample", "--model=pico-diffusion-lm", "--steps=1"], {
        "--temperature=0.5": "leave them out", "--top_k=1": "leave them out",
    }),
    "infill": (INFILL, {
        "--n=0": "--n must be at least 1", f"--n={HUGE}": "--n must be", "--steps=0": "steps", "--steps=-1": "steps",
        "--temperature=-1": "temperature", "--temperature=.nan": "temperature", f"--seed={HUGE}": "seed",
        "--order=best": "order", "--complete=maybe": "complete", "--label=lost": "knows no labels", "more": "more",
        "--length=3": "length", "--model=@/nowhere": "no folder", "--top_k=3": "top_k",
    }),
    "infill nothing": (["infill"], {"--n=1": "text"}),
    "infill words": (["infill", "--model=@/micro"], {
        "zebra ___": "lacks 'zebra'", "___{9999999999}": "blanks",
    }),
    "evaluate": (EVALUATE, {
        "--n=0": "--n must be a whole number", "--n=-1": "--n must be", f"--n={HUGE}": "--n must be",
        "--n=abc": "n.*abc",
        "--samples=-1": "--samples must be", f"--samples={HUGE}": "--samples must be", "--steps=0": "steps",
        "--steps=-1": "steps", f"--steps={HUGE}": "steps", "--fraction=0": "fraction", "--fraction=-1": "fraction",
        "--fraction=.nan": "fraction", "--fraction=2": "fraction", f"--seed={HUGE}": "seed", "--seed=abc": "seed",
        "--corpus=tales": "tales has words of its own", "--corpus=@/nowhere.txt": "neither a file or folder",
        "--corpus=@/empty.txt": "is empty", "--corpus=@/binary.txt": "UTF-8", "--corpus=@/folder.txt": "there is none",
        "--corpus=@/text.txt": "knows no word|would be held out", "--json_file=@/text.txt/x.json": "cannot write to",
        "--json_file=@/micro": "is no file", "--json_file=/dev/full": "is no file", "--all=maybe": "all",
        "--model=@/own": "say which text to use with --corpus",
    }),
    "report": ([*EVALUATE, "--all"], {
        "--samples=0": "--all needs", "--corpus=@/text.txt": "--all needs", "--json_file=x.json": "--all needs",
        "--out=@/text.txt": "cannot write to", "--out=@/text.txt/x": "cannot write to",
        "--out=/dev/full": "cannot write",
    }),
    "evaluate a text": (["evaluate", "--model=@/own", "--n=2"], {
        "--corpus=@/unknown.txt": "would be held out|knows no word", "--corpus=": "--corpus",
        "--corpus=micro": "of its own",
        "--corpus=@/one.txt": "Give more text", "--corpus=@/dangling.txt": "neither a file or folder",
    }),
    "train": (TRAIN, {
        "--model.size=": "size must be one of", "--model.size=[nano]": "size must be one of", "--model=nano": "nano",
        "--model.process=x": "process must be one of", "--model.schedule=x": "the schedules are.*cosine",
        "--model.noise=x": "noise must be one of", "--model.reverse=x": "reverse must be one of",
        "--model.weight=x": "weight must be one of", "--model.time=x": "time must be one of",
        "--model.rotary=5": "rotary",
        "--train.times=x": "times must be one of",
        "--train.precision=fp16": r"train.precision.*one of \['no', 'bf16'\]",
        "--train.optimizer=x": r"one of \['adamw', 'muon'\]", "--train.shard=x": "shard", "--track=x": "wandb",
        "--train.curriculum=5": "train.curriculum", "--train.curriculum=[1,2]": "train.curriculum",
        "--train.curriculum={start: 1, foo: 2}": "foo", "--data=[]": "data", "--resume=maybe": "resume",
        "--data.corpus": "expected one argument", "--data.corpus=": "corpus is empty", "--config": "expected one",
        "--config=@": "not a file", "--config=@/nowhere.yaml": "nowhere.yaml", "--config=/dev/null": "dev/null",
        "--config=@/micro/model.safetensors": "UTF-8|settings", "--device=gpu": "--device=gpu", "extra": "extra",
        "--model.init=@/nowhere": "no folder", "--model.init=tales-mdlm": "do not fit this model",
        "--model.init=@/own": "do not fit this model", "--out=@/text.txt": "cannot write to",
        "--out=@/micro": "holds a model",
        "--out=@/text.txt/run": "cannot write to", "--out=/dev/full": "cannot write to",
        "--out=/dev/null/run": "cannot write",
        "--data.batch_size=1000000000": "batch_size times length must be at most",
        "--data.validation_sequences=1000000000": "validation_sequences times length",
        "--data.length=1000000000": "length",
        "--data.workers=100000": "workers must be at most", "--model.T=1000001": "T counts steps, 1,000,000 at most",
        "--model.width=100000": "width in 1..4,096", "--train.accumulate=1000000000000": "accumulate must be at most",
        "--train.lr=1e30": "no number", "--train.muon_lr=1e30": "no number", "--train.weight_decay=1e30": "no number",
    }),
    "train a text": (["train", *OWN, "--out=run"], {
        **{f"--data.corpus=@/{name}": said for name, said in (
            ("nowhere.txt", "neither a file or folder"), ("empty.txt", "is empty"), ("latin.txt",
            "line 2 holds other bytes"),
            ("cut.jsonl", "cannot be read as json"), ("text.docx", "files of one kind"), ("two kinds", "json and text"),
        )},
    }),
    "data": (DATA, {
        **{f"--data.corpus=@/{name}": said for name, said in (
            ("nowhere.txt", "Check the spelling"), ("empty.txt", "is empty.*cut short"), ("blank.txt",
            "holds no documents"),
            ("binary.txt", "line 1 holds other bytes"), ("latin.txt", "line 2 holds other bytes.*Save it as UTF-8"),
            ("utf16.txt", "line 1 holds other bytes"), ("text.docx", "files of one kind"), ("folder.txt",
            "there is none"),
            ("empty folder", "there is none"), ("two kinds", "json and text"), ("dangling.txt",
            "neither a file or folder"),
            ("one.txt", "Give more text"), ("empty.jsonl", "is empty"), ("binary.jsonl", "holds other bytes"),
            ("broken.jsonl", "cannot be read as json.*row 80"), ("cut.jsonl", "cannot be read as json.*row 79"),
            ("numbers.jsonl", r"column 'text' of strings.*text \(int\)"), ("mixed.jsonl",
            "something else in a later row"),
            ("null.jsonl", "column 'text' of strings"), ("list.jsonl", r"text \(list\)"), ("arrays.jsonl",
            "be read as json"),
            ("field.jsonl", r"has story \(str\)"), ("latin.jsonl", "line 81 holds other bytes"),
            ("utf16.jsonl", "line 1 holds other bytes"), ("empty.parquet", "is empty"),
            ("binary.parquet", "cannot be read as parquet"), ("cut.parquet", "cannot be read as parquet"),
            ("numbers.parquet", r"text \(int\)"), ("field.parquet", r"has story \(str\)"),
            ("no-rows.parquet", "cannot be read as parquet|no documents"),
        )},
        "--data.corpus=/dev/zero": "files of one kind", "--data.corpus=.": "there is none",
        "--data.corpus=" + "x" * 300: "too long", "--data.length=1000": "one chunk needs 1000 tokens",
        "--data.limit=1": "Give more text", "--data.validation_fraction=1e-30": "would be held out",
        "--data.tokenizer=@/nowhere": "could not be fetched", "--data.tokenizer=@/empty folder": "no tokenizer",
        "--data.tokenizer=@/text.txt": "load_tokenizer", "--data.tokenizer=": "load_tokenizer",
        "--train.seed=-" + HUGE: "seed", "--vocab-size=abc": "vocab_size", "--out=x": "out",
    }),
    "learn": (LEARN, {
        "--vocab-size=-1": "vocab_size must be at least 259", "--vocab-size=0": "vocab_size must be at least 259",
        f"--vocab-size={HUGE}": "at most 1,000,000", "--vocab-size=1000000000000": "at most 1,000,000",
        "--vocab-size=1e30": "vocab_size", "--train-tokenizer=@": "is there already",
        "--train-tokenizer=@/text.txt": "is there already", "--train-tokenizer=@/text.txt/x": "cannot be written",
        "--data.corpus=micro": "no documents", "--data.corpus=@/empty.txt": "is empty",
    }),
    "demo": (["demo"], {"--n=3": "--n=3", "x": "x"}),
    "doctor": (["doctor"], {"--n=3": "--n=3", "x": "x"}),
}  # fmt: skip
CASES = [(command, option) for command, (_, options) in OPTIONS.items() for option in options]


@pytest.mark.parametrize(("command", "option"), CASES, ids=lambda word: ascii(word)[1:40])
def test_a_bad_option_is_refused(refused, monkeypatch, command, option):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    words, options = OPTIONS[command]
    refused(*words, option, said=options[option])


@pytest.mark.parametrize(
    "words", [["nonsense"], ["Sample"], ["--bogus"], [""], ["sample", "--n"], ["train", "--config"]]
)
def test_a_command_that_is_none_is_refused(tmp_path, monkeypatch, capsys, words):
    monkeypatch.chdir(tmp_path)
    assert main.main(words) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1 and not list(tmp_path.iterdir())


OTHERS = [(p, o) for p in PROCESSES for o in OBJECTIVES if o != "bound" and (p, o) not in {
    *(("mdlm", o) for o in ("cross_entropy", "sequence_mean", "count_cross_entropy", "count_bound")), ("d3pm",
    "hybrid"),
    ("sedd", "score_entropy"), ("udlm", "score_entropy"), ("diffusion_lm", "end_to_end"), ("plaid", "likelihood"),
}]  # fmt: skip


@pytest.mark.parametrize("process", PROCESSES)
def test_an_objective_of_another_process_is_refused(refused, process):
    """One a process, in turn; the default config's objective is that of mdlm alone."""
    objective = [o for p, o in OTHERS if p == process][0]
    options = [f"--model.process={process}", f"--train.objective={objective}", "--model.block=2", "--model.width=2"]
    refused(*TRAIN, *options, said=f"objective '{objective}' is made for another process.*'bound'")


# ---------------------------------------------------------------------------------------------------- files of settings


@pytest.mark.parametrize("name", CONFIGS)
def test_a_bad_config_is_refused(refused, tmp_path, name):
    content, said = CONFIGS[name]
    (tmp_path / "own.yaml").write_bytes(content)
    refused("train", f"--config={tmp_path / 'own.yaml'}", "--out=run", said=said)
    assert not list(tmp_path.rglob(MARK)), "a tag was run"


# --------------------------------------------------------------------------------------------------------------- models


@pytest.mark.parametrize("how", SPOILED)
def test_a_broken_model_is_refused(refused, world, tmp_path_factory, how):
    """By sample, and where it is to be trained on."""
    folder = tmp_path_factory.mktemp("spoiled") / "model"
    shutil.copytree(world / "micro", folder, ignore=shutil.ignore_patterns("checkpoints"))
    change, said = SPOILED[how]
    change(folder)
    refused("sample", "--model=@", said=said, at=folder)
    if how in ("a bit of a weight", "one weight NaN"):
        refused("evaluate", "--model=@", "--n=2", said=said, at=folder)
        refused("infill", "___", "--model=@", said=said, at=folder)
        refused(*TRAIN, "--model.init=@", said=said, at=folder)


def test_the_checkpoint_of_another_run_is_refused(refused):
    refused("train", *MICRO, "--out=@/own", "--resume", said="is of another run.*process.vocab_size: 14 there, 8 here")


# -------------------------------------------------------------------------------------------------- what only looks bad


@pytest.mark.parametrize("kind", ["txt", "jsonl"])
def test_windows_line_ends_and_a_byte_order_mark_change_nothing(world, monkeypatch, tmp_path, capsys, kind):
    """The same tokens, seen by `data`, whoever wrote the file."""
    monkeypatch.chdir(tmp_path)
    own, told = [word.replace("@", str(world)) for word in OWN], set()
    for name in ("text" if kind == "txt" else "rows", "crlf", "bom"):
        assert main.main(["data", *own, f"--data.corpus={world / name}.{kind}"]) == 0
        told.add(capsys.readouterr().out.partition("\n")[2])
    assert len(told) == 1 and "One sequence of 4 tokens" in told.pop()


@pytest.mark.parametrize(
    "change", [lambda text: text.replace("\n", "\r\n").encode(), lambda text: text.encode("utf-8-sig")]
)
def test_a_config_may_be_written_on_windows(tmp_path, change):
    (tmp_path / "own.yaml").write_bytes(change(SETTINGS))
    assert read_config(tmp_path / "own.yaml").train.steps == 1


@pytest.mark.parametrize(
    "option",
    ["--temperature=0", "--temperature=1e30", f"--top_k={HUGE}", "--seed=-1", "--prompt=", "--guidance=0", "--n=70"],
)
def test_extremes_that_mean_something_run(world, option, capsys):
    assert main.main(["sample", f"--model={world / 'micro'}", option]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("option", ["--samples=0", "--n=1"])
def test_an_evaluation_of_almost_nothing_runs_without_a_warning(world, option, capsys):
    assert main.main(["evaluate", f"--model={world / 'micro'}", "--n=2", "--samples=1", option]) == 0
    assert capsys.readouterr().err == ""


def test_want_of_memory_is_told_in_one_line(world, monkeypatch, capsys):
    """Whoever runs out of it first; another RuntimeError is a bug of ours, and keeps its traceback."""
    for error in (
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
        torch.OutOfMemoryError("CUDA out of memory"),
    ):
        monkeypatch.setattr(
            "diffkit.sampling.sampler.last_frame", lambda frames, error=error: (_ for _ in ()).throw(error)
        )
        assert main.main(["sample", f"--model={world / 'micro'}"]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "not enough memory" in line and "fewer texts" in line
    monkeypatch.setattr(
        "diffkit.sampling.sampler.last_frame", lambda _: (_ for _ in ()).throw(RuntimeError("size mismatch"))
    )
    with pytest.raises(RuntimeError, match="size mismatch"):
        main.main(["sample", f"--model={world / 'micro'}"])


# ------------------------------------------------------------------------------------------------------- real processes


@pytest.fixture(scope="module")
def forked(world, tmp_path_factory):
    """Commands as processes of their own, forked by tests/killed.py: run(words, **end) gives (status, last line)."""
    if not hasattr(os, "fork"):
        pytest.skip("no processes can be forked here")
    home = tmp_path_factory.mktemp("forked")
    caches = {"HF_DATASETS_CACHE": str(home / "hf"), "DIFFKIT_CACHE": str(home / "chunks"), "OMP_NUM_THREADS": "1"}
    caches |= {"HTTPS_PROXY": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9", "HF_HOME": str(home / "hub")}
    (home / "here").mkdir()
    with subprocess.Popen(
        [sys.executable, Path(__file__).parents[1] / "killed.py"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        cwd=home / "here", env=os.environ | caches,
    ) as maker:  # fmt: skip

        def answer(**order):
            maker.stdin.write(json.dumps(order) + "\n")
            maker.stdin.flush()
            return int(maker.stdout.readline())

        def run(*words, left=(), **end):
            words = [word.replace("@", str(world)) for word in words]
            status = answer(wait=answer(run=words, told=str(home / "told"), end=end))
            told = (home / "told").read_text("utf-8")
            assert sorted(path.name for path in (home / "here").rglob("*")) == list(left), told
            assert "Traceback" not in told, told
            shutil.rmtree(home / "here" / "run", ignore_errors=True)
            return status, told.replace("\r", "\n").splitlines()[-1]

        assert maker.stdout.readline() == "ready\n"
        yield run
        maker.stdin.close()


FULL = {  # what is written to a disk on which no file may be longer than so many bytes, and what is left of it
    "a tokenizer": ([*LEARN, "--vocab-size=265"], 5_000, []),
    "a report": ([*EVALUATE, "--all", "--out=found"], 900, []),
    "a checkpoint": (TRAIN, 20_000, ["run", "training.jsonl"]),  # the log, of whole lines
}


@pytest.mark.slow
@pytest.mark.parametrize("what", FULL)
def test_a_full_disk_leaves_nothing_half_written(forked, what):
    words, room, left = FULL[what]
    status, line = forked(*words, bytes=room, left=left)
    assert status == 2 and re.search("cannot be written .*too large.*Make room on the disk", line), line


NO_NETWORK = {
    "train": (["train", f"--config={ROOT / 'configs/tiny.yaml'}", "--out=run"], "bert-base-uncased.*Ways out"),
    "data": (
        ["data", f"--config={ROOT / 'configs/tiny.yaml'}", "--data.tokenizer=@/tokenizer"],
        "TinyStories.*local .txt",
    ),
    "evaluate": (["evaluate", "--model=@/own", "--corpus=openwebtext"], "openwebtext.*'tales'"),
    "sample": (["sample", "--model=some-body/a-model"], "Check the path"),
}


@pytest.mark.slow
@pytest.mark.parametrize("command", NO_NETWORK)
def test_without_a_network_one_line_comes_at_once(forked, command):
    """Behind a proxy that refuses; killed.py ends what takes two minutes, and a retry would take most of one."""
    words, said = NO_NETWORK[command]
    signal.alarm(30)
    status, line = forked(*words)
    signal.alarm(0)
    assert status == 2 and line.startswith(f"diffkit {command}: ") and re.search(said, line), line


@pytest.mark.slow
def test_a_process_ends_with_the_status_and_the_line(forked):
    assert forked(*SAMPLE, "--n=0")[0] == 2
    status, line = forked("sample", f"--n={HUGE}", "--model=@/micro")
    assert status == 2 and line.startswith("diffkit sample: --n must be at least 1 and at most")
