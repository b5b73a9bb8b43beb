"""Draw docs/unmasking.svg, the README's moving picture, from a real run of the shipped model."""

from __future__ import annotations

import argparse
import html
from pathlib import Path

import torch

from diffkit import denoise_frames, load_language, load_model
from diffkit.io import write_atomic

ROOT = Path(__file__).resolve().parent.parent
COLUMNS, LINE, CHARACTER, LEFT, TOP = 12, 34, 8.4, 24, 56  # tokens in a line; pixels
SECONDS_A_FRAME, REST_SECONDS = 0.35, 3.0


def line_of(words: list[tuple[str, str]], y: int) -> str:
    """One line of the picture: (word, class) pairs to an SVG text; classes are hidden, new and old."""
    spans = " ".join(f'<tspan class="{kind}">{html.escape(word)}</tspan>' for word, kind in words)
    return f'<text x="{LEFT}" y="{y}" xml:space="preserve">{spans}</text>'


def picture_of(tokens: torch.Tensor, before: torch.Tensor | None, language) -> str:
    """One frame: (L,) ids now and a frame ago to lines of text; the end of the story is not drawn."""
    words = []
    for i, token in enumerate(tokens.tolist()):
        hidden = token == language.mask_id
        blank = token in (language.pad_id, language.eos_id)
        word = "░░░░" if hidden else "·" if blank else language.tokenizer.convert_ids_to_tokens(token)
        new = before is not None and before[i] != token
        words.append((word, "hidden" if hidden or blank else "new" if new else "old"))
    lines = [words[i : i + COLUMNS] for i in range(0, len(words), COLUMNS)]
    return "".join(line_of(line, TOP + LINE * i) for i, line in enumerate(lines))


def draw(frames: list[torch.Tensor], language) -> str:
    """An SVG that shows the frames in turn, then rests on the last; without animation it shows the last."""
    total = SECONDS_A_FRAME * len(frames) + REST_SECONDS
    height = TOP + LINE * (-(-language.length // COLUMNS))
    groups, rules = [], []
    for i, tokens in enumerate(frames):
        start, end = 100 * SECONDS_A_FRAME * i / total, 100 * SECONDS_A_FRAME * (i + 1) / total
        last = i == len(frames) - 1
        stop = "" if last else f"{end:.2f}%,100%{{opacity:0}}"
        rules.append(f"@keyframes f{i}{{0%{{opacity:0}}{start:.2f}%{{opacity:1}}{stop}}}")
        style = f"animation:f{i} {total:.2f}s step-end infinite;opacity:{1 if last else 0}"
        groups.append(f'<g style="{style}">{picture_of(tokens, frames[i - 1] if i else None, language)}</g>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 860 {height}" role="img" '
        'aria-label="A story appears word by word out of masked tokens">'
        "<style>text{font:16px ui-monospace,Menlo,Consolas,monospace}.hidden{fill:#8c959f}.old{fill:#57606a}"
        f".new{{fill:#0072b2;font-weight:bold}}.head{{fill:#57606a;font:14px sans-serif}}{''.join(rules)}</style>"
        '<rect width="100%" height="100%" rx="10" fill="#f6f8fa"/>'
        f'<text class="head" x="{LEFT}" y="28">diffkit sample --animate: blocks are hidden, bold blue is new</text>'
        f"{''.join(groups)}</svg>\n"
    )


def main() -> None:
    """Sample one story, keep every third frame, write the picture whole or not at all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    seed = parser.parse_args().seed
    language, model = load_language("tales"), load_model("tales-mdlm")
    rng = torch.Generator().manual_seed(seed)
    L = language.length
    run = denoise_frames(model.process, model, shape=(1, L), steps=L, rng=rng, order="random")
    frames = [frame.tokens[0] for frame in run if frame.step % 3 == 0]
    target = ROOT / "docs" / "unmasking.svg"
    write_atomic(target, draw(frames, language))
    print(f"{target.relative_to(ROOT)}: {language.decode(frames[-1][None])[0]}")


if __name__ == "__main__":
    main()
