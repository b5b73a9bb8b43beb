"""Whole pages of HTML that need no other file, and no network: a run to play, or anything else."""

from __future__ import annotations

import html
from base64 import b64encode
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from diffkit.cli.show.film import captions_of, film
from diffkit.cli.show.text import frame_html, strip
from diffkit.io import json_text
from diffkit.sampling.sampler import Frame

INTERVAL_MS = 350  # of a frame at normal speed
LOOK = (
    ":root{color-scheme:light dark}body{font:16px/1.5 system-ui,sans-serif;max-width:60em;margin:0 auto;padding:1em}"
    "h1{font-size:1.4em}"
)
NO_SCRIPT = "<noscript><p>Without scripts, a few of its frames:</p>{}</noscript>"


def whole_page(title: str, body: str, *, style: str = "", script: str = "") -> str:
    """A page: `body` is HTML, escaped before. The browser may run no other script, and fetch nothing."""
    allowed = f"'sha256-{b64encode(sha256(script.encode()).digest()).decode()}'" if script else "'none'"
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src {allowed}"
    runs = f'<script type="module">{script}</script>' if script else ""
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{html.escape(title)}</title>'
        f"<style>{LOOK}{style}</style></head>\n<body><main><h1>{html.escape(title)}</h1>\n{body}\n</main>{runs}</body></html>\n"
    )


def player_page(frames: Sequence[Frame], tokenizer: PreTrainedTokenizerBase, *, title: str, fixed: Tensor) -> str:
    """Every text of the frames in a player, on one clock that starts by its button. fixed: (L,) bool, given tokens."""
    runs, stills = [], []
    for row in range(len(frames[0].tokens)):
        name = title if len(frames[0].tokens) == 1 else f"Text {row + 1}"
        captions, before = captions_of(frames, tokenizer, row), [None, *frames[:-1]]
        content: dict[str, Any] = {"title": name, "interval": INTERVAL_MS, "captions": captions}
        runs.append(content | film(frames, tokenizer, fixed=fixed, row=row))
        pages = [
            f"<small>{html.escape(line)}</small>{frame_html(frame, last, fixed, tokenizer, row)}"
            for frame, last, line in zip(frames, before, captions, strict=True)
        ]
        stills.append(strip(name, pages))
    data = json_text(runs[0] if len(runs) == 1 else {"players": runs}).replace("<", "\\u003c")
    folder = Path(__file__).parent
    script = (folder / "player.js").read_text(encoding="utf-8")
    script += '\nmount(document.querySelector("#player"), JSON.parse(document.querySelector("#film").textContent));\n'
    body = f'<div id="player"></div>{NO_SCRIPT.format("".join(stills))}'
    body += f'<script type="application/json" id="film">{data}</script>'
    style = (folder / "player.css").read_text(encoding="utf-8") + ".dk-player>.dk-title{display:none}"  # it is above
    return whole_page(title, body, style=style, script=script)
