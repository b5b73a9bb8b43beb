"""A model as a folder: whatever wrapped its weights, and with what training held out."""

import runpy
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from toys import L, masked_diffusion

from diffkit.cli.train import read_log
from diffkit.model import build_model, held_out_split, load_model
from diffkit.paths import PRETRAINED


@pytest.fixture
def model():
    torch.manual_seed(0)
    return build_model(masked_diffusion(), "pico", max_length=L)


@pytest.mark.parametrize("prefix", ["_orig_mod.denoiser.", "module._orig_mod.denoiser.", "denoiser._orig_mod."])
def test_weights_of_a_wrapped_model_are_read(model, prefix, tmp_path):
    """torch.compile and DDP put a prefix before every name of what they wrap."""
    model.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    save_file(
        {name.replace("denoiser.", prefix): value for name, value in weights.items()},
        tmp_path / "model.safetensors",
        {"format": "pt"},
    )
    again = load_model(str(tmp_path)).state_dict()
    assert all(torch.equal(again[name], value) for name, value in model.state_dict().items())


def test_the_split_is_part_of_the_model(model, tmp_path):
    """Whatever seed an evaluation has, what it takes for held out was held out."""
    assert held_out_split(model, None, 3) == (0.01, 3) and held_out_split(model, 0.2, 3) == (0.2, 3)
    model.config.split = {"fraction": 0.1, "seed": 7}
    model.save_pretrained(tmp_path)
    again = load_model(tmp_path)
    assert held_out_split(again, None, 3) == (0.1, 7) and held_out_split(again, 0.05, 3) == (0.05, 7)
    assert held_out_split(again, 1, 3) == (1, 3)
    with pytest.raises(ValueError, match="held out a share of 0.1, and learned from the rest of 0.2"):
        held_out_split(again, 0.2, 3)


def test_weights_stored_in_16_bits_compute_in_32(model, tmp_path):
    """A shipped model takes half the space; nothing else is halved."""
    stored = {name: value.half() for name, value in model.state_dict().items()}
    model.half().save_pretrained(tmp_path)
    again = load_model(tmp_path).state_dict()
    assert all(torch.equal(again[name], value.float()) for name, value in stored.items())


def test_a_run_ships_after_the_model_that_it_started_from(tmp_path, monkeypatch):
    """scripts/ship_model.py: the curve goes on that of the first, and the weights are those of the run."""
    first, run = PRETRAINED / "tinystories-mdlm", PRETRAINED / "tales-ar"
    monkeypatch.setattr(sys, "argv", ["ship_model.py", str(run), str(tmp_path), "--after", str(first)])
    runpy.run_path(str(PRETRAINED.parents[1] / "scripts" / "ship_model.py"), run_name="__main__")
    steps = {folder: [record["step"] for record in read_log(folder)] for folder in (first, run, tmp_path)}
    assert steps[tmp_path] == steps[first] + [steps[first][-1] + step for step in steps[run]]
    shipped, trained = load_model(tmp_path), load_model(run)
    assert all(
        torch.equal(a, b.half().float()) for a, b in zip(shipped.parameters(), trained.parameters(), strict=True)
    )
    assert {value.dtype for value in load_file(tmp_path / "model.safetensors").values()} == {torch.float16}
