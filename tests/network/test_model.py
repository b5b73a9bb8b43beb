"""The backbone and the model around it: sizes, saving and loading, what sees what, how time enters."""

import json

import pytest
import torch
from transformers import AutoConfig, AutoModel

from diffkit.languages.story_language import load_language
from diffkit.model import DiffusionModel, build_model, load_model, quiet
from diffkit.network.attention import Attention, rotate
from diffkit.network.transformer import SIZES, Denoiser, DenoiserConfig, parameter_count, sinusoids
from diffkit.processes.base import as_denoiser
from diffkit.processes.masked import MaskedDiffusion

V, L, MASK, T = 11, 7, 1, 20
PROCESS = MaskedDiffusion(V, MASK)
TIMES = ["none", "sinusoidal", "table", "adaln"]
each_time = pytest.mark.parametrize("time", TIMES)


def micro(seed=0, **settings):
    torch.manual_seed(seed)
    shape = {"vocab_size": V, "mask_token_id": MASK, "hidden_size": 16, "num_layers": 1, "num_heads": 2, "T": T}
    return Denoiser(DenoiserConfig(**shape | {"max_length": L} | settings)).eval()


def micro_model(seed=0, **settings):
    torch.manual_seed(seed)
    shape = {"hidden_size": 16, "num_layers": 1, "num_heads": 2, "max_length": L}
    return build_model(PROCESS, shape, **settings).eval()


def ids(B=3, seed=0):
    return torch.randint(0, V, (B, L), generator=torch.Generator().manual_seed(seed))


def shaken(model, seed=1):
    """Move every weight a little, so that nothing is zero by construction."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return model


# ---------------------------------------------------------------------------------------------------------------- sizes


def counted(V, L, D, layers, K, tied):
    """Parameters by hand: a layer has four D x D maps, two norms of D and two of the head size K, a network D-4D-D."""
    layer = 4 * D * D + 2 * D + 2 * K + (D * 4 * D + 4 * D) + (4 * D * D + D)
    head = V if tied else V * D + V  # the bias, and a matrix of its own unless it reads with the embedding
    return V * D + L * D + layers * layer + D + head


@pytest.mark.parametrize(
    ("size", "V", "L", "parameters"),
    [
        ("nano", 166, 48, 839_206),  # the stories: 0.79 million in the layers, 5 % in words and the head
        ("tiny", 30_522, 128, 12_607_290),  # 7.8 million of them are BERT's 30,522 words x 256
        ("tiny", 30_522, 256, 12_640_058),  # 128 more positions x 256
        ("small", 30_522, 128, 40_919_354),
        ("small", 30_522, 256, 40_984_890),
        ("medium", 30_522, 128, 53_517_114),
        ("medium", 30_522, 256, 53_582_650),
    ],
)
def test_stated_parameter_counts(size, V, L, parameters):
    shape = SIZES[size]
    with torch.device("meta"):
        model = Denoiser(DenoiserConfig(vocab_size=V, max_length=L, **shape))
    D, K = shape["hidden_size"], shape["hidden_size"] // shape["num_heads"]
    tales = load_language("tales")
    assert size != "nano" or (V, L) == (tales.vocab_size, tales.length)
    assert parameter_count(model) == parameters == counted(V, L, D, shape["num_layers"], K, shape.get("tied", True))


def test_build_model_takes_vocabulary_mask_and_time_from_the_process():
    model = build_model(MaskedDiffusion(V, MASK), "nano", language="micro", max_length=L)
    config = model.denoiser.config
    assert (config.vocab_size, config.mask_token_id, config.T, config.max_length) == (V, MASK, 1000, L)
    assert (config.hidden_size, config.tied, model.config.language) == (128, False, "micro")
    with pytest.raises(ValueError, match="sizes are .*nano.*huge"):
        build_model(PROCESS, "huge")
    with pytest.raises(ValueError, match="num_layer'"):
        build_model(PROCESS, "nano", num_layer=2)


# ------------------------------------------------------------------------------------------------------ save and load


@each_time
@pytest.mark.parametrize("tied", [True, False])
def test_a_saved_model_comes_back_with_equal_logits(tmp_path, time, tied, capfd):
    """And quietly: progress bars would be stored in notebooks."""
    model = shaken(micro_model(time=time, tied=tied))
    with quiet():
        model.save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "model.safetensors"}
    again = load_model(tmp_path)
    t = torch.tensor([1.0, 500.0, 1000.0])
    assert torch.equal(again(ids(), t), model(ids(), t))
    assert not again.training and again.process.settings() == model.process.settings()
    assert capfd.readouterr() == ("", "")


def test_a_saved_model_is_described_in_full(tmp_path):
    """Also by what was left at its default, so that a later default does not change a model that was saved."""
    with quiet():
        micro_model().save_pretrained(tmp_path)
    denoiser = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))["denoiser"]
    assert denoiser["rotary"] is True and denoiser["tied"] is True and denoiser["intermediate_size"] == 64


def test_a_large_model_is_saved_in_shards(tmp_path):
    model = shaken(micro_model())
    with quiet():
        model.save_pretrained(tmp_path, max_shard_size="5KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1 and (tmp_path / "model.safetensors.index.json").is_file()
    assert torch.equal(load_model(tmp_path)(ids(), 1), model(ids(), 1))


def test_automodel_knows_both_kinds(tmp_path):
    for name, model in {"pair": shaken(micro_model()), "network": shaken(micro())}.items():
        with quiet():
            model.save_pretrained(tmp_path / name)
            again = AutoModel.from_pretrained(tmp_path / name)
        assert type(again) is type(model) and torch.equal(again.eval()(ids(), 1), model(ids(), 1))
        assert type(AutoConfig.from_pretrained(tmp_path / name)) is type(model.config)


@pytest.fixture
def saved(tmp_path):
    with quiet():
        micro_model().save_pretrained(tmp_path)
    return tmp_path


def test_load_model_never_unpickles(saved):
    (saved / "model.safetensors").unlink()
    torch.save({"weight": torch.zeros(1)}, saved / "pytorch_model.bin")
    with pytest.raises(ValueError, match="no .safetensors weights; pickled"):
        load_model(saved)


def test_load_model_names_what_it_cannot_read(tmp_path):
    """No such model; no model there; another kind of model."""
    with pytest.raises(FileNotFoundError, match="no-such-model.*shipped models.*diffkit train"):
        load_model("no-such-model")
    with pytest.raises(FileNotFoundError, match="no folder with a config.json"):
        load_model(tmp_path)
    with quiet():
        micro().save_pretrained(tmp_path / "network")
    with pytest.raises(ValueError, match="holds a 'diffkit-denoiser' model, expected 'diffkit-diffusion'"):
        load_model(tmp_path / "network")


def change(path, key, value):
    settings = json.loads(path.read_text(encoding="utf-8"))
    settings["denoiser"][key] = value
    path.write_text(json.dumps(settings), encoding="utf-8")


def test_load_model_says_what_is_damaged(saved):
    weights, config = saved / "model.safetensors", saved / "config.json"
    whole, described = weights.read_bytes(), config.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="damaged or not whole"):
        load_model(saved)
    weights.write_bytes(whole)
    config.write_bytes(described[:40])
    with pytest.raises(ValueError, match="damaged or not whole.*config.json"):
        load_model(saved)


@pytest.mark.parametrize(("key", "value"), [("num_layers", 2), ("tied", False), ("hidden_size", 32)])
def test_weights_that_do_not_fit_the_config_are_refused(saved, key, value):
    """Weights that are missing would otherwise be left at random."""
    change(saved / "config.json", key, value)
    with pytest.raises(ValueError, match="load_model"):
        load_model(saved)


def test_a_config_with_an_unknown_process_is_refused(saved):
    text = (saved / "config.json").read_text(encoding="utf-8").replace('"mdlm"', '"magic"')
    (saved / "config.json").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match="name must be one of .*mdlm.*magic"):
        load_model(saved)


# ------------------------------------------------------------------------------------------------------------- outputs


def test_the_pair_is_a_denoiser_itself():
    model, t = shaken(micro_model(time="adaln")), torch.tensor([1, 500, 1000])
    assert torch.equal(model(ids(), t), model.denoiser(ids(), t))


@each_time
def test_mask_is_never_predicted(time):
    logits = shaken(micro(time=time))(ids(), torch.tensor([0.0, 3.5, T]))
    assert logits.shape == (3, L, V)
    assert (logits[..., MASK] == -torch.inf).all()
    assert torch.isfinite(logits[..., [v for v in range(V) if v != MASK]]).all()


def test_without_a_mask_id_every_column_is_finite():
    assert torch.isfinite(micro(mask_token_id=None)(ids(), 1)).all()


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_selecting_positions_equals_the_full_output_indexed(share):
    model = shaken(micro())
    where = torch.rand(3, L, generator=torch.Generator().manual_seed(0)) < share
    full = model(ids(), 1)[where]
    torch.testing.assert_close(model(ids(), 1, where), full)
    torch.testing.assert_close(as_denoiser(model)(ids(), torch.ones(3), where), full)


def test_the_head_can_have_another_width():
    """For processes that predict vectors or scores; such a head cannot be tied."""
    model = micro(head_size=5, mask_token_id=None)
    assert model(ids(), 1).shape == (3, L, 5) and not model.config.tied


# ---------------------------------------------------------------------------------------------------------------- time


def test_without_time_input_t_changes_nothing():
    model = shaken(micro(time="none"))
    assert torch.equal(model(ids(), 0), model(ids(), torch.full((3,), float(T))))


@pytest.mark.parametrize("time", ["sinusoidal", "table", "adaln"])
def test_time_matters_after_one_step_of_training(time):
    model = micro(time=time).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    for _ in range(2):  # AdaLN starts with closed gates, and its first step can only open them
        logits = model(ids(), torch.tensor([1, 10, T]))
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(logits[:, :, 2:].flatten(0, 1), ids().flatten().clamp(min=2) - 2).backward()
        optimizer.step()
    early, late = (model(ids(), t)[..., 2:] for t in (1, T))
    assert (early - late).abs().max() > 1e-4
    mixed = model(ids(), torch.tensor([1, 1, T]))[..., 2:]  # each row has its own time
    torch.testing.assert_close(mixed, torch.cat([early[:2], late[2:]]))


def test_an_adaln_block_starts_as_identity():
    model = micro(time="adaln")
    x, time = torch.randn(3, L, 16), torch.randn(3, 16)
    for block in model.blocks:
        assert torch.equal(block(x, time, None), x)
    assert not torch.equal(shaken(model).blocks[0](x, time, None), x)


def test_a_table_rounds_times_up_to_whole_steps():
    model = shaken(micro(time="table"))
    assert torch.equal(model(ids(), 2.2), model(ids(), 3))
    assert not torch.equal(model(ids(), 2), model(ids(), 3))


def test_one_number_or_one_per_row_are_the_same_time():
    model = shaken(micro(time="sinusoidal"))
    want = model(ids(), torch.full((3,), 5.0))
    for t in (5, 5.0, torch.tensor(5), torch.tensor([5.0], dtype=torch.float64)):
        torch.testing.assert_close(model(ids(), t), want)


def test_sinusoids_are_sines_and_cosines():
    waves = sinusoids(torch.tensor([0.0, 2.0]), 4)
    assert waves[0].tolist() == [1, 1, 0, 0]
    angles = torch.tensor([2.0, 0.02])  # wavelengths 2 pi and 2 pi 100
    torch.testing.assert_close(waves[1], torch.cat([angles.cos(), angles.sin()]))


# ----------------------------------------------------------------------------------------------------------- attention


def test_attention_looks_both_ways():
    model, changed = shaken(micro()), ids()
    changed[:, -1] = (changed[:, -1] + 1) % V
    assert ((model(ids(), 1) - model(changed, 1))[:, 0, 2:].abs().amax(-1) > 1e-6).all()


def test_the_causal_twin_never_looks_ahead():
    model = shaken(micro(causal=True, num_layers=2))
    want = model(ids(), 1)
    for j in range(L):
        changed = ids()
        changed[:, j] = (changed[:, j] + 1) % V
        got = model(changed, 1)
        assert torch.equal(got[:, :j], want[:, :j])
        assert not torch.equal(got[:, j], want[:, j])


def test_rotation_keeps_lengths_and_shows_only_distances():
    q, k = torch.randn(2, 1, 1, 1, 8)
    cos, sin = sinusoids(torch.arange(6), 8).chunk(2, -1)
    turned_q, turned_k = (rotate(x.expand(1, 1, 6, 8), cos, sin) for x in (q, k))
    torch.testing.assert_close(turned_q.norm(dim=-1), q.norm(dim=-1).expand(1, 1, 6))
    scores = (turned_q @ turned_k.transpose(-1, -2))[0, 0]
    torch.testing.assert_close(scores[:-1, :-1], scores[1:, 1:], atol=1e-5, rtol=1e-5)


def test_positions_are_told_apart_on_a_canvas_of_masks():
    logits = shaken(micro(rotary=True))(torch.full((1, L), MASK), 1)[0, :, 2:]
    assert (logits[1:] - logits[:-1]).abs().amax(-1).min() > 1e-4


def test_attention_equals_its_formula():
    torch.manual_seed(0)
    attention = Attention(DenoiserConfig(hidden_size=16, num_heads=2))
    x = torch.randn(2, L, 16)
    q, k, v = (f(x).view(2, L, 2, 8).transpose(1, 2) for f in (attention.query, attention.key, attention.value))
    q, k = attention.norm_query(q), attention.norm_key(k)
    mixed = (q @ k.transpose(-1, -2) * 12 / 8).softmax(-1) @ v  # normalised vectors: the largest logit is 12
    torch.testing.assert_close(attention(x, None), attention.out(mixed.transpose(1, 2).reshape(2, L, 16)))


# -------------------------------------------------------------------------------------------------- training behaviour


@each_time
def test_gradients_are_finite_and_reach_every_weight(time):
    model = shaken(micro(time=time, tied=False)).train()
    process = MaskedDiffusion(V, MASK)
    x0 = ids().clamp(min=2)
    loss = process.token_loss(model, x0, torch.full_like(x0, MASK), torch.tensor([1, 2, T])).mean()
    loss.backward()
    for name, p in model.named_parameters():
        assert torch.isfinite(p.grad).all() and p.grad.abs().sum() > 0, name


def test_dropout_acts_only_in_training():
    model = shaken(micro(dropout=0.5))
    assert torch.equal(model(ids(), 1), model(ids(), 1))
    model.train()
    torch.manual_seed(0)
    assert not torch.equal(model(ids(), 1), model(ids(), 1))


# -------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("xt", "message"),
    [
        (torch.zeros(2, L + 1, dtype=torch.long), "at most 7 tokens .max_length., got 8.*larger max_length"),
        (torch.zeros(2, L), "integer ids, got torch.float32"),
        (torch.zeros(2, L, dtype=torch.bool), "integer ids, got torch.bool"),
        (torch.zeros(L, dtype=torch.long), r"\(B, L\) integer ids"),
        (torch.zeros(2, 0, dtype=torch.long), r"\(B, L\) integer ids"),
        (torch.full((1, L), V), "ids lie in 0..10, got 11..11.*tokenizer"),
        (torch.full((1, L), -1), "ids lie in 0..10, got -1..-1"),
    ],
)
def test_text_that_does_not_fit_is_refused(xt, message):
    with pytest.raises(ValueError, match=message):
        micro().eval()(xt, 1)


@pytest.mark.parametrize("t", [-1, T + 1, float("nan"), torch.tensor([0.0, 1.0, T + 0.5])])
@pytest.mark.parametrize("time", ["sinusoidal", "table", "adaln"])
def test_times_outside_the_axis_are_refused(time, t):
    with pytest.raises(ValueError, match=r"in \[0, 20\]"):
        micro(time=time).eval()(ids(), t)


def test_times_of_another_batch_are_refused():
    with pytest.raises(ValueError, match=r"one time or \(3,\)"):
        micro(time="table").eval()(ids(), torch.ones(2))


def test_impossible_shapes_are_refused():
    with pytest.raises(ValueError, match="time must be one of .*adaln.*got 'sometimes'"):
        DenoiserConfig(time="sometimes")
    for heads in (3, 16):  # 16 / 3 is no whole number, 16 / 16 = 1 is not even
        with pytest.raises(ValueError, match="even number, got 16"):
            DenoiserConfig(hidden_size=16, num_heads=heads)
    with pytest.raises(ValueError, match="name must be one of"):
        DiffusionModel(DiffusionModel.config_class())


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("time", ["none", "sinusoidal", "table", "adaln"])
def test_the_network_computes_in_other_precisions(time, dtype):
    model = shaken(micro(time=time, T=T))
    expected = model(ids(), 3.0)
    found = model.to(dtype)(ids(), 3.0)
    assert found.dtype == dtype
    seen = expected.isfinite()
    assert torch.equal(seen, found.isfinite())
    assert (found.float()[seen] - expected[seen]).abs().max() < (1e-4 if dtype == torch.float64 else 0.2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = model.float()(ids(), 3.0).float()
    assert (rough[seen] - expected[seen]).abs().max() < 0.2 and (rough[..., MASK] == -torch.inf).all()
