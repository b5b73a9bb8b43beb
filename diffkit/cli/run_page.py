"""The command that makes a page of a run: one HTML file with curves, samples along training, and settings."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diffkit.cli.show.chart import Line, Window, chart, smoothed
from diffkit.cli.show.page import whole_page
from diffkit.cli.terminal import printable
from diffkit.io import check_writable, write_atomic
from diffkit.languages.story_language import LANGUAGES, load_language
from diffkit.paths import user_path

ROWS = 24  # of a table; more are thinned out
STYLE = (
    "table{border-collapse:collapse;margin:.5em 0}caption{text-align:left;font-weight:600}"
    "th,td{padding:.15em 1em .15em 0;text-align:left;vertical-align:top;border-bottom:1px solid #8888}"
    "td{font-variant-numeric:tabular-nums}figure{margin:1em 0}.dk-chart{max-width:44rem!important}"
    ".text{white-space:pre-wrap;font:15px/1.6 ui-monospace,Menlo,Consolas,monospace}"
)
Lines = list[dict[str, Any]]


def report(run: str, out: str = "") -> None:
    """Make a page of a run, finished or not: diffkit report runs/tales-mdlm-nano. One file, no server, no network.

    Args:
        run: folder that `diffkit train` writes to; with --train.sample_every the page shows texts along the run.
        out: a new file for the page (default: report.html in that folder, written anew each time).
    """
    folder = user_path(run)
    target = user_path(out) if out else folder / "report.html"
    records = lines_of(folder / "training.jsonl")
    if not records:
        raise ValueError(
            f"{folder} holds no run: it has no training.jsonl with a step in it. Give the --out of a train."
        )
    if out and target.exists():
        raise ValueError(f"--out: {target} is there already. Choose another name, or delete it.")
    check_writable(target.parent)
    write_atomic(
        target, run_page(folder.resolve().name, records, lines_of(folder / "samples.jsonl"), _settings(folder))
    )
    print(f"The page is {target}.")


def lines_of(path: Path) -> Lines:
    """The objects of a log, none if there is no log; a half-written line is left out."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return [one for one in found if isinstance(one, dict) and isinstance(one.get("step"), int)]


def _settings(folder: Path) -> dict[str, Any]:
    """The settings of a run; of one that kept none, such as a shipped model, the config of its model."""
    for name in ("settings.json", "config.json"):
        if (folder / name).is_file():
            return dict(json.loads((folder / name).read_text(encoding="utf-8")))
    return {}


def run_page(name: str, records: Lines, samples: Lines, settings: dict[str, Any]) -> str:
    """The page; every text in it is escaped."""
    corpus = settings.get("data", {}).get("corpus")
    language = load_language(corpus) if corpus in LANGUAGES else None
    level = ("exact entropy", language.entropy() / language.length) if language else None
    last, bounds = records[-1], [one for one in records if one.get("validation") is not None]
    rows = {"steps": f"{last['step']:,}", "training loss, smoothed": f"{_losses(records)[-1][1]:.4f} nats per token"}
    if bounds:
        rows["held-out bound, last"] = f"{bounds[-1]['validation']:.4f} nats per token"
    if level:
        rows["exact entropy"] = f"{level[1]:.4f} nats per token"
    parts = [_table("At its last step", ("", "value"), [*rows.items()]), _curves(records, bounds, level)]
    if bounds:
        shown = [(f"{one['step']:,}", f"{one['validation']:.4f}") for one in thinned(bounds)]
        parts.append(_table("Held-out bound", ("step", "nats per token"), shown))
    parts.append("<h2>Samples along training</h2>")
    hint = "None were kept; train with --train.sample_every 500 to see the model learn to write."
    parts.append("" if samples else f"<p>{hint}</p>")
    for one in thinned(samples):
        texts = "".join(f'<p class="text">{_text(text)}</p>' for text in one.get("texts", []))
        parts.append(f"<h3>Step {one['step']:,}</h3>{texts}")
    parts.append("<h2>Settings</h2>" + _table("What was asked for", ("setting", "value"), [*flat(settings)]))
    return whole_page(f"Training run {printable(name)}", "\n".join(parts), style=STYLE)


def _losses(records: Lines) -> Line:
    known = [one for one in records if one["loss"] is not None]
    return [*zip((one["step"] for one in known), smoothed([one["loss"] for one in known]), strict=True)]


def _curves(records: Lines, bounds: Lines, level: tuple[str, float] | None) -> str:
    """Loss and bound by step, and the learning rate."""
    curves: dict[str, Line] = {"training loss, smoothed": _losses(records)}
    if bounds:
        curves["held-out bound"] = [(one["step"], one["validation"]) for one in bounds]
    alt = f"From {curves['training loss, smoothed'][0][1]:.3f} to {curves['training loss, smoothed'][-1][1]:.3f}"
    alt += f", held-out bound {bounds[-1]['validation']:.3f}" if bounds else ""
    pictures = [_figure(curves, "Loss", "nats per token", f"{alt}.", level)]
    most = max(one["lr"] for one in records)
    rates = [(one["step"], one["lr"] / (most or 1)) for one in records]
    alt = f"At most {most:.3g}, at the end {records[-1]['lr']:.3g}."
    pictures.append(_figure({"learning rate": rates}, "Learning rate", f"of {most:.3g}", alt, None))
    return "<h2>Curves</h2>" + "".join(f"<figure>{one}</figure>" for one in pictures)


def _figure(curves: dict[str, Line], title: str, y_label: str, alt: str, level: tuple[str, float] | None) -> str:
    heights = [y for points in curves.values() for _, y in points] + ([level[1]] if level else [])
    steps = [x for points in curves.values() for x, _ in points]
    frame = Window(min(steps), max(steps), min(0.98 * min(heights), min(heights)), max(heights))
    return chart(curves, frame, title=title, x_label="step", y_label=y_label, alt=alt, level=level)


def thinned(lines: Lines) -> Lines:
    """At most `ROWS` of the lines, evenly, the last among them."""
    every = -(-len(lines) // ROWS) or 1
    return lines[::-1][::every][::-1]


def flat(settings: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Settings within settings as (dotted name, value)."""
    found = []
    for name, value in settings.items():
        found += flat(value, f"{prefix}{name}.") if isinstance(value, dict) else [(f"{prefix}{name}", str(value))]
    return found


def _text(text: Any) -> str:
    return html.escape(printable(str(text)))


def _table(caption: str, head: Sequence[str], rows: Sequence[tuple[str, str]]) -> str:
    body = "".join(f'<tr><th scope="row">{_text(a)}</th><td>{_text(b)}</td></tr>' for a, b in rows)
    heads = "".join(f'<th scope="col">{name}</th>' if name else "<td></td>" for name in head)
    return f"<table><caption>{caption}</caption><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>"
