"""The stored tables of notebook 18, made by benchmarks/uniform_blocks.py, as text."""

from __future__ import annotations

import json
from typing import Any

from diffkit.paths import RESULTS

STORED = RESULTS / "uniform_blocks.json"


def stored_rows(part: str) -> list[dict[str, Any]]:
    """Rows of a table, such as "tales" or "judges"."""
    return list(json.loads(STORED.read_text(encoding="utf-8"))[part]["rows"])


def stories_table(part: str = "tales") -> str:
    """Samplers of a language: calls, texts, valid ones with their interval, and -log p of those if ten or more."""
    lines = [f"{'sampler':40}calls  of  valid [95 % interval]  -log p of the valid, nats"]
    for row in stored_rows(part):
        nats = "" if row["valid"] * row["stories"] < 10 else f"{row['nats_of_valid']:10.1f}"
        interval = f"[{row['low']:4.0%}, {row['high']:4.0%}]"
        lines.append(f"{row['name']:40}{row['calls']:5.3g} {row['stories']:3} {row['valid']:6.0%} {interval}{nats}")
    return "\n".join(lines)


def judges_table() -> str:
    """Schedulers on `micro`: chi-square of draws against their exact law, and the distance to the language."""
    lines = [f"{'scheduler, settings, calls':68} {'chi-square':>10} {'p':>6} {'off, exactly':>13} {'drawn':>6}"]
    for row in stored_rows("judges"):
        chi = f"{row['chi_square']:10.0f} {row['p_value']:6.2f}" if "chi_square" in row else " " * 17
        exactly, drawn = (f"{row[key]:.3f}" if row.get(key) is not None else "" for key in ("off", "off_drawn"))
        lines.append(f"{row['name']:68} {chi} {exactly:>13} {drawn:>6}".rstrip())
    return "\n".join(lines)
