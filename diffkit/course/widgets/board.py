"""The infilling board: a story to hide, lock and type words in, filled by a model and by the exact conditional."""

from __future__ import annotations

import difflib
import html
import math
from collections.abc import Iterable
from functools import partial
from typing import Any, NamedTuple

import ipywidgets as ipw
import torch
from torch import Generator, Tensor

from diffkit.cli.show.text import STYLE, token_html, words_of
from diffkit.cli.terminal import HIDDEN
from diffkit.course.widgets.panel import Display, guarded, panel_html
from diffkit.languages.story_language import StoryLanguage
from diffkit.processes.base import Denoise
from diffkit.processes.masked import MaskedDiffusion
from diffkit.sampling.sampler import evaluating, infill

MODES = ("hide", "lock", "type")
SHOWN = {"given": "{}", "hidden": HIDDEN, "filled": "✎ {}", "locked": "▣ {}"}  # no colour needed
LEGEND = f"{HIDDEN} hidden, ✎ filled by the model, ▣ locked, all else given"
TOP = 3  # how many predictions of each position are shown


class BoardState(NamedTuple):
    """One position of the board; tuples, so that an undo only has to remember it."""

    given: tuple[int, ...]  # the token at each position, of the story or typed
    written: tuple[int, ...]  # what the model filled in last
    kinds: tuple[str, ...]  # "given", "hidden", "filled" or "locked"
    result: str = ""  # HTML: what the last run found


class InfillingBoard(Display):
    """Click words to hide, lock or type them; run; the model's filling is shown next to one of the exact conditional.

    Both are drawn one token a step in random order, which is exact where the denoiser is. A word that the model filled
    in can be locked: it then counts as given. Undo and reset go back.

    Args: ids: (L,) a story; hidden: positions that start hidden; seed: of all draws.
    """

    def __init__(
        self,
        process: MaskedDiffusion,
        denoise: Denoise,
        language: StoryLanguage,
        ids: Tensor,
        *,
        hidden: Iterable[int] = (),
        seed: int = 0,
    ):
        self.process, self.denoise, self.language, self.seed = process, denoise, language, seed
        given, ends = tuple(ids.tolist()), (language.eos_id, language.pad_id)
        self.positions = next((i for i, token in enumerate(given) if token in ends), len(given))  # words to click
        hidden = sorted(hidden)
        if any(not 0 <= i < self.positions for i in hidden):
            raise ValueError(f"InfillingBoard: hidden positions lie in 0..{self.positions - 1}, got {hidden}.")
        kinds = ("hidden" if i in hidden else "given" for i in range(len(given)))
        self.start = BoardState(given, given, tuple(kinds))

    def canvas(self, state: BoardState) -> Tensor:
        """What a run starts from, (L,) ids: given and locked words, MASK elsewhere."""
        chosen = {"given": state.given, "locked": state.written}
        return torch.tensor(
            [chosen[kind][i] if kind in chosen else self.language.mask_id for i, kind in enumerate(state.kinds)]
        )

    def clicked(self, state: BoardState, position: int, mode: str, word: str = "") -> BoardState:
        """The state after a click on a word. Raises ValueError, in words for the learner, if that cannot be done."""
        given, kinds, kind = list(state.given), list(state.kinds), state.kinds[position]
        if mode == "hide":
            kinds[position] = "given" if kind == "hidden" else "hidden"
        elif mode == "lock":
            if kind not in ("filled", "locked"):
                what = "is hidden" if kind == "hidden" else "is given already"
                raise ValueError(
                    f"Word {position + 1} {what}. Lock is for words that the model filled in (✎): run first."
                )
            kinds[position] = "filled" if kind == "locked" else "locked"
        else:
            given[position], kinds[position] = self._id_of(word), "given"
        return state._replace(given=tuple(given), kinds=tuple(kinds))

    def _id_of(self, word: str) -> int:
        """The id of a typed word. Raises ValueError if it is no word of the language."""
        tokenizer, word = self.language.tokenizer, word.strip()
        special = set(tokenizer.all_special_tokens)
        known = [token for token in tokenizer.get_vocab() if token not in special]
        if word in known:
            return tokenizer.convert_tokens_to_ids(word)
        if not word:
            raise ValueError("Type a word into the box first, then click the position it goes to.")
        near = difflib.get_close_matches(word, sorted(known), cutoff=0.5)
        like = f" Near it are: {', '.join(near)}." if near else ""
        raise ValueError(f"The vocabulary of {len(known)} words has no word {word!r}; nothing was changed.{like}")

    @torch.no_grad()
    def run(self, state: BoardState, rng: Generator) -> BoardState:
        """Fill what is hidden, with the model and with the exact conditional, and show both.

        Raises: ValueError if nothing is hidden.
        """
        canvas = self.canvas(state)[None]
        missing = canvas[0] == self.language.mask_id
        n, exact = int(missing.sum()), self.language.denoiser(self.process)
        if not n:
            raise ValueError("Nothing is hidden, so there is nothing to fill. Click a word in the mode 'hide' first.")
        given = self.language.log_prob(canvas).item()
        both: list[Denoise] = [self.denoise, *([exact] if given > -math.inf else [])]
        filled = [infill(self.process, who, canvas, steps=n, order="random", rng=rng)[0] for who in both]
        result = self._fillings(filled, given, missing) + self._marginals(canvas, missing, given)
        positions = range(len(missing))
        written = tuple(int(filled[0][i]) if missing[i] else state.written[i] for i in positions)
        kinds = tuple("filled" if missing[i] else state.kinds[i] for i in positions)
        return BoardState(state.given, written, kinds, result)

    def _fillings(self, filled: list[Tensor], given: float, missing: Tensor) -> str:
        """The fillings side by side, each with its exact log-probability."""
        columns = [
            f"<h4>{name}</h4>{self._story(ids, missing)}<div>{self._nats(ids, given)}</div>"
            for name, ids in zip(("The model", "The exact conditional"), filled, strict=False)
        ]
        if given == -math.inf:
            columns.append(
                "<h4>The exact conditional</h4><p>There is none: no story of the language has the given words at these "
                "positions. The model fills the holes all the same. Hide or undo a word that does not fit.</p>"
            )
        return f'<div class="dk-two dk">{"".join(f"<div>{column}</div>" for column in columns)}</div>'

    def _story(self, ids: Tensor, missing: Tensor) -> str:
        words = words_of(ids, self.language.tokenizer)[: self.positions]
        spans = [token_html(word, "new" if m else "old") for word, m in zip(words, missing.tolist(), strict=False)]
        return f'<p class="dk-story">{" ".join(spans)}</p>'

    def _nats(self, ids: Tensor, given: float) -> str:
        log_p = self.language.log_prob(ids[None]).item()
        if log_p == -math.inf:
            return "✗ no story of the language: log p(missing | given) = −∞ nats"
        return f"✓ a story of the language: log p(missing | given) = {log_p - given + 0.0:.2f} nats"

    def _marginals(self, canvas: Tensor, missing: Tensor, given: float) -> str:
        """The likeliest words at every hidden position given all that is visible, by the model and exactly."""
        t = self.process.schedule.time_of(missing.double().mean()).expand(1)
        with evaluating(self.denoise):
            model = self.process.log_probs(self.denoise(canvas, t).double(), canvas).exp()[0]  # (L, V)
        exact = self.language.posterior(self.language.seen(canvas))[1][0]
        rows = []
        for position in missing.nonzero()[:, 0].tolist():
            best = self._top(exact[position]) if given > -math.inf else "none"
            rows.append(
                f'<tr><th scope="row">{position + 1}</th><td>{self._top(model[position])}</td><td>{best}</td></tr>'
            )
        return (
            '<div style="max-height:19em;overflow:auto" tabindex="0" role="region" aria-label="Predictions">'
            "<table><caption>What could stand there, each position by itself, before anything is filled</caption><tr>"
            f'<th scope="col">word</th><th scope="col">the model</th><th scope="col">exact marginal</th></tr>'
            f"{''.join(rows)}</table></div>"
        )

    def _top(self, probs: Tensor) -> str:
        """The likeliest words; rounded first and ties to the lower id, so that every machine shows the same."""
        best = (probs * 1e4).round().sort(descending=True, stable=True)
        words = words_of(best.indices[:TOP], self.language.tokenizer)
        pairs = zip(words, (best.values[:TOP] / 1e4).tolist(), strict=True)
        return ", ".join(f"{html.escape(word)}&nbsp;{p:.2f}" for word, p in pairs if p >= 0.005)

    def controls(self) -> ipw.Widget:
        """Fresh widgets, at the start of the story."""
        return self.opened(_Panel(self).box)

    def still(self) -> str:
        """The start and the first run as HTML: what a page without a kernel shows."""
        state = self.start
        if "hidden" in state.kinds:
            state = self.run(state, Generator().manual_seed(self.seed))
        return f"{STYLE}{panel_html(f'{self._sheet()}{state.result}')}"

    def _sheet(self) -> str:
        words = words_of(torch.tensor(self.start.given[: self.positions]), self.language.tokenizer)
        kinds = [{"given": "fixed"}.get(kind, kind) for kind in self.start.kinds]
        spans = [token_html(word, kind) for word, kind in zip(words, kinds, strict=False)]
        return f'<p class="dk">{" ".join(spans)}</p>'

    def __repr__(self) -> str:
        return f"InfillingBoard: {self.positions} words, {self.start.kinds.count('hidden')} hidden at the start"


class _Panel:
    """The controls of one display, and the states it went through."""

    def __init__(self, board: InfillingBoard):
        self.board, self.states, self.rng = board, [board.start], Generator().manual_seed(board.seed)
        row = ipw.Layout(flex_flow="row wrap", align_items="center")
        self.mode = ipw.RadioButtons(
            options=MODES, value="hide", description="a click will", orientation="horizontal",
            layout=ipw.Layout(width="auto"),
        )  # fmt: skip
        self.word = ipw.Text(description="word", placeholder="to type", layout=ipw.Layout(width="14em"))
        fitting = ipw.Layout(width="auto", margin="2px")
        self.words = [ipw.Button(layout=fitting) for _ in range(board.positions)]
        for i, button in enumerate(self.words):
            button.on_click(partial(self.click, i))
        actions = {"Run": self.run, "Undo": self.undo, "Reset": self.reset}
        self.actions = [ipw.Button(description=name) for name in actions]
        for button, action in zip(self.actions, actions.values(), strict=True):
            button.on_click(action)
        self.alert, self.page = ipw.HTML(), ipw.HTML()
        self.box = ipw.VBox([
            ipw.HBox([self.mode, self.word], layout=row), ipw.HBox(self.words, layout=row),
            ipw.HBox(self.actions, layout=row), self.alert, self.page,
        ])  # fmt: skip
        self.show()

    def show(self) -> None:
        """Bring the widgets in line with the last state."""
        state, tokenizer = self.states[-1], self.board.language.tokenizer
        shown = [
            written if kind in ("filled", "locked") else given for given, written, kind in zip(*state[:3], strict=True)
        ]
        for i, (button, word) in enumerate(zip(self.words, words_of(torch.tensor(shown), tokenizer), strict=False)):
            kind = state.kinds[i]
            button.description = SHOWN[kind].format(word)
            button.tooltip = f"word {i + 1}, {kind}" + ("" if kind == "hidden" else f": {word}")
        undo, reset = self.actions[1:]
        undo.disabled = reset.disabled = len(self.states) < 2
        result = state.result or "<p>Hide words, then press Run.</p>"
        self.page.value = STYLE + panel_html(f"<p>{LEGEND}</p>{result}")

    def click(self, position: int, _: Any) -> None:
        """A word was clicked."""
        with guarded(self.alert):
            self.states.append(self.board.clicked(self.states[-1], position, self.mode.value, self.word.value))
            self.show()

    def run(self, _: Any) -> None:
        """Fill what is hidden."""
        with guarded(self.alert):
            self.states.append(self.board.run(self.states[-1], self.rng))
            self.show()

    def undo(self, _: Any) -> None:
        """Back by one."""
        with guarded(self.alert):
            if len(self.states) > 1:
                self.states.pop()
            self.show()

    def reset(self, _: Any) -> None:
        """Back to the start; this can be undone, too."""
        with guarded(self.alert):
            self.states.append(self.board.start)
            self.show()
