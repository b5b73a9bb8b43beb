"""Argument checks shared by the public functions."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor


def check_whole(value: float, name: str, where: str, least: int = 1, most: float = math.inf) -> None:
    """Raise ValueError unless a value is a whole number in least..most; `where` names the caller."""
    if not (least <= value <= most and value % 1 == 0):
        limit = f"in {least}..{most}" if most < math.inf else f"of at least {least}"
        raise ValueError(f"{where}: {name} must be a whole number {limit}, got {value}.")


def check_finite(value: float, name: str, where: str) -> None:
    """Raise ValueError for NaN and infinite numbers."""
    if not math.isfinite(value):
        raise ValueError(f"{where}: {name} must be a finite number, got {value}.")


def check_generator(rng: Generator) -> None:
    """Raise TypeError for anything but a torch.Generator."""
    if not isinstance(rng, Generator):
        raise TypeError(
            f"rng must be a torch.Generator, got {type(rng).__name__}. Make one: torch.Generator().manual_seed(0)."
        )


def check_ids(ids: Tensor, vocab_size: int, where: str) -> None:
    """Raise ValueError unless ids are (B, L) integers in 0..vocab_size - 1."""
    if ids.ndim != 2 or ids.dtype not in (torch.int64, torch.int32):
        raise ValueError(
            f"{where}: ids must be (B, L) integers, got {ids.dtype} {tuple(ids.shape)}. "
            "Add a batch axis with ids[None]?"
        )
    if ids.numel() and (ids.min() < 0 or ids.max() >= vocab_size):
        raise ValueError(
            f"{where}: ids must lie in 0..{vocab_size - 1}, got {int(ids.min())}..{int(ids.max())}. Was the text made "
            "with another tokenizer?"
        )
