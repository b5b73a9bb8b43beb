"""Figures: plain numbers to one matplotlib figure with title, units and a palette that colour-blind eyes can read."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from io import BytesIO

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from diffkit.evaluate import CountError
from diffkit.noise import Schedule
from diffkit.train import Record

# Okabe and Ito (2008): eight colours that stay apart under every common colour blindness.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
DASHES = ("-", "--", "-.", ":")


class Picture:
    """A finished figure for a notebook: a PNG with a text alternative, the same bytes for the same numbers.

    Displayed as HTML with the image inside, so that a screen reader gets `alt`; its plain text is `alt`, too.
    """

    def __init__(self, figure: Figure, alt: str):
        buffer = BytesIO()
        figure.savefig(buffer, format="png", dpi=90, bbox_inches="tight", metadata={"Software": None})
        plt.close(figure)
        self.png, self.alt = buffer.getvalue(), alt

    def __repr__(self) -> str:
        return f"Picture: {self.alt}"

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, object]:
        return {"image/png": base64.b64encode(self.png).decode(), "text/plain": repr(self)}, {  # type: ignore[return-value]
            "image/png": {"alt": html.escape(self.alt)}
        }


def axes(title: str, x: str, y: str, size: tuple[float, float] = (6.4, 3.6)) -> tuple[Figure, Axes]:
    """An empty figure with its title and its axis labels, units included."""
    figure, ax = plt.subplots(figsize=size)
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
) -> Picture:
    """One line for each named curve over the same x; `level` is a named horizontal line, such as the exact entropy."""
    figure, ax = axes(title, x_label, y_label)
    for i, (name, values) in enumerate(curves.items()):
        style = {"color": PALETTE[i % len(PALETTE)], "linestyle": DASHES[i // len(PALETTE) % len(DASHES)]}
        ax.plot(x, values, label=name, marker="osv^D"[i % 5] if markers else None, **style)
    if level is not None:
        ax.axhline(level[1], color="black", linewidth=1.2, linestyle=(0, (1, 1)), label=level[0])
    if log_x:
        ax.set_xscale("log", base=2)
    if len(curves) > 1 or level is not None:
        ax.legend(frameon=False, fontsize=9)
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


def bars(values: Mapping[str, float], *, title: str, x_label: str, alt: str) -> Picture:
    """Horizontal bars, the first on top, each with its number."""
    figure, ax = axes(title, x_label, "", size=(6.4, 0.6 + 0.32 * len(values)))
    drawn = ax.barh(range(len(values)), list(values.values()), color=PALETTE[0])
    ax.bar_label(drawn, fmt="{:.3g}", padding=3, fontsize=8)
    ax.set_yticks(range(len(values)), list(values))
    ax.invert_yaxis()
    return Picture(figure, alt)


def heatmap(values: Tensor, *, title: str, x_label: str, y_label: str, alt: str, colour_label: str = "") -> Picture:
    """A (rows, columns) table as shades."""
    figure, ax = axes(title, x_label, y_label)
    ax.grid(visible=False)
    image = ax.imshow(values.tolist(), cmap="cividis", aspect="auto", interpolation="nearest")
    figure.colorbar(image, label=colour_label)
    return Picture(figure, alt)


def smoothed(values: Sequence[float], keep: float = 0.95) -> list[float]:
    """Running mean with exponential forgetting, started without bias."""
    mean, weight, result = 0.0, 0.0, []
    for value in values:
        mean, weight = keep * mean + (1 - keep) * value, keep * weight + (1 - keep)
        result.append(mean / weight)
    return result


def training_curve(records: Sequence[Record], *, entropy: float | None = None, title: str = "Training") -> Picture:
    """Loss by step, smoothed, with the exact entropy per token as a line where it is known."""
    loss = smoothed([record.loss for record in records])
    return lines(
        [record.step for record in records], {"training loss, smoothed": loss}, title=title, x_label="step",
        y_label="nats per token", level=None if entropy is None else ("exact entropy per token", entropy),
        alt=f"Training loss over {len(records)} steps, from {loss[0]:.1f} to {loss[-1]:.1f} nats per hidden token.",
    )  # fmt: skip


def error_by_count(rows: Sequence[CountError], *, title: str = "Loss by number of hidden tokens") -> Picture:
    """The model's loss per hidden token beside the exact one."""
    curves = {"model": [row.model for row in rows], "exact denoiser": [row.exact for row in rows]}
    worst = max(rows, key=lambda row: row.gap.mean)
    return lines(
        [row.count for row in rows], curves, title=title, x_label="hidden tokens", y_label="nats per hidden token",
        markers=True,
        alt=f"Loss per hidden token, model and exact denoiser; the model is furthest off with {worst.count} hidden.",
    )  # fmt: skip
