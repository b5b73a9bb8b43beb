"""A picture of data on its way to the network: documents, one stream, chunks, a batch."""

from diffkit.course.diagrams.drawing import BLUE, GREEN, ORANGE, PINK, Drawing

DOCUMENTS = (
    (("One", "day", "Leo", "ran", "."), BLUE),
    (("Mia", "hid", "."), GREEN),
    (("Tom", "felt", "sad", "."), ORANGE),
)


def documents_to_batch(length: int = 4) -> Drawing:
    """Documents, joined with EOS, cut into chunks of `length`, stacked; the tail is dropped."""
    alt = (
        "Three documents are joined into one stream of tokens, with EOS after each. The stream is cut into chunks of "
        f"{length} tokens wherever that falls, the tail is dropped, and the chunks are stacked into a batch."
    )
    drawing = Drawing(900, 260, alt)
    stream = [(word, tint) for words, tint in DOCUMENTS for word in (*words, "EOS")]
    drawing.text(8, 16, "documents", anchor="start", bold=True)
    x = 110.0
    for words, tint in DOCUMENTS:
        drawing.box(x, 2, 50 * len(words), 28, " ".join(words), tint=tint)
        x += 50 * len(words) + 14
    drawing.arrow(60, 34, 60, 64)
    drawing.text(70, 50, "ids, an EOS after each, one stream", anchor="start")
    cells = [(8 + 59 * i, word, PINK if word == "EOS" else tint) for i, (word, tint) in enumerate(stream)]
    for x, word, tint in cells:
        drawing.token(x, 72, word, width=54, tint=tint)
    for cut in range(length, len(stream) + 1, length):
        drawing.line([(5.5 + 59 * cut, 66), (5.5 + 59 * cut, 106)], width=2.5)
    whole = len(stream) // length * length
    drawing.text(8 + 59 * (whole + len(stream)) / 2, 118, "the tail is dropped")
    drawing.arrow(60, 112, 60, 142)
    drawing.text(70, 128, f"cut every {length} tokens, wherever that falls", anchor="start")
    for row in range(len(stream) // length):
        for column in range(length):
            _, word, tint = cells[row * length + column]
            drawing.token(8 + 59 * column, 152 + 32 * row, word, width=54, tint=tint)
    x = 20 + 59 * length
    drawing.text(x, 197, f"a batch, (3, {length})", anchor="start", bold=True)
    drawing.arrow(x + 120, 197, x + 180, 197)
    drawing.box(x + 190, 165, 150, 64, "denoiser\n(B, L) ids to\n(B, L, V) logits")
    return drawing
