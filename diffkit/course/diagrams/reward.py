"""Picture of notebook 22: a law, its optimum for a reward, and a law that earns more and is worth less."""

from __future__ import annotations

import math

from diffkit.course.diagrams.drawing import BLUE, ORANGE, Drawing

TEXTS = {"short A": (0.15, 1), "short B": (0.15, 1), "short C": (0.10, 1), "long D": (0.35, 0), "long E": (0.25, 0)}
HACKED = (0.02, 0.96, 0.02, 0.0, 0.0)


def tilt(beta: float = 0.5) -> Drawing:
    """Bars of five texts under three laws, with their reward and their distance from the first."""
    ref = [p for p, _ in TEXTS.values()]
    rewards = [r for _, r in TEXTS.values()]
    weight = [p * math.exp(r / beta) for p, r in zip(ref, rewards, strict=True)]
    best = [w / sum(weight) for w in weight]
    laws = {"the reference": ref, f"the optimum, β = {beta:g}": best, "reward hacking": list(HACKED)}
    picture = Drawing(
        760, 226,
        "Five texts, three short and two long, under three laws; short texts earn 1. The reference earns 0.40. The "
        "optimum multiplies every short text by the same factor and earns 0.83 at a distance of 0.39 nats. A law that "
        "writes one short text only earns 1.00 and lies far away: the reward does not show that it forgot the rest.",
    )  # fmt: skip
    for column, (name, law) in enumerate(laws.items()):
        left = 90 + 235 * column
        picture.text(left + 70, 12, name, bold=True)
        for row, (text, p) in enumerate(zip(TEXTS, law, strict=True)):
            y = 30 + 28 * row
            if not column:
                picture.text(80, y + 10, text, anchor="end", size=12)
            if p:
                picture.box(left, y, 140 * p, 20, tint=ORANGE if rewards[row] else BLUE)
            picture.text(left + 140 * p + 6, y + 10, f"{p:.2f}", anchor="start", size=11)
        earned = sum(p * r for p, r in zip(law, rewards, strict=True))
        kl = sum(p * math.log(p / q) for p, q in zip(law, ref, strict=True) if p)
        picture.text(left + 70, 184, f"reward {earned:.2f}, KL {kl:.2f} nats", size=12)
        picture.text(left + 70, 206, f"J = {earned - beta * kl:.2f}", size=12, bold=True)
    return picture
