"""Pictures of masking: a story on its way to noise and back, and tokens that are hit one by one."""

from diffkit.course.diagrams.drawing import BLUE, GREEN, ORANGE, Drawing

STORY = ("Mia", "found", "a", "red", "kite", ".")
HIT = (820, 430, 150, 560, 300, 690)  # the time at which each token of STORY is hidden


def there_and_back() -> Drawing:
    """The forward process down one side, the reverse process up the other."""
    alt = (
        "A story at four times. Downwards, forward: tokens turn into masks until none is left; nothing is learned. "
        "Upwards, reverse: a network fills masks in, a few at a time."
    )
    drawing = Drawing(760, 236, alt)
    for row, t in enumerate((0, 400, 700, 1000)):
        y = 38 + 54 * row
        drawing.text(196, y + 13, f"t = {t}", anchor="end")
        for i, (word, hit) in enumerate(zip(STORY, HIT, strict=True)):
            came_back = t < hit <= {0: 400, 400: 700, 700: 1000}.get(t, 0)
            drawing.token(210 + 68 * i, y, word if t < hit else None, tint=GREEN if came_back else "")
    drawing.text(80, 14, "forward", bold=True, colour=BLUE)
    drawing.arrow(80, 44, 80, 224, colour=BLUE)
    for i, line in enumerate(("hide more", "and more,", "nothing", "is learned")):
        drawing.text(70, 100 + 18 * i, line, anchor="end")
    drawing.text(680, 14, "reverse", bold=True, colour=ORANGE)
    drawing.arrow(660, 224, 660, 44, colour=ORANGE)
    for i, line in enumerate(("a network", "predicts,", "some are", "filled in")):
        drawing.text(672, 100 + 18 * i, line, anchor="start")
    return drawing


def hit_times(s: int = 350, t: int = 620) -> Drawing:
    """Every token's life, visible until it is hit and masked from then on, and what a step from t to s reveals."""
    alt = (
        "Six tokens over time, each visible until it is hit and masked from then on. Of the four that are masked at "
        f"t = {t}, two were hit before s = {s}; the other two are revealed in the step from t to s."
    )
    drawing = Drawing(760, 272, alt)

    def at(time: float) -> float:
        return 110 + 0.57 * time

    for i, (word, hit) in enumerate(zip(STORY, HIT, strict=True)):
        y, fresh = 40 + 32 * i, s < hit <= t
        drawing.text(96, y + 13, word, anchor="end", mono=True)
        drawing.box(at(0), y, at(hit) - at(0), 26, tint=BLUE)
        drawing.token(at(hit), y, None, width=at(1000) - at(hit), tint=ORANGE if fresh else "")
        drawing.text(at(1000) + 8, y + 13, "revealed" if fresh else "", anchor="start", colour=ORANGE)
    for name, time in (("s", s), ("t", t)):
        drawing.line([(at(time), 28), (at(time), 240)], width=2)
        drawing.text(at(time), 16, f"{name} = {time}", bold=True)
    drawing.text(at(0), 254, "0: clean", anchor="start")
    drawing.text(at(1000), 254, "1000: all masked", anchor="end")
    return drawing
