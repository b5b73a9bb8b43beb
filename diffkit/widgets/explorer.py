"""The noise explorer: a sentence under a slider over t and a choice of schedules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ipywidgets as ipw
import torch
from IPython.display import DisplayObject
from torch import Generator, Tensor
from transformers import PreTrainedTokenizerBase

from diffkit.noise import Schedule, corrupt
from diffkit.widgets.text import STYLE, token_html, words_of


class NoiseExplorer(DisplayObject):
    """A sentence under a slider over t and a choice of schedules: how much is hidden, expected and in fact."""

    def __init__(
        self,
        ids: Tensor,
        tokenizer: PreTrainedTokenizerBase,
        schedules: Sequence[Schedule],
        *,
        seed: int = 0,
        points: int = 21,
    ):
        self.schedules = list(schedules)
        self.times = torch.linspace(0, self.schedules[0].T, points)
        self.pages = [
            [self._page(schedule, t, ids, tokenizer, seed) for t in self.times] for schedule in self.schedules
        ]

    def _page(self, schedule: Schedule, t: Tensor, ids: Tensor, tokenizer: PreTrainedTokenizerBase, seed: int) -> str:
        rng = Generator().manual_seed(seed)  # the same draw at every t: a token once hidden stays hidden
        xt, is_masked = corrupt(ids[None], t, schedule=schedule, mask_id=tokenizer.mask_token_id, rng=rng)
        words = words_of(ids, tokenizer)
        spans = [token_html(w, "hidden" if m else "old") for w, m in zip(words, is_masked[0].tolist(), strict=True)]
        gamma = float(schedule.gamma(t))
        note = (
            f"{schedule.name}: t = {t:.0f}, gamma(t) = {gamma:.3f}; {gamma * len(ids):.1f} of {len(ids)} tokens "
            f"hidden on average, {int(is_masked.sum())} here"
        )
        return f'{STYLE}<div class="dk" role="status"><p>{" ".join(spans)}</p><small>{note}</small></div>'

    def controls(self) -> ipw.Widget:
        """Fresh widgets, linked in the browser."""
        names = [(schedule.name, i) for i, schedule in enumerate(self.schedules)]
        choice = ipw.Dropdown(options=names, value=0, description="schedule", index=0)
        slider = ipw.IntSlider(
            min=0, max=len(self.times) - 1, value=len(self.times) // 2, description="time", readout=False
        )
        stacks = [ipw.Stack([ipw.HTML(page) for page in pages], selected_index=slider.value) for pages in self.pages]
        for stack in stacks:
            ipw.jslink((slider, "value"), (stack, "selected_index"))
        chosen = ipw.Stack(stacks, selected_index=0)
        ipw.jslink((choice, "index"), (chosen, "selected_index"))
        return ipw.VBox([ipw.HBox([choice, slider]), chosen])

    def __repr__(self) -> str:
        return f"NoiseExplorer: {', '.join(schedule.name for schedule in self.schedules)}; {len(self.times)} times"

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        middle = len(self.times) // 2
        still = f"{STYLE}{''.join(pages[middle] for pages in self.pages)}"
        return self.controls()._repr_mimebundle_() | {"text/plain": repr(self), "text/html": still}
