"""Pictures for notebooks 12, 13 and 09: transition matrices, a step back by Bayes, scores as arrows, two streams."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from diffkit.course.diagrams.drawing import BLUE, GREEN, INK, ORANGE, Drawing


def _shade(drawing: Drawing, x: float, y: float, size: tuple[float, float], strength: float, colour: str) -> None:
    """A filled rectangle, the darker the larger `strength` in [0, 1] is."""
    drawing.parts.append(
        f'<rect x="{x:g}" y="{y:g}" width="{size[0]:g}" height="{size[1]:.1f}" fill="{colour}" '
        f'fill-opacity="{strength:.2f}" stroke="{INK}" stroke-opacity=".15"/>'
    )


def matrices(tables: Mapping[str, Tensor], words: Sequence[str]) -> Drawing:
    """Transition matrices (V, V) side by side: a row for each clean word, a column for each word it may have become."""
    size, left = 19, 62
    wide = size * len(words) + 22
    drawing = Drawing(
        left + wide * len(tables), 92 + size * len(words),
        f"{len(tables)} transition matrices, clean words as rows, noisy words as columns, the darker the likelier. "
        + " ".join(f"{name}: the word {words[-1]} is kept with chance {table[-1, -1]:.2f}." for name, table in
                   tables.items()),
    )  # fmt: skip
    for n, (name, table) in enumerate(tables.items()):
        x0, y0 = left + wide * n, 30
        drawing.text(x0 + size * len(words) / 2, 12, name, bold=True)
        for i, word in enumerate(words):
            if n == 0:
                drawing.text(x0 - 6, y0 + size * (i + 0.5), word, size=11, anchor="end", mono=True)
            x, y = x0 + size * (i + 0.5), y0 + size * len(words) + 6
            drawing.parts.append(f'<g transform="rotate(-90 {x:g} {y:g})">')
            drawing.text(x, y, word, size=11, anchor="end", mono=True)
            drawing.parts.append("</g>")
            for j in range(len(words)):
                _shade(drawing, x0 + size * j, y0 + size * i, (size, size), float(table[i, j]), BLUE)
    return drawing


def step_back(words: Sequence[str], row: Tensor, column: Tensor, result: Tensor, a: int, c: int) -> Drawing:
    """Bayes' rule for one token: where x_0 = a may be at s, which of them lead to z_t = c, and the product of both."""
    drawing = Drawing(
        120 + 74 * len(words), 236,
        f"Three rows of bars over the words. First, where {words[a]} may be at time s. Second, how likely each word is "
        f"to turn into {words[c]} in the step from s to t. Third, their product over its sum, the posterior: "
        + ", ".join(f"{word} {p:.2f}" for word, p in zip(words, result.tolist(), strict=True) if p >= 0.005) + ".",
    )  # fmt: skip
    rows = (
        (f"from {words[a]} to s", "row of Q\u2080\u209b", row, BLUE),
        (f"from s to {words[c]}", "column of Q\u209b\u209c", column, ORANGE),
        ("the token at s", "product / sum", result, GREEN),
    )
    for k, (name, what, chances, colour) in enumerate(rows):
        base = 62 + 70 * k
        drawing.text(4, base - 24, name, anchor="start", bold=True, size=12)
        drawing.text(4, base - 8, what, anchor="start", size=11)
        for i, p in enumerate(chances.tolist()):
            x = 118 + 74 * i
            _shade(drawing, x, base - 40 * p, (40, max(40 * p, 0.5)), 0.75, colour)
            drawing.text(x + 20, base - 40 * p - 9, f"{p:.2f}", size=10)
    for i, word in enumerate(words):
        drawing.text(138 + 74 * i, 222, word, mono=True, size=12, bold=i in (a, c))
    return drawing


def score_arrows(
    canvas: Sequence[str], neighbours: Sequence[tuple[int, str, float]], *, noise: str, most: float = 9.0
) -> Drawing:
    """A noisy text and its likeliest neighbours, (position, new token, ratio) each, the arrow as thick as the ratio."""
    listed = "; ".join(f"{word} for {canvas[i]} at position {i}: {ratio:.1f}" for i, word, ratio in neighbours)
    drawing = Drawing(
        760, 30 + 40 * len(neighbours),
        f"A text with {noise} noise, {' '.join(canvas)}, on the left; an arrow to each text with one token changed, "
        f"as thick as its score, the ratio of the probabilities of the two. {listed}.",
    )  # fmt: skip
    middle, largest = 15 + 20 * len(neighbours), max(ratio for *_, ratio in neighbours)
    for i, word in enumerate(canvas):
        drawing.token(2 + 54 * i, middle - 13, word, width=52)
    for row, (position, word, ratio) in enumerate(neighbours):
        y = 35 + 40 * row
        drawing.arrow(284, middle, 424, y, colour=ORANGE, width=0.5 + most * ratio / largest)
        drawing.text(446, y, f"{ratio:.2f}", size=12, bold=True)
        for i, old in enumerate(canvas):
            is_new = i == position
            drawing.token(474 + 54 * i, y - 13, word if is_new else old, width=52, tint=ORANGE if is_new else "")
    return drawing


def two_streams(sees: Tensor, L: int, block: int) -> Drawing:
    """Who sees whom in block diffusion: `sees` (2 L, 2 L) bool, noisy positions first, clean ones behind them."""
    size, left, top = 15, 150, 46
    drawing = Drawing(
        left + 2 * size * L + 210, top + 2 * size * L + 16,
        f"A square of {2 * L} positions that look by {2 * L} that are seen, {L} noisy ones and then {L} clean ones, in "
        f"blocks of {block}. Noisy positions see their own noisy block and the clean blocks before it. Clean positions "
        "see their own clean block and those before it. Nobody sees the clean text of its own noisy block.",
    )  # fmt: skip
    for k, name in enumerate(("noisy x\u209c", "clean x\u2080")):
        drawing.text(left + size * L * (k + 0.5), 14, name, bold=True)
        drawing.text(left - 34, top + size * L * (k + 0.5), name, bold=True, anchor="end")
        for b in range(-(-L // block)):
            at = size * (k * L + b * block + min(block, L - b * block) / 2)
            drawing.text(left + at, 34, f"{b + 1}", size=11)
            drawing.text(left - 12, top + at, f"{b + 1}", size=11)
    for i in range(2 * L):
        for j in range(2 * L):
            colour = ORANGE if j < L else BLUE
            _shade(drawing, left + size * j, top + size * i, (size, size), 0.75 * float(sees[i, j]), colour)
    end = 2.0 * size * L
    for k in range(0, 2 * L + 1, block):
        at, width = float(size * k), 2 if k % L == 0 else 0.8
        drawing.line([(left + at, top), (left + at, top + end)], width=width)
        drawing.line([(left, top + at), (left + end, top + at)], width=width)
    words = ("own noisy block:", "what is to be filled in", "", "clean blocks before:", "what is there by then")
    for k, word in enumerate(words):
        drawing.text(left + 2 * size * L + 16, top + 40 + 18 * k, word, size=12, anchor="start", bold=k in (0, 3))
    return drawing
