"""The benchmarks: that both sides of a race get the same, that FLOPs are counted right, that results are whole."""

import importlib
import itertools
import json
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from toys import generator

from diffkit.cli.settings import DataSettings, ModelSettings, build
from diffkit.evaluation.statistics import Estimate
from diffkit.network.transformer import DenoiserConfig, parameter_count
from diffkit.processes.masked import MaskedDiffusion
from diffkit.training.config import TrainConfig

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"
sys.path += [str(FOLDER), str(FOLDER / "speedrun")]  # they are scripts, which import each other by name
training, utilisation, data, gpu = map(importlib.import_module, ("training", "utilisation", "data", "gpu"))
speedrun, leaderboard = map(importlib.import_module, ("run", "leaderboard"))

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


def test_rescoring_takes_the_row_and_the_weights_of_the_seed(monkeypatch, tmp_path):
    first = next(row for row in leaderboard.read_board(leaderboard.RESULTS).rows if row.name == "mdlm")
    rows, read = [first._replace(seed=seed, samples=[]) for seed in (0, 3)], []
    monkeypatch.setattr(leaderboard, "HOME", tmp_path)
    monkeypatch.setattr(leaderboard, "load_model", lambda folder: read.append(folder))
    monkeypatch.setattr(leaderboard, "scored", lambda model, language: first.samples)
    table, of_seed = tmp_path / "table.json", tmp_path / "runs" / "leaderboard" / "mdlm-seed3"
    table.write_text(leaderboard.as_json(leaderboard.Board({}, rows)), encoding="utf-8")
    with pytest.raises(FileNotFoundError, match="mdlm-seed3"):
        leaderboard.rescore(table, "mdlm", 3, None)
    of_seed.mkdir(parents=True)
    (of_seed / "model.safetensors").touch()
    leaderboard.rescore(table, "mdlm", 3, None)
    assert [bool(row.samples) for row in leaderboard.read_board(table).rows] == [False, True] and read == [of_seed]
    leaderboard.rescore(table, "mdlm", 0, None)
    assert read[1:] == [leaderboard.PRETRAINED / "pico-mdlm"] and leaderboard.read_board(table).rows[0].samples


# ------------------------------------------------------------------------------------------------------- the speedrun


@pytest.fixture
def small_run(monkeypatch):
    monkeypatch.setattr(speedrun, "STORIES", 64)
    process = partial(MaskedDiffusion, schedule="linear")
    return build(DataSettings("micro", batch_size=8, validation_sequences=2), ModelSettings("pico", process), seed=0)


def test_the_speedrun_s_judge_gives_the_exact_denoiser_zero(small_run):
    track, judge = speedrun.judge_of(small_run)
    assert track == speedrun.LANGUAGE
    assert judge(small_run.language.denoiser(small_run.model.process)).mean == 0
    assert judge(small_run.model).mean > 1  # a fresh network


def test_a_speedrun_ends_at_its_target_and_the_clock_stands_still_for_the_judge(small_run, monkeypatch):
    seconds, verdicts = itertools.count(), iter([0.3, 0.2, 0.1, 0.05])

    def slow_judge(model):
        for _ in range(1000):
            next(seconds)
        return Estimate(next(verdicts), 0.0)

    monkeypatch.setattr(speedrun, "clock", lambda: torch.full((2,), float(next(seconds))))
    config = TrainConfig(steps=100, warmup=1, validate_every=2)
    found = list(speedrun.run(small_run, config, speedrun.Track(0.1, ""), slow_judge))
    assert [(judged.step, judged.tokens, judged.value) for judged in found] == [
        (2, 2 * 8 * small_run.language.length, 0.3), (4, 4 * 8 * small_run.language.length, 0.2),
        (6, 6 * 8 * small_run.language.length, 0.1),
    ]  # fmt: skip
    assert found[-1].seconds < 20  # of 3,000 that the judge took


@pytest.mark.parametrize("record", sorted(path.stem for path in (FOLDER / "speedrun/records").glob("[!_]*.py")))
def test_every_record_builds_and_its_network_sees_all_of_the_text(record):
    built, config = importlib.import_module(f"records.{record}").setup(0, "tales")
    texts = built.language.sample(2, generator(0))
    assert built.model.eval()(texts, 1.0).shape == (*texts.shape, built.language.vocab_size)
    assert config.objective in built.model.process.objectives
