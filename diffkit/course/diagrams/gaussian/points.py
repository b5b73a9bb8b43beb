"""Pictures of points among words: how they move, one step back, and what a point says by itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from diffkit.course.diagrams.drawing import BLUE, GREEN, INK, ORANGE, PINK, Drawing

COLOURS = (BLUE, ORANGE, GREEN, PINK, "#E69F00")


def _circle(drawing: Drawing, x: float, y: float, radius: float, style: str) -> None:
    drawing.parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" {style}/>')


def _words(drawing: Drawing, words: Sequence[str], places: Tensor, scale: float, middle: tuple[float, float]) -> None:
    """Words as dots around the middle, their names outside."""
    for word, (x, y) in zip(words, (places * scale).tolist(), strict=True):
        _circle(drawing, middle[0] + x, middle[1] - y, 4, f'fill="{INK}"')
        drawing.text(middle[0] + 1.16 * x, middle[1] - 1.16 * y, word, mono=True, size=12)


def points_moving(words: Sequence[str], places: Tensor, paths: Tensor, read: Sequence[str]) -> Drawing:
    """Points on their way from noise to words: word places (V, 2), paths (steps, L, 2), and what is read at the end."""
    drawing = Drawing(
        620, 420,
        f"A plane with {len(words)} words on a circle. {paths.shape[1]} points start at random near the middle and "
        f"move along curved lines to words, which read: {' '.join(read)}.",
    )  # fmt: skip
    middle, scale = (220.0, 210.0), 56.0
    _words(drawing, words, places, scale, middle)
    for i, colour in zip(range(paths.shape[1]), COLOURS, strict=False):
        way = [(middle[0] + scale * x, middle[1] - scale * y) for x, y in paths[:, i].tolist()]
        drawing.line(way, colour=colour)
        _circle(drawing, *way[0], 5, f'fill="none" stroke="{colour}" stroke-width="2"')
        for x, y in way[1:-1]:
            _circle(drawing, x, y, 1.8, f'fill="{colour}"')
        drawing.arrow(*way[-2], *way[-1], colour=colour)
        drawing.text(way[0][0] - 9, way[0][1] - 9, f"{i + 1}", size=12, bold=True, colour=colour)
        drawing.text(450, 130 + 26 * i, f"position {i + 1}: {read[i]}", anchor="start", colour=colour, bold=True)
    drawing.text(450, 100, "ring: noise; arrow: reading z\u2080", anchor="start", size=12)
    return drawing


def three_steps(
    words: Sequence[str], places: Tensor, zt: Tensor, guess: Tensor, ends: Mapping[str, tuple[Tensor, float]]
) -> Drawing:
    """One step back: the point z_t, the guess x, and for each sampler the mean of z_s and its standard deviation."""
    drawing = Drawing(
        740, 420,
        "A plane with words on a circle, a noisy point and an arrow to the guess, which lies between words. Around "
        + "; ".join(f"where {name} goes a circle of radius {std:.2f}" for name, (_, std) in ends.items())
        + ". The circle of ddim is a point: it draws nothing.",
    )  # fmt: skip
    middle, scale = (220.0, 210.0), 56.0
    _words(drawing, words, places, scale, middle)

    def at(point: Tensor) -> tuple[float, float]:
        return middle[0] + scale * float(point[0]), middle[1] - scale * float(point[1])

    drawing.arrow(*at(zt), *at(guess), dashed=True)
    _circle(drawing, *at(zt), 6, f'fill="none" stroke="{INK}" stroke-width="2"')
    drawing.text(at(zt)[0], at(zt)[1] - 16, "z\u209c", bold=True)
    drawing.box(at(guess)[0] - 5, at(guess)[1] - 5, 10, 10)
    drawing.text(at(guess)[0], at(guess)[1] - 16, "x", bold=True)
    for n, ((name, (mean, std)), colour) in enumerate(zip(ends.items(), COLOURS, strict=False)):
        if std:
            dashes = f'fill="{colour}" fill-opacity=".08" stroke="{colour}" stroke-dasharray="{3 + 3 * n} 3"'
            _circle(drawing, *at(mean), scale * std, dashes)
        _circle(drawing, *at(mean), 4, f'fill="{colour}"')
        words_for = f"{name}: mean of z\u209b, deviation {std:.2f}"
        drawing.text(440, 170 + 26 * n, words_for, anchor="start", colour=colour, bold=True, size=12)
    return drawing


def own_and_others(words: Sequence[str], others: Tensor, own: Tensor, both: Tensor) -> Drawing:
    """The output prior: what the other positions say of a word, what its own noisy point says, and their product."""
    drawing = Drawing(
        150 + 74 * len(words), 236,
        "Three rows of bars over the words: what the other positions say, which is the network's part; what the point "
        "says itself, which Bayes' rule knows; and their product over its sum: "
        + ", ".join(f"{word} {p:.2f}" for word, p in zip(words, both.tolist(), strict=True) if p >= 0.005) + ".",
    )  # fmt: skip
    rows = (("the others", "the network", others, BLUE), ("its own point", "log q(z\u209c | w)", own, ORANGE),
            ("both", "product / sum", both, GREEN))  # fmt: skip
    for k, (name, what, chances, colour) in enumerate(rows):
        base = 62 + 70 * k
        drawing.text(4, base - 24, name, anchor="start", bold=True, size=12)
        drawing.text(4, base - 8, what, anchor="start", size=11)
        for i, p in enumerate(chances.tolist()):
            drawing.parts.append(
                f'<rect x="{148 + 74 * i}" y="{base - 40 * p:.1f}" width="40" height="{max(40 * p, 0.5):.1f}" '
                f'fill="{colour}" fill-opacity=".75"/>'
            )
            drawing.text(168 + 74 * i, base - 40 * p - 9, f"{p:.2f}", size=10)
    for i, word in enumerate(words):
        drawing.text(168 + 74 * i, 222, word, mono=True, size=12)
    return drawing
