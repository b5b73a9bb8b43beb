"""Files that are written whole or not at all, and folders that one run holds."""

import os
import subprocess
import sys

import pytest

from diffkit.io import atomic_files, atomic_folder, exclusive, write_atomic


def test_files_move_in_whole_and_leave_the_others_alone(tmp_path):
    for name in ("config.json", "weights", "log"):
        (tmp_path / name).write_text("old", encoding="utf-8")
    with pytest.raises(OSError, match="cannot be written .full"), atomic_files(tmp_path, last="config.json") as draft:
        (draft / "weights").write_text("ne", encoding="utf-8")
        raise OSError("full")
    assert {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()} == dict.fromkeys(
        ("config.json", "weights", "log"), "old"
    )
    with atomic_files(tmp_path, last="config.json") as draft:
        for name in ("config.json", "weights", "words"):
            (draft / name).write_text("new", encoding="utf-8")
    assert {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()} == {
        "config.json": "new", "weights": "new", "words": "new", "log": "old",
    }  # fmt: skip


def test_the_file_that_is_looked_for_moves_last(tmp_path, monkeypatch):
    moved, replace = [], os.replace
    monkeypatch.setattr(os, "replace", lambda source, target: (moved.append(target.name), replace(source, target)))
    with atomic_files(tmp_path, last="config.json") as draft:
        for name in ("config.json", "a", "z"):
            (draft / name).write_text("new", encoding="utf-8")
    assert moved[-1] == "config.json" and sorted(moved) == ["a", "config.json", "z"]


def test_a_folder_is_claimed_by_one_run_at_a_time(tmp_path):
    folder = tmp_path / "run" / "checkpoints"
    for _ in range(2):  # what was let go of can be claimed again
        with exclusive(folder):
            with pytest.raises(ValueError, match="another run is at work in .*checkpoints.*another folder"):
                with exclusive(folder):
                    pass
        assert not folder.parent.exists(), "nothing is left of the lock, nor of folders made for nothing"
    with pytest.raises(RuntimeError), exclusive(folder):
        raise RuntimeError
    with exclusive(folder), exclusive(tmp_path / "other"):
        pass


def test_a_killed_run_lets_go_of_its_folder_and_its_remains_are_cleared(tmp_path):
    """The lock is the system's, not the file: that stays behind and hinders nobody."""
    code = "import sys, fcntl; file = open(sys.argv[1], 'w'); fcntl.flock(file, fcntl.LOCK_EX); print(); input()"
    command = [sys.executable, "-c", code, str(tmp_path / ".lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        child.stdout.readline()
        with pytest.raises(ValueError, match="another run is at work"), exclusive(tmp_path):
            pass
        child.kill()
    for name in ("step-0000500", ".step-0001000.part", ".step-0000400.gone"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "state.json").write_text("{", encoding="utf-8")
    assert (tmp_path / ".lock").exists()
    with exclusive(tmp_path):
        assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "step-0000500"]
    assert [path.name for path in tmp_path.iterdir()] == ["step-0000500"]


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "new" / "result.json"
    write_atomic(path, "één\n")
    assert path.read_bytes() == "één\n".encode()
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="result.json cannot be written .full"):
        write_atomic(path, b"half")
    assert path.read_bytes() == "één\n".encode() and [*path.parent.iterdir()] == [path]


def test_what_was_killed_between_two_renames_is_put_back(tmp_path):
    """The old folder lies under its other name; a write that breaks off then must not cost it."""
    old = tmp_path / ".step-0000500.old"
    old.mkdir()
    (old / "numbers").write_text("old", encoding="utf-8")
    with pytest.raises(RuntimeError), atomic_folder(tmp_path / "step-0000500"):
        raise RuntimeError("broken off")
    assert [path.name for path in tmp_path.iterdir()] == ["step-0000500"]
    assert (tmp_path / "step-0000500" / "numbers").read_text(encoding="utf-8") == "old"
