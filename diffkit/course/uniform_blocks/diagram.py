"""Pictures of notebook 18: three kinds of noise, and the canvas loop of DiffusionGemma."""

from __future__ import annotations

from diffkit.course.diagrams.drawing import BLUE, ORANGE, Drawing

CLEAN = ["Mia", "ran", "Tom", "ran", "EOS"]
KINDS: list[tuple[str, list[str | None], str]] = [
    ("masks, share 0", [None, "ran", None, "ran", "EOS"], "every hit is seen, none is ever put right"),
    ("hybrid, share 0.3", [None, "ran", "Tom", "hid", "EOS"], "what is seen may be wrong, and may go"),
    ("uniform, share 1", ["hid", "ran", "Tom", "EOS", "EOS"], "no hit is seen: nor is the level of the noise"),
]


def kinds_of_noise() -> Drawing:
    """A text of `micro` under masks, hybrid and uniform noise."""
    picture = Drawing(
        780, 172,
        "The text Mia ran Tom ran EOS under three kinds of noise. Masks hide two words. Hybrid noise hides one and "
        "turns another into hid, a wrong word that looks like a right one. Uniform noise turns two into wrong words, "
        "and nothing shows which.",
    )  # fmt: skip
    rows: list[tuple[str, list[str | None], str]] = [("clean", [*CLEAN], ""), *KINDS]
    for row, (name, tokens, words) in enumerate(rows):
        y = 8 + 42 * row
        picture.text(136, y + 13, name, anchor="end", bold=row > 0)
        for i, token in enumerate(tokens):
            wrong = token is not None and token != CLEAN[i]
            picture.token(148 + 66 * i, y, token, tint=ORANGE if wrong else "")
        picture.text(490, y + 13, words, anchor="start", size=12)
    return picture


def canvas_loop() -> Drawing:
    """One call of DiffusionGemma's sampler on a canvas of three tokens behind a clean text."""
    picture = Drawing(
        780, 268,
        "A clean text, Mia ran, and behind it a canvas of three noise words. The network reads both and gives each "
        "canvas position a distribution: Tom with entropy 0.02, ran with 0.07, EOS with 0.9. The first two are "
        "accepted, the third is filled with a fresh random word. The predictions go back into the next call. After "
        "the last call the likeliest words are appended to the text, and a new canvas follows.",
    )  # fmt: skip
    for x, words in ((76, "text so far, clean"), (304, "canvas of C tokens")):
        picture.text(x, 12, words, bold=True)
    for i, word in enumerate(["Mia", "ran"]):
        picture.token(10 + 66 * i, 26, word)
    steps = [
        (26, ["hid", "EOS", "hid"], [ORANGE] * 3, "noise: uniform words"),
        (110, ["Tom .02", "ran .07", "EOS .90"], ["", "", ""], "draw a word from f; entropy of f, nats"),
        (194, ["Tom", "ran", "Mia"], [BLUE, BLUE, ORANGE], "accept while the sum fits; the rest: new noise"),
    ]
    for y, tokens, tints, words in steps:
        for i, (word, tint) in enumerate(zip(tokens, tints, strict=True)):
            picture.token(190 + 78 * i, y, word, width=74, tint=tint)
            if y < 190:
                picture.arrow(227 + 78 * i, y + 28, 227 + 78 * i, y + 82)
        picture.text(452, y + 13, words, anchor="start", size=12)
    picture.arrow(142, 56, 186, 116)
    picture.text(120, 92, "cache", size=12)
    picture.arrow(436, 124, 436, 56, dashed=True)
    picture.text(446, 82, "self-conditioning: f goes into the next call", anchor="start", size=12)
    picture.text(
        190,
        244,
        "N calls from top to bottom; then the likeliest words join the text: next canvas",
        anchor="start",
        size=12,
    )
    return picture
