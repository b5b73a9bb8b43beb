"""Run notebooks again in place, and store them so that a run that changes nothing leaves no diff.

    python scripts/run_notebooks.py                           # all of notebooks/[0-9]*.ipynb
    python scripts/run_notebooks.py notebooks/03_objective.ipynb

What differs from run to run and says nothing is dropped or fixed: times, editor state, widget state and the random
ids of widgets. If the only outputs that changed belong to cells tagged `nbval-ignore-output` (seconds, versions), the
file keeps the run it already holds.
"""

from __future__ import annotations

import argparse
import copy
import os
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
IGNORED = "nbval-ignore-output"
KEPT_CELL_METADATA = ("tags", "jupyter", "editable", "deletable")
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def normalise(notebook: NotebookNode) -> NotebookNode:
    """Return a copy of a notebook without anything that changes from run to run; doing it twice changes nothing."""
    notebook = copy.deepcopy(notebook)
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    notebook.metadata = NotebookNode(kernelspec=NotebookNode(KERNEL), language_info=NotebookNode(name="python"))
    for i in range(len(notebook.cells)):
        cell = notebook.cells[i]
        cell.setdefault("id", f"cell-{i:02d}")
        cell.metadata = NotebookNode({key: cell.metadata[key] for key in KEPT_CELL_METADATA if key in cell.metadata})
        if cell.cell_type == "code":
            cell.outputs = joined_streams(cell.outputs)
            fix_widget_ids(cell)
    return notebook


def joined_streams(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Merge neighbouring pieces of one stream: where text is split depends on how fast it arrived."""
    merged: list[NotebookNode] = []
    for output in outputs:
        previous = merged[-1] if merged else None
        if previous and output.output_type == "stream" == previous.output_type and output.name == previous.name:
            previous.text += output.text
        else:
            merged.append(output)
    return merged


def fix_widget_ids(cell: NotebookNode) -> None:
    """Give every widget shown by a cell an id made of the cell's own id, in place of a random one."""
    shown = 0
    for output in cell.outputs:
        view = output.get("data", {}).get(WIDGET_VIEW)
        if view is not None:
            view["model_id"] = f"{cell.id}-{shown}"
            shown += 1


def same_where_compared(old: NotebookNode, new: NotebookNode) -> bool:
    """Whether two normalised notebooks agree everywhere but in the outputs of cells that may differ.

    A notebook that was never run, or was run out of order, is never the same as one that was.
    """
    return _compared(old) == _compared(new)


def _compared(notebook: NotebookNode) -> NotebookNode:
    notebook = copy.deepcopy(notebook)
    for cell in notebook.cells:
        if IGNORED in cell.metadata.get("tags", []) and cell.get("outputs"):
            cell.outputs = "may differ"
    return notebook


def run(path: Path, timeout_seconds: int) -> tuple[bool, float]:
    """Run one notebook in its own folder and store it.

    Args:    path: the notebook. timeout_seconds: limit for one cell.
    Returns: whether the file changed; seconds that the run took.
    Raises:  RuntimeError with the cell and its error if a cell fails, takes too long or kills the kernel.
    """
    started = time.perf_counter()
    old = nbformat.read(path, as_version=4)
    new = copy.deepcopy(old)
    for cell in new.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    client = NotebookClient(
        new,
        timeout=timeout_seconds,
        kernel_name="python3",
        resources={"metadata": {"path": str(path.parent)}},
        record_timing=False,
        store_widget_state=False,
    )
    try:
        client.execute()
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        raise RuntimeError(failure(path, new, error)) from None
    new = normalise(new)
    if same_where_compared(normalise(old), new):
        new = normalise(old)
    changed = write(path, new)
    return changed, time.perf_counter() - started


def failure(path: Path, notebook: NotebookNode, error: Exception) -> str:
    """Say which cell stopped a run and why; the cell is the last one that was started."""
    started = [i for i, cell in enumerate(notebook.cells) if cell.get("execution_count") or cell.get("outputs")]
    number = started[-1] if started else 0
    cell = notebook.cells[number]
    reason = f"{error.ename}: {error.evalue}" if isinstance(error, CellExecutionError) else str(error).strip()
    return f"{path.name}: cell {number + 1} (id {cell.get('id', 'none')}) failed with {reason}\n\n{cell.source}\n"


def write(path: Path, notebook: NotebookNode) -> bool:
    """Store a notebook in one move, so that a reader never sees half a file; return whether it changed."""
    text = nbformat.writes(notebook) + "\n"
    if path.read_text(encoding="utf-8") == text:
        return False
    draft = path.with_name(path.name + ".tmp")
    draft.write_text(text, encoding="utf-8", newline="\n")
    os.replace(draft, path)
    return True


def main() -> int:
    """Run the notebooks named on the command line, or all; return 1 if one failed."""
    parser = argparse.ArgumentParser(description="Run notebooks again in place and normalise them.")
    parser.add_argument("notebooks", nargs="*", type=Path, help="default: all of notebooks/[0-9]*.ipynb")
    parser.add_argument("--timeout", type=int, default=600, metavar="SECONDS", help="limit for one cell (default: 600)")
    arguments = parser.parse_args()
    paths = arguments.notebooks or sorted(NOTEBOOKS.glob("[0-9]*.ipynb"))
    missing = [path for path in paths if not path.is_file()]
    if missing or not paths:
        print(f"run_notebooks: no such notebook: {', '.join(map(str, missing)) or NOTEBOOKS}", file=sys.stderr)
        return 1
    total_seconds, failed = 0.0, 0
    for path in paths:
        try:
            changed, seconds = run(path, arguments.timeout)
        except RuntimeError as error:
            failed += 1
            print(error, file=sys.stderr)
            continue
        total_seconds += seconds
        print(f"{seconds:7.1f} s  {path.name}  {'changed' if changed else 'unchanged'}", flush=True)
    print(f"{total_seconds:7.1f} s  in all; {failed} of {len(paths)} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
