"""What every committed notebook owes its reader; see CONTRIBUTING.md, Notebooks.

That the stored outputs are right is checked by nbval (`make test`). nbval is content with a notebook that was never
run, so the tests here make sure that there is something to compare, and that nbval does compare it.
"""

import ast
import copy
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import run_times
from nbformat.v4 import new_code_cell, new_notebook, new_output

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
PATHS = sorted(FOLDER.glob("[0-9]*.ipynb"))
IGNORED = "nbval-ignore-output"
MAX_BYTES, MAX_CELL_LINES, CELLS_PER_IGNORED = 300_000, 35, 8

each_notebook = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)


def read(path):
    return nbformat.read(path, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def python_of(cell):
    """The cell without magics and shell lines, which are not Python."""
    return "\n".join(line for line in cell.source.splitlines() if not re.match(r"\s*[%!?]", line))


@each_notebook
def test_committed_executed_in_order_from_one_run(path):
    cells = code_cells(read(path))
    assert all(cell.source.strip() for cell in cells), "an empty code cell"
    counts = [cell.execution_count for cell in cells]
    assert counts == list(range(1, len(cells) + 1)), f"not one run from top to bottom: {counts}. Run `make notebooks`."
    assert any(cell.outputs for cell in cells), "no outputs at all: stripped?"
    errors = [output for cell in cells for output in cell.outputs if output.output_type == "error"]
    assert not errors, f"{path.name} stores an error: {errors[0].ename}: {errors[0].evalue}"


@each_notebook
def test_stored_small_and_normalised(path):
    notebook = read(path)
    assert path.stat().st_size < MAX_BYTES, f"{path.name} has {path.stat().st_size} bytes with its outputs"
    assert "widgets" not in notebook.metadata, "stored widget state: run `make notebooks`"
    assert notebook.metadata.kernelspec.name == "python3"
    assert not [cell.id for cell in notebook.cells if "execution" in cell.metadata], (
        "stored times: run `make notebooks`"
    )


@each_notebook
def test_few_outputs_are_exempt_and_each_says_why(path):
    notebook = read(path)
    exempt = [cell for cell in notebook.cells if IGNORED in cell.metadata.get("tags", [])]
    assert len(exempt) * CELLS_PER_IGNORED <= len(notebook.cells), (
        f"{len(exempt)} of {len(notebook.cells)} cells exempt"
    )
    for cell in exempt:
        assert re.search(r"^\s*#|\s{2}# ", cell.source, re.M), f"say in a comment why this differs:\n{cell.source}"


@each_notebook
def test_cells_are_short_and_hold_no_machinery(path):
    for cell in code_cells(read(path)):
        assert len(cell.source.splitlines()) <= MAX_CELL_LINES, f"a cell of over {MAX_CELL_LINES} lines:\n{cell.source}"
        classes = [node.name for node in ast.walk(ast.parse(python_of(cell))) if isinstance(node, ast.ClassDef)]
        assert not classes, f"classes live in diffkit, not in a notebook: {classes}"


@each_notebook
def test_has_the_shape_of_a_lesson(path):
    """As CONTRIBUTING.md has it, with some room: cells, lines, words, figures and something to play."""
    notebook = read(path)
    lines = sorted(len(cell.source.splitlines()) for cell in code_cells(notebook))
    prose = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    words = len(re.sub(r"```.*?```", "", prose, flags=re.S).split())
    shown = [output.get("data", {}) for cell in code_cells(notebook) for output in cell.outputs]
    figures = sum("image/png" in data for data in shown)
    assert 20 <= len(notebook.cells) <= 50 and sum(lines) <= 270 and lines[len(lines) // 2] <= 14
    assert 800 <= words <= 3000 and 2 <= figures <= 6
    assert any("application/vnd.jupyter.widget-view+json" in data for data in shown), "nothing to play with"
    for part in ("ake away", "Where this breaks", "Hint</summary>"):
        assert part in prose, f"{path.name} has no {part!r}"


@each_notebook
def test_says_its_minutes_is_listed_and_leads_on(path):
    prose = "\n".join(cell.source for cell in read(path).cells if cell.cell_type == "markdown")
    assert run_times.OPENING.search(prose), (
        f"{path.name} does not say how long it takes, as {run_times.OPENING.pattern}"
    )
    readme = (FOLDER.parent / "README.md").read_text(encoding="utf-8")
    assert f"](notebooks/{path.name})" in readme, f"README.md does not list {path.name}"
    after = PATHS[PATHS.index(path) + 1 :]
    assert not after or f"]({after[0].name})" in prose.split("**Next:**")[-1], f"{path.name} does not link to the next"


def test_a_notebook_that_takes_far_too_long_is_named(tmp_path):
    (tmp_path / "a.ipynb").write_text("**Time:** 20 minutes to read and try, 30 seconds to run.", encoding="utf-8")
    (tmp_path / "b.py").write_text("# no promise", encoding="utf-8")
    limit = 30 * run_times.TIMES_LONGER
    assert not [*run_times.too_long({"a.ipynb": limit, "b.py": 9e9}, tmp_path)]
    (sentence,) = run_times.too_long({"a.ipynb": limit + 1}, tmp_path)
    assert "a.ipynb took" in sentence and "says 30 s" in sentence


@each_notebook
def test_has_an_exercise_that_checks_itself(path):
    source = "\n".join(cell.source for cell in code_cells(read(path)))
    assert "exercises.check_" in source, f"{path.name} has no exercise with a check"


def glossary_anchors():
    lines = (FOLDER / "glossary.md").read_text(encoding="utf-8").splitlines()
    return [line.removeprefix("## ").replace(" ", "-") for line in lines if line.startswith("## ")]


def test_glossary_is_alphabetical_and_its_anchors_are_plain():
    """JupyterLab keeps capitals in anchors and GitHub lowers them, so only lower-case headings work in both."""
    anchors = glossary_anchors()
    assert anchors == sorted(set(anchors)) and len(anchors) >= 40
    assert all(re.fullmatch(r"[a-z0-9-]+", anchor) for anchor in anchors)
    text = (FOLDER / "glossary.md").read_text(encoding="utf-8")
    assert set(re.findall(r"\]\(#([^)]+)\)", text)) <= set(anchors)


@pytest.mark.slow
def test_nbval_fails_on_one_edited_output(tmp_path):
    """The strict run compares: the true output passes, one changed digit does not."""
    printed = new_output("stream", name="stdout", text="42\n")
    honest = new_notebook(cells=[new_code_cell("print(6 * 7)", execution_count=1, outputs=[printed])])
    honest.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    edited = copy.deepcopy(honest)
    edited.cells[0].outputs[0].text = "43\n"
    codes = {}
    for name, notebook in (("honest", honest), ("edited", edited)):
        nbformat.write(notebook, tmp_path / f"{name}.ipynb")
        command = [sys.executable, "-m", "pytest", "--nbval", "--nbval-current-env", "-q", f"{name}.ipynb"]
        codes[name] = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=120).returncode
    assert codes == {"honest": 0, "edited": 1}
