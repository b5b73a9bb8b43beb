"""Models in the form that MDLM's authors published: their forward pass, written once more with plain functions."""

import json
import math

import pytest
import torch
from safetensors.torch import load_file, save_file

from diffkit.hub import load_mdlm
from diffkit.model import load_model
from diffkit.network.dit import DiT

V, D, H, C, N, L = 11, 24, 2, 6, 2, 7
CONFIG = {"model_type": "mdlm", "vocab_size": V, "model_length": L, "hidden_dim": D, "cond_dim": C, "n_blocks": N}
CONFIG |= {"n_heads": H, "dropout": 0.1, "time_conditioning": False, "return_dict": False}
LINEAR = {"sigma_map.mlp.0": (C, 256), "sigma_map.mlp.2": (C, C), "output_layer.linear": (V, D)}
LINEAR |= {"output_layer.adaLN_modulation": (2 * D, C)}
MATRIX = {"vocab_embed.embedding": (V, D), "output_layer.norm_final.weight": (D,)}
for i in range(N):
    LINEAR |= {f"blocks.{i}.mlp.0": (4 * D, D), f"blocks.{i}.mlp.2": (D, 4 * D)}
    LINEAR |= {f"blocks.{i}.adaLN_modulation": (6 * D, C)}
    MATRIX |= {f"blocks.{i}.norm{k}.weight": (D,) for k in (1, 2)}
    MATRIX |= {f"blocks.{i}.attn_qkv.weight": (3 * D, D), f"blocks.{i}.attn_out.weight": (D, D)}


def random_weights():
    rng = torch.Generator().manual_seed(0)
    shapes = MATRIX | {f"{name}.weight": shape for name, shape in LINEAR.items()}
    shapes |= {f"{name}.bias": shape[:1] for name, shape in LINEAR.items()}
    return {name: torch.randn(shape, generator=rng) / shape[-1] ** 0.5 for name, shape in shapes.items()}


def forward(w, ids, sigma):
    """Logits of one text (L,) at one noise level, token by token and head by head, in double precision."""
    w = {name: value.double() for name, value in w.items()}

    def line(name, x):
        return x @ w[f"{name}.weight"].T + w.get(f"{name}.bias", 0)

    def normal(name, x):
        centred = x - x.mean(-1, keepdim=True)
        return centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * w[f"{name}.weight"]

    def turned(x, place):  # channels i and i + K / 2 are a pair
        K = len(x)
        angle = torch.tensor([place / 10_000 ** (2 * i / K) for i in range(K // 2)], dtype=torch.float64)
        first, second = x[: K // 2], x[K // 2 :]
        return torch.cat([first * angle.cos() - second * angle.sin(), second * angle.cos() + first * angle.sin()])

    waves = torch.tensor([sigma * math.exp(-math.log(10_000) * i / 128) for i in range(128)], dtype=torch.float64)
    level = line("sigma_map.mlp.0", torch.cat([waves.cos(), waves.sin()]))
    level = line("sigma_map.mlp.2", level * level.sigmoid())
    level = level * level.sigmoid()
    x = w["vocab_embed.embedding"][ids]
    for i in range(N):
        name = f"blocks.{i}"
        shift, scale, gate, shift_2, scale_2, gate_2 = line(f"{name}.adaLN_modulation", level).split(D)
        q, k, v = line(f"{name}.attn_qkv", normal(f"{name}.norm1", x) * (1 + scale) + shift).split(D, -1)
        heads = []
        for h in range(H):
            part = slice(h * D // H, (h + 1) * D // H)
            queries, keys = (torch.stack([turned(row[part], p) for p, row in enumerate(each)]) for each in (q, k))
            heads.append((queries @ keys.T / (D // H) ** 0.5).softmax(-1) @ v[:, part])
        x = x + gate * line(f"{name}.attn_out", torch.cat(heads, -1))
        inner = line(f"{name}.mlp.0", normal(f"{name}.norm2", x) * (1 + scale_2) + shift_2)
        inner = 0.5 * inner * (1 + torch.tanh(math.sqrt(2 / math.pi) * (inner + 0.044715 * inner**3)))
        x = x + gate_2 * line(f"{name}.mlp.2", inner)
    shift, scale = line("output_layer.adaLN_modulation", level).split(D)
    return line("output_layer.linear", normal("output_layer.norm_final", x) * (1 + scale) + shift)


@pytest.fixture
def published(tmp_path):
    """A folder as it comes from the Hub, with the buffer that their rotary embedding saves."""

    def write(**config):
        weights = {f"backbone.{name}": value for name, value in random_weights().items()}
        weights["backbone.rotary_emb.inv_freq"] = torch.ones(D // H // 2)
        save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
        (tmp_path / "config.json").write_text(json.dumps(CONFIG | config), encoding="utf-8")
        return tmp_path

    return write


@pytest.mark.parametrize("time_conditioning", [False, True])
def test_converted_logits_equal_an_independent_forward_pass(published, time_conditioning):
    model = load_mdlm(published(time_conditioning=time_conditioning))
    xt = torch.randint(V, (3, L), generator=torch.Generator().manual_seed(1))
    t = torch.tensor([200.0, 500.0, 990.0])
    found = model(xt, t)
    sigmas = [-math.log(1 - 0.999 * share / 1000) if time_conditioning else 0.0 for share in t.tolist()]
    want = torch.stack([forward(random_weights(), row, sigma) for row, sigma in zip(xt, sigmas, strict=True)])
    seen = torch.arange(V) != model.process.mask_id
    torch.testing.assert_close(found[..., seen].double(), want[..., seen], atol=5e-6, rtol=0)
    assert (found[..., V - 1] == -torch.inf).all() and want.std() > 0.5
    where = torch.rand(3, L, generator=torch.Generator().manual_seed(2)) < 0.5
    torch.testing.assert_close(model(xt, t, where), found[where])


def test_a_converted_model_is_saved_as_one_of_ours(published, tmp_path):
    model = load_mdlm(published())
    model.save_pretrained(tmp_path / "ours")
    again, xt = load_model(tmp_path / "ours"), torch.arange(L)[None]
    torch.testing.assert_close(again(xt, 5.0), model(xt, 5.0))
    assert again.process.settings() == model.process.settings() and isinstance(again.denoiser, DiT)


@pytest.mark.parametrize("prefix", ["_orig_mod.backbone.", "module.backbone.", "backbone.", "backbone._orig_mod."])
def test_prefixes_of_wrapped_weights_are_taken_off(published, prefix):
    folder = published()
    want = load_mdlm(folder).denoiser.head.weight
    wrapped = {name.replace("backbone.", prefix): w for name, w in load_file(folder / "model.safetensors").items()}
    save_file(wrapped, folder / "model.safetensors", {"format": "pt"})
    assert torch.equal(load_mdlm(folder).denoiser.head.weight, want)


def test_what_does_not_fit_is_refused(published):
    with pytest.raises(ValueError, match="do not fit"):
        load_mdlm(published(n_blocks=N + 1))
    with pytest.raises(ValueError, match="no model of MDLM"):
        load_mdlm("pico-mdlm")
    folder = published()
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="lacks weights"):
        load_mdlm(folder)
