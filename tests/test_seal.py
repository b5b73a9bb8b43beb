"""A checksum inside a file of weights: every other reader still reads it, and no changed bit passes."""

import pytest
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from diffkit.seal import is_as_sealed, seal

TENSORS = {"a": torch.arange(6.0).reshape(2, 3), "b.c": torch.tensor([True, False])}


@pytest.fixture
def sealed(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file(TENSORS, path, metadata={"format": "pt"})
    assert is_as_sealed(path), "a file without a checksum counts as good"
    seal(path)
    return path


def same(tensors):
    return tensors.keys() == TENSORS.keys() and all(
        torch.equal(tensors[name], value) for name, value in TENSORS.items()
    )


def test_a_sealed_file_is_read_as_before(sealed):
    once = sealed.read_bytes()
    with safe_open(sealed, "pt") as file:
        assert file.metadata()["format"] == "pt" and file.metadata().keys() == {"format", "checksum"}
    assert same(load_file(sealed)) and is_as_sealed(sealed)
    seal(sealed)
    assert sealed.read_bytes() == once


def test_no_changed_bit_changes_the_weights_unnoticed(sealed):
    """One bit of every byte of the file, header included."""
    good = sealed.read_bytes()
    for place in range(len(good)):
        changed = bytearray(good)
        changed[place] ^= 1 << place % 8
        sealed.write_bytes(changed)
        try:
            assert same(load_file(sealed)) or not is_as_sealed(sealed), f"byte {place}"
        except (SafetensorError, ValueError, KeyError, AttributeError):
            pass  # told by whoever reads it


def test_weights_saved_over_it_leave_no_checksum_behind(sealed):
    save_file({"a": torch.zeros(1)}, sealed)
    assert is_as_sealed(sealed)
