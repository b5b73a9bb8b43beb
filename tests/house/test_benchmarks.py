"""The benchmarks: that both sides of a race get the same, that FLOPs are counted right, that results are whole."""

import importlib
import json
import sys
import time
from pathlib import Path

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from toys import generator

from diffkit.network.transformer import DenoiserConfig, parameter_count

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"
sys.path.append(str(FOLDER))  # they are scripts, which import each other by name
training, utilisation, data, gpu = map(importlib.import_module, ("training", "utilisation", "data", "gpu"))

SMALL = training.Setup("pico", 40, 1, 12, 4, "linear")


@pytest.mark.parametrize("size", ["pico", "nano", "tiny"])
def test_the_twin_differs_by_what_bert_has_and_we_have_not(size):
    setup = training.Setup(size, 166, 1, 48, 8, "linear")
    ours, bert = training.our_model(setup), training.twin_of(setup)
    shape = ours.denoiser.config
    D, K, layers = shape.hidden_size, shape.hidden_size // shape.num_heads, shape.num_layers
    only_bert = 2 * D  # embeddings of the first and the second text
    only_bert += 2 * D  # its norm after the embeddings, where ours has one before the head, without a bias:
    only_bert -= D
    only_bert += D * D + D + 2 * D  # the extra layer of its head, and its norm
    only_bert += layers * (4 * D + 2 * D - 2 * K)  # biases of attention and of two norms; our norms of queries and keys
    only_bert += 0 if shape.tied else 166  # untied, its head has a bias beside the one that is always there
    assert parameter_count(bert) - parameter_count(ours) == only_bert


def test_both_sides_get_identical_inputs_and_targets():
    seen = {}
    batch = training.hidden_batches(SMALL, 1)[0]
    for side in training.SIDES:
        learner = training.Learner(side, SMALL)
        table = learner.model.get_input_embeddings() if side != "ours" else learner.model.denoiser.token_embedding
        table.register_forward_pre_hook(lambda _, given, side=side: seen.update({side: given[0].clone()}))
        learner.step(batch)
    assert torch.equal(seen["ours"], seen["BertForMaskedLM"])
    assert torch.equal(seen["ours"] == SMALL.mask_id, batch.is_masked)
    assert torch.equal(seen["ours"][~batch.is_masked], batch.x0[~batch.is_masked])


def test_the_loss_of_both_sides_is_the_mean_over_hidden_tokens():
    """A network that knows nothing has the loss log V, ours log (V - 1), as MASK is never an answer."""
    batch = training.hidden_batches(SMALL, 1)[0]
    for side, words in (("ours", SMALL.V - 1), ("BertForMaskedLM", SMALL.V)):
        learner = training.Learner(side, SMALL)
        for parameter in learner.model.parameters():
            torch.nn.init.zeros_(parameter)
        assert learner.step(batch) == pytest.approx(torch.log(torch.tensor(float(words))).item(), abs=1e-5)


@pytest.mark.parametrize("tied", [True, False])
def test_the_flop_formula_is_what_torch_counts(tied):
    config = DenoiserConfig(
        vocab_size=40, mask_token_id=1, hidden_size=32, num_layers=2, num_heads=4, max_length=12, tied=tied
    )
    network = utilisation.Denoiser(config)
    xt = torch.randint(2, 40, (3, 12), generator=generator())
    where = torch.rand(3, 12, generator=generator()) < 0.4
    xt[where] = 1
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:  # the fused kernel counts as nothing
        network(xt, 0, where)[:, 2:].sum().backward()
    assert counter.get_total_flops() == utilisation.step_flops(config, 3, 12, int(where.sum()))


def test_a_cost_is_that_of_the_model():
    row = utilisation.cost("nano")
    assert row["parameters"] == parameter_count(training.our_model(training.SETUPS["nano"]))
    assert row["tokens"] == 10_000 * 64 * 48


def test_the_speed_on_a_gpu_is_that_of_fit():
    assert gpu.speed(SMALL, B=2, compiled=False, device="cpu", steps=2) > 0


def test_gpu_says_in_one_line_that_there_is_none(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu.py"])
    gpu.main()
    assert "no CUDA device" in capsys.readouterr().out


def test_results_are_whole_json_without_names(tmp_path):
    path = tmp_path / "results" / "speed.json"
    training.write_results(path, {"rounds": 3}, [{"size": "nano", "share": 0.123456, "of": [1.00004, 2]}])
    found = json.loads(path.read_text())
    assert found["rows"] == [{"size": "nano", "share": 0.1235, "of": [1.0, 2]}] and found["settings"]["rounds"] == 3
    assert set(found["settings"]["machine"]) == {"cpu", "cores", "threads", "python", "torch", "transformers"}
    assert [file.name for file in path.parent.iterdir()] == ["speed.json"]


def test_random_words_come_from_the_list_and_from_the_seed(tmp_path):
    one, two = (data.random_words(tmp_path / name, 0.1, ["red", "fox"]).read_text() for name in ("a", "b"))
    assert one == two and set(one.split()) == {"red", "fox"} and len(one) >= 1e5
    assert all(len(line.split()) == 200 for line in one.splitlines())


def peak_of_holding(count):
    """Hold that many numbers for half a second, a hundred looks should the machine be busy; how the peak was seen."""

    def hold():
        held = torch.ones(count)
        time.sleep(0.5)
        return len(held)

    return training.sampled_peak(hold)


def test_peak_memory_is_seen():
    """In a process of its own: where others have worked, 80 MB may be taken from what they freed and nothing grows."""
    count, before, most = training.alone(peak_of_holding, 20_000_000)
    assert count == 20_000_000 and most.resident - before.resident > 60e6 and most.own <= most.resident


def test_a_verdict_names_the_bar():
    assert training.verdict(1.9, 1.8) == "bar at least 1.8: met"
    assert training.verdict(0.7, 0.6, most=True) == "bar at most 0.6: MISSED"


def test_the_page_of_costs_is_what_the_script_says(capsys):
    utilisation.show_costs()
    page = (FOLDER.parent / "docs" / "costs.md").read_text(encoding="utf-8")
    assert capsys.readouterr().out.rstrip() in page
