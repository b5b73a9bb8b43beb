"""What notebooks 06 and 08 say of their stored tables is in the tables; pictures show the intervals they are given."""

import importlib
import json
import sys
from pathlib import Path

import pytest
import torch

from diffkit.course import plots
from diffkit.course.diagrams import evaluation, guidance, sampling
from diffkit.course.experiments import few_steps
from diffkit.evaluation.statistics import wilson
from diffkit.model import fingerprint, load_model

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
sys.path.append(str(BENCHMARKS))
sampling_steps, distillation = map(importlib.import_module, ("sampling_steps", "distillation"))


def stored(name):
    return json.loads((BENCHMARKS / "results" / name).read_text(encoding="utf-8"))


def test_a_setting_has_one_row_and_its_interval():
    """The linear plan stood in two tables of notebook 06, with 22.1 and with 34.4 %."""
    table = stored("sampling_steps.json")
    assert table["settings"]["model_sha256"] == fingerprint("tales-mdlm")
    keys = [tuple(str(row[name]) for name in sampling_steps.Cell._fields) for row in table["cells"]]
    assert len(set(keys)) == len(keys)
    for row in table["cells"]:
        low, high = wilson(round(row["valid"] * table["settings"]["stories"]), table["settings"]["stories"])
        assert (row["low"], row["high"]) == pytest.approx((low, high), abs=1e-3)


def test_the_benchmark_makes_the_rows_that_are_stored():
    cell = sampling_steps.Cell("exact", "random", 2, "quadratic", (("top_k", 2),))
    sampling_steps.prepare("tales-mdlm")
    row = sampling_steps.judged(cell, sampling_steps.draw(cell, 0, 2))
    assert set(row) == set(stored("sampling_steps.json")["cells"][-1]) and row["filters"] == {"top_k": 2}


def successes(ending, way):
    rows = stored("guidance.json")["cells"]
    return {row["scale"]: row["success"] for row in rows if (row["ending"], row["way"]) == (ending, way)}


def points(a, b, n=256):
    """Difference of two shares, in standard errors."""
    return (b - a) / ((a * (1 - a) + b * (1 - b)) / n) ** 0.5


def test_guidance_helps_where_the_label_is_faint_and_not_where_it_is_learned():
    told, outside = successes("shared", "conditional model"), successes("lost", "tales-mdlm and the exact classifier")
    assert points(told[-0.5], told[0.0]) > 4  # listening by half, guided by 1, is listening as learned
    assert all(abs(points(told[0.0], told[w])) < 2 for w in (0.5, 1.0, 2.0))
    assert points(told[0.0], told[4.0]) < -5
    assert points(outside[0.0], outside[4.0]) > 2.5


def test_intervals_are_drawn():
    known = {"title": "t", "x_label": "x", "alt": "a"}
    plain = plots.bars({"a": 1.0}, **known).png
    within = plots.bars({"a": 1.0}, errors={"a": 0.5}, **known).png
    assert within != plain and plots.bars({"a": 1.0}, errors={"a": (0.5, 1.5)}, **known).png == within
    assert plots.bars({"a": 1.0}, errors={"a": (0.9, 1.0)}, **known).png not in (plain, within)
    line = {"y_label": "y", **known}
    plain = plots.lines([1, 2], {"a": [1, 2]}, **line).png
    assert plots.lines([1, 2], {"a": [1, 2]}, errors={"a": [(0, 2), (1, 3)]}, **line).png != plain


@pytest.mark.parametrize(
    "picture",
    [
        sampling.reverse_strip(), sampling.two_errors(), evaluation.bound_and_entropy(), evaluation.what_metrics_see(),
        guidance.guidance_shift({"and": (-2.0, -1.0), "took": (-1.0, -3.0)}, 1.0),
    ],
    ids=["strip", "errors", "bound", "metrics", "shift"],
)  # fmt: skip
def test_pictures_have_their_words_inside_the_frame(picture):
    html = picture._repr_html_()
    assert picture.alt in repr(picture) and html.count("<svg") == 1 and "nan" not in html


def test_guidance_makes_the_step_of_the_label_again():
    assert "took from -1.0 over -3.0 to -5.0" in guidance.guidance_shift({"took": (-1.0, -3.0), "and": (-2, -1)}, 1).alt


@pytest.mark.parametrize("arm", distillation.ARMS)
def test_students_start_from_the_teacher_and_leave_it(arm, monkeypatch):
    monkeypatch.setattr(distillation, "BATCH", 2)
    teacher, student = load_model("tales-mdlm"), distillation.student_of(arm, 1)
    moved = [(a - b).abs().max().item() for a, b in zip(teacher.parameters(), student.parameters(), strict=True)]
    assert 0 < max(moved) < 0.1 and not student.training


def test_a_random_order_of_given_counts_reveals_those():
    plan, is_masked, seen = distillation.at_random([1, 6, 11, 30], 0), torch.ones(3, 48, dtype=torch.bool), []
    for left in (4, 3, 2, 1):
        now = plan(torch.empty(3, 48, 5), is_masked, left)
        seen, is_masked = [*seen, now.sum(1).tolist()], is_masked & ~now
    assert seen == [[n] * 3 for n in (1, 6, 11, 30)] and not is_masked.any()


def test_the_table_of_students_is_whole():
    exact = distillation.TALES.denoiser(distillation.PROCESS)
    row, stored_row = distillation.judged(exact, "one open question", 16, 16), few_steps.distilled()[1]
    assert set(stored_row["exact", "one open question", 16]) == {*row, "model", "order", "steps"}
    assert row["price"]["mean"] < 1 and row["valid"] > 0.5
    for found in stored_row.values():
        low, high = wilson(round(found["valid"] * found["stories"]), found["stories"])
        assert (found["low"], found["high"]) == pytest.approx((low, high), abs=1e-6)
    for table in (few_steps.distilled_table("random, even"), few_steps.distilled_frontier(16)):
        assert all(name in table for name in few_steps.STUDENTS.values())
