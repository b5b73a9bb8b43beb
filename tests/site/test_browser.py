"""A real Chromium opens the course in JupyterLab as a reader would: run all, play, use the keyboard, fill in, stop."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import nbformat
import pytest
from browsers import PATIENCE, in_chromium, screenshot, stored_player
from nbformat.v4 import new_code_cell, new_notebook
from playwright.sync_api import Error, expect
from test_player import texts_in

from diffkit.cli.show.text import HIDDEN

ROOT = Path(__file__).resolve().parents[2]
TOKEN = "browser-test"
MINUTE = 60_000  # milliseconds
WAITING = "[...document.querySelectorAll('.jp-InputPrompt')].filter(it => it.innerText.includes('*')).length"  # cells
ERRORS = '.jp-OutputArea-output[data-mime-type="application/vnd.jupyter.error"]'


# Widgets in notebooks of their own.
TALES = """from diffkit import load_language, load_model
import torch
tales, model = load_language("tales"), load_model("tales-mdlm")
"""
WIDGETS = {
    "explorer_lab_board": (
        """from diffkit.course.widgets.explorer import NoiseExplorer
from diffkit.processes.schedules import get_schedule
story = tales.sample(1, torch.Generator().manual_seed(4))[0]
NoiseExplorer(story, tales.tokenizer, [get_schedule(name) for name in ("linear", "cosine", "quadratic")])""",
        """from diffkit.course.widgets.sampler_lab import SamplerLab
SamplerLab(model.process, tales, model=model)""",
        """from diffkit.course.widgets.board import InfillingBoard
InfillingBoard(model.process, model, tales, story, hidden=[1, 3, 15, 38])""",
    ),
    "dashboard": (
        """from diffkit.cli.settings import DataSettings, ModelSettings, build
from diffkit.course.widgets.dashboard import TrainingDashboard
from diffkit.training.config import TrainConfig
from diffkit.training.trainer import fit
from IPython.display import display
setup, config = build(DataSettings("tales"), ModelSettings("pico"), 0), TrainConfig(steps=100_000)
dashboard = TrainingDashboard(config.steps, entropy=tales.entropy() / tales.length, title="From scratch")
display(dashboard)
records = list(dashboard.watch(fit(setup.model, setup.batches, config)))""",
        "len(records)",
    ),
}


def write_widgets(folder):
    metadata = nbformat.read(ROOT / "notebooks" / "00_start_here.ipynb", as_version=4).metadata
    for name, codes in WIDGETS.items():
        cells = [new_code_cell(code) for code in (TALES, *codes)]
        nbformat.write(new_notebook(cells=cells, metadata=metadata), folder / f"{name}.ipynb")


def cut_behind(words, path):
    """Leave out what follows the cell with these words: that all cells of the course run is what nbval looks at."""
    notebook = nbformat.read(path, as_version=4)
    (last,) = [i for i, cell in enumerate(notebook.cells) if words in cell.source]
    notebook.cells[last + 1 :] = []
    nbformat.write(notebook, path)


def write_exercise(source, path):
    """An exercise and the cell it needs, alone: soon run as a whole, which a page that has just opened may need."""
    notebook = nbformat.read(source, as_version=4)
    needed = ("start_here as exercises", "exercises.check_hidden_tokens(")
    notebook.cells = [cell for cell in notebook.cells if any(words in cell.source for words in needed)]
    nbformat.write(notebook, path)


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """`make lab`, on a free port, over a copy of the notebooks, with the environment that runs the tests."""
    folder = tmp_path_factory.mktemp("lab")
    for name in ("Makefile", "pyproject.toml", "requirements.lock"):
        shutil.copy(ROOT / name, folder)
    for name in ("notebooks", ".jupyter"):
        shutil.copytree(ROOT / name, folder / name)
    first = folder / "notebooks" / "00_start_here.ipynb"
    cut_behind("exercises.check_hidden_tokens(", first)
    write_exercise(first, first.with_name("exercise.ipynb"))  # two pages that save one file ask which of them is right
    write_widgets(folder / "notebooks")
    (folder / ".venv").symlink_to(sys.prefix)
    (folder / ".ready").write_text(f"{folder}\n", encoding="utf-8")  # the set-up is done
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = f"--no-browser --port={port} --IdentityProvider.token={TOKEN}"
    command = ["make", "lab", "READY=.ready", f"LAB_ARGS={options}"]
    with (folder / "lab.log").open("w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, start_new_session=True)
        try:
            wait_for(f"http://127.0.0.1:{port}/api?token={TOKEN}", server)
            yield f"http://127.0.0.1:{port}"
        finally:
            if server.poll() is None:
                os.killpg(server.pid, signal.SIGTERM)
                server.wait(30)


def wait_for(url, server, seconds=120):
    for _ in range(seconds * 2):
        if server.poll() is not None:
            break
        try:
            return urllib.request.urlopen(url, timeout=5).close()
        except OSError:
            time.sleep(0.5)
    raise RuntimeError("JupyterLab did not start")


def close_dialog(dialog):
    """What JupyterLab asks on a slow machine, such as for a server that answers late, stands in nobody's way here."""
    print("JupyterLab asked:", " ".join(dialog.inner_text().split()))
    dialog.page.keyboard.press("Escape")


@pytest.fixture(scope="module")
def notebook(lab, chromium):
    """Open a notebook, which starts its kernel, and run all its cells; `done` waits for the last of them."""
    pages = []

    def opened(name):
        page = chromium.new_page(viewport={"width": 1300, "height": 1000})
        page.set_default_timeout(PATIENCE)
        page.add_locator_handler(page.locator(".jp-Dialog").first, close_dialog)
        pages.append(page)
        page.goto(f"{lab}/lab/tree/notebooks/{name}.ipynb?token={TOKEN}&reset")
        page.wait_for_selector(".jp-NotebookPanel:visible .jp-CodeCell", timeout=2 * MINUTE)
        page.wait_for_selector('.jp-Notebook-ExecutionIndicator[data-status="idle"]', timeout=2 * MINUTE)
        for _ in range(3):  # a page that has just opened may not listen yet
            page.wait_for_timeout(3000)
            page.get_by_role("menuitem", name="Run", exact=True).click()
            page.locator("#jp-mainmenu-run").get_by_text("Run All Cells", exact=True).click()
            try:
                page.wait_for_function(f"{WAITING} > 0", timeout=20_000)
                return page
            except Error:
                continue
        raise RuntimeError(f"JupyterLab does not run the cells of {name}")

    yield opened
    for page in pages:
        page.close()


def done(page):
    """Wait for the end of a run; it left no error and no cell out."""
    page.wait_for_function(f"{WAITING} === 0", timeout=6 * MINUTE)
    page.wait_for_selector('.jp-Notebook-ExecutionIndicator[data-status="idle"]')
    page.wait_for_timeout(1000)
    assert page.locator(ERRORS).count() == 0, page.locator(ERRORS).first.inner_text()
    prompts = page.locator(".jp-CodeCell .jp-InputPrompt").all_inner_texts()
    assert prompts and all(text.strip("[]: \n").isdigit() for text in prompts if text.strip()), prompts


def run_all(notebook, name):
    """Open a notebook and run it from top to bottom."""
    page = notebook(name)
    done(page)
    return page


def cell_with(page, text):
    """The code cell that holds this text."""
    return page.locator(".jp-CodeCell").filter(has=page.locator(".cm-content", has_text=text)).first


@in_chromium
@pytest.mark.parametrize("headers", [{}, {"Authorization": "token wrong"}, {"Host": "elsewhere.example"}])
def test_the_lab_lets_in_nobody_without_its_token(lab, headers):
    """Also where a page of another host leads here under its own name."""
    token = f"?token={TOKEN}" if "Host" in headers else ""
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(urllib.request.Request(f"{lab}/api/contents{token}", headers=headers), timeout=60)
    assert refused.value.code == 403
    refused.value.close()


@in_chromium
def test_a_story_unmasks_in_the_first_notebook(notebook):
    """Play reveals tokens by itself; the keyboard steps; the texts are the frames that are stored."""
    page = run_all(notebook, "00_start_here")
    data = stored_player("00_start_here")
    frames = list(texts_in(data))
    player = page.locator(".jp-CodeCell .dk-player").first
    player.scroll_into_view_if_needed()
    text, caption, slider = (player.locator(name) for name in (".dk-text", ".dk-caption", ".dk-slider"))
    expect(caption).to_have_text(data["captions"][0])
    assert text.inner_text().split() == [HIDDEN] * len(frames[0])
    player.locator(".dk-play").click()
    expect(caption).to_have_text(data["captions"][2])
    player.locator(".dk-play").click()  # pause
    for key, i in {"Home": 0, "ArrowRight": 1, "PageUp": 11, "End": len(frames) - 1}.items():
        slider.press(key)
        expect(caption).to_have_text(data["captions"][i])
        shown = [HIDDEN if word == "[MASK]" else word for word in frames[i] if word != "[PAD]"]
        assert [word for word in text.inner_text().split() if word != "·"] == shown
    text.locator(".dk-token").first.press("ArrowRight")
    assert "exact" in player.locator(".dk-details").inner_text()
    screenshot(page, "00_player")


@in_chromium
def test_an_exercise_is_filled_in_wrongly_and_then_rightly(notebook):
    page = run_all(notebook, "exercise")
    cell = cell_with(page, "exercises.check_hidden_tokens")
    said, editor = cell.locator(".jp-OutputArea-output"), cell.locator(".cm-content")
    assert "Not attempted yet" in said.inner_text()
    for answer, verdict in (("(tokens == mask_id).sum()", "Not yet"), ("(tokens == mask_id).sum(1)", "Correct.")):
        editor.click()
        expect(editor).to_be_focused()
        page.keyboard.press("ControlOrMeta+a")
        page.keyboard.insert_text(
            f"def hidden(tokens, mask_id):\n    return {answer}\n\n\nexercises.check_hidden_tokens(hidden)"
        )
        expect(editor).to_contain_text(answer)
        page.keyboard.press("ControlOrMeta+Enter")
        expect(said).to_contain_text(verdict)
        screenshot(page, f"00_exercise_{verdict.split()[0].strip('.').lower()}")


@pytest.fixture(scope="module")
def widgets(notebook):
    """The page of three widgets, all cells run."""
    return run_all(notebook, "explorer_lab_board")


@in_chromium
def test_the_noise_explorer_follows_its_slider(widgets):
    page = widgets
    explorer = page.locator(".jp-CodeCell").filter(has=page.locator("select")).first
    note = explorer.locator(".dk small:visible")
    before = note.inner_text()
    explorer.locator(".noUi-handle").first.press("ArrowRight")
    expect(note).not_to_have_text(before)
    assert "gamma(t) =" in note.inner_text()
    explorer.locator("select").select_option("quadratic")
    expect(note).to_contain_text("quadratic")
    screenshot(page, "02_explorer")


@in_chromium
def test_the_stop_button_ends_a_training_at_a_clean_step(notebook):
    """Pressed while the cell runs; what follows goes on with what was learned."""
    page = notebook("dashboard")
    stop = page.locator("button[title='Stop after the current step']")
    status = page.locator(".dk-panel[role=status]", has_text="tokens/s").first
    expect(status).to_contain_text("min left", timeout=4 * MINUTE)
    stop.scroll_into_view_if_needed()
    screenshot(page, "05_running")
    stop.click()
    expect(status).to_contain_text("Stopped, as you asked")
    expect(stop).to_be_disabled()
    screenshot(page, "05_stopped")
    done(page)


@in_chromium
def test_the_sampler_lab_counts_valid_stories(widgets):
    page = widgets
    draw = page.get_by_role("button", name="Draw", exact=True).first
    lab = page.locator(".jp-CodeCell").filter(has=draw)
    draw.scroll_into_view_if_needed()
    draw.click()
    expect(lab.locator(".dk-panel").filter(has_text="valid").first).to_contain_text("%", timeout=2 * MINUTE)
    screenshot(page, "06_lab")


@in_chromium
def test_the_infilling_board_fills_beside_the_exact_conditional(widgets):
    page = widgets
    run = page.get_by_role("button", name="Run", exact=True).first
    board = page.locator(".jp-CodeCell").filter(has=run)
    run.scroll_into_view_if_needed()
    board.locator("button[title^='word 1, given']").click()
    expect(board.locator("button[title^='word 1, hidden']")).to_have_text(HIDDEN)
    run.click()
    expect(board.locator("button[title^='word 1, filled']")).to_contain_text("✎")
    found = board.locator(".dk-panel").filter(has_text="The exact conditional").first
    expect(found).to_contain_text("log p(missing | given)")
    screenshot(page, "08_board")
