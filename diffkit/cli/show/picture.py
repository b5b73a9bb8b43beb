"""A run as one moving picture, SVG or GIF: every token keeps its place, and the last frame rests."""

from __future__ import annotations

import html
from collections.abc import Sequence
from importlib.util import find_spec
from io import BytesIO
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor
from transformers import PreTrainedTokenizerBase
from wcwidth import wcswidth

from diffkit.cli.show.text import words_of
from diffkit.cli.terminal import HIDDEN
from diffkit.sampling.sampler import Frame

COLUMNS = 72
CHARACTER, LINE, MARGIN, SIZE = 9.6, 28, 20, 16  # pixels: of a column and of a line; around the text; of the letters
SECONDS, REST_SECONDS = 0.25, 3.0  # of a frame, and of the last one
# Kinds differ by weight and line, too, so that colour is never needed.
COLOURS = {"old": "#24292f", "hidden": "#6e7781", "new": "#0072b2", "given": "#24292f"}
PAPER = "#f6f8fa"
STYLE = (
    f"text{{font:{SIZE}px ui-monospace,Menlo,Consolas,monospace}}.old{{fill:#24292f}}.hidden{{fill:#6e7781}}"
    ".new{fill:#0072b2;font-weight:bold;text-decoration:underline}.given{fill:#24292f;font-weight:bold}"
    "@media(prefers-reduced-motion:reduce){text{animation:none!important}}"
)


class Look(NamedTuple):
    """How a token looks in a frame."""

    text: str
    kind: str  # hidden, new, given, old


class Reel(NamedTuple):
    """Every token in every frame, and where it stands."""

    looks: list[list[Look]]  # [position][frame]
    places: list[tuple[int, int]]  # (column, line) of each position

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        lines = 1 + max(line for _, line in self.places)
        return round(COLUMNS * CHARACTER + 2 * MARGIN), lines * LINE + 2 * MARGIN


def reel_of(frames: Sequence[Frame], tokenizer: PreTrainedTokenizerBase, fixed: Tensor) -> Reel:
    """The tokens of the first text, in lines that hold each as wide as it ever gets. fixed: (L,) bool, given tokens.

    A hidden token is as wide as what stands there in the end, so that the finished text has no gaps.
    """
    looks: list[list[Look]] = [[] for _ in fixed]
    blanks = (tokenizer.pad_token_id, tokenizer.eos_token_id)
    last = frames[-1].tokens[0]
    words = words_of(last, tokenizer)
    ends = ["" if token in blanks else word.strip() for word, token in zip(words, last.tolist(), strict=True)]
    for i, frame in enumerate(frames):
        words = words_of(frame.tokens[0], tokenizer)
        for k, token in enumerate(frame.tokens[0].tolist()):
            new = i > 0 and int(frames[i - 1].tokens[0, k]) != token
            kind = "hidden" if token == tokenizer.mask_token_id else "given" if fixed[k] else "new" if new else "old"
            letters = ("·" if new else "") if token in blanks else words[k].strip() or " "
            shown = HIDDEN[0] * max(1, wcswidth(ends[k])) if kind == "hidden" else letters
            looks[k].append(Look(shown, kind))
    carry_spaces, places, column, line = any(word.startswith(" ") for word in words), [], 0, 0
    for k, word in enumerate(words):
        wide = max(0, *(wcswidth(look.text) for look in looks[k]))
        gap = 0 if column == 0 or (carry_spaces and not word.startswith(" ")) else 1
        if column + gap + wide > COLUMNS and column:
            column, line, gap = 0, line + 1, 0
        places.append((column + gap, line))
        column += gap + wide
    return Reel(looks, places)


def svg(reel: Reel, title: str) -> str:
    """The reel as an SVG moved by CSS; where less motion is asked for, and without CSS, the last frame."""
    last, (width, height), parts, rules = len(reel.looks[0]) - 1, reel.size, [], {}
    total = SECONDS * last + REST_SECONDS
    for (column, line), looks in zip(reel.places, reel.looks, strict=True):
        x, y, start = MARGIN + column * CHARACTER, MARGIN + (line + 0.7) * LINE, 0
        for look, some in groupby(looks):
            end = start + len(list(some))
            is_last, moves = end > last, start > 0 or end <= last
            if moves:
                on, off = 100 * SECONDS * start / total, 100 * SECONDS * end / total
                rules[f"f{start}_{end}"] = (
                    (f"0%{{opacity:0}}{on:.2f}%{{opacity:1}}" if start else "0%{opacity:1}")
                    + ("100%{opacity:1}" if is_last else f"{off:.2f}%,100%{{opacity:0}}")
                )  # fmt: skip
            style = f"animation:f{start}_{end} {total:.2f}s step-end infinite;" if moves else ""
            style += "" if is_last else "opacity:0"
            if look.text.strip():
                parts.append(
                    f'<text x="{x:.1f}" y="{y:.1f}" class="{look.kind}" style="{style}">{html.escape(look.text)}</text>'
                )
            start = end
    frames = "".join(f"@keyframes {name}{{{rule}}}" for name, rule in sorted(rules.items()))
    words = html.escape(f"{title}. At the end: {' '.join(looks[-1].text for looks in reel.looks if looks[-1].text)}")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" aria-label="{words}">'
        f"<title>{words}</title><style>{STYLE}{frames}</style>"
        f'<rect width="100%" height="100%" rx="10" fill="{PAPER}"/>{"".join(parts)}</svg>\n'
    )


def check_gif() -> None:
    """Raise ValueError unless the library that writes GIF is there."""
    if find_spec("PIL") is None:
        raise ValueError("a .gif needs pillow: pip install pillow. A .svg or an .html needs nothing.")


def gif(reel: Reel) -> bytes:
    """The reel as a GIF that repeats."""
    from PIL import Image, ImageDraw

    pictures, font = [], _font()
    for i in range(len(reel.looks[0])):
        picture = Image.new("RGB", reel.size, PAPER)
        pen = ImageDraw.Draw(picture)
        for (column, line), looks in zip(reel.places, reel.looks, strict=True):
            x, y, look = MARGIN + column * CHARACTER, MARGIN + line * LINE, looks[i]
            if look.kind == "new" and look.text.strip():
                pen.rectangle(
                    (x - 1, y + 1, x + CHARACTER * wcswidth(look.text) + 1, y + LINE - 4), fill=COLOURS["new"]
                )
            pen.text((x, y + 2), look.text, font=font, fill="white" if look.kind == "new" else COLOURS[look.kind])
            if look.kind == "given":
                pen.line((x, y + LINE - 6, x + CHARACTER * wcswidth(look.text), y + LINE - 6), fill=COLOURS["given"])
        pictures.append(picture.quantize(32))
    times = [round(1000 * SECONDS)] * (len(pictures) - 1) + [round(1000 * REST_SECONDS)]
    found = BytesIO()
    pictures[0].save(found, "GIF", save_all=True, append_images=pictures[1:], duration=times, loop=0)
    return found.getvalue()


def _font() -> Any:
    """The monospaced letters that come with matplotlib, which know many alphabets; else those of pillow."""
    from PIL import ImageFont

    spec = find_spec("matplotlib")
    file = Path(spec.origin or "").parent / "mpl-data/fonts/ttf/DejaVuSansMono.ttf" if spec else Path()
    return ImageFont.truetype(str(file), SIZE) if file.is_file() else ImageFont.load_default(SIZE)
