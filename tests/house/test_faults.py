"""Nothing is lost on a fault: runs killed, disks full, folders shared, files spoiled, and what is left each time.

docs/maintainers/promises.md is the table of what is promised here. The commands run in real processes, which
tests/killed.py forks.
"""

import ast
import json
import math
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch

from diffkit.data.tokenizer import word_level_tokenizer
from diffkit.training.checkpoint import checkpoints, latest_checkpoint, load_checkpoint

TESTS = Path(__file__).resolve().parents[1]
LETTERS = "abcdefghij"
EVERY = 2  # steps between checkpoints
FOREVER = 1_000_000  # steps of a run that only a fault can end
SMALL = [
    "--data.corpus=text.txt", "--data.tokenizer=tokenizer", "--data.length=16", "--data.batch_size=4",
    "--data.validation_fraction=0.2", "--data.validation_sequences=4", "--model.size=pico", "--model.dropout=0.1",
    "--train.warmup=1", f"--train.save_every={EVERY}",
    "--train.decay=0", "--train.curriculum={start: 1.0, hold: 0.0, ramp: 0.0}",  # no step depends on how many there are
]  # fmt: skip


class Commands:
    """The commands of diffkit, each in a process of its own, with one text and one tokenizer in their folder."""

    def __init__(self, home):
        self.home, self.told = home, home / "told.txt"
        self.caches = [home / "hf", home / "chunks"]
        lines = [" ".join(LETTERS[(i + k * k) % 10] for k in range(5 + i % 7)) for i in range(300)]
        (home / "text.txt").write_text("\n".join(lines), encoding="utf-8")
        (home / "less.txt").write_text("\n".join(lines[:200]), encoding="utf-8")
        word_level_tokenizer(LETTERS).save_pretrained(home / "tokenizer")
        word_level_tokenizer(LETTERS + "k").save_pretrained(home / "other")
        settings = {"HF_DATASETS_CACHE": str(self.caches[0]), "DIFFKIT_CACHE": str(self.caches[1])}
        settings |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "0", "HF_HOME": str(home / "hub")}
        settings |= {"HTTPS_PROXY": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9"}  # it refuses
        self.maker = subprocess.Popen(
            [sys.executable, TESTS / "killed.py"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=home,
            env=os.environ | settings,
        )  # fmt: skip
        assert self.maker.stdout.readline() == "ready\n"

    def _order(self, **order):
        self.maker.stdin.write(json.dumps(order) + "\n")
        self.maker.stdin.flush()
        return int(self.maker.stdout.readline())

    def start(self, *arguments, **end):
        """Start a command, whose end may be ordered; returns the process id."""
        self.told.unlink(missing_ok=True)
        return self._order(run=[str(word) for word in arguments], told=str(self.told), end=end)

    def status(self, process):
        """The exit status of a command, waited for."""
        return self._order(wait=process)

    def run(self, *arguments, **end):
        """Run a command to its end; returns (exit status, all that it printed)."""
        status = self.status(self.start(*arguments, **end))
        return status, self.told.read_text(encoding="utf-8")

    def train(self, folder, steps, *more, **end):
        """Train in a folder up to a number of steps, going on from what is there."""
        return self.run(*training(folder, steps), *more, **end)

    def refused(self, *arguments, **end):
        """Run a command that must fail with status 2 and one line; returns that line."""
        status, printed = self.run(*arguments, **end)
        lines = [line for line in printed.splitlines() if line.startswith("diffkit")]
        assert status == 2 and len(lines) == 1 and "Traceback" not in printed, printed
        assert printed.endswith(f"{lines[0]}\n"), printed
        return lines[0]


def training(folder, steps=FOREVER):
    """The command that trains in a folder, going on from what is there."""
    return ["train", *SMALL, f"--out={folder}", f"--train.steps={steps}", "--resume"]


@pytest.fixture(scope="module")
def commands(tmp_path_factory):
    if not hasattr(os, "fork"):
        pytest.skip("no processes can be forked here")
    made = Commands(tmp_path_factory.mktemp("faults"))
    with made.maker:  # waits for its end, which comes with that of its orders
        yield made


@pytest.fixture(scope="module")
def finished(commands):
    """A run of four steps, with its checkpoints step-2 and step-4 and its model."""
    status, told = commands.train("finished", 4)
    assert status == 0, told
    return commands.home / "finished"


@pytest.fixture
def copied(finished, tmp_path):
    """The same, to be spoiled."""
    return shutil.copytree(finished, tmp_path / "copied")


def content(folder):
    """Every file under a folder with its bytes."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def logged(folder):
    """The lines of training.jsonl, step to loss. The last line may be half written."""
    path = folder / "training.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    records = [json.loads(line) for line in lines if line.endswith("\n")]
    steps = [record["step"] for record in records]
    assert steps == sorted(set(steps)), "a step is logged twice"
    return {record["step"]: record["loss"] for record in records}


def saved_step(folder):
    """The step of the newest checkpoint, 0 without one, once all of them have proved to be whole."""
    steps = [load_checkpoint(path)[1]["step"] for path in checkpoints(folder / "checkpoints")]
    return max(steps, default=0)


def until(happened, what):
    """Wait for something to become true."""
    end = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < end, f"{what} did not come"
        time.sleep(0.001)


# ---------------------------------------------------------------------------------------------------------------- kill


# Where a run can be killed, with the most lines that are counted first: (file, function or "", lines).
PREPARING = [("corpus.py", "", 40), ("chunks.py", "", 40)]
STEPPING = [("trainer.py", "", 200), ("trainer.py", "step", 60), ("losses.py", "", 30)]
SAVING = [("checkpoint.py", "save_checkpoint", 8), ("io.py", "_to_disk", 6)]
SAVING += [("io.py", "atomic_folder", 12), ("checkpoint.py", "drop_checkpoints", 6)]


def killed_in_code(commands, folder, file, function, line, afresh=False):
    """Kill a run before a line of a file or function, counted as they are run; `afresh` with all caches empty."""
    for cache in commands.caches if afresh else ():
        shutil.rmtree(cache, ignore_errors=True)
    return commands.status(commands.start(*training(folder), file=file, function=function, line=line))


def killed_from_outside(commands, folder, seconds, saving=False):
    """Kill a run wherever it is, or when the draft of a checkpoint is on the disk."""
    saved = commands.home / folder / "checkpoints"  # not to be walked down: what is in it may be renamed meanwhile
    drafts = {*saved.glob(".*.part")}
    process = commands.start(*training(folder))
    if saving:
        until(lambda: {*saved.glob(".*.part")} - drafts, "a draft")
    time.sleep(seconds)
    os.kill(process, signal.SIGKILL)
    return commands.status(process)


def moments(rng):
    """Eleven kills at random moments, as functions of (commands, folder), in random order."""
    kills = [
        partial(killed_in_code, file=file, function=function, line=rng.randint(1, most), afresh=afresh)
        for afresh, positions in ((True, PREPARING), (False, STEPPING + SAVING))
        for file, function, most in positions
    ]
    kills += [partial(killed_from_outside, seconds=rng.uniform(0, 1.5))]
    kills += [partial(killed_from_outside, seconds=rng.uniform(0, 0.01), saving=True)]
    return rng.sample(kills, len(kills))


@pytest.mark.slow
def test_many_kills_lose_nothing(commands):
    """Killed and resumed a dozen times, a run ends bit for bit as if never interrupted; no checkpoint is ever broken.

    Kills in data preparation, in steps, in checkpoints and from outside; the last one while the model is written.
    """
    rng, folder, before = random.Random(0), commands.home / "killed", 0
    for kill in moments(rng):
        assert kill(commands, "killed") == -signal.SIGKILL, commands.told.read_text(encoding="utf-8")
        after, done = saved_step(folder), max(logged(folder), default=0)
        assert after >= max(before, (done - 1) // EVERY * EVERY), "a saved step is lost"
        before = after
    last = before + 3
    line = rng.randint(1, 80)
    status, told = commands.train("killed", last, file="modeling_utils.py", function="save_pretrained", line=line)
    assert status == -signal.SIGKILL and saved_step(folder) == last, told
    assert commands.train("killed", last)[0] == commands.train("straight", last)[0] == 0
    straight = commands.home / "straight"
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        assert (folder / name).read_bytes() == (straight / name).read_bytes(), name
    ends = [load_checkpoint(latest_checkpoint(run / "checkpoints")) for run in (folder, straight)]
    assert ends[0][1] == ends[1][1] | {"settings": ends[0][1]["settings"]}
    assert all(torch.equal(ends[0][0][name], value) for name, value in ends[1][0].items())
    assert logged(folder) == logged(straight) and len(logged(folder)) == last
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {
        path.name for path in (straight / "checkpoints").iterdir()
    }, "remains of killed runs are cleared"


# ----------------------------------------------------------------------------------------------------- full disk, locks


def refused_as_full(commands, folder, **end):
    """Resume a run whose next checkpoint finds no room: one clear line, and the two before are whole."""
    line = commands.refused(*training(folder), **end)
    assert re.search(r"step-\d+ cannot be written .*(space left|too large)", line), line
    names = sorted(path.name for path in (folder / "checkpoints").iterdir())
    assert names == ["step-0000002", "step-0000004"] and saved_step(folder) == 4


@pytest.mark.slow
def test_a_full_disk_leaves_the_checkpoint_before(commands, copied):
    """No file may grow beyond 1 MB, which stops a checkpoint in the middle; with room again the run goes on."""
    before = content(copied / "checkpoints")
    refused_as_full(commands, copied, bytes=1_000_000)
    assert content(copied / "checkpoints") == before
    assert commands.train(copied, 6)[0] == 0 and saved_step(copied) == 6


WRITTEN = {  # a command, and the size in bytes that no file may exceed
    "data": ([*SMALL, "--train-tokenizer=pieces", "--vocab-size=265"], 5_000),
    "sample": (["--model=finished", "--seed=0", "--save=run.html"], 2_000),
}


def names(commands):
    """What lies in the folder, caches and printed lines left out."""
    return {path.name for path in commands.home.iterdir()} - {"hf", "chunks", "hub", "told.txt"}


@pytest.mark.slow
@pytest.mark.parametrize("command", WRITTEN)
def test_a_full_disk_leaves_nothing_half_written(commands, finished, command):
    (words, room), before = WRITTEN[command], names(commands)
    line = commands.refused(command, *words, bytes=room)
    assert re.search("cannot be written .*too large", line) and names(commands) == before, line


TINY = f"--config={TESTS.parent / 'configs/tiny.yaml'}"
NO_NETWORK = {  # a command: its options, what the line says
    "train": ([TINY, "--out=run"], "bert-base-uncased.*Ways out"),
    "data": ([TINY, "--data.tokenizer=tokenizer"], "TinyStories.*local .txt"),
    "evaluate": (["--model=finished", "--corpus=openwebtext"], "openwebtext.*'tales'"),
    "sample": (["--model=some-body/a-model"], "Check the path"),
}


@pytest.mark.slow
@pytest.mark.parametrize("command", NO_NETWORK)
def test_without_a_network_one_line_comes_at_once(commands, finished, command):
    """Behind a proxy that refuses; killed.py ends what takes two minutes, and a retry would take most of one."""
    (words, said), before = NO_NETWORK[command], names(commands)
    signal.alarm(30)
    line = commands.refused(command, *words)
    signal.alarm(0)
    assert re.search(said, line) and names(commands) == before, line


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 5 MB: two checkpoints of a pico model fit and a third does not."""
    disk = tmp_path / "disk"
    disk.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=5m", "tmpfs", disk], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"no file system can be mounted here: {made.stderr.strip()}")
    yield disk
    subprocess.run(["umount", disk], check=True)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("mount") is None, reason="no file system can be mounted here")
def test_a_disk_that_is_really_full_leaves_both_checkpoints(commands, small_disk):
    refused_as_full(commands, small_disk / "run")


@pytest.mark.slow
def test_two_runs_never_share_a_folder(commands):
    """The second is refused while the first lives, which does not notice; killed, the first lets go of the folder."""
    folder = commands.home / "shared"
    first = commands.start(*training(folder))
    until(lambda: logged(folder), "a step")
    assert re.search(r"another run is at work in .*shared", commands.refused(*training(folder)))
    seen = saved_or_moving(folder)
    until(lambda: saved_or_moving(folder) > seen, "a checkpoint of the first run")
    os.kill(first, signal.SIGKILL)
    assert commands.status(first) == -signal.SIGKILL
    assert commands.train(folder, saved_step(folder) + 1)[0] == 0


def saved_or_moving(folder):
    """The newest checkpoint's step by its name, of a run that is at work."""
    return max((int(path.name.removeprefix("step-")) for path in checkpoints(folder / "checkpoints")), default=0)


# ---------------------------------------------------------------------------------------------- asked to stop, diverged


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_run_that_is_asked_to_stop_saves_and_ends_well(commands, number, tmp_path):
    """No step is due to be saved; the one at work when the signal came is."""
    process = commands.start(*training(tmp_path), f"--train.save_every={FOREVER}")
    until(lambda: len(logged(tmp_path)) >= 2, "a second step")
    os.kill(process, number)
    assert commands.status(process) == 0, commands.told.read_text(encoding="utf-8")
    steps = saved_step(tmp_path)
    assert steps == max(logged(tmp_path)) >= 2 and (tmp_path / "config.json").is_file()
    assert f"Stopped after {steps} of {FOREVER} steps" in commands.told.read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_loss_that_is_no_number_names_step_and_batch(commands, copied):
    """A huge learning rate: step 5 still counts with sound weights, step 6 with what it made of them."""
    four = content(copied / "checkpoints" / "step-0000004")
    huge = ["--train.optimizer=muon", "--train.lr=1e38", "--train.save_every=5"]
    line = commands.refused(*training(copied), *huge)
    assert re.search(r"(nan|inf).* at step 6\b.*batch 6 ", line), line
    assert content(copied / "checkpoints" / "step-0000004") == four and saved_step(copied) == 5
    assert max(logged(copied)) == 5 and all(map(math.isfinite, logged(copied).values()))


# -------------------------------------------------------------------------------------------------------- spoiled files


def flipped(data, place):
    """The same bytes, one bit changed."""
    return data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :]


@pytest.mark.slow
def test_a_spoiled_checkpoint_is_refused_and_left_alone(commands, copied):
    """The line says which one, and what to do; then the one before it serves. test_checkpoint.py knows other faults."""
    newest = copied / "checkpoints" / "step-0000004"
    state = newest / "state.safetensors"
    state.write_bytes(flipped(state.read_bytes(), state.stat().st_size // 2))
    before = content(copied)
    line = commands.refused(*training(copied, 6))
    assert "step-0000004 " in line and content(copied) == before, line
    shutil.rmtree(newest)
    assert commands.train(copied, 6)[0] == 0 and saved_step(copied) == 6


OTHER = {  # an option of another run: what is said; test_trainer.py knows more of them
    "--model.process=Autoregressive --train.objective=bound": "process.*autoregressive",
    "--data.tokenizer=other": "vocab_size.* 14.* 15",
    "--data.corpus=less.txt": "other batches",
}


@pytest.mark.slow
@pytest.mark.parametrize("option", OTHER)
def test_another_run_is_not_resumed(commands, copied, option):
    """Wrong process, tokenizer or text: a line that names the difference, and nothing overwritten."""
    before = content(copied)
    line = commands.refused(*training(copied, 6), *option.split())
    assert re.search(OTHER[option], line) and content(copied) == before, line


# ----------------------------------------------------------------------------------------------------------- the table


def test_every_promise_names_tests_that_exist():
    """Each row of docs/maintainers/promises.md names at least one, as `folder/file.py::test_name`."""
    table = (TESTS.parent / "docs" / "maintainers" / "promises.md").read_text(encoding="utf-8")
    rows = [line for line in table.splitlines() if line.startswith("| ") and not line.startswith("| What ")]
    assert len(rows) >= 10
    for row in rows:
        named = re.findall(r"`([\w/]+\.py)::(test_\w+)`", row.split("|")[-2])
        assert named, f"no test proves: {row}"
        for file, test in named:
            tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
            defined = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
            assert test in defined, f"{file} has no {test}"
