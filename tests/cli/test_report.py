"""The report: units that fit together, every figure beside that of true stories, files whole or not there."""

import json
import math

import pytest
import torch
from toys import MICRO, TALES, generator

from diffkit.cli import report
from diffkit.model import build_model, load_model
from diffkit.processes.masked import MaskedDiffusion


@pytest.fixture(scope="module")
def found():
    torch.manual_seed(0)
    process = MaskedDiffusion(MICRO.vocab_size, MICRO.mask_id, "linear")
    shape = {"hidden_size": 16, "num_layers": 1, "num_heads": 2}
    model = build_model(process, shape, max_length=MICRO.length).eval()
    return report.measure(model, MICRO, n=40, samples=12, steps=(MICRO.length, 2), rng=generator())


def test_all_units_hold_the_same_nats(found):
    """Averages first, the exponent last: units x nats per unit is one number, whatever the unit."""
    total = found["nats_per_sequence"] * found["sequences"]
    for one in found["units"].values():
        assert one["count"] * one["nats"] == pytest.approx(total)
        assert one["perplexity"] == pytest.approx(math.exp(total / one["count"]))
        assert one["bits"] == pytest.approx(one["nats"] / math.log(2))


def test_units_are_counted_in_the_text_itself():
    model, x0 = load_model("tales-ar"), TALES.sample(3, generator())
    counted = report.measure_bound(model, TALES.tokenizer, x0, generator())["units"]
    texts = TALES.decode(x0)
    assert counted["canvas token"]["count"] == x0.numel()
    assert counted["token up to EOS"]["count"] == int((x0 != TALES.pad_id).sum())
    assert counted["word"]["count"] == sum(len(text.split()) for text in texts)
    assert counted["character"]["count"] == sum(map(len, texts))


def test_the_twin_is_exact_and_a_masked_model_bounds(found):
    model = load_model("tales-ar")
    exact = report.measure_bound(model, TALES.tokenizer, TALES.sample(3, generator()), generator())
    assert not any("at most" in line or "bound" in line for line in report.bound_lines(exact))
    assert any("at most" in line for line in report.bound_lines(found))
    assert all(any(policy in line for line in report.bound_lines(found)) for policy in (report.PADDED,))


def test_true_stories_stand_beside_the_samples(found):
    assert found["true_stories"]["valid"] == 1 and set(found["sampled"]) == {MICRO.length, 2}
    table = report.sample_table(found)
    assert "true stories" in table.splitlines()[0] and "| self bleu |" in table and "total variation floor" in table
    assert [row["count"] for row in found["by_count"]] == [1, 4, MICRO.length]


def test_samples_of_the_language_itself_lie_near_every_floor():
    """256 true stories: a KL of five floors has a chance far below 1e-6 (chi-square with over a hundred degrees)."""
    figures = report.measure_samples(TALES, TALES.sample(256, generator(3)), TALES.sample(64, generator(4)))
    assert figures["valid"] == 1 and set(figures["marginals"]) >= {"plot", "ending", "length", "hero and park"}
    for one in figures["marginals"].values():
        assert one["kl"] < 5 * one["kl_floor"] + 0.05
    assert figures["judge_perplexity"] == pytest.approx(math.exp(TALES.entropy() / TALES.length), rel=0.05)


def test_the_report_is_written_whole(found, tmp_path):
    report.write("a model", found, tmp_path / "new")
    assert {path.name for path in (tmp_path / "new").iterdir()} == {"README.md", "report.json"}
    stored = json.loads((tmp_path / "new" / "report.json").read_text(encoding="utf-8"))
    assert stored["nats_per_token"] == found["nats_per_token"]
    page = (tmp_path / "new" / "README.md").read_text(encoding="utf-8")
    assert "Loss by number" in page and f"{found['perplexity']:.5g}" in page
