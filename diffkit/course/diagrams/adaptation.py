"""Picture of notebook 19: a left-to-right model and the denoiser made of it."""

from __future__ import annotations

from diffkit.course.diagrams.drawing import BLUE, GREEN, ORANGE, Drawing

PANELS: list[tuple[int, str, list[str | None], list[str]]] = [
    (10, "left-to-right: looks left", ["START", "Mia", "ran", "Tom"], ["Mia", "ran", "Tom", "hid"]),
    (400, "denoiser: looks both ways", ["START", "Mia", None, "Tom", None], ["", "ran", "", "hid"]),
]
FUTURE = {(i, j) for i in range(5) for j in range(i + 1, 5)}
MASKS: list[tuple[int, str, set[tuple[int, int]]]] = [
    (60, "causal, share 0", set()),
    (310, "annealed, share 1/2", {(0, 2), (1, 3), (2, 4), (0, 4), (3, 4)}),
    (560, "full, share 1", FUTURE),
]


def shift_and_lift() -> Drawing:
    """The same rows predict the same tokens; what changes is what they may look at."""
    picture = Drawing(
        760, 330,
        "Left: a left-to-right model reads START, Mia, ran, Tom, and its rows predict Mia, ran, Tom, hid: each the "
        "token behind its own, looking left only. Right: the same network as a denoiser reads START, Mia, a mask, Tom, "
        "a mask. The row that stands on Mia still predicts the next token, ran, now hidden, and also looks right, at "
        "Tom. Below: three attention masks of five rows: causal, with half of the future in view, and full.",
    )  # fmt: skip
    for left, title, words, targets in PANELS:
        picture.text(left + 140, 12, title, bold=True)
        for i, word in enumerate(words):
            picture.token(left + 70 * i, 112, word, width=60, tint=BLUE if word else "")
        for i, target in enumerate(targets):
            if target:
                picture.token(left + 70 * i, 34, target, width=60, tint=ORANGE)
                picture.arrow(left + 70 * i + 30, 110, left + 70 * i + 30, 62, colour=ORANGE)
    for left in (10, 400):
        picture.arrow(left + 30, 110, left + 95, 64, dashed=True)
    picture.arrow(400 + 240, 110, 400 + 106, 64, colour=GREEN)
    picture.text(400 + 248, 84, "new: the future", size=12, anchor="start", colour=GREEN)
    picture.text(10, 156, "row i - 1 predicts token i, before and after: that is the shift", size=12, anchor="start")
    for left, title, seen in MASKS:
        picture.text(left + 60, 188, title, bold=True)
        for i in range(5):
            for j in range(5):
                tint = BLUE if j <= i else GREEN if (i, j) in seen else ""
                picture.box(left + 24 * j, 202 + 24 * i, 22, 22, "●" if tint else "", tint=tint)
    picture.text(47, 262, "row", size=12, anchor="end")
    for x in (245, 495):
        picture.arrow(x - 40, 262, x + 45, 262)
    return picture
