"""Fixtures that more than one test file asks for."""

import datasets
import pytest


@pytest.fixture
def own_caches(monkeypatch, tmp_path_factory):
    """Caches of this test alone, so that nothing is read from, or left in, the home folder."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("hf"))
    monkeypatch.setenv("DIFFKIT_CACHE", str(tmp_path_factory.mktemp("chunks")))
