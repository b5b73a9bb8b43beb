"""Figures: plain numbers to one matplotlib figure with title, units and a palette that colour-blind eyes can read."""

from __future__ import annotations

import base64
import html
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator, NullFormatter
from PIL import Image
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from diffkit.cli.show.chart import smoothed as smoothed  # the curves of every notebook
from diffkit.evaluation.by_count import CountError
from diffkit.processes.schedules import Schedule

# Okabe and Ito (2008): eight colours that stay apart under every common colour blindness.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
LINES = (*PALETTE[:7], "0.45")  # of thin lines and points, for which the yellow is too light
DPI = 130  # sharp where a page shows two pixels for one
DASHES = ("-", "--", "-.", ":")


class Picture:
    """A finished figure for a notebook: a PNG with a text alternative, the same bytes for the same numbers.

    Displayed as HTML with the image inside, so that a screen reader gets `alt`; its plain text is `alt`, too.
    """

    def __init__(self, figure: Figure, alt: str):
        buffer = BytesIO()
        self._take_words_as_they_are(figure)
        figure.savefig(buffer, format="png", dpi=DPI, bbox_inches="tight", facecolor="white")
        small = BytesIO()  # 256 colours: a third of the bytes
        Image.open(buffer).convert("RGB").quantize(256).save(small, format="png", optimize=True)
        self.png, self.alt = small.getvalue(), alt

    @staticmethod
    def _take_words_as_they_are(figure: Figure) -> None:
        """Let a `$` in a token be a `$`, not a formula; only the powers on logarithmic axes are formulas."""
        powers = {
            tick.label1
            for ax in figure.axes
            for axis in (ax.xaxis, ax.yaxis)
            if axis.get_scale() == "log"
            for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks())
        }
        for text in {*figure.findobj(Text)} - powers:
            text.set_parse_math(False)

    def __repr__(self) -> str:
        return f"Picture: {self.alt}"

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, object]:
        return {"image/png": base64.b64encode(self.png).decode(), "text/plain": repr(self)}, {  # type: ignore[return-value]
            "image/png": {"alt": html.escape(self.alt)}
        }


def axes(title: str, x: str, y: str, size: tuple[float, float] = (6.4, 3.6)) -> tuple[Figure, Axes]:
    """An empty figure with its title and its axis labels, units included; pyplot knows nothing of it, nor keeps it."""
    figure = Figure(figsize=size)
    ax = figure.subplots()
    ax.set(title=title, xlabel=x, ylabel=y)
    ax.grid(alpha=0.3)
    ax.spines[["top", "right"]].set_visible(False)
    return figure, ax


def lines(
    x: Sequence[float],
    curves: Mapping[str, Sequence[float]],
    *,
    title: str,
    x_label: str,
    y_label: str,
    alt: str,
    level: tuple[str, float] | None = None,
    markers: bool = False,
    log_x: bool = False,
    log_y: bool = False,
    spans: Mapping[str, tuple[float, float]] | None = None,
    errors: Mapping[str, Sequence[tuple[float, float]]] | None = None,
) -> Picture:
    """One line for each named curve over the same x; `level` is a named horizontal line, such as the exact entropy.

    `errors` are intervals, (lower, upper) for every point of a curve. `spans` are stretches of x, each shaded and
    named at the top, such as the phases of a run.
    """
    figure, ax = axes(title, x_label, y_label)
    for i, (name, (left, right)) in enumerate((spans or {}).items()):
        ax.axvspan(left, right, color="black", alpha=(0.1, 0.03)[i % 2], linewidth=0)
        middle = (left * right) ** 0.5 if log_x else (left + right) / 2
        ax.text(middle, 0.97, name, transform=ax.get_xaxis_transform(), ha="center", va="top")
    for i, (name, values) in enumerate(curves.items()):
        style: dict[str, Any] = {
            "color": PALETTE[i % len(PALETTE)],
            "linestyle": DASHES[i // len(PALETTE) % len(DASHES)],
        }
        aside = 0.012 * (i - (len(curves) - 1) / 2) if errors else 0.0  # no interval hides another
        places = [p * (max(x) / min(x)) ** aside if log_x else p + (max(x) - min(x)) * aside for p in x]
        ax.plot(places, values, label=name, marker="osv^D"[i % 5] if markers else None, **style)
        for place, (low, high) in zip(places, (errors or {}).get(name, ()), strict=False):
            ax.plot([place, place], [low, high], color=style["color"], linewidth=2, alpha=0.6)
    if level is not None:
        ax.axhline(level[1], color="black", linewidth=1.2, linestyle=(0, (1, 1)), label=level[0])
        ax.autoscale_view(scalex=False)  # or a level just inside the margin lies on the frame
    if log_x:
        ax.set_xscale("log", base=2)
        ax.xaxis.set_major_formatter("{x:g}")
    if log_y:
        ax.set_yscale("log")
    if len(curves) > 1 or level is not None:
        placement: dict[str, Any] = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5)} if len(curves) > 6 else {}
        ax.legend(frameon=False, fontsize=9, **placement)
    return Picture(figure, alt)


def scaling(
    groups: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    *,
    title: str,
    x_label: str,
    y_label: str,
    alt: str,
    laws: Mapping[str, Callable[[float], float]] | None = None,
    errors: Mapping[str, Sequence[tuple[float, float]]] | None = None,
    others: Mapping[str, Sequence[tuple[float, float]]] | None = None,
) -> Picture:
    """Points of each named group on two logarithmic axes; a group with a law gets its line, the others are joined.

    `errors` are intervals of y, (lower, upper) for every point of a group. `others` are more points (x, y) of a group,
    small and pale. Up to six different x are written at the axis as they are.
    """
    figure, ax = axes(title, x_label, y_label)
    for i, (name, (x, y)) in enumerate(groups.items()):
        law, colour = (laws or {}).get(name), PALETTE[i % len(PALETTE)]
        ax.plot(x, y, "osv^D"[i % 5] + ("" if law else "-"), color=colour, label=name)
        for place, interval in zip(x, (errors or {}).get(name, ()), strict=False):
            ax.plot([place, place], interval, color=colour, linewidth=2, alpha=0.5)
        for point in (others or {}).get(name, ()):
            ax.plot(*point, ".", color=colour, alpha=0.4, zorder=1)
        if law:
            ax.plot(x, [law(value) for value in x], color=colour, linewidth=1)
    ax.set(xscale="log", yscale="log")
    ax.xaxis.set_minor_formatter(NullFormatter())  # numbers between the powers of ten run into each other
    places = sorted({float(value) for x, _ in groups.values() for value in x})
    if len(places) <= 6:
        ax.set_xticks(places, [f"{x:,.0f}" if x < 10_000 else f"{x / 1000:,.0f} k" for x in places])
    ax.legend(frameon=False, fontsize=9)
    return Picture(figure, alt)


def points(
    groups: Mapping[str, Sequence[tuple[float, float]]],
    *,
    title: str,
    x_label: str,
    y_label: str,
    alt: str,
    level: tuple[str, float] | None = None,
    errors: Mapping[str, Sequence[tuple[float, float]]] | None = None,
    x_limits: tuple[float, float] | None = None,
    y_limits: tuple[float, float] | None = None,
) -> Picture:
    """Points (x, y) of several groups over a logarithmic x, joined within a group; `level`, `errors` as in `lines`."""
    figure, ax = axes(title, x_label, y_label, size=(7.2, 4.4))
    for i, (name, places) in enumerate(groups.items()):
        xs, ys = zip(*places, strict=True)
        style: dict[str, Any] = {"color": LINES[i % 8], "marker": "osv^DPX*"[i % 8], "linestyle": DASHES[i % 4]}
        ax.plot(xs, ys, label=name, linewidth=1, **style)
        for x, (low, high) in zip(xs, (errors or {}).get(name, ()), strict=False):
            ax.plot([x, x], [low, high], color=style["color"], linewidth=2, alpha=0.5)
    if level is not None:
        ax.axhline(level[1], color="black", linewidth=1.2, linestyle=(0, (1, 1)), label=level[0])
    ax.set_xscale("log", base=2)
    ax.xaxis.set_major_formatter("{x:g}")
    ax.set(**{name: limits for name, limits in {"xlim": x_limits, "ylim": y_limits}.items() if limits})
    ax.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return Picture(figure, alt)


def scatter(places: Mapping[str, tuple[float, float]], *, title: str, x_label: str, y_label: str, alt: str) -> Picture:
    """One point (x, y) for each name, which stands beside it, to the outside, a little above and below in turn."""
    figure, ax = axes(title, x_label, y_label, size=(7.2, 4.4))
    across = [x for x, _ in places.values()]
    middle = (min(across) + max(across)) / 2
    heights = sorted(places, key=lambda name: places[name][1])
    for i, (name, (x, y)) in enumerate(places.items()):
        ax.plot([x], [y], "osv^DPX*"[i % 8], color=LINES[i % 8])
        start, shift = ("left", 6) if x > middle else ("right", -6)
        lift = (-7, 1)[heights.index(name) % 2]
        ax.annotate(name, (x, y), (shift, lift), textcoords="offset points", fontsize=8, ha=start)
    ax.margins(x=0.25)
    return Picture(figure, alt)


def word_map(
    vectors: Tensor, words: Sequence[str], groups: Mapping[str, Sequence[str]], *, title: str, alt: str
) -> Picture:
    """Word vectors (N, E) along the two directions that part the groups most; the others are grey dots."""
    rows = {name: [words.index(word) for word in members] for name, members in groups.items()}
    centres = torch.stack([vectors.detach()[where].mean(0) for where in rows.values()])
    middle = centres.mean(0)
    places = (vectors.detach() - middle) @ torch.linalg.svd(centres - middle).Vh[:2].T
    figure, ax = axes(title, "first direction", "second direction", size=(7.2, 4.8))
    ax.scatter(places[:, 0].tolist(), places[:, 1].tolist(), s=6, color="0.8", zorder=1)
    for i, (name, where) in enumerate(rows.items()):
        colour = LINES[i % 8]
        x, y = places[where].T.tolist()
        ax.scatter(x, y, s=26, color=colour, marker="osv^DPX*"[i % 8], label=name, zorder=3)
        for k, n in enumerate(sorted(where, key=lambda n: places[n, 1].item())):  # names below and above in turn
            ax.annotate(
                words[n], places[n].tolist(), (5, (-11, 4)[k % 2]), textcoords="offset points", fontsize=9, color=colour
            )
    reach = 1.25 * places[sum(rows.values(), [])].abs().max(0).values.clamp(min=1e-3)
    ax.set(xlim=(-reach[0].item(), reach[0].item()), ylim=(-reach[1].item(), reach[1].item()), aspect="equal")
    ax.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return Picture(figure, alt)


def schedules(these: Sequence[Schedule], t: Tensor) -> Picture:
    """gamma(t) of several schedules, times (N,)."""
    curves = {schedule.name: schedule.gamma(t).tolist() for schedule in these}
    names = ", ".join(curves)
    return lines(
        t.tolist(), curves, title="How much is hidden: the masking rate", x_label="time t (steps)",
        y_label="gamma(t), chance that a token is masked",
        alt=f"Masking rate over time for {names}: all rise from 0 at t=0 to 1 at t={these[0].T}, on different paths.",
    )  # fmt: skip


def bars(
    values: Mapping[str, float], *, title: str, x_label: str, alt: str,
    errors: Mapping[str, float | tuple[float, float]] | None = None,
) -> Picture:  # fmt: skip
    """Horizontal bars, the first on top, each with its number, and with whiskers: a standard error, or both ends."""
    figure, ax = axes(title, x_label, "", size=(6.4, 0.6 + 0.32 * len(values)))
    whiskers = None
    if errors is not None:
        found = [(value, errors.get(name, 0.0)) for name, value in values.items()]
        both = [(value - e[0], e[1] - value) if isinstance(e, tuple) else (e, e) for value, e in found]
        whiskers = [[max(side, 0.0) for side in sides] for sides in zip(*both, strict=True)]
    drawn = ax.barh(range(len(values)), list(values.values()), xerr=whiskers, color=PALETTE[0], ecolor="0.2", capsize=3)
    ax.bar_label(drawn, fmt="{:.3g}", padding=3, fontsize=8)
    ax.margins(x=0.1)  # room for the number of the longest
    ax.set_yticks(range(len(values)), list(values))
    ax.invert_yaxis()
    return Picture(figure, alt)


def grouped_bars(
    groups: Mapping[str, Mapping[str, float]],
    *,
    title: str,
    y_label: str,
    alt: str,
    errors: Mapping[str, Mapping[str, float]] | None = None,
) -> Picture:
    """Upright bars: for every name on the x axis one bar of each group, side by side, such as exact and model.

    `errors` are the half widths of intervals, by group and name.
    """
    names = list(dict.fromkeys(name for values in groups.values() for name in values))
    figure, ax = axes(title, "", y_label)
    width = 0.8 / len(groups)
    for i, (group, values) in enumerate(groups.items()):
        places = [place + (i - (len(groups) - 1) / 2) * width for place in range(len(names))]
        heights = [values.get(name, 0.0) for name in names]
        style: dict[str, Any] = {"color": PALETTE[i], "hatch": ("", "//", "..", "xx")[i % 4], "edgecolor": "white"}
        half = None if errors is None else [errors[group].get(name, 0.0) for name in names]
        ax.bar(places, heights, width, label=group, yerr=half, ecolor="0.2", capsize=2, **style)
    is_wide = len(names) > 8 or sum(map(len, names)) > 75
    ax.set_xticks(range(len(names)), names, rotation=30 if is_wide else 0, ha="right" if is_wide else "center")
    ax.legend(frameon=False, fontsize=9)
    return Picture(figure, alt)


def token_probs(
    probs: Tensor, tokenizer: PreTrainedTokenizerBase, *, title: str, alt: str, most: int = 12, least: float = 1e-3
) -> Picture:
    """What could stand at one place: the likeliest tokens of (V,) probabilities, at most `most`, none below `least`."""
    order = probs.round(decimals=9).argsort(descending=True, stable=True)[:most].tolist()
    shown = [i for i in order if probs[i] >= least]
    values = dict(zip(tokenizer.convert_ids_to_tokens(shown), probs[shown].tolist(), strict=True))
    return bars(values, title=title, x_label="probability", alt=alt)


def heatmap(values: Tensor, *, title: str, x_label: str, y_label: str, alt: str, colour_label: str = "") -> Picture:
    """A (rows, columns) table as shades."""
    figure, ax = axes(title, x_label, y_label)
    ax.grid(visible=False)
    image = ax.imshow(values.tolist(), cmap="cividis", aspect="auto", interpolation="nearest")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True))
    figure.colorbar(image, label=colour_label)
    return Picture(figure, alt)


def categories(values: Tensor, names: Sequence[str], *, title: str, x_label: str, y_label: str, alt: str) -> Picture:
    """A (rows, columns) table of whole numbers as colours, their names beside the figure; no scale: none is more."""
    figure, ax = axes(title, x_label, y_label)
    ax.grid(visible=False)
    colours = ListedColormap(["0.86", *PALETTE][: len(names)])
    ax.imshow(values.tolist(), cmap=colours, vmin=-0.5, vmax=len(names) - 0.5, aspect="auto", interpolation="nearest")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True))
    patches = [Patch(facecolor=colours(i), edgecolor="0.5", label=name) for i, name in enumerate(names)]
    ax.legend(handles=patches, frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1, 0.5))
    return Picture(figure, alt)


def error_by_count(rows: Sequence[CountError], *, title: str = "Loss by number of hidden tokens") -> Picture:
    """The model's loss per hidden token beside the exact one."""
    curves = {"model": [row.model for row in rows], "exact denoiser": [row.exact for row in rows]}
    worst = max(rows, key=lambda row: row.gap.mean)
    return lines(
        [row.count for row in rows], curves, title=title, x_label="hidden tokens", y_label="nats per hidden token",
        markers=True,
        alt=f"Loss per hidden token, model and exact denoiser; the model is furthest off with {worst.count} hidden.",
    )  # fmt: skip


def attention_map(weights: Tensor, words: Sequence[str], *, title: str, alt: str) -> Picture:
    """One head's attention, (L, L): each row is a position that looks, each column one that is looked at."""
    figure, ax = axes(title, "looked at", "looks", size=(0.8 + 0.2 * len(words), 0.2 * len(words)))
    ax.grid(visible=False)
    image = ax.imshow(weights.tolist(), cmap="cividis", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    ax.set_xticks(range(len(words)), words, rotation=90, fontsize=8)
    ax.set_yticks(range(len(words)), words, fontsize=8)
    figure.colorbar(image, label="weight (each row sums to 1)")
    return Picture(figure, alt)
