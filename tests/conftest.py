"""Fixtures that more than one test file asks for."""

import datasets
import pytest
from browsers import CHROMIUM, PATIENCE

# The files that take longest: begun first, they leave no process idle while another ends them.
LONGEST = (
    "test_browser test_site test_faults test_several_processes test_playground test_packaging test_exercises".split()
)


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))


@pytest.fixture
def own_caches(monkeypatch, tmp_path_factory):
    """Caches of this test alone, so that nothing is read from, or left in, the home folder."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("hf"))
    monkeypatch.setenv("DIFFKIT_CACHE", str(tmp_path_factory.mktemp("chunks")))


@pytest.fixture(scope="module")  # not longer: while it is open an event loop counts as running in this thread
def chromium():
    """A browser; see browsers.py."""
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()
