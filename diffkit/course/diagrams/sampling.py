"""Pictures of notebooks 06 and 10: from masks to words, the two errors of few steps, and who calls the network when."""

from __future__ import annotations

from diffkit.course.diagrams.drawing import BLUE, GREEN, ORANGE, PINK, Drawing

STATES: list[tuple[str, list[str | None]]] = [
    ("t = 1000", [None, None, None, None, None]),
    ("750", [None, "ran", None, None, None]),
    ("500", [None, "ran", "Tom", None, None]),
    ("250", ["Mia", "ran", "Tom", None, "EOS"]),
    ("0", ["Mia", "ran", "Tom", "ran", "EOS"]),
]


def reverse_strip() -> Drawing:
    """A text of `micro` from masks to words, a reverse step a row."""
    picture = Drawing(
        780, 236,
        "Five masks at t = 1000 turn into a text in four steps. In each step every masked position throws a coin: it "
        "stays masked with probability gamma(s) over gamma(t), or shows a word drawn from the prediction. What is "
        "visible stays, and at t = 0 nothing is masked.",
    )  # fmt: skip
    before: list[str | None] = [None] * 5
    for row, (time, tokens) in enumerate(STATES):
        y = 8 + 46 * row
        picture.text(66, y + 13, time, anchor="end")
        for i, (old, token) in enumerate(zip(before, tokens, strict=True)):
            picture.token(84 + 74 * i, y, token, tint=ORANGE if token and not old else "")
            if row and token and not old:
                picture.arrow(115 + 74 * i, y - 19, 115 + 74 * i, y - 1, colour=ORANGE)
        before = tokens
    for y, words in ((50, "whether: a coin for every masked position,"),
                     (68, "masked with probability γ(s) / γ(t) still"),
                     (100, "what: a word from p(x₀ | zₜ) of its position"), (132, "visible tokens stay"),
                     (205, "γ(0) = 0, so nothing is left")):  # fmt: skip
        picture.text(470, y, words, anchor="start", size=12)
    return picture


def two_errors() -> Drawing:
    """Words drawn together beside words drawn one by one, and which part of a loss is whose."""
    picture = Drawing(
        700, 250,
        "Left: three blanks filled in one step show Max, She and Lily, which no story does, although each word was "
        "likely by itself. Right: one at a time, each draw sees the one before: Max, He, Max. Below: of all stories, "
        "few steps lose a part even with the exact denoiser, the sampler's error; the network loses one more, its own.",
    )  # fmt: skip
    for x, title, words, tints in (
        (10, "drawn together: nobody sees the others", ["Max", "She", "Lily"], [BLUE, PINK, PINK]),
        (370, "one at a time: each sees those before", ["Max", "He", "Max"], [BLUE, BLUE, BLUE]),
    ):
        picture.text(x + 155, 12, title, bold=True)
        for i, (word, tint, rest) in enumerate(zip(words, tints, ["ran .", "found", "lost it ."], strict=True)):
            left = x + 104 * i
            picture.token(left, 30, None, width=52)
            picture.token(left, 100, word, width=52, tint=tint)
            picture.arrow(left + 26, 60, left + 26, 96, colour=tint)
            picture.text(left + 76, 113, rest, size=11)
            if x > 300 and i:
                picture.arrow(left - 52, 96, left + 20, 62, dashed=True)
    picture.text(165, 142, "1/8 · 1/2 · 1/8 each, right in 1 of 16", size=12)
    picture.text(525, 142, "1/8 · 1 · 1, always right", size=12)
    for left, width, label, tint in (
        (10, 330, "valid: model, few steps", GREEN),
        (340, 130, "the model's error", PINK),
        (470, 220, "the sampler's error", ORANGE),
    ):
        picture.box(left, 176, width, 34, label, tint=tint)
    for x, label, anchor in ((10, "0 %", "start"), (470, "exact denoiser", "middle"), (690, "100 %", "end")):
        picture.text(x, 226, label, size=12, anchor=anchor)  # type: ignore[arg-type]
    return picture


def calls_in_time() -> Drawing:
    """Five tokens and their times, and when four samplers call the network on the way from T to 0."""
    picture = Drawing(
        760, 296,
        "Time runs from T on the left to 0 on the right; five tokens have a time each at which they are revealed. The "
        "plain loop calls the network at each of twelve steps, although only four of them reveal anything, one of them "
        "two tokens at once. The lazy sampler makes those four calls. First hitting makes five calls, each at the "
        "time of its token, so that none are drawn together. The entropy bound does not follow times: it makes three "
        "calls, which reveal one, three and one token.",
    )  # fmt: skip
    left, wide, steps, hits = 190.0, 540.0, 12, (0.055, 0.28, 0.325, 0.63, 0.88)
    grid = [left + wide * (i + 1) / steps for i in range(steps)]
    times = [left + wide * hit for hit in hits]
    busy = [min(x for x in grid if x >= time) for time in times]
    picture.text(left, 14, "T", bold=True)
    picture.text(left + wide, 14, "0", bold=True)
    picture.text(left - 16, 40, "the tokens' own times", anchor="end", size=12)
    for time in times:
        picture.box(time - 5, 30, 10, 20, tint=ORANGE)
    rows = (
        ("plain loop", grid, busy, "12 calls"),
        ("lazy", sorted({*busy}), busy, "4 calls"),
        ("first hitting", times, times, "5 calls"),
        ("entropy bound", times[:3], [times[0], times[1], times[1], times[1], times[2]], "3 calls"),
    )
    for row, (name, calls, reveals, count) in enumerate(rows):
        y = 92 + 56 * row
        picture.text(left - 16, y - 7, name, anchor="end", bold=True, size=12)
        picture.text(left - 16, y + 9, count, anchor="end", size=11)
        picture.line([(left, y), (left + wide, y)], width=1)
        for x in calls:
            picture.line([(x, y - 9), (x, y + 9)], width=3, colour=BLUE)
            for k in range(reveals.count(x)):
                picture.box(x - 5, y - 20 - 11 * k, 10, 9, tint=ORANGE)
    picture.text(left + 160, 284, "bars: calls of the network", colour=BLUE, size=12)
    picture.text(left + 400, 284, "boxes: tokens they reveal", colour=ORANGE, size=12)
    return picture
