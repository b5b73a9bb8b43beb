"""Models of transformers as denoisers: their own numbers, both sides in view, trained, saved, loaded; clear errors."""

import json
from functools import partial

import pytest
import torch
from toys import MASK, MICRO, L, V, generator
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    BertConfig,
    GPT2Config,
    LlamaConfig,
    ModernBertConfig,
    Qwen2Config,
    Qwen3Config,
    RobertaConfig,
    T5Config,
)

from diffkit import fit, infill, load_pretrained, nelbo, sample
from diffkit.cli.main import main
from diffkit.data.batches import StoryBatches
from diffkit.data.tokenizer import load_tokenizer
from diffkit.model import load_model, quiet
from diffkit.processes.block import BlockDiffusion
from diffkit.processes.d3pm import D3PM
from diffkit.processes.masked import MaskedDiffusion
from diffkit.sampling.parallel import entropy_bounded
from diffkit.training.config import TrainConfig

SHAPE = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
SHAPE |= {"vocab_size": V, "max_position_embeddings": 16, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 2}
GROUPED = SHAPE | {"num_key_value_heads": 1}
CONFIGS = {
    "bert": BertConfig(**SHAPE),
    "roberta": RobertaConfig(**SHAPE),
    "modernbert": ModernBertConfig(**SHAPE, global_attn_every_n_layers=2, cls_token_id=2, sep_token_id=2),
    "gpt2": GPT2Config(vocab_size=V, n_positions=16, n_embd=16, n_layer=2, n_head=2, bos_token_id=2, eos_token_id=2),
    "llama": LlamaConfig(**GROUPED),
    "qwen2": Qwen2Config(**GROUPED, tie_word_embeddings=True),
    "qwen3": Qwen3Config(**GROUPED | {"vocab_size": V + 3}, head_dim=8),  # its table is longer than the vocabulary
}
MASKED = {"bert", "roberta", "modernbert"}
LINEAR = partial(MaskedDiffusion, schedule="linear")
each_kind = pytest.mark.parametrize("kind", CONFIGS)


def original(kind):
    torch.manual_seed(0)
    return (AutoModelForMaskedLM if kind in MASKED else AutoModelForCausalLM).from_config(CONFIGS[kind]).eval()


def saved(kind, folder, tokenizer=MICRO.tokenizer):
    with quiet():
        original(kind).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return folder


def noisy(n=3):
    xt = MICRO.sample(n, generator())
    xt[:, [1, L - 1]] = MASK
    return xt


def differ(logits, others):
    return ((logits - others).abs() > 1e-6).any(-1)


def without_mask(logits):
    return logits[..., torch.arange(V) != MASK]


@each_kind
@torch.no_grad()
def test_the_logits_are_those_of_the_original(kind, tmp_path):
    """Masked: at its own position, PAD attended like any token. Left-to-right: row i - 1, under a full 4-D mask."""
    model, tokenizer = load_pretrained(saved(kind, tmp_path), LINEAR, length=L)
    xt, network = noisy(), original(kind)
    if kind in MASKED:
        positions = {"position_ids": torch.arange(L)[None] + 1} if kind == "roberta" else {}
        expected = network(input_ids=xt, **positions).logits
    else:
        ids = torch.cat([torch.full((len(xt), 1), 2), xt], 1)
        expected = network(input_ids=ids, attention_mask=torch.zeros(len(xt), 1, L + 1, L + 1)).logits[:, :-1]
    found = model(xt, 500.0)
    assert len(tokenizer) == V and found.shape == (*xt.shape, V) and (found[..., MASK] == -torch.inf).all()
    assert torch.equal(without_mask(found), without_mask(expected[..., :V]))
    where = xt == MASK
    assert torch.equal(model(xt, 500.0, where), found[where])


@each_kind
@torch.no_grad()
def test_every_prediction_sees_every_token(kind, tmp_path):
    """Another token at j changes the prediction at i, for all pairs; in the causal original none to the right does."""
    model, _ = load_pretrained(saved(kind, tmp_path), LINEAR, length=L)
    xt, same = noisy(1), torch.eye(L, dtype=torch.bool)
    changed = torch.where(same, (xt + 1) % V, xt)  # (L, L): row j differs at j
    moves = differ(without_mask(model(changed, 0.0)), without_mask(model(xt, 0.0)))  # (j, i)
    assert moves[~same].all()
    if kind not in MASKED:
        network = original(kind)
        moves = differ(network(input_ids=changed).logits, network(input_ids=xt).logits)
        assert not moves.tril(-1).any(), "the original looks left, so that the test has something to find"


@pytest.mark.parametrize("lora", [0, 2])
@each_kind
@pytest.mark.filterwarnings("ignore:fan_in_fan_out")
def test_trained_saved_and_loaded_it_is_the_same(kind, lora, tmp_path):
    """Tied tables and averaged weights included; with LoRA, what was there before is untouched."""
    model, _ = load_pretrained(saved(kind, tmp_path / "given"), LINEAR, length=L, lora=lora, anneal=2)
    before = {name: p.clone() for name, p in model.named_parameters()}
    config = TrainConfig(steps=3, lr=1e-2, warmup=1, ema=0.5)
    assert len([*fit(model, StoryBatches(MICRO, 4, 0), config)]) == 3
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert moved and (not lora or all("lora_" in name for name in moved))
    with quiet():
        model.save_pretrained(tmp_path / "trained")
    again = load_model(tmp_path / "trained")
    with torch.no_grad():
        assert torch.equal(again(noisy(), 0.0), model(noisy(), 0.0))
    assert {path.suffix for path in (tmp_path / "trained").iterdir()} == {".json", ".safetensors"}
    if not lora and model.denoiser.all_tied_weights_keys:
        first, second = next(iter(again.denoiser.all_tied_weights_keys.items()))
        assert again.denoiser.get_parameter(first) is again.denoiser.get_parameter(second)


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_samplers_infilling_and_the_bound_take_it(kind, tmp_path):
    model, _ = load_pretrained(saved(kind, tmp_path), LINEAR, length=L)
    for way in ({"order": "random"}, {"order": "confidence"}, {}):
        assert (sample(model.process, model, shape=(2, L), steps=3, rng=generator(), **way) != MASK).all()
    assert (sample(entropy_bounded(model.process, 0.1), model, shape=(2, L), rng=generator()) != MASK).all()
    start = noisy()
    filled = infill(model.process, model, start, steps=2, rng=generator())
    assert torch.equal(filled[start != MASK], start[start != MASK]) and (filled != MASK).all()
    assert nelbo(model.process, model, MICRO.sample(8, generator()), rng=generator()).mean > MICRO.entropy()


def test_another_process_of_tokens_takes_it_and_one_with_a_network_of_its_own_does_not(tmp_path):
    model, _ = load_pretrained(saved("bert", tmp_path), D3PM, length=L)
    assert (sample(model.process, model, shape=(2, L), steps=3, rng=generator()) < V).all()
    with pytest.raises(ValueError, match="BlockDiffusion needs a network of its own"):
        load_pretrained(tmp_path, BlockDiffusion, length=L)


def test_a_tokenizer_without_mask_is_told_how_to_get_one(tmp_path):
    saved("gpt2", tmp_path)
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text(encoding="utf-8"))
    del settings["mask_token"]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    text = (tmp_path / "tokenizer.json").read_text(encoding="utf-8").replace("[MASK]", "[OLD]")
    (tmp_path / "tokenizer.json").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"has no MASK.*add_mask=True.*new row"):
        load_pretrained(tmp_path, length=L)
    model, tokenizer = load_pretrained(tmp_path, length=L, add_mask=True)
    table = model.denoiser.network.get_input_embeddings().weight
    assert tokenizer.mask_token_id == V == len(table) - 1 and len(tokenizer) == V + 1
    assert torch.allclose(table[V], table[:V].mean(0), atol=1e-3), "the new row starts at the mean of the others"
    assert load_tokenizer(tmp_path).mask_token_id == V, "elsewhere a tokenizer gets its MASK as before"


def test_what_cannot_be_a_denoiser_is_named(tmp_path):
    saved("bert", tmp_path / "bert")
    with pytest.raises(ValueError, match="reads at most 16 tokens, got 17"):
        load_pretrained(tmp_path / "bert", length=17)
    model, _ = load_pretrained(tmp_path / "bert", length=L)
    with pytest.raises(ValueError, match="no cache and no labels"):
        model(noisy(), 0.0, label=torch.tensor([0, 0, 0]))
    T5Config(vocab_size=V, d_model=16, num_layers=1, d_kv=8, d_ff=8, num_heads=2).save_pretrained(tmp_path / "t5")
    MICRO.tokenizer.save_pretrained(tmp_path / "t5")
    with pytest.raises(ValueError, match="'t5' is no masked or left-to-right language model"):
        load_pretrained(tmp_path / "t5", length=L)
    (tmp_path / "bert" / "model.safetensors").rename(tmp_path / "bert" / "pytorch_model.bin")
    with pytest.raises(OSError, match="safetensors"):
        load_pretrained(tmp_path / "bert", length=L)


def test_annealing_begins_causal_and_ends_full(tmp_path):
    """The mask of the k-th training pass shows k / anneal of the future; the past is always seen."""
    model, _ = load_pretrained(saved("gpt2", tmp_path), LINEAR, length=L, anneal=4)
    denoiser, n = model.denoiser, 200
    denoiser.train()
    torch.manual_seed(0)
    shares = []
    for _ in range(5):
        seen = denoiser._mask(n, torch.device("cpu"))[0, 0] == 0
        assert seen.tril().equal(torch.ones(n, n, dtype=torch.bool).tril())
        shares.append(seen[torch.ones(n, n, dtype=torch.bool).triu(1)].double().mean().item())
    assert shares == pytest.approx([0.25, 0.5, 0.75, 1, 1], abs=0.025)  # 5 standard deviations and more
    assert (denoiser.eval()._mask(n, torch.device("cpu")) == 0).all()


@pytest.mark.slow
@pytest.mark.usefixtures("own_caches")
def test_the_command_line_trains_samples_and_infills(tmp_path, capsys, monkeypatch):
    """A text of `micro` in a file, a small BERT in a folder; then sample, infill and evaluate on the run's folder."""
    monkeypatch.chdir(tmp_path)
    saved("bert", tmp_path / "bert")
    texts = MICRO.decode(MICRO.sample(60, generator()))
    (tmp_path / "text.txt").write_text("\n".join(texts), encoding="utf-8")
    settings = "--data.corpus text.txt --data.length 5 --data.batch_size 4 --data.validation_fraction 0.5 "
    settings += "--model.pretrained bert --model.lora 2 --train.steps 2 --train.warmup 1 --out run"
    whole = ["--train.curriculum", "{start: 1.0, hold: 0.0, ramp: 0.0}"]
    for words in (
        ["train", *settings.split(), *whole], ["sample", "--model", "run", "--seed", "0"],
        ["infill", "Mia ___", "--model", "run", "--seed", "0"],
        ["evaluate", "--model", "run", "--corpus", "text.txt", "--n", "4"],
    ):  # fmt: skip
        assert main(words) == 0, capsys.readouterr().err
    assert "nats" in capsys.readouterr().out
    assert json.loads((tmp_path / "run" / "config.json").read_text(encoding="utf-8"))["denoiser"]["lora"] == 2
