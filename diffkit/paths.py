"""Where files are: the configs and trained models that come with diffkit, the cache, and what the user names."""

from __future__ import annotations

import os
from pathlib import Path


def shipped_folder(folder: str) -> Path:
    """A folder of shipped files: inside an installed package, next to it in the repository."""
    package = Path(__file__).resolve().parent
    installed = package / Path(folder).name
    return installed if installed.is_dir() else package.parent / folder


CONFIGS, PRETRAINED = shipped_folder("configs"), shipped_folder("data/pretrained")
RESULTS = shipped_folder("benchmarks/results")  # stored tables; in the repository only


def user_path(path: str | Path) -> Path:
    """A path from outside: an option, a config, an environment variable; `~` is the home folder, as in a shell."""
    return Path(os.path.expanduser(path))


def cache_folder() -> Path:
    """Where prepared texts are kept: $DIFFKIT_CACHE, else ~/.cache/diffkit."""
    return user_path(os.environ.get("DIFFKIT_CACHE") or "~/.cache/diffkit")
