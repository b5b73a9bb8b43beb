"""Pictures of the Gaussian bound: its three parts as bars, and as an area with two ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from diffkit.course.diagrams.drawing import BLUE, GREEN, ORANGE, Drawing


def bound_parts(rows: Mapping[str, Sequence[float]], truth: float) -> Drawing:
    """The chain from a word to noise, and below it the nats that each part of the bound takes, one bar for each row."""
    names = ("reconstruction", "steps", "prior")
    drawing = Drawing(
        720, 116 + 34 * len(rows),
        "The chain: word, z 0, z s, z t, z T, standard normal. The word is read from z 0, which costs the "
        "reconstruction term; each step from z t to z s costs a squared error; z T is not quite a "
        "standard normal, the prior term. "
        + " ".join(f"{row}: {', '.join(f'{n} {v:.2f}' for n, v in zip(names, parts, strict=True))}." for row, parts in
                   rows.items()) + f" The truth is {truth:.2f} nats.",
    )  # fmt: skip
    boxes = ("word", "z\u2080", "z\u209b", "z\u209c", "z at T", "N(0, I)")
    for i, name in enumerate(boxes):
        drawing.box(6 + 124 * i, 4, 76, 28, name, tint=BLUE if i == 0 else "")
    for i, (name, colour) in enumerate((("reconstruction", BLUE), ("", ORANGE), ("steps", ORANGE), ("", ORANGE),
                                        ("prior", GREEN))):  # fmt: skip
        drawing.arrow(126 + 124 * i, 18, 86 + 124 * i, 18, colour=colour, width=1.5)
        drawing.text(106 + 124 * i, 44, name, size=11, colour=colour, bold=True)
    scale = 560 / max(sum(parts) for parts in rows.values())
    for k, (row, parts) in enumerate(rows.items()):
        x, y = 90.0, 70 + 34 * k
        drawing.text(82, y + 11, row, anchor="end", size=12)
        for nats, colour, hatch in zip(parts, (BLUE, ORANGE, GREEN), ("1", ".65", ".9"), strict=True):
            wide = max(scale * nats, 0.0)
            drawing.parts.append(
                f'<rect x="{x:.1f}" y="{y}" width="{wide:.1f}" height="22" fill="{colour}" fill-opacity="{hatch}"/>'
            )
            x += wide
        drawing.text(x + 6, y + 11, f"{sum(parts):.2f} nats", anchor="start", size=11)
    line = 90 + scale * truth
    drawing.line([(line, 62), (line, 76 + 34 * len(rows))], width=2)
    drawing.text(line, 88 + 34 * len(rows), f"truth {truth:.2f}", size=11, bold=True)
    return drawing


def bound_area(g: Sequence[float], height: Sequence[float], ends: tuple[float, float], truth: float) -> Drawing:
    """Plaid's bound as an area: nats per unit of g under a curve, with what both ends cost as blocks of equal scale."""
    area = sum((b - a) * (p + q) / 2 for a, b, p, q in zip(g, g[1:], height, height[1:], strict=False))
    drawing = Drawing(
        720, 330,
        f"A curve over g from {g[0]:.1f} to {g[-1]:.1f} that rises and falls; the area below is {area:.2f} nats. A "
        f"block on the left for reading z 0, {ends[0]:.2f} nats, and one on the right for the end of noise, "
        f"{ends[1]:.3f} nats. Together {area + sum(ends):.2f}; the entropy is {truth:.2f}.",
    )  # fmt: skip
    left, base, per_g, per_nat = 150.0, 270.0, 470 / (g[-1] - g[0]), 200 / max(height)
    way = [(left + per_g * (x - g[0]), base - per_nat * y) for x, y in zip(g, height, strict=True)]
    corners = " ".join(f"{x:.1f},{y:.1f}" for x, y in [(way[0][0], base), *way, (way[-1][0], base)])
    drawing.parts.append(f'<polygon points="{corners}" fill="{ORANGE}" fill-opacity=".25"/>')
    drawing.line(way, colour=ORANGE, width=2)
    for x, nats, colour in ((left, ends[0], BLUE), (way[-1][0], ends[1], GREEN)):
        tall = per_nat * nats  # a block one unit of g wide
        start = x - per_g - 8 if x == left else x + 8
        drawing.parts.append(
            f'<rect x="{start:.1f}" y="{base - tall:.1f}" width="{per_g:.1f}" height="{max(tall, 0.5):.1f}" '
            f'fill="{colour}" fill-opacity=".5"/>'
        )
        drawing.text(start + per_g / 2, base - tall - 12, f"{nats:.2f}", size=12, bold=True)
    drawing.line([(left, base), (way[-1][0], base)], width=1)
    for x in range(int(g[0]) + (g[0] > 0), int(g[-1]) + 1):
        drawing.text(left + per_g * (x - g[0]), base + 14, f"{x}", size=11)
    drawing.text(left + 235, base + 36, "g = -log SNR: from plain words to noise", size=12)
    drawing.text(left - per_g / 2 - 8, base + 36, "reading", size=12, colour=BLUE, bold=True)
    drawing.text(way[-1][0] + 8 + per_g / 2, base + 36, "prior", size=12, colour=GREEN, bold=True)
    words = f"area {area:.2f} + {ends[0]:.2f} + {ends[1]:.2f} = {area + sum(ends):.2f} nats; entropy {truth:.2f}"
    drawing.text(left + 235, 20, words, bold=True)
    drawing.text(left + 235, 40, "height: \u00bd SNR E|e(w) \u2212 x|\u00b2, nats per unit of g", size=12)
    return drawing
