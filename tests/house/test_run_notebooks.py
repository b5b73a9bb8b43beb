"""scripts/run_notebooks.py: two runs of the same notebook must give the same file."""

import importlib.util
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "run_notebooks.py"
spec = importlib.util.spec_from_file_location("run_notebooks", SCRIPT)
assert spec and spec.loader
run_notebooks = importlib.util.module_from_spec(spec)
spec.loader.exec_module(run_notebooks)


def stream(text, name="stdout"):
    return new_output("stream", name=name, text=text)


def as_run(model_id, pieces, when):
    """One notebook as two different runs would leave it: same meaning, different noise."""
    widget = {"model_id": model_id, "version_major": 2, "version_minor": 0}
    shown = new_output("display_data", data={run_notebooks.WIDGET_VIEW: widget, "text/plain": "Player(8 frames)"})
    cells = [
        new_markdown_cell("# title", id="top"),
        new_code_cell("show()", id="abc", execution_count=1, outputs=[*map(stream, pieces), shown]),
    ]
    cells[1].metadata = {"execution": {"iopub.execute_input": when}, "tags": ["keep"], "collapsed": True}
    language = {"name": "python", "version": f"3.11.{len(when)}"}
    return new_notebook(cells=cells, metadata={"widgets": {"state": {model_id: {}}}, "language_info": language})


def test_two_runs_normalise_to_the_same_notebook():
    first = run_notebooks.normalise(as_run("1f0c", ["a\n", "b\n"], "10:00"))
    second = run_notebooks.normalise(as_run("77aa", ["a\nb\n"], "11:00:01"))
    assert first == second
    nbformat.validate(first)
    assert first.metadata == {"kernelspec": run_notebooks.KERNEL, "language_info": {"name": "python"}}
    assert first.cells[1].metadata == {"tags": ["keep"]}
    assert first.cells[1].outputs[0].text == "a\nb\n"
    assert first.cells[1].outputs[1].data[run_notebooks.WIDGET_VIEW]["model_id"] == "abc-0"


def test_normalise_is_idempotent_and_leaves_its_argument_alone():
    notebook = as_run("1f0c", ["a"], "10:00")
    once = run_notebooks.normalise(notebook)
    assert run_notebooks.normalise(once) == once
    assert notebook == as_run("1f0c", ["a"], "10:00")


def test_streams_merge_only_with_their_own_kind():
    pieces = [stream("a"), stream("b"), stream("w", "stderr"), stream("c")]
    merged = run_notebooks.joined_streams(pieces)
    assert [(piece.name, piece.text) for piece in merged] == [("stdout", "ab"), ("stderr", "w"), ("stdout", "c")]


def test_only_cells_that_may_differ_are_left_out_of_the_comparison():
    def timed(seconds, tags):
        cell = new_code_cell("time_it()", id="t", execution_count=1, outputs=[stream(seconds)])
        cell.metadata = {"tags": tags}
        return new_notebook(cells=[cell])

    ignored = [run_notebooks.IGNORED]
    assert run_notebooks.same_where_compared(timed("1.0 s", ignored), timed("1.2 s", ignored))
    assert not run_notebooks.same_where_compared(timed("1.0 s", []), timed("1.2 s", []))
    never_run = timed("", ignored)
    never_run.cells[0].update(outputs=[], execution_count=None)
    assert not run_notebooks.same_where_compared(never_run, timed("1.2 s", ignored))


def test_metadata_of_an_output_survives():
    """The site plays from it: a player keeps its data there."""
    data, metadata = {"text/plain": "Player: a, 1 frames"}, {"diffkit": {"player": {"start": "0 1"}}}
    shown = new_output("execute_result", data=data, metadata=metadata, execution_count=1)
    notebook = new_notebook(cells=[new_code_cell("player", outputs=[shown])])
    normal = run_notebooks.normalise(notebook)
    assert normal.cells[0].outputs[0].metadata == metadata
    changed = run_notebooks.normalise(notebook)
    changed.cells[0].outputs[0].metadata.diffkit.player.start = "1 0"
    assert not run_notebooks.same_where_compared(normal, changed), "a run with other data is stored"


@pytest.mark.slow
def test_a_second_run_leaves_the_file_alone_and_a_failure_names_its_cell(tmp_path):
    path = tmp_path / "00_small.ipynb"
    cells = [new_code_cell("import time"), new_code_cell("print('same')"), new_code_cell("time.time()  # the clock")]
    cells[2].metadata["tags"] = [run_notebooks.IGNORED]
    nbformat.write(new_notebook(cells=cells), path)
    assert run_notebooks.run(path, 60)[0]
    stored = path.read_bytes()
    assert not run_notebooks.run(path, 60)[0]
    assert path.read_bytes() == stored
    assert list(tmp_path.iterdir()) == [path]

    cells[1].source = "1 / 0"
    nbformat.write(new_notebook(cells=cells), path)
    before = path.read_bytes()
    with pytest.raises(RuntimeError, match=r"00_small.ipynb: cell 2 .*ZeroDivisionError: division by zero\n\n1 / 0"):
        run_notebooks.run(path, 60)
    assert path.read_bytes() == before
