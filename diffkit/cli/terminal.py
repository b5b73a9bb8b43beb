"""Texts in a terminal: hidden tokens as blocks, each frame drawn over the last."""

from __future__ import annotations

import shutil
import sys
import textwrap
import time
import unicodedata
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from diffkit.sampling.sampler import Frame

HIDDEN = "░░░"
WIDTH = 100  # columns at most
STILLS = 6  # frames shown where nothing can be drawn over
TURNS = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}  # these change the reading direction


def printable(text: str) -> str:
    """Text with � for characters that control a terminal or change the reading direction."""
    return "".join(
        "�" if (unicodedata.category(c) == "Cc" and c not in "\n\t") or unicodedata.bidirectional(c) in TURNS else c
        for c in text
    )


def paragraph(ids: Tensor, tokenizer: PreTrainedTokenizerBase, width: int = WIDTH) -> str:
    """Ids (L,) as wrapped text, a block for every hidden token; PAD is not shown, and EOS starts a new line.

    Blocks after an EOS are left out until a token appears there: usually PAD follows.
    """
    texts: list[list[str]] = [[]]
    for i in ids.tolist():
        if i == tokenizer.eos_token_id:
            texts.append([])
        elif i == tokenizer.mask_token_id:
            texts[-1].append(HIDDEN)
        elif i != tokenizer.pad_token_id:
            texts[-1].append(str(tokenizer.convert_ids_to_tokens(i)))
    shown = [tokens for k, tokens in enumerate(texts) if k == 0 or set(tokens) - {HIDDEN}]
    return "\n".join(textwrap.fill(printable(tokenizer.convert_tokens_to_string(tokens)), width) for tokens in shown)


def play(frames: Iterable[Frame], tokenizer: PreTrainedTokenizerBase, *, steps: int, seconds: float = 0.12) -> Frame:
    """Play the first text of every frame, in place on a terminal, else a few frames one below the other.

    Returns: the last frame.
    """
    live, drawn = sys.stdout.isatty(), 0
    stills = {round(steps * k / (STILLS - 1)) for k in range(STILLS)}
    width = min(WIDTH, shutil.get_terminal_size().columns)
    for frame in frames:
        if live or frame.step in stills:
            lines = [*paragraph(frame.tokens[0], tokenizer, width).splitlines(), f"[step {frame.step} of {steps}]"]
            print(f"\033[{drawn}F\033[J" if live and drawn else "", "\n".join(lines), sep="", flush=True)
            drawn = len(lines)
        if live:
            time.sleep(seconds)
    return frame
