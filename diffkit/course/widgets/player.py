"""The unmasking player: frames made beforehand, played, stepped and scrubbed without a kernel."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import anywidget
import torch
import traitlets
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from diffkit.cli import show
from diffkit.cli.show.film import captions_of, film
from diffkit.cli.show.text import frame_html, strip
from diffkit.course.widgets.panel import Display
from diffkit.processes.base import Denoise, Process
from diffkit.sampling.sampler import Frame


class PlayerView(anywidget.AnyWidget):
    """A player in a notebook: plain data and the script that shows it.

    Nothing is sent back, and it plays on when the kernel is gone.
    """

    # as text: of files, anywidget 0.11 keeps a list of everyone who shows them, for ever
    _esm, _css = (Path(show.__path__[0], name).read_text(encoding="utf-8") for name in ("player.js", "player.css"))
    data = traitlets.Dict().tag(sync=True)


class _Playable(Display):
    data: dict[str, Any]  # what player.js shows, and a static page too

    def controls(self) -> PlayerView:
        """A fresh live view."""
        return self.opened(PlayerView(data=self.data))

    def metadata(self) -> dict[str, Any]:
        """The data, for a static page."""
        return {"diffkit": {"player": self.data}}


class Player(_Playable):
    """Play, step and scrub through frames made beforehand; a token shows what was likely at its position.

    Works without a kernel once the page is open. Where no script runs, a strip of four frames shows instead.

    Args:   frames: from `denoise_frames` or the like; fixed: (L,) bool, tokens that were given; row: which text of the
            batch; interval_ms: time of a frame at normal speed; captions: one line for each frame, instead of its
            step, time and count of hidden (or, where nothing is ever hidden, changed) tokens.
            process: of the frames; where they are points, show how far each is from its word.
            exact: `language.denoiser(process)`, to show the exact posterior next to every prediction.
    Raises: ValueError if there are no frames, or an argument does not fit them.
    """

    def __init__(
        self,
        frames: Iterable[Frame],
        tokenizer: PreTrainedTokenizerBase,
        *,
        title: str = "A story unmasks",
        fixed: Tensor | None = None,
        row: int = 0,
        interval_ms: int = 350,
        captions: Sequence[str] | None = None,
        process: Process | None = None,
        exact: Denoise | None = None,
    ):
        self.frames, self.title, self.tokenizer, self.row = list(frames), title, tokenizer, row
        if not self.frames:
            raise ValueError("Player: there are no frames to play. Was the generator used up before?")
        if captions is not None and len(captions) != len(self.frames):
            raise ValueError(f"Player: one caption for each of {len(self.frames)} frames, got {len(captions)}.")
        if interval_ms < 1:
            raise ValueError(f"Player: interval_ms is the time of a frame, at least 1 millisecond, got {interval_ms}.")
        L = self.frames[0].tokens.shape[1]
        self.fixed = torch.zeros(L, dtype=torch.bool) if fixed is None else fixed
        content = film(self.frames, tokenizer, fixed=self.fixed, row=row, process=process, exact=exact)
        self.hidden = [int((frame.tokens[row] == tokenizer.mask_token_id).sum()) for frame in self.frames]
        self.captions = captions_of(self.frames, tokenizer, row) if captions is None else [*captions]
        self.data: dict[str, Any] = {"title": title, "interval": interval_ms, "captions": self.captions} | content
        self._pages = [self._page(i) for i in range(len(self.frames))]
        # A notebook remembers every output, and predictions are most of it: (B, L, V) a frame.
        self.frames = [frame._replace(probs=None) for frame in self.frames]

    def caption(self, i: int) -> str:
        """The line below the text, read out by screen readers."""
        return self.captions[i]

    def page(self, i: int) -> str:
        """Frame i as HTML, its caption above."""
        return self._pages[i]

    def _page(self, i: int) -> str:
        before = self.frames[i - 1] if i else None
        text = frame_html(self.frames[i], before, self.fixed, self.tokenizer, self.row)
        return f"<small>{html.escape(self.caption(i))}</small>{text}"

    def still(self, pictures: int = 4) -> str:
        """A few frames one below the other: what a printed page or a viewer without scripts shows."""
        return strip(self.title, self._pages, pictures)

    def __repr__(self) -> str:
        return f"Player: {self.title}, {len(self.frames)} frames"


class SideBySide(_Playable):
    """Players side by side on one clock, to compare two samplers or methods; below each other on a narrow screen.

    Runs of different lengths start and end together: each shows the frame that lies at the same share of its run.

    Args:   players: two or more.
    Raises: ValueError for fewer.
    """

    def __init__(self, *players: Player):
        if len(players) < 2:
            raise ValueError(f"SideBySide: give two or more players to compare, got {len(players)}.")
        self.players = players
        self.data: dict[str, Any] = {"players": [player.data for player in players]}

    def still(self) -> str:
        """The film strips of all, one below the other."""
        return "".join(player.still() for player in self.players)

    def __repr__(self) -> str:
        return "SideBySide: " + " | ".join(f"{p.title}, {len(p.frames)} frames" for p in self.players)
