"""Things to play with in a notebook: the unmasking player, a slider over the noise. Few, and quiet until touched."""

from __future__ import annotations

import html
import inspect
from collections.abc import Iterable, Sequence
from typing import Any

import ipywidgets as ipw
import torch
from IPython.display import DisplayObject
from torch import Generator, Tensor
from transformers import PreTrainedTokenizerBase

from diffkit.diffusion import Denoise, Process
from diffkit.language import StoryLanguage
from diffkit.noise import Schedule, corrupt
from diffkit.sample import Frame, infill

HIDDEN = "░░░"  # a masked token; its own glyph, so that colour is not needed to see it
BYTES = ("Ġ", "Ċ")  # how tokens of bytes write a space and the end of a line
STYLE = (
    "<style>.dk p{margin:.2em 0;font:15px/1.9 ui-monospace,Menlo,Consolas,monospace}"
    ".dk s{text-decoration:none;color:#767676}.dk b{background:#0072b2;color:#fff;padding:0 .15em;border-radius:3px}"
    ".dk i{font-style:normal;border-bottom:3px double #d55e00}.dk small{font:13px sans-serif;color:inherit}</style>"
)


def token_html(word: str, kind: str, title: str = "") -> str:
    """One token: kind is "hidden" (grey blocks), "new" (bold on blue), "fixed" (double underline) or "old" (plain)."""
    tag = {"hidden": "s", "new": "b", "fixed": "i", "old": "span"}[kind]
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


class Source(DisplayObject):
    """The source of a function or class of the package, as it is, for reading in a notebook."""

    def __init__(self, thing: Any):
        self.name, self.code = thing.__qualname__, inspect.getsource(thing)

    def __repr__(self) -> str:
        return self.code

    def _repr_html_(self) -> str:
        return f'<pre aria-label="source of {html.escape(self.name)}"><code>{html.escape(self.code)}</code></pre>'


def show_source(thing: Any) -> Source:
    """Show how something in diffkit is written."""
    return Source(thing)
