"""Picture of notebook 21: what a plan of two steps pays, and how a shared draw gets around it."""

from __future__ import annotations

from diffkit.course.diagrams.drawing import BLUE, GREEN, ORANGE, PINK, Drawing

CANVASES: list[tuple[str, list[str | None]]] = [
    ("empty", [None, None, None, None, None]),
    ("after step 1", ["Mia", None, None, "hid", None]),
    ("after step 2", ["Mia", "ran", "Mia", "hid", "EOS"]),
]


def price_of_a_plan() -> Drawing:
    """Two steps of a plan with their prices, and a step whose product depends on a latent."""
    picture = Drawing(
        760, 250,
        "Left: an empty canvas of five tokens becomes a text in two steps. Step 1 draws two tokens that do not see "
        "each other and pays their total correlation; step 2 draws the other three, which see the first two but not "
        "each other, and pays their conditional total correlation. Right: one draw of a latent, seen by all positions, "
        "picks one of K products, so that a single step can agree on something.",
    )  # fmt: skip
    for row, (name, tokens) in enumerate(CANVASES):
        y = 22 + 90 * row
        picture.text(84, y + 13, name, anchor="end", size=12)
        for i, token in enumerate(tokens):
            is_new = row and token and not CANVASES[row - 1][1][i]
            picture.token(92 + 58 * i, y, token, width=52, tint=(ORANGE if row == 1 else GREEN) if is_new else "")
            if is_new:
                picture.arrow(118 + 58 * i, y - 60, 118 + 58 * i, y - 3, colour=ORANGE if row == 1 else GREEN)
    picture.text(390, 80, "pays TC(U₁)", anchor="start", bold=True, colour=ORANGE)
    picture.text(390, 170, "pays TC(U₂ | U₁)", anchor="start", bold=True, colour=GREEN)
    picture.text(640, 22, "one step, K products", bold=True)
    picture.box(610, 40, 60, 28, "λ", tint=PINK)
    for i in range(4):
        picture.arrow(640, 70, 550 + 60 * i, 118, colour=PINK)
        picture.token(523 + 60 * i, 122, None, width=54, tint=BLUE)
    picture.text(640, 170, "all positions see the same draw", size=12)
    picture.text(640, 190, "KL ≥ TC − (L − 1) log K", size=12)
    return picture
