"""The noise explorer: a sentence under a slider over t and a choice of schedules, with the curve of gamma."""

from __future__ import annotations

import html
from collections.abc import Sequence

import ipywidgets as ipw
import torch
from torch import Generator, Tensor
from transformers import PreTrainedTokenizerBase

from diffkit.cli.show.chart import Window, chart
from diffkit.cli.show.text import STYLE, token_html, words_of
from diffkit.course.widgets.panel import Display
from diffkit.processes.masked import corrupt
from diffkit.processes.schedules import Schedule

CURVE_POINTS = 33


class NoiseExplorer(Display):
    """A sentence under a slider over t and a choice of schedules: how much is hidden, expected and in fact.

    Every page is made beforehand, and linked to slider and choice in the browser: nothing waits for the kernel.

    Args:   ids: (L,) tokens of the sentence; schedules: of one time axis; points: times from 0 to T, T included.
    Raises: ValueError for no schedule, schedules that differ in T, or fewer than two points.
    """

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
        if points < 2 or len({schedule.T for schedule in self.schedules}) != 1:
            axes = [f"{schedule.name}: T={schedule.T}" for schedule in self.schedules]
            raise ValueError(
                f"NoiseExplorer: needs at least two points and schedules that share one T, got {points} points, {axes}."
            )
        self.times = torch.linspace(0, self.schedules[0].T, points, dtype=torch.float64)
        self.texts = [
            [self._text(schedule, t, ids, tokenizer, seed) for t in self.times] for schedule in self.schedules
        ]
        self.curves = [[self._curve(schedule, t) for t in self.times.tolist()] for schedule in self.schedules]

    def _text(self, schedule: Schedule, t: Tensor, ids: Tensor, tokenizer: PreTrainedTokenizerBase, seed: int) -> str:
        """The sentence at one time, and the counts."""
        rng = Generator().manual_seed(seed)  # the same draw at every t: a token once hidden stays hidden
        xt, is_masked = corrupt(ids[None], t, schedule=schedule, mask_id=tokenizer.mask_token_id, rng=rng)
        words = words_of(ids, tokenizer)
        spans = [token_html(w, "hidden" if m else "old") for w, m in zip(words, is_masked[0].tolist(), strict=True)]
        gamma = float(schedule.gamma(t))
        note = (
            f"{html.escape(schedule.name)}: t = {t:.0f}, gamma(t) = {gamma:.3f}; {gamma * len(ids):.1f} of {len(ids)} "
            f"tokens hidden on average, {int(is_masked.sum())} here"
        )
        return f'<div role="status"><p>{" ".join(spans)}</p><small>{note}</small></div>'

    def _curve(self, schedule: Schedule, t: float) -> str:
        """gamma over time with a marker at t; the other schedules as thin lines."""
        T, gamma = schedule.T, float(schedule.gamma(t))
        times = torch.linspace(0, T, CURVE_POINTS, dtype=torch.float64)
        return chart(
            {one.name: list(zip(times.tolist(), one.gamma(times).tolist(), strict=True)) for one in self.schedules},
            Window(0, T, 0, 1),
            title=f"Masking rate of the {schedule.name} schedule",
            x_label="time t (steps)",
            y_label="gamma(t)",
            alt=f"It rises from 0 at t = 0 to 1 at t = {T}; the marker at t = {t:.0f} is at {gamma:.3f}.",
            bold=schedule.name,
            marker=(t, gamma),
        )

    def controls(self) -> ipw.Widget:
        """Fresh widgets, linked in the browser."""
        names = [(schedule.name, i) for i, schedule in enumerate(self.schedules)]
        choice = ipw.Dropdown(options=names, value=0, description="schedule", index=0)
        labels = [(f"{t:.0f}", i) for i, t in enumerate(self.times.tolist())]
        slider = ipw.SelectionSlider(options=labels, index=len(labels) // 2, description="time t")
        slider.layout.width = "26em"
        both = zip(self.texts, self.curves, strict=True)
        pages = [[ipw.HTML(_page(*parts)) for parts in zip(*one, strict=True)] for one in both]
        stacks = [ipw.Stack(these, selected_index=slider.index) for these in pages]
        chosen = ipw.Stack(stacks, selected_index=0)
        links = [ipw.jslink((slider, "index"), (stack, "selected_index")) for stack in stacks]
        links.append(ipw.jslink((choice, "index"), (chosen, "selected_index")))
        row = ipw.HBox([choice, slider], layout=ipw.Layout(flex_flow="row wrap"))
        return self.opened(ipw.VBox([row, chosen]), links)

    def still(self) -> str:
        """Half way under every schedule, and one picture: what a page without a kernel shows."""
        middle = len(self.times) // 2
        return _page("".join(texts[middle] for texts in self.texts), self.curves[0][middle])

    def __repr__(self) -> str:
        return f"NoiseExplorer: {', '.join(schedule.name for schedule in self.schedules)}; {len(self.times)} times"


def _page(text: str, curve: str) -> str:
    return f'{STYLE}<div class="dk">{text}{curve}</div>'
