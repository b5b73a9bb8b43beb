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


@each_notebook
def test_stored_as_one_run_from_top_to_bottom(path):
    """Executed in order, without errors, small, and normalised by `make notebooks`."""
    notebook, cells = read(path), code_cells(read(path))
    assert all(cell.source.strip() for cell in cells) and any(cell.outputs for cell in cells), "empty, or stripped"
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1)), "run `make notebooks`"
    errors = [output for cell in cells for output in cell.outputs if output.output_type == "error"]
    assert not errors, f"{errors[0].ename}: {errors[0].evalue}"
    assert path.stat().st_size < MAX_BYTES and notebook.metadata.kernelspec.name == "python3"
    times = [cell.id for cell in notebook.cells if "execution" in cell.metadata]
    assert "widgets" not in notebook.metadata and not times, "run `make notebooks`"


@each_notebook
def test_few_outputs_are_exempt_and_each_says_why(path):
    notebook = read(path)
    exempt = [cell for cell in notebook.cells if IGNORED in cell.metadata.get("tags", [])]
    assert len(exempt) * CELLS_PER_IGNORED <= len(notebook.cells), f"{len(exempt)} cells are exempt"
    for cell in exempt:
        assert re.search(r"^\s*#|\s{2}# ", cell.source, re.M), f"say in a comment why this differs:\n{cell.source}"


@each_notebook
def test_has_the_shape_of_a_lesson(path):
    """As CONTRIBUTING.md has it, with some room: cells, lines, words, figures, exercises, something to play with."""
    notebook = read(path)
    sources = [cell.source for cell in code_cells(notebook)]
    lines = sorted(len(source.splitlines()) for source in sources)
    trees = [ast.parse(re.sub(r"^\s*[%!?].*$", "", source, flags=re.M)) for source in sources]
    assert not [node.name for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef)], "no classes"
    prose = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    words = len(re.sub(r"```.*?```", "", prose, flags=re.S).split())
    shown = [output.get("data", {}) for cell in code_cells(notebook) for output in cell.outputs]
    assert 20 <= len(notebook.cells) <= 50 and sum(lines) <= 270
    assert lines[len(lines) // 2] <= 14 and lines[-1] <= MAX_CELL_LINES
    assert 800 <= words <= 3000 and 2 <= sum("image/png" in data for data in shown) <= 6
    assert any("application/vnd.jupyter.widget-view+json" in data for data in shown), "nothing to play with"
    assert any("check_" in source for source in sources), "no exercise with a check"
    for part in ("ake away", "Where this breaks", "Hint</summary>"):
        assert part in prose, f"{path.name} has no {part!r}"
    readme = (FOLDER.parent / "README.md").read_text(encoding="utf-8")
    assert run_times.OPENING.search(prose) and f"](notebooks/{path.name})" in readme
    after = PATHS[PATHS.index(path) + 1 :]
    assert not after or f"]({after[0].name})" in prose.split("**Next:**")[-1], f"{path.name} does not link to the next"


def test_a_notebook_that_takes_far_too_long_is_named(tmp_path):
    (tmp_path / "a.ipynb").write_text("**Time:** 20 minutes to read and try, 30 seconds to run.", encoding="utf-8")
    (tmp_path / "b.py").write_text("# no promise", encoding="utf-8")
    limit = 30 * run_times.TIMES_LONGER
    assert not [*run_times.too_long({"a.ipynb": limit, "b.py": 9e9}, tmp_path)]
    (sentence,) = run_times.too_long({"a.ipynb": limit + 1}, tmp_path)
    assert "a.ipynb took" in sentence and "says 30 s" in sentence


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
    for name, notebook in (("honest", honest), ("edited", edited)):
        nbformat.write(notebook, tmp_path / f"{name}.ipynb")
    command = [sys.executable, "-m", "pytest", "--nbval", "--nbval-current-env", "-q", "honest.ipynb", "edited.ipynb"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert "1 failed, 1 passed" in done.stdout and "FAILED edited.ipynb" in done.stdout
