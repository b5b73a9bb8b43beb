"""Small line charts as inline SVG for the live widgets: the page's own colours, and redrawn in under a millisecond."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 460, 200, 44, 10, 22, 34  # of the picture, and its margins, in pixels
# Okabe and Ito (2008); lines also differ by their dashes, so that colour is never needed.
LOOKS = (("#0072b2", ""), ("#d55e00", "7 4"), ("#009e73", "2 3"), ("#cc79a7", "9 3 2 3"))
MAX_POINTS = 240  # of a line; more would not show

Line = Sequence[tuple[float, float]]


class Window(NamedTuple):
    """The part of the plane that a chart shows."""

    x_low: float
    x_high: float
    y_low: float
    y_high: float

    def pixels(self, x: float, y: float) -> tuple[float, float]:
        """Pixels of a point; what lies outside goes to the edge."""
        across = min(1.0, max(0.0, (x - self.x_low) / (self.x_high - self.x_low or 1)))
        up = min(1.0, max(0.0, (y - self.y_low) / (self.y_high - self.y_low or 1)))
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)


def chart(
    lines: Mapping[str, Line],
    frame: Window,
    *,
    title: str,
    x_label: str,
    y_label: str,
    alt: str,
    bold: str = "",
    level: tuple[str, float] | None = None,
    marker: tuple[float, float] | None = None,
) -> str:
    """A line chart as one <svg> element, the same text for the same numbers.

    Args: lines: name -> points; alt: what the picture shows, for screen readers and on hovering; bold: the line that
          matters; level: a named horizontal line; marker: a point with a ring around it.
    """
    inner = _axes(frame, x_label, y_label)
    looks = [(*LOOKS[i % len(LOOKS)], 2.4 if name == bold else 1.2) for i, name in enumerate(lines)]
    for points, look in zip(lines.values(), looks, strict=True):
        inner += _path(points, frame, *look)
    if level:
        (x, y), (end, _) = frame.pixels(frame.x_low, level[1]), frame.pixels(frame.x_high, level[1])
        inner += f'<path d="M{x:.1f} {y:.1f}H{end:.1f}" stroke="currentColor" stroke-dasharray="4 3"/>'
        inner += f'<text x="{end:.1f}" y="{y - 3:.1f}" text-anchor="end">{html.escape(level[0])}</text>'
    if marker:
        x, y = frame.pixels(*marker)
        inner += f'<path d="M{x:.1f} {y:.1f}V{HEIGHT - BOTTOM}" stroke="currentColor" stroke-dasharray="2 2"/>'
        inner += f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{LOOKS[1][0]}" stroke="currentColor"/>'
    inner += _legend(list(lines), looks)
    words = html.escape(f"{title}. {alt}")
    return (
        f'<svg class="dk-chart" role="img" aria-label="{words}" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'style="max-width:{WIDTH}px;width:100%" fill="none" font-family="sans-serif" font-size="11">'
        f"<title>{words}</title>"
        f"<style>.dk-chart text{{fill:currentColor;stroke:none}}</style>{inner}</svg>"
    )


def _path(points: Line, frame: Window, colour: str, dashes: str, width: float) -> str:
    every = math.ceil(len(points) / MAX_POINTS) or 1
    kept = [*points[::every], *([] if (len(points) - 1) % every == 0 else points[-1:])]
    corners = " ".join("{:.1f},{:.1f}".format(*frame.pixels(x, y)) for x, y in kept)
    return f'<polyline points="{corners}" stroke="{colour}" stroke-width="{width}" stroke-dasharray="{dashes}"/>'


def _axes(frame: Window, x_label: str, y_label: str) -> str:
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    inner = f'<path d="M{LEFT} {TOP}V{bottom}H{right}" stroke="currentColor" opacity=".6"/>'
    for share in (0, 0.5, 1):
        x = frame.x_low + share * (frame.x_high - frame.x_low)
        y = frame.y_low + share * (frame.y_high - frame.y_low)
        left, top = frame.pixels(x, y)
        anchor = "middle" if share < 1 else "end"
        inner += f'<text x="{left:.1f}" y="{bottom + 13}" text-anchor="{anchor}">{x:g}</text>'
        inner += f'<text x="{LEFT - 5}" y="{top + 4:.1f}" text-anchor="end">{y:.3g}</text>'
    middle, half = (LEFT + right) / 2, (TOP + bottom) / 2
    inner += f'<text x="{middle:.1f}" y="{HEIGHT - 5}" text-anchor="middle">{html.escape(x_label)}</text>'
    turned = f'transform="rotate(-90 10 {half:.1f})"'
    return inner + f'<text x="10" y="{half:.1f}" text-anchor="middle" {turned}>{html.escape(y_label)}</text>'


def _legend(names: list[str], looks: list[tuple[str, str, float]]) -> str:
    """Names of the lines, in a row above them, each next to a piece of its line."""
    inner, x = "", LEFT
    for name, (colour, dashes, width) in zip(names, looks, strict=True):
        inner += f'<path d="M{x} 10h24" stroke="{colour}" stroke-width="{width}" stroke-dasharray="{dashes}"/>'
        inner += f'<text x="{x + 28}" y="14">{html.escape(name)}</text>'
        x += 46 + 6 * len(name)
    return inner


def smoothed(values: Sequence[float], keep: float = 0.95) -> list[float]:
    """Running mean with exponential forgetting, started without bias."""
    mean, weight, result = 0.0, 0.0, []
    for value in values:
        mean, weight = keep * mean + (1 - keep) * value, keep * weight + (1 - keep)
        result.append(mean / weight)
    return result
