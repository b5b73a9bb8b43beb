"""Pictures for notebooks 03 to 05: from data to loss, a transformer block conditioned on time, the training loop."""

from __future__ import annotations

from diffkit.course.diagrams.drawing import BLUE, GREEN, ORANGE, PINK, Drawing


def data_to_loss() -> Drawing:
    """One text on its way through the loss, for notebook 03."""
    picture = Drawing(
        760, 306,
        "From data to loss. A clean text of five tokens is masked at rate gamma of t, here three of five. The denoiser "
        "gives every hidden position a distribution over words. Each hidden token costs minus log of the probability "
        "of the true word; visible ones cost nothing. The sum, times the weight, is the estimate of the bound.",
    )  # fmt: skip
    words, hidden, probs = ("Mia", "ran", "Tom", "hid", "[EOS]"), (0, 2, 3), (0.5, 0.25, 0.4)
    left, step, width = 190, 92, 80
    for y, name, how in ((36, "x\u2080", "clean text"), (106, "x\u209c", "what is left at t"), (236, "cost", "nats")):
        picture.text(30, y, name, anchor="start", bold=True)
        picture.text(30, y + 17, how, anchor="start", size=12)
    picture.text(30, 168, "p(x\u1d62 | x\u209c)", anchor="start", bold=True)
    picture.text(30, 185, "denoiser", anchor="start", size=12)
    for i, word in enumerate(words):
        x, is_hidden = left + step * i, i in hidden
        middle = x + width / 2
        picture.token(x, 26, word, width=width)
        picture.token(x, 96, None if is_hidden else word, width=width, tint=ORANGE if is_hidden else "")
        picture.arrow(middle, 54, middle, 94)
        if is_hidden:
            p = probs[hidden.index(i)]
            picture.arrow(middle, 124, middle, 148)
            for j, height in enumerate((p, (1 - p) * 0.6, (1 - p) * 0.4)):
                picture.box(x + 8 + 23 * j, 200 - 48 * height, 18, 48 * height, tint=BLUE if j == 0 else "")
            picture.arrow(middle, 204, middle, 226)
            picture.text(middle, 240, f"-log {p:g}", bold=True, colour=BLUE)
        else:
            picture.text(middle, 240, "0", bold=True)
    picture.text(left + step * 5 + 4, 75, "mask at", anchor="start", size=12)
    picture.text(left + step * 5 + 4, 92, "rate \u03b3(t)", anchor="start", size=12)
    picture.text(left + 4, 284, "bound \u2248", anchor="start", bold=True)
    picture.box(left + 74, 268, 176, 32, "T (\u03b3\u209c - \u03b3\u209b) / \u03b3\u209c", tint=GREEN)
    picture.text(left + 262, 284, "\u00d7 sum over hidden tokens", anchor="start")
    return picture


def block_with_time() -> Drawing:
    """A transformer block with AdaLN-zero, for notebook 04."""
    picture = Drawing(
        760, 318,
        "A transformer block with time. The stream x runs straight through from left to right. Twice a branch leaves "
        "it: norm, then scale and shift, then attention (in the second half: a two-layer network), then a gate, and "
        "the result is added back. Time goes through silu and one matrix, which makes all six: shift, scale and gate "
        "of each half. At the start the matrix is zero, so every gate is zero and the block returns x.",
    )  # fmt: skip
    picture.text(14, 70, "x", bold=True, anchor="start")
    picture.text(746, 70, "x", bold=True, anchor="end")
    picture.arrow(28, 70, 728, 70)
    for start, branch, letter in ((50, "attention", "a"), (400, "network", "n")):
        picture.line([(start, 70), (start, 146)])
        picture.arrow(start, 146, start + 20, 146)
        picture.box(start + 20, 130, 52, 32, "norm")
        picture.arrow(start + 72, 146, start + 88, 146)
        picture.box(start + 88, 126, 78, 40, "scale,\nshift", tint=PINK)
        picture.arrow(start + 166, 146, start + 182, 146)
        picture.box(start + 182, 126, 78, 40, branch, tint=BLUE if letter == "a" else GREEN)
        picture.line([(start + 260, 146), (start + 282, 146)])
        picture.arrow(start + 282, 146, start + 282, 120)
        picture.box(start + 266, 90, 48, 28, "gate", tint=PINK)
        picture.arrow(start + 290, 90, start + 290, 72)
        picture.text(start + 302, 56, "+", bold=True, size=16)
        picture.arrow(start + 127, 228, start + 127, 168, colour=PINK, dashed=True)
        picture.arrow(start + 302, 228, start + 302, 120, colour=PINK, dashed=True)
    picture.line([(177, 228), (702, 228)], colour=PINK)
    picture.box(300, 246, 200, 32, "matrix D to 6 D, zero at first", tint=PINK)
    picture.arrow(400, 246, 400, 230, colour=PINK)
    picture.arrow(250, 262, 298, 262)
    picture.text(244, 262, "silu(time embedding)", anchor="end")
    picture.text(14, 24, "the residual stream, B x L x D: a block only ever adds to it", anchor="start", size=12)
    return picture


def training_loop() -> Drawing:
    """One turn of the loop, for notebook 05."""
    picture = Drawing(
        760, 232,
        "The training loop, clockwise. A batch of clean texts; times, one per text; some tokens hidden; the network "
        "predicts; mean cross-entropy of the hidden tokens; gradient, clipped to length 1; the optimiser moves the "
        "weights; a moving average of the weights follows, and only it is judged and shipped. Then the next batch.",
    )  # fmt: skip
    top = (
        ("texts", "B x L", ""),
        ("times t", "one a text", ORANGE),
        ("hide", "x\u209c", ORANGE),
        ("network", "weights \u03b8", BLUE),
    )
    low = (
        ("average", "judged, shipped", GREEN),
        ("optimiser", "moves \u03b8", BLUE),
        ("gradient", "clipped to 1", ""),
        ("loss", "hidden tokens", ORANGE),
    )
    for y, row, names in ((30, 1, top), (150, -1, low)):
        for i, (name, note, tint) in enumerate(names):
            x = 20 + 190 * i
            picture.box(x, y, 140, 52, f"{name}\n{note}", tint=tint)
            if i < 3:
                picture.arrow(*((x + 142, y + 26, x + 188, y + 26) if row > 0 else (x + 188, y + 26, x + 142, y + 26)))
    picture.arrow(660, 84, 660, 148)
    picture.arrow(280, 148, 580, 84, colour=BLUE, dashed=True)
    picture.text(400, 112, "new weights", anchor="end", size=12, colour=BLUE)
    picture.arrow(90, 116, 90, 84, dashed=True)
    picture.text(104, 116, "next batch", size=12, anchor="start")
    return picture
