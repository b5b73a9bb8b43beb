"""The infilling board: a story to click holes into, filled by a model beside the exact conditional."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import ipywidgets as ipw
import torch
from IPython.display import DisplayObject
from torch import Generator, Tensor

from diffkit.diffusion import Denoise, Process
from diffkit.language import StoryLanguage
from diffkit.sample import infill
from diffkit.widgets.text import STYLE, token_html, words_of


class BlankPad(DisplayObject):
    """A text to click holes into: the hidden words are written anew, all others stay; with the exact probability.

    Args: ids: (L,) a story; hidden: places that start hidden; the fillings are drawn one token a step, in random order.
    """

    def __init__(
        self,
        process: Process,
        denoise: Denoise,
        language: StoryLanguage,
        ids: Tensor,
        *,
        hidden: Iterable[int] = (),
        seed: int = 0,
    ):
        self.process, self.denoise, self.language, self.ids = process, denoise, language, ids
        self.hidden, self.rng = set(hidden), Generator().manual_seed(seed)
        self.words = [word for word in words_of(ids, language.tokenizer) if word not in ("[EOS]", "[PAD]")]
        self.still = self.fill(self.hidden)

    def fill(self, hidden: Iterable[int]) -> str:
        """Write the words at these places anew: a paragraph of HTML with the exact log-probability of the filling."""
        canvas = self.ids.clone()
        canvas[list(hidden)] = self.language.mask_id
        missing = canvas == self.language.mask_id
        filled = canvas[None]
        if missing.any():
            steps = int(missing.sum())
            filled = infill(self.process, self.denoise, filled, steps=steps, rule="random", rng=self.rng)
        log_p = (self.language.log_prob(filled) - self.language.log_prob(canvas[None])).item()
        note = f"log p(missing | given) = {log_p:.2f} nats" if log_p > -torch.inf else "no story of the language"
        words = words_of(filled[0], self.language.tokenizer)[: len(self.words)]
        spans = [token_html(w, "new" if m else "fixed") for w, m in zip(words, missing.tolist(), strict=False)]
        return f'{STYLE}<div class="dk" role="status"><p>{" ".join(spans)}</p><small>{note}</small></div>'

    def controls(self) -> ipw.Widget:
        """Fresh widgets; a click on "fill" asks the model."""
        buttons = [
            ipw.ToggleButton(value=i in self.hidden, description=word, layout=ipw.Layout(width="auto"))
            for i, word in enumerate(self.words)
        ]
        page, go = ipw.HTML(self.still), ipw.Button(description="fill")

        def ask(_: Any) -> None:
            page.value = self.fill(i for i, button in enumerate(buttons) if button.value)

        go.on_click(ask)
        label = ipw.HTML("<b>Press words to hide them</b>, then fill; press fill again for another draw")
        row = ipw.HBox(buttons, layout=ipw.Layout(flex_flow="row wrap"))
        return ipw.VBox([label, row, go, page])

    def __repr__(self) -> str:
        return f"BlankPad: {len(self.words)} words, {len(self.hidden)} hidden at the start"

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        return self.controls()._repr_mimebundle_() | {"text/plain": repr(self), "text/html": self.still}
