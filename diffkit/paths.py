"""Where the files that come with diffkit are: configs and trained models."""

from __future__ import annotations

from pathlib import Path


def shipped_folder(folder: str) -> Path:
    """A folder of shipped files: inside an installed package, next to it in the repository."""
    package = Path(__file__).resolve().parent
    installed = package / Path(folder).name
    return installed if installed.is_dir() else package.parent / folder


CONFIGS, PRETRAINED = shipped_folder("configs"), shipped_folder("data/pretrained")
