"""What comes with diffkit beside its code: configs and trained models."""

from __future__ import annotations

from pathlib import Path


def shipped(folder: str) -> Path:
    """A folder of shipped files: inside the package where diffkit was installed, beside it in the repository."""
    package = Path(__file__).resolve().parent
    installed = package / Path(folder).name
    return installed if installed.is_dir() else package.parent / folder


CONFIGS, PRETRAINED = shipped("configs"), shipped("data/pretrained")
