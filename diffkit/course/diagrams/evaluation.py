"""Pictures of notebook 07: the bound above the entropy, and what each metric of samples sees."""

from __future__ import annotations

from diffkit.course.diagrams.drawing import BLUE, GREEN, ORANGE, PINK, Drawing

METRICS = ("valid", "distinct-n", "judge", "KL of plots")
FAULTS = {  # which of the metrics sees it: yes, no, or the wrong way round
    "a hero who changes his name": "yes no yes no",
    "one story, 64 times": "no yes better yes",
    "only the likeliest stories": "no yes better yes",
    "endings in wrong shares": "no no no yes",
}
SHOWN = {"yes": ("sees it", GREEN), "no": ("blind", ""), "better": ("likes it", PINK)}


def bound_and_entropy() -> Drawing:
    """What the bound of a model is made of."""
    picture = Drawing(
        640, 150,
        "Three bars of nats per story. The entropy of the language is a floor below which nobody gets. The likelihood "
        "of an autoregressive model is the entropy plus its KL. The bound of a masked model is higher still by its "
        "slack, the disagreement between its orders. With the exact denoiser both extras are zero.",
    )  # fmt: skip
    for y, name, parts in (
        (12, "exact denoiser", [(260, "entropy H(p)", BLUE)]),
        (56, "autoregressive", [(260, "entropy H(p)", BLUE), (90, "KL(p || q)", ORANGE)]),
        (100, "masked, bound", [(260, "entropy H(p)", BLUE), (70, "KL(p || q)", ORANGE), (90, "slack ≥ 0", PINK)]),
    ):
        picture.text(120, y + 15, name, anchor="end")
        x = 132.0
        for width, words, tint in parts:
            picture.box(x, y, width, 30, words, tint=tint)
            x += width
    picture.line([(392, 4), (392, 140)], width=2.5)
    picture.text(400, 144, "nothing honest ends left of this line", anchor="start", size=11)
    return picture


def what_metrics_see() -> Drawing:
    """Four faults of a generator against four metrics of its samples."""
    picture = Drawing(
        680, 40 + 36 * len(FAULTS),
        "A table of faults and metrics. Validity sees only wrong words. Distinct-n sees lost variety. The judge likes "
        "repeated and typical stories better than true ones. Only the KL of plots sees wrong shares, and it sees every "
        "fault but the wrong words, which it leaves out.",
    )  # fmt: skip
    for i, metric in enumerate(METRICS):
        picture.text(270 + 112 * i, 14, metric, bold=True)
    for row, (fault, seen) in enumerate(FAULTS.items()):
        y = 34 + 36 * row
        picture.text(206, y + 14, fault, anchor="end")
        for i, answer in enumerate(seen.split()):
            words, tint = SHOWN[answer]
            picture.box(220 + 112 * i, y, 100, 28, words, tint=tint)
    return picture
