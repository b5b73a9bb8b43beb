"""A real Chromium opens the course in JupyterLab as a reader would: run all, play, use the keyboard."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TOKEN = "browser-test"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(
        CHROMIUM is None,
        reason="no Chromium found; on Debian or Ubuntu: apt install chromium, then run make test again",
    ),
]
MINUTES = 60_000  # milliseconds


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """JupyterLab as `make lab` starts it, on a free port, over a copy of the notebooks."""
    folder = tmp_path_factory.mktemp("lab")
    shutil.copytree(ROOT / "notebooks", folder / "notebooks")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--ServerApp.port={port}",
        "--ServerApp.ip=127.0.0.1", f"--IdentityProvider.token={TOKEN}", f"--ServerApp.root_dir={folder}",
    ]  # fmt: skip
    environment = os.environ | {"JUPYTER_CONFIG_PATH": str(ROOT / ".jupyter")}
    with (folder / "lab.log").open("w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=folder)
        try:
            wait_for(f"http://127.0.0.1:{port}/api?token={TOKEN}", server)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
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


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        )
        yield chromium
        chromium.close()


def run_all(browser, lab, name):
    """As run_once; again, up to twice, where the kernel's connection broke while it restarted."""
    from playwright.sync_api import Error

    for attempts_left in (2, 1, 0):
        page = browser.new_page(viewport={"width": 1300, "height": 1000})
        try:
            run_once(page, lab, name)
            if not attempts_left or page.locator(".jp-CodeCell .widget-play").count():
                return page
        except Error:
            if not attempts_left:
                raise
        page.close()


def run_once(page, lab, name):
    """Open a notebook, restart its kernel, run every cell, wait for the end, all outputs fresh."""
    page.goto(f"{lab}/lab/tree/notebooks/{name}?token={TOKEN}&reset")
    page.wait_for_selector(".jp-NotebookPanel:visible .jp-CodeCell", timeout=2 * MINUTES)
    page.wait_for_selector('.jp-Notebook-ExecutionIndicator[data-status="idle"]', timeout=2 * MINUTES)
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_text("Restart Kernel and Run All Cells…").click()
    page.locator(".jp-Dialog .jp-mod-accept").click()
    page.wait_for_timeout(3000)
    page.wait_for_selector('.jp-Notebook-ExecutionIndicator[data-status="idle"]', timeout=2 * MINUTES)
    page.wait_for_timeout(1000)


def screenshot(page, name):
    folder = ROOT / "screenshots"
    folder.mkdir(exist_ok=True)
    page.screenshot(path=folder / f"{name}.png")


def test_a_story_unmasks_in_the_first_notebook(lab, browser):
    """Run All leaves no error; Play changes the text by itself; the arrow keys step it."""
    page = run_all(browser, lab, "00_start_here.ipynb")
    assert page.locator('.jp-OutputArea-output[data-mime-type="application/vnd.jupyter.error"]').count() == 0
    prompts = page.locator(".jp-CodeCell .jp-InputPrompt").all_inner_texts()
    assert prompts and all(text.strip("[]: \n").isdigit() for text in prompts if text.strip()), prompts
    story = page.locator(".jp-CodeCell .dk[role=status]:visible").first
    story.scroll_into_view_if_needed()
    before = story.inner_text()
    assert "Step 0 of" in before and "░" in before
    page.locator(".widget-play button").first.click()
    page.wait_for_timeout(3000)
    playing = page.locator(".jp-CodeCell .dk[role=status]:visible").first.inner_text()
    assert playing != before, "Play should reveal tokens"
    page.locator(".widget-play button").first.click()  # pause
    handle = page.locator(".widget-slider .noUi-handle").first
    handle.focus()
    handle.press("End")
    page.wait_for_timeout(500)
    end = page.locator(".jp-CodeCell .dk[role=status]:visible").first.inner_text()
    assert "0 tokens hidden" in end and "░" not in end
    handle.press("ArrowLeft")
    page.wait_for_timeout(500)
    assert page.locator(".jp-CodeCell .dk[role=status]:visible").first.inner_text() != end
    screenshot(page, "00_start_here")
    page.close()
