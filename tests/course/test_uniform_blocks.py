"""diffusers' discrete schedulers under trial on micro; the stored tables of notebook 18."""

import json
from pathlib import Path

import pytest
from brute_force import DUO
from toys import generator

from diffkit.course.uniform_blocks import diagram
from diffkit.course.uniform_blocks.exact import Tabulated, time_agnostic
from diffkit.course.uniform_blocks.judges import AsScheduler, entropy_bounded_law, judge, markov_law, run_scheduler
from diffkit.course.uniform_blocks.tables import judges_table, stored_rows, stories_table
from diffkit.evaluation.statistics import wilson
from diffkit.processes.d3pm import D3PM

STORED = Path(__file__).resolve().parents[2] / "benchmarks" / "results" / "uniform_blocks.json"
PROCESS = D3PM(DUO.vocab_size, DUO.mask_id, "uniform", reverse="mixture")
TIMED = Tabulated(DUO, DUO.denoiser(PROCESS))
TIMELESS = Tabulated(DUO, time_agnostic(DUO, PROCESS), ignores_time=True)


@pytest.mark.parametrize("steps", [1, 4, 16])
def test_our_steps_as_a_scheduler_have_the_exact_law(steps):
    """20,000 draws, p above 1e-7; the law tends to the language."""
    law = markov_law(TIMED, PROCESS, steps)
    assert law.sum().item() == pytest.approx(1)
    drawn = run_scheduler(AsScheduler(PROCESS), DUO, TIMED, n=20_000, steps=steps, rng=generator(steps))
    found = judge(DUO, drawn, law, TIMED.states)
    assert found.p_value > 1e-7 and found.off < (1.0, 0.25, 0.06)[(1, 4, 16).index(steps)]
    assert judge(DUO, DUO.sample(20_000, generator()), law, TIMED.states).p_value < (1e-7 if steps < 16 else 1)


@pytest.mark.parametrize(("temperature", "is_right"), [(1.0, True), (0.0, False)])
@pytest.mark.parametrize("steps", [1, 4])
def test_discrete_ddim_is_the_markov_posterior_at_temperature_1(temperature, is_right, steps):
    """And not at its default of 0."""
    schedulers = pytest.importorskip("diffusers")
    drawn = run_scheduler(schedulers.DiscreteDDIMScheduler(), DUO, TIMED, n=20_000, steps=steps, rng=generator(steps),
                          temperature=temperature)  # fmt: skip
    assert (judge(DUO, drawn, markov_law(TIMED, PROCESS, steps), TIMED.states).p_value > 1e-7) == is_right


@pytest.mark.parametrize("temperatures", [(0.8, 0.4), (1.0, 1.0)])
def test_entropy_bound_has_the_law_of_our_enumeration(temperatures):
    schedulers = pytest.importorskip("diffusers")
    scheduler = schedulers.EntropyBoundScheduler(t_max=temperatures[0], t_min=temperatures[1])
    drawn = run_scheduler(scheduler, DUO, TIMELESS, n=20_000, steps=4, rng=generator(1))
    law = entropy_bounded_law(TIMELESS, 4, temperatures=temperatures)
    found = judge(DUO, drawn, law, TIMELESS.states)
    assert found.p_value > 1e-7 and found.off > 0.1, "its law, which is not the language"


def test_block_refinement_leaves_nothing_open_but_is_not_the_language():
    schedulers = pytest.importorskip("diffusers")
    scheduler = schedulers.BlockRefinementScheduler(block_length=DUO.length)
    drawn = run_scheduler(scheduler, DUO, TIMELESS, n=4000, steps=3, rng=generator(2), temperature=1.0)
    assert (drawn != DUO.mask_id).all()
    truth = DUO.log_prob(TIMELESS.states).exp()
    assert judge(DUO, drawn, truth, TIMELESS.states).p_value < 1e-7


def test_the_stored_tables_are_whole_and_say_what_the_notebook_says():
    stored = json.loads(STORED.read_text(encoding="utf-8"))
    rows = {row["name"]: row for row in stored["tales"]["rows"]}
    assert stored["tales"]["settings"]["calls"] == 24 and len(rows) == len(stored["tales"]["rows"])
    for row in rows.values():
        interval = wilson(round(row["valid"] * row["stories"]), row["stories"])
        assert (row["low"], row["high"]) == pytest.approx(interval)
    assert rows["hybrid, share 0.1"]["low"] > rows["masked, random order"]["high"]
    judged = {row["name"]: row for row in stored["judges"]["rows"]}
    assert all(("temperature 1," in name) == (row["p_value"] > 1e-3) for name, row in judged.items()
               if name.startswith("DiscreteDDIM, "))  # fmt: skip


@pytest.mark.parametrize(("part", "table"), [("tales", stories_table), ("judges", judges_table)])
def test_a_printed_table_has_a_line_for_each_row(part, table):
    _, *lines = table().splitlines()
    assert all(line.startswith(row["name"]) for line, row in zip(lines, stored_rows(part), strict=True))


@pytest.mark.parametrize("picture", [diagram.kinds_of_noise, diagram.canvas_loop])
def test_the_drawings_have_text_alternatives(picture):
    drawing = picture()
    assert len(drawing.alt) > 150 and drawing.alt in drawing._repr_html_()
