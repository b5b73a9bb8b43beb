"""Tokens as HTML: hidden, just revealed, given and old ones differ by glyph and weight, not by colour alone."""

from __future__ import annotations

import html
from collections.abc import Sequence

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from diffkit.cli.terminal import HIDDEN
from diffkit.sampling.sampler import Frame

BYTES = ("Ġ", "Ċ")  # how tokens of bytes write a space and the end of a line
STYLE = (
    "<style>.dk p{margin:.2em 0;font:15px/1.9 ui-monospace,Menlo,Consolas,monospace}"
    ".dk samp{font:inherit;color:color-mix(in srgb,currentColor 70%,transparent)}"
    ".dk b{background:#0072b2;color:#fff;padding:0 .15em;border-radius:3px}"
    ".dk i{font-style:normal;border-bottom:3px double #d55e00}.dk small{font:13px sans-serif;color:inherit}</style>"
)


def token_html(word: str, kind: str, title: str = "") -> str:
    """One token: kind is "hidden" (grey blocks), "new" (bold on blue), "fixed" (double underline) or "old" (plain)."""
    tag = {"hidden": "samp", "new": "b", "fixed": "i", "old": "span"}[kind]
    shown = HIDDEN if kind == "hidden" else html.escape(word)
    hint = f' title="{html.escape(title)}"' if title else ""
    return f"<{tag}{hint}>{shown}</{tag}>"


def words_of(ids: Tensor, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """The token of each id, as the tokenizer writes it; tokens of bytes as text, the space before a word in front."""
    tokens = tokenizer.convert_ids_to_tokens(ids.tolist())
    if not any(token[:1] in BYTES for token in tokens):
        return tokens
    return [tokenizer.convert_tokens_to_string([token]).replace("\n", "↵") for token in tokens]


def frame_html(
    frame: Frame, before: Frame | None, fixed: Tensor, tokenizer: PreTrainedTokenizerBase, row: int = 0
) -> str:
    """One row of a frame as a paragraph; tokens revealed since the frame before are marked, with their probability."""
    words, mask_id, pad_id = words_of(frame.tokens[row], tokenizer), tokenizer.mask_token_id, tokenizer.pad_token_id
    carry_spaces, spans = any(word.startswith(" ") for word in words), []
    for i, (word, token) in enumerate(zip(words, frame.tokens[row].tolist(), strict=True)):
        new = before is not None and int(before.tokens[row, i]) != token
        kind = "hidden" if token == mask_id else "fixed" if fixed[i] else "new" if new else "old"
        chance = f"p = {frame.probs[row, i, token]:.2f}" if new and frame.probs is not None else ""
        if token != pad_id or kind == "new":
            is_glued = carry_spaces and kind != "hidden" and not word.startswith(" ")
            shown = "·" if token == pad_id else word.strip() or "␣"
            spans.append(("" if is_glued else " ") + token_html(shown, kind, chance))
    return f"<p>{''.join(spans).strip()}</p>"


def strip(title: str, pages: Sequence[str], pictures: int = 4) -> str:
    """A few frames one below the other: what a printed page or a viewer without scripts shows."""
    last = len(pages) - 1
    picked = sorted({round(last * j / (pictures - 1)) for j in range(pictures)})
    shown = "".join(pages[i] for i in picked)
    return f'{STYLE}<div class="dk"><p><strong>{html.escape(title)}</strong></p>{shown}</div>'
