"""Points of the sweep, judged against exact prefixes."""

import csv
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from toys import TALES, generator

from diffkit.course.experiments.scaling import (
    BATCH,
    Point,
    Prefixes,
    build_point,
    evaluate_point,
    exact_on_prefixes,
    frontier,
    parameter_counts,
    train_config,
)
from diffkit.training.trainer import fit

TABLE = Path(__file__).resolve().parents[2] / "benchmarks" / "results" / "scaling.csv"
SMALL = Point("mdlm", width=16, layers=1, steps=2, stories=0, length=12)


@given(st.lists(st.tuples(st.integers(1, 20), st.integers(1, 20)), min_size=1, max_size=12))
def test_nobody_on_the_frontier_is_beaten_and_everybody_else_is(runs):
    compute, gap = [c for c, _ in runs], [g for _, g in runs]
    kept = frontier(compute, gap)
    assert [compute[i] for i in kept] == sorted({compute[i] for i in kept})
    for i in range(len(runs)):
        beaten = any(
            (compute[j], gap[j]) != (compute[i], gap[i]) and compute[j] <= compute[i] and gap[j] <= gap[i]
            for j in range(len(runs))
        )  # noqa: E501
        assert (i in kept) <= (not beaten) and (beaten or any(runs[k] == runs[i] for k in kept))


def test_the_exact_denoiser_of_a_prefix_is_that_of_the_language_with_the_rest_hidden():
    model = build_point(SMALL, TALES)
    gap, exact = evaluate_point(model, SMALL, TALES)
    assert gap.mean > 6 * gap.standard_error > 0, "an untrained network is far away"
    denoise = exact_on_prefixes(TALES, model, 12)
    x = TALES.sample(2, generator())
    hidden = torch.where(torch.arange(TALES.length) < 6, x, TALES.mask_id)
    want = TALES.posterior(TALES.seen(hidden))[1][:, :12].log()
    assert torch.allclose(denoise(hidden[:, :12], torch.zeros(2)), want)
    assert 0.5 < exact < 1.5


def test_a_finite_set_repeats_and_an_endless_one_does_not():
    finite = Prefixes(TALES, SMALL._replace(stories=BATCH), seed=1)
    first, second = next(finite), next(finite)
    assert sorted(map(tuple, first.tolist())) == sorted(map(tuple, second.tolist()))
    endless = Prefixes(TALES, SMALL, seed=1)
    assert not torch.equal(next(endless), next(endless)) and next(endless).shape == (BATCH, 12)


@pytest.mark.parametrize("stories", [0, 100])
def test_batches_go_on_where_they_were(stories):
    ahead, behind = (Prefixes(TALES, SMALL._replace(stories=stories), seed=1) for _ in range(2))
    next(ahead)
    behind.load_state_dict(ahead.state_dict())
    assert torch.equal(next(ahead), next(behind))


@pytest.mark.parametrize("process", ["mdlm", "autoregressive"])
def test_a_point_trains(process):
    point = SMALL._replace(process=process)
    model = build_point(point, TALES)
    whole, inner = parameter_counts(model)
    assert 0 < inner < whole
    assert [record.step for record in fit(model, Prefixes(TALES, point, seed=1), train_config(point))] == [1, 2]


def test_the_stored_table_is_of_this_design():
    with TABLE.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    kinds = [row["process"] for row in rows]
    assert kinds.count("mdlm") >= 12 and kinds.count("autoregressive") >= 6
    for row in rows:
        point = Point(row["process"], *(int(row[name]) for name in Point._fields[1:]))
        assert int(row["tokens"]) == point.steps * BATCH * point.length and float(row["gap"]) > 0
        settings = train_config(point)
        assert (settings.objective, settings.lr, settings.muon_lr) == (
            row["objective"], float(row["lr"]), float(row["muon_lr"]),
        )  # fmt: skip
    assert len({(row["seed"], *(row[name] for name in Point._fields)) for row in rows}) == len(rows)
