"""Draw docs/unmasking.svg, the README's moving picture: a real run of a shipped model.

    python scripts/make_picture.py              # the README's story
    python scripts/make_picture.py --seed 2     # another one; --help lists what else can be chosen

The story is what `diffkit sample` writes with the same model and settings. It is drawn up to its first end.
"""

from __future__ import annotations

import argparse
import html
import re
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import torch
from transformers import PreTrainedTokenizerBase

from diffkit import denoise_frames, load_model
from diffkit.data.tokenizer import load_tokenizer
from diffkit.io import write_atomic
from diffkit.model import model_folder

ROOT = Path(__file__).resolve().parent.parent
COLUMNS, LINE, LEFT, TOP = 84, 28, 24, 62  # characters in a line; pixels
CHARACTER = 9.6  # pixels; every text is set to this width, whatever font there is
FRAMES, SECONDS_A_FRAME, REST_SECONDS = 24, 0.4, 5.0


class Piece(NamedTuple):
    """A token of the finished story and where it stands: what follows a blank may begin a line."""

    position: int
    text: str  # without the blank before it
    line: int
    column: int


def texts_of(ids: list[int], tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """The text of every token up to the first end, the blank before it included."""
    ends = [i for i, token in enumerate(ids) if token in (tokenizer.eos_token_id, tokenizer.pad_token_id)]
    ids = ids[: ends[0]] if ends else ids
    texts = [tokenizer.decode(ids[: i + 1], clean_up_tokenization_spaces=False) for i in range(len(ids))]
    return [text[len(before) :] for before, text in zip(["", *texts], texts, strict=False)]


def laid_out(texts: list[str]) -> list[Piece]:
    """Break the finished story into lines; hidden tokens keep their place free, so that nothing jumps."""
    pieces: list[Piece] = []
    line, column = 0, 0
    words = re.findall(r"\S+", "".join(texts))
    for i, text in enumerate(texts):
        starts = text[:1].isspace()
        if "\n" in text and pieces:
            line, column = line + 1, 0
        word = words[len("".join(texts[:i]).split())] if starts and text.strip() else text
        if starts and column and column + 1 + len(word) > COLUMNS:
            line, column = line + 1, 0
        column += bool(starts and column)
        pieces.append(Piece(i, text.strip(), line, column))
        column += len(text.strip())
    return pieces


def picture_of(pieces: list[Piece], hidden: list[bool], was_hidden: list[bool]) -> str:
    """One frame: what is hidden, what has just been revealed, and the rest, in runs of equal kind."""
    kinds = {(True, True): "hidden", (False, True): "new", (False, False): "old"}

    def kind(piece: Piece) -> tuple[int, str]:
        return piece.line, kinds[hidden[piece.position], was_hidden[piece.position]]

    drawn = []
    for (line, name), run in groupby((piece for piece in pieces if piece.text), kind):
        text, start = "", None
        for piece in run:
            start = piece.column if start is None else start
            text = text.ljust(piece.column - start) + ("░" * len(piece.text) if name == "hidden" else piece.text)
        drawn.append(
            f'<text class="{name}" x="{LEFT + CHARACTER * (start or 0):.1f}" y="{TOP + LINE * line}" '
            f'textLength="{CHARACTER * len(text):.1f}" xml:space="preserve">{html.escape(text)}</text>'
        )
    return "".join(drawn)


def draw(frames: list[torch.Tensor], tokenizer: PreTrainedTokenizerBase) -> str:
    """An SVG that shows the frames, (L,) ids, in turn, then rests on the last; without animation it shows the last."""
    pieces = laid_out(texts_of(frames[-1].tolist(), tokenizer))
    states = [(frame == tokenizer.mask_token_id).tolist() for frame in frames]
    total = SECONDS_A_FRAME * len(frames) + REST_SECONDS
    width, height = 2 * LEFT + CHARACTER * COLUMNS, TOP + LINE * (max(piece.line for piece in pieces) + 1)
    groups, rules = [], []
    for i, hidden in enumerate(states):
        start, end = 100 * SECONDS_A_FRAME * i / total, 100 * SECONDS_A_FRAME * (i + 1) / total
        last = i == len(states) - 1
        stop = "" if last else f"{end:.2f}%,100%{{opacity:0}}"
        rules.append(f"@keyframes f{i}{{0%{{opacity:0}}{start:.2f}%{{opacity:1}}{stop}}}")
        style = f"animation:f{i} {total:.2f}s step-end infinite;opacity:{1 if last else 0}"
        groups.append(f'<g style="{style}">{picture_of(pieces, hidden, states[max(0, i - 1)])}</g>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" role="img" '
        'aria-label="A story appears word by word out of masked tokens">'
        "<style>text{font:16px ui-monospace,Menlo,Consolas,monospace}.hidden{fill:#8c959f}.old{fill:#32383f}"
        f".new{{fill:#0065a0;font-weight:bold}}.head{{fill:#57606a;font:14px sans-serif}}{''.join(rules)}</style>"
        '<rect width="100%" height="100%" rx="10" fill="#f6f8fa"/>'
        f'<text class="head" x="{LEFT}" y="30">grey blocks are hidden, bold blue is new</text>'
        f"{''.join(groups)}</svg>\n"
    )


def run(settings: argparse.Namespace) -> tuple[list[torch.Tensor], PreTrainedTokenizerBase]:
    """Sample one story. Returns: the frames that are shown, (L,) ids each, and the tokenizer."""
    model, tokenizer = load_model(settings.model), load_tokenizer(model_folder(settings.model))
    start = torch.full((1, model.denoiser.config.max_length), tokenizer.mask_token_id)
    prompt = tokenizer(settings.prompt, add_special_tokens=False, return_tensors="pt")["input_ids"].long()
    start[:, : prompt.shape[1]] = prompt
    steps = int((start == tokenizer.mask_token_id).sum())
    frames = denoise_frames(
        model.process, model, start=start, steps=steps, rng=torch.Generator().manual_seed(settings.seed),
        order="random", temperature=settings.temperature, top_p=settings.top_p,
    )  # fmt: skip
    every = -(-steps // FRAMES)
    return [frame.tokens[0] for frame in frames if frame.step % every == 0 or frame.step == steps], tokenizer


def main() -> None:
    """Sample one story, one position a step, keep some frames, write the picture whole or not at all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tinystories-mdlm", help="a masked model: a shipped one, or a folder")
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--prompt", default="Once upon a time", help="how the story begins; may be empty")
    parser.add_argument("--temperature", type=float, default=0.8)
    parser.add_argument("--top-p", type=float, default=0.9)
    frames, tokenizer = run(parser.parse_args())
    target = ROOT / "docs" / "unmasking.svg"
    write_atomic(target, draw(frames, tokenizer))
    print(f"{target.relative_to(ROOT)}: {''.join(texts_of(frames[-1].tolist(), tokenizer)).strip()}")


if __name__ == "__main__":
    main()
