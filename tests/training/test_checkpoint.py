"""Checkpoints: whole or absent, refused with a reason when damaged, and complete enough to go on from."""

import json
import random

import pytest
import torch

from diffkit.io import atomic_folder
from diffkit.training import checkpoint
from diffkit.training.checkpoint import (
    FORMAT,
    checkpoints,
    drop_checkpoints,
    latest_checkpoint,
    load_checkpoint,
    optimizer_state,
    restore_optimizers,
    save_checkpoint,
)

TENSORS = {"weight": torch.arange(6.0).reshape(2, 3), "count": torch.tensor(3), "bytes": torch.arange(9).byte()}
NUMBERS = {"step": 500, "batches": {"position": 7, "label": None}}


def same(got, want):
    return got.keys() == want.keys() and all(torch.equal(got[name], want[name]) for name in want)


def saved(folder, step):
    save_checkpoint(folder / f"step-{step:07d}", TENSORS, NUMBERS | {"step": step})
    return folder / f"step-{step:07d}"


def test_what_is_saved_comes_back(tmp_path):
    tensors, numbers = load_checkpoint(saved(tmp_path, 500))
    assert same(tensors, TENSORS) and all(tensors[name].dtype == TENSORS[name].dtype for name in TENSORS)
    assert numbers == {"format": FORMAT, **NUMBERS}
    assert [path.name for path in tmp_path.iterdir()] == ["step-0000500"]
    files = {path.name for path in (tmp_path / "step-0000500").iterdir()}
    assert files == {"state.safetensors", "state.json"}  # nothing that runs code when it is read


def test_views_and_shared_tensors_can_be_saved(tmp_path):
    matrix = torch.arange(6.0, requires_grad=True).reshape(2, 3)
    save_checkpoint(tmp_path / "step-1", {"a": matrix.T, "b": matrix, "c": matrix[0]}, {})
    tensors, _ = load_checkpoint(tmp_path / "step-1")
    assert same(tensors, {"a": matrix.T, "b": matrix, "c": matrix[0]})


@pytest.mark.parametrize("when", ["weights", "numbers"])
def test_a_write_broken_off_leaves_the_one_before(tmp_path, monkeypatch, when):
    before = saved(tmp_path, 500)

    def break_off(*_, **__):
        raise OSError("no space left on device")

    said = "step-0001000 cannot be written .no space left.*Make room on the disk"
    with monkeypatch.context() as broken, pytest.raises(OSError, match=said):
        broken.setattr(*((checkpoint, "save_file") if when == "weights" else (json, "dumps")), break_off)
        saved(tmp_path, 1000)
    assert latest_checkpoint(tmp_path) == before and same(load_checkpoint(before)[0], TENSORS)
    assert [path.name for path in tmp_path.iterdir()] == ["step-0000500"]


@pytest.mark.parametrize("renamed", [False, True])
def test_replacing_is_all_or_nothing(tmp_path, renamed):
    """Also after a kill between two renames: the old folder then lies under its other name."""
    path = saved(tmp_path, 500)
    if renamed:
        path.rename(tmp_path / ".step-0000500.old")
    with pytest.raises(RuntimeError), atomic_folder(path):
        raise RuntimeError("broken off")
    assert same(load_checkpoint(path)[0], TENSORS)
    assert [path.name for path in tmp_path.iterdir()] == ["step-0000500"]
    save_checkpoint(path, {"weight": torch.ones(1)}, {"step": 501})
    assert load_checkpoint(path)[1]["step"] == 501


def test_remains_of_a_killed_write_are_passed_over_and_cleared(tmp_path):
    """kill -9 runs no clean-up, so drafts stay until the same checkpoint is written again."""
    before = saved(tmp_path, 500)
    for name in (".step-0001000.part", ".step-0001000.old", "step-latest", "step-0002000.part"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "state.json").write_text("{}", encoding="utf-8")
    (tmp_path / "step-0003000").write_text("a file, not a folder", encoding="utf-8")
    assert checkpoints(tmp_path) == [before] and latest_checkpoint(tmp_path) == before
    after = saved(tmp_path, 1000)
    assert latest_checkpoint(tmp_path) == after
    assert not (tmp_path / ".step-0001000.part").exists()


def test_the_latest_has_the_most_steps_however_many_digits(tmp_path):
    for step in (999, 10_000_000, 9_999_999):
        saved(tmp_path, step)
    assert [path.name for path in checkpoints(tmp_path)] == ["step-0000999", "step-9999999", "step-10000000"]
    assert latest_checkpoint(tmp_path / "no such folder") is None


def test_dropping_keeps_the_newest(tmp_path):
    paths = [saved(tmp_path, step) for step in (1, 2, 3, 4)]
    drop_checkpoints(tmp_path, 2)
    drop_checkpoints(tmp_path, 2)
    assert sorted(tmp_path.iterdir()) == paths[2:]


@pytest.mark.parametrize("name", ["state.safetensors", "state.json"])
@pytest.mark.parametrize("kept", [None, 0.0, 0.5, 0.99])
def test_a_damaged_checkpoint_is_refused_by_name(tmp_path, name, kept):
    path = saved(tmp_path, 500)
    whole = (path / name).read_bytes()
    if kept is None:
        (path / name).unlink()
    else:
        (path / name).write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(ValueError, match="step-0000500 is not a whole checkpoint"):
        load_checkpoint(path)


@pytest.mark.parametrize("text", ["[]", '"step"', '{"step": 3}', "\xff", f'{{"format": {FORMAT + 1}}}'])
def test_json_of_another_kind_is_no_checkpoint(tmp_path, text):
    path = saved(tmp_path, 500)
    (path / "state.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match="not a whole checkpoint"):
        load_checkpoint(path)


@pytest.mark.parametrize("name", ["state.safetensors", "state.json"])
def test_no_flipped_bit_is_ever_loaded(tmp_path, name):
    path, rng = saved(tmp_path, 500), random.Random(0)
    whole = (path / name).read_bytes()
    for position in range(len(whole)):
        spoiled = bytearray(whole)
        spoiled[position] ^= 1 << rng.randrange(8)
        (path / name).write_bytes(spoiled)
        with pytest.raises(ValueError, match="step-0000500"):
            load_checkpoint(path)


def test_numbers_that_json_writes_in_its_own_way_have_the_same_checksum(tmp_path):
    save_checkpoint(tmp_path / "step-1", {}, {"tuple": (1, 2), 3: 0.1, "nan": float("nan"), "text": "é"})
    numbers = load_checkpoint(tmp_path / "step-1")[1]
    assert numbers["tuple"] == [1, 2] and numbers["3"] == 0.1 and numbers["text"] == "é"


def test_moments_come_back_and_rates_stay_as_they_were_built(tmp_path):
    def trained(steps, lr):
        weights = [torch.ones(3, requires_grad=True), torch.eye(4, 3, requires_grad=True)]
        optimizers = [torch.optim.AdamW(weights[:1], lr=lr), torch.optim.Muon(weights[1:], lr=lr)]
        for _ in range(steps):
            (weights[1] @ weights[0] - 1).square().sum().backward()
            for optimizer in optimizers:
                optimizer.step()
        return optimizers

    before, after = trained(2, lr=0.1), trained(0, lr=0.5)
    save_checkpoint(tmp_path / "step-2", optimizer_state(before), {})
    restore_optimizers(after, load_checkpoint(tmp_path / "step-2")[0])
    moments = optimizer_state(after)
    assert same(moments, optimizer_state(before)) and {"optimizer.0.0.exp_avg", "optimizer.1.0.momentum_buffer"} < {
        *moments
    }
    assert [optimizer.param_groups[0]["lr"] for optimizer in after] == [0.5, 0.5]
