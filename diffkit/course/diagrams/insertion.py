"""Picture of notebook 20: tokens that are hidden and deleted, and come back where they were missing."""

from __future__ import annotations

from diffkit.course.diagrams.drawing import BLUE, GREEN, ORANGE, Drawing

LIFE = (("Mia", 0.55, 0.75), ("ran", 0.15, 0.35), ("Tom", 0.5, 0.9), ("ran", 0.3, 0.6))  # MASK from, absent from
RATES = (0.0, 0.2, 0.4, 0.7, 1.0)


def left_at(rate: float) -> tuple[list[str | None], list[int]]:
    """The tokens left at a rate, None for MASK, with EOS; and how many each gap in front of them lacks."""
    tokens: list[str | None] = []
    lacking = [0]
    for word, hidden, gone in LIFE:
        if rate < gone:
            tokens.append(word if rate < hidden else None)
            lacking.append(0)
        else:
            lacking[-1] += 1
    return [*tokens, "EOS"], lacking


def deleted_and_inserted() -> Drawing:
    """A text of `micro` that shrinks to nothing, and grows back."""
    picture = Drawing(
        760, 268,
        "A text of four words at five rates. Downwards, forward: words turn into masks, masks are deleted, and what is "
        "left closes up, until only EOS stands. Numbers between the tokens count what is missing there. Upwards, "
        "reverse: masks are inserted into gaps that lack something, and revealed later.",
    )  # fmt: skip
    for row, rate in enumerate(RATES):
        y, (tokens, lacking) = 30 + 48 * row, left_at(rate)
        picture.text(186, y + 13, f"γ = {rate:g}", anchor="end")
        for i, (token, n) in enumerate(zip(tokens, lacking, strict=True)):
            x = 222 + 80 * i
            picture.token(x, y, token, width=52, tint=GREEN if token == "EOS" else "")
            if n:
                picture.text(x - 14, y + 13, f"+{n}", bold=True, colour=ORANGE)
    for x, title, lines, colour, ends in (
        (76, "forward", ("hide, then", "delete,", "close up"), BLUE, (34, 250)),
        (684, "reverse", ("insert MASK", "where some-", "thing lacks,", "then reveal"), ORANGE, (250, 34)),
    ):
        picture.text(x, 12, title, bold=True, colour=colour)
        picture.arrow(x + 50 if x < 300 else x - 50, ends[0], x + 50 if x < 300 else x - 50, ends[1], colour=colour)
        for i, line in enumerate(lines):
            picture.text(x, 110 + 18 * i, line, size=12)
    return picture
