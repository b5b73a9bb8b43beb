"""The picture of notebook 08: guidance as a shift of logits."""

from __future__ import annotations

from collections.abc import Mapping

from diffkit.course.diagrams.drawing import BLUE, GREEN, ORANGE, Drawing


def guidance_shift(words: Mapping[str, tuple[float, float]], w: float) -> Drawing:
    """Log-probabilities of some words without and with the label, and where guidance of scale w moves them.

    Args: words: each word with log p(word | text) and log p(word | text, label).
    """
    moved = {word: with_label + w * (with_label - without) for word, (without, with_label) in words.items()}
    lowest = min(min(pair) for pair in [*words.values(), *((each,) for each in moved.values())])
    highest = max(max(pair) for pair in [*words.values(), *((each,) for each in moved.values())])
    shifts = ", ".join(f"{word} from {a:.1f} over {b:.1f} to {moved[word]:.1f}" for word, (a, b) in words.items())
    picture = Drawing(
        660, 62 + 44 * len(words), f"Guidance at w = {w:g} moves logits along their own change: {shifts}."
    )

    def at(logit: float) -> float:
        return 110 + 510 * (logit - lowest) / (highest - lowest)

    for i, (word, (without, with_label)) in enumerate(words.items()):
        y = 40 + 44 * i
        picture.text(80, y, word, anchor="end", mono=True)
        picture.line([(100, y), (630, y)], width=0.4)
        picture.arrow(at(without), y, at(with_label), y, colour=BLUE)
        picture.arrow(at(with_label), y + 5, at(moved[word]), y + 5, colour=ORANGE, dashed=True)
        for logit, tint, above in ((without, "", True), (with_label, BLUE, True), (moved[word], GREEN, False)):
            picture.box(at(logit) - 4, y - 4 + 5 * (not above), 8, 8, tint=tint)
            picture.text(at(logit), y - 13 if above else y + 19, f"{logit:.1f}", size=10)
    picture.text(110, 12, "open circle: log p without the label", anchor="start", size=12)
    picture.text(345, 12, "blue: with it", anchor="start", size=12, colour=BLUE)
    picture.text(440, 12, f"dashed: the step again, {w:g} times", anchor="start", size=12)
    return picture
