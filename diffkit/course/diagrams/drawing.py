"""A drawing of boxes, tokens, arrows and words as inline SVG, in the page's own colours and with a text alternative."""

from __future__ import annotations

import html
from typing import Literal

from diffkit.course.plots import PALETTE

BLUE, ORANGE, GREEN, PINK = PALETTE[:4]
INK = "currentColor"
Anchor = Literal["start", "middle", "end"]


class Drawing:
    """An SVG picture for a notebook. Lengths are in pixels, y grows downwards, and (x, y) is an upper left corner.

    Tints are drawn at a fifth of their strength, so that text on them is readable on a light and on a dark page.
    """

    def __init__(self, width: int, height: int, alt: str):
        self.width, self.height, self.alt = width, height, alt
        self.parts: list[str] = []

    def text(
        self, x: float, y: float, words: str, *, size: int = 13, anchor: Anchor = "middle", bold: bool = False,
        colour: str = INK, mono: bool = False,
    ) -> None:  # fmt: skip
        """One line of text, vertically centred at y."""
        weight = ' font-weight="600"' if bold else ""
        family = ' font-family="ui-monospace, Menlo, Consolas, monospace"' if mono else ""
        self.parts.append(
            f'<text x="{x:g}" y="{y:g}" dy=".35em" font-size="{size}" text-anchor="{anchor}" fill="{colour}"'
            f"{weight}{family}>{html.escape(words)}</text>"
        )

    def box(self, x: float, y: float, width: float, height: float, words: str = "", *, tint: str = "") -> None:
        """A rounded box with lines of words (split at newlines) in its middle, the first one bold if there are more."""
        fill = f'fill="{tint}" fill-opacity=".2"' if tint else 'fill="none"'
        stroke = tint or INK
        self.parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="5" {fill} stroke="{stroke}"/>'
        )
        lines = words.split("\n") if words else []
        for i, line in enumerate(lines):
            middle = y + height / 2 + 16 * (i - (len(lines) - 1) / 2)
            self.text(x + width / 2, middle, line, bold=i == 0 < len(lines) - 1)

    def token(self, x: float, y: float, word: str | None, *, width: float = 62, tint: str = "") -> None:
        """A token in its box, 26 high; None is a masked one, hatched, so that colour is not needed to see it."""
        if word is None:
            lines = "".join(f"M{x + a:g} {y + 26:g}l14 -26" for a in range(4, int(width) - 14, 8))
            self.parts.append(f'<path d="{lines}" stroke="{INK}" opacity=".35"/>')
        self.box(x, y, width, 26, tint=tint)
        if word is not None:
            self.text(x + width / 2, y + 13, word, mono=True)

    def arrow(
        self, x: float, y: float, to_x: float, to_y: float, *, colour: str = INK, dashed: bool = False, width: float = 0
    ) -> None:
        """A straight arrow from (x, y) to (to_x, to_y); its head grows with a width."""
        dashes = ' stroke-dasharray="4 3"' if dashed else f' stroke-width="{width:.1f}"' if width else ""
        head, half = 7 + width, 4 + width / 2
        along = ((to_x - x) ** 2 + (to_y - y) ** 2) ** 0.5
        ux, uy = (to_x - x) / along, (to_y - y) / along
        neck = f"{to_x - (head - 1) * ux:.1f} {to_y - (head - 1) * uy:.1f}"
        left = f"{to_x - head * ux + half * uy:.1f} {to_y - head * uy - half * ux:.1f}"
        right = f"{to_x - head * ux - half * uy:.1f} {to_y - head * uy + half * ux:.1f}"
        self.parts.append(
            f'<path d="M{x:g} {y:g}L{neck}" stroke="{colour}"{dashes}/>'
            f'<path d="M{to_x:g} {to_y:g}L{left}L{right}Z" fill="{colour}"/>'
        )

    def line(self, points: list[tuple[float, float]], *, colour: str = INK, width: float = 1.5) -> None:
        """A line through the points."""
        corners = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self.parts.append(f'<polyline points="{corners}" stroke="{colour}" stroke-width="{width:g}"/>')

    def __repr__(self) -> str:
        return f"Drawing: {self.alt}"

    def _repr_html_(self) -> str:
        words = html.escape(self.alt)
        return (
            f'<svg role="img" aria-label="{words}" viewBox="0 0 {self.width} {self.height}" fill="none" '
            f'style="max-width:{self.width}px;width:100%" font-family="sans-serif"><title>{words}</title>'
            f"{''.join(self.parts)}</svg>"
        )
