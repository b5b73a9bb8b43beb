"""A real Chromium for the tests that need one; the fixture `chromium` of conftest.py starts it."""

import json
import shutil
import subprocess
from pathlib import Path

import nbformat
import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ROOT = Path(__file__).resolve().parent.parent
SCREENSHOTS = ROOT / "screenshots"  # not in git; kept by whoever runs the tests
PATIENCE = 90_000  # milliseconds to wait for anything: machines differ, and this one may be busy


def in_chromium(test):
    """Mark a test that drives the browser; without one it is skipped, and says how to get it."""
    reason = "no Chromium found; on Debian or Ubuntu: apt install chromium, then run make test again"
    return pytest.mark.browser(pytest.mark.slow(pytest.mark.skipif(CHROMIUM is None, reason=reason)(test)))


def screenshot(page, name, **how):
    """Keep a picture of a page, to be looked at."""
    SCREENSHOTS.mkdir(exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{name}.png", **how)


def serious_problems(page):
    """What axe-core, which comes with its package, finds serious or critical on a page."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page, options={"preload": False, "resultTypes": ["violations"]}).response["violations"]
    serious = [problem for problem in found if problem["impact"] in ("serious", "critical")]
    return [f"{problem['id']}: {problem['nodes'][0]['html'][:200]}" for problem in serious]


def javascript_beside(code, request):
    """What calls a function in JavaScript beside this code: in node, or in Chromium where there is no node."""
    if not shutil.which("node"):
        page = request.getfixturevalue("chromium").new_page()
        page.add_script_tag(content=code)
        return page.evaluate

    def in_node(function, argument):
        program = f"{code}\nconsole.log(JSON.stringify(({function})({json.dumps(argument)})));"
        made = subprocess.run(["node", "-"], input=program, capture_output=True, text=True, check=True)
        return json.loads(made.stdout)

    return in_node


def stored_player(name):
    """The data of the first player that a stored notebook holds."""
    cells = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4).cells
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    return next(data for one in outputs if (data := one.get("metadata", {}).get("diffkit", {}).get("player")))
