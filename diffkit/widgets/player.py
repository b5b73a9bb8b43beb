"""The unmasking player: frames made beforehand, played, stepped and scrubbed without a kernel."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import Any

import ipywidgets as ipw
import torch
from IPython.display import DisplayObject
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from diffkit.sample import Frame
from diffkit.widgets.text import STYLE, frame_html


class Player(DisplayObject):
    """Play, step and scrub through frames made beforehand; plays without a kernel once the page is open.

    Buttons and slider are linked in the browser. Where widgets cannot run, a strip of four frames shows instead.

    Args: frames: from `denoise_frames`; fixed: (L,) bool, tokens that were given; row: which text of the batch;
          captions: one line for each frame, in place of its step, time and count of hidden (or, where nothing is ever
          hidden, changed) tokens.
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
    ):
        self.frames, self.title, self.interval_ms = list(frames), title, interval_ms
        if not self.frames:
            raise ValueError("Player: there are no frames to play. Was the generator used up before?")
        if captions is not None and len(captions) != len(self.frames):
            raise ValueError(f"Player: one caption for each of {len(self.frames)} frames, got {len(captions)}.")
        self.captions = captions
        L = self.frames[0].tokens.shape[1]
        fixed = torch.zeros(L, dtype=torch.bool) if fixed is None else fixed
        self.texts = [
            frame_html(frame, self.frames[i - 1] if i else None, fixed, tokenizer, row)
            for i, frame in enumerate(self.frames)
        ]
        shown = [frame.tokens[row] for frame in self.frames]
        self.changed = [int((now != shown[max(0, i - 1)]).sum()) for i, now in enumerate(shown)]
        self.hidden = [int((frame.tokens[row] == tokenizer.mask_token_id).sum()) for frame in self.frames]

    def caption(self, i: int) -> str:
        """What a screen reader and the line below the text say."""
        if self.captions is not None:
            return html.escape(self.captions[i])
        count, what = (self.hidden[i], "hidden") if any(self.hidden) else (self.changed[i], "changed")
        told = f"{count} token{'' if count == 1 else 's'} {what}"
        return f"Step {i} of {len(self.frames) - 1}, t = {self.frames[i].t:.0f}, {told}"

    def page(self, i: int) -> str:
        """Frame i as HTML."""
        return f'{STYLE}<div class="dk" role="status">{self.texts[i]}<small>{self.caption(i)}</small></div>'

    def strip(self, pictures: int = 4) -> str:
        """A few frames one below the other: what a printed page or a viewer without widgets shows."""
        last = len(self.frames) - 1
        picked = sorted({round(last * j / (pictures - 1)) for j in range(pictures)})
        rows = "".join(f"<small>{self.caption(i)}</small>{self.texts[i]}" for i in picked)
        return f'{STYLE}<div class="dk"><p><strong>{html.escape(self.title)}</strong></p>{rows}</div>'

    def controls(self) -> ipw.Widget:
        """Fresh widgets; the same Play shown twice would not play."""
        last = len(self.frames) - 1
        play = ipw.Play(min=0, max=last, value=0, interval=self.interval_ms, show_repeat=False)
        slider = ipw.IntSlider(min=0, max=last, value=0, description="step", layout=ipw.Layout(width="60%"))
        stack = ipw.Stack([ipw.HTML(self.page(i)) for i in range(last + 1)], selected_index=0)
        ipw.jslink((play, "value"), (slider, "value"))
        ipw.jslink((slider, "value"), (stack, "selected_index"))
        label = ipw.HTML(f"<b>{html.escape(self.title)}</b>: play, or click the slider and use the arrow keys")
        return ipw.VBox([label, ipw.HBox([play, slider]), stack])

    def __repr__(self) -> str:
        return f"Player: {self.title}, {len(self.frames)} frames"

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        return self.controls()._repr_mimebundle_() | {"text/plain": repr(self), "text/html": self.strip()}
