"""The training dashboard: the records of a run as a live curve with the exact entropy, and a stop button."""

from __future__ import annotations

import html
import math
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from time import perf_counter
from typing import Any

import ipywidgets as ipw

from diffkit.cli.show.chart import Window, chart
from diffkit.course.widgets.panel import LOOK, OPEN_AT_ONCE, Display, alert_html, deliver_while_busy, panel_html
from diffkit.training.trainer import Record

REDRAW_SECONDS = 0.5
SAMPLES_SHOWN = 5
RECENT = 50  # steps whose mean time tells how much is left


class TrainingDashboard(Display):
    """Watch a run: display this, then loop over `dashboard.watch(fit(...))` instead of `fit(...)`.

    Curve (smoothed by `plots.smoothed`), texts, tokens per second and time left follow the records; the stop button
    ends the run after the current step, as leaving the loop does, so a checkpoint is written and a resumed run goes on
    bit for bit. Where a page's buttons cannot reach a busy kernel, interrupting the kernel stops as cleanly.

    Args: steps: of the whole run; entropy: exact, nats per token, drawn as a line; samples: called every
          `every` steps with the record for a text to show; keep: decay of the smoothing per step; unit, level_name: of
          the loss and of the line; stored: (step, loss) of an earlier run, for a page without a kernel.
    """

    def __init__(
        self,
        steps: int,
        *,
        entropy: float | None = None,
        samples: Callable[[Record], str] | None = None,
        every: int = 50,
        keep: float = 0.9,
        title: str = "Training",
        unit: str = "nats per token",
        level_name: str = "exact entropy per token",
        stored: Sequence[tuple[float, float]] = (),
    ):
        if steps < 1 or every < 1 or not 0 <= keep < 1:
            raise ValueError(
                f"TrainingDashboard: needs steps >= 1, every >= 1 and 0 <= keep < 1, got {steps}, {every} and {keep}."
            )
        self.steps, self.entropy, self.samples, self.every = steps, entropy, samples, every
        self.keep, self.title, self.unit, self.level_name, self.stored = keep, title, unit, level_name, [*stored]
        self._views = deque[_View](maxlen=OPEN_AT_ONCE)
        self._stop, self._is_running = threading.Event(), False
        self._reset()

    def _reset(self) -> None:
        """Forget an earlier run."""
        self._stop.clear()
        self._curve: list[tuple[float, float]] = []  # (step, smoothed loss)
        self._mean = self._weight = self._speed = self._drawn = 0.0
        self._times: deque[float] = deque(maxlen=RECENT)
        self._texts: deque[tuple[int, str]] = deque(maxlen=SAMPLES_SHOWN)
        self._alert, self._state = "", "Not started."

    def watch(self, records: Iterable[Record]) -> Iterator[Record]:
        """The same records, shown as they pass; ends early where the stop button was pressed.

        An error of the run is shown in the dashboard and raised again: the caller has to know.
        """
        self._reset()
        self._run(True)
        try:
            for record in records:
                self._take(record)
                yield record
                if self._stop.is_set():
                    break
        except Exception as error:
            self._alert = alert_html(f"{type(error).__name__}: {error}")
            raise
        finally:
            getattr(records, "close", lambda: None)()  # between two steps; `fit` saves here
            self._run(False)

    def stop(self, *_: Any) -> None:
        """End the run after the current step; what the button does. Safe from any thread."""
        self._stop.set()

    def _run(self, running: bool) -> None:
        """Start or end: buttons live only while there is something to stop."""
        self._is_running = running
        done = int(self._curve[-1][0]) if self._curve else 0
        if not running:
            how = "Finished" if done >= self.steps else "Stopped, as you asked," if self._stop.is_set() else "Stopped"
            self._state = f"{how} after step {done:,} of {self.steps:,}." if done else "Stopped before the first step."
        for view in self._views:
            view.listen(self)
        self._draw()

    def _take(self, record: Record) -> None:
        """Follow one record; draw now and then, as drawing costs more than a small step."""
        self._mean = self.keep * self._mean + (1 - self.keep) * record.loss
        self._weight = self.keep * self._weight + (1 - self.keep)
        self._curve.append((record.step, self._mean / self._weight))
        self._speed = record.tokens_per_second
        now, asked = perf_counter(), self.samples is not None and record.step % self.every == 0
        self._times.append(now)
        if asked:
            self._ask(record)
        if asked or now - self._drawn >= REDRAW_SECONDS:
            self._state, self._drawn = f"Step {record.step:,} of {self.steps:,}.", now
            self._draw()

    def _ask(self, record: Record) -> None:
        """One more text. That it cannot be made is no reason to lose the run."""
        try:
            self._texts.append((record.step, self.samples(record)))  # type: ignore[misc]
        except Exception as error:
            self._alert = alert_html(f"the text of step {record.step} could not be made: {error}")

    def _draw(self) -> None:
        for view in self._views:
            view.curve.value, view.status.value = self.picture(), panel_html(self.status())
            view.texts.value, view.alert.value = self._pages(), self._alert

    def status(self) -> str:
        """How far, how good, how fast, how long still, in one line."""
        parts = [f"<b>{self._state}</b>"]
        if self._curve:
            loss = self._curve[-1][1]
            parts.append(f"Loss {loss:.3f} {self.unit}, smoothed")
            if self.entropy is not None:
                parts[-1] += f" ({self.level_name}: {self.entropy:.3f})"
            parts.append(f"{self._speed:,.0f} tokens/s")
        if self._is_running and len(self._times) > 1:
            step = (self._times[-1] - self._times[0]) / (len(self._times) - 1)
            seconds = round(step * (self.steps - self._curve[-1][0]))
            parts.append(f"about {seconds // 60}:{seconds % 60:02d} min left")
        return ", ".join(parts).replace(".</b>,", ".</b>")

    def picture(self) -> str:
        """The curve so far as SVG."""
        losses = [loss for _, loss in self._curve]
        finite = [loss for loss in [*losses, self.entropy or 0.0, 1.0] if math.isfinite(loss)]
        alt = f"After {len(losses)} steps: {losses[-1]:.2f} {self.unit}." if losses else "No step yet."
        return LOOK + chart(
            {"training loss, smoothed": self._curve},
            Window(0, self.steps, 0, math.ceil(max(finite))),
            title=self.title, x_label="step", y_label=self.unit, alt=alt, bold="training loss, smoothed",
            level=None if self.entropy is None else (self.level_name, self.entropy),
        )  # fmt: skip

    def _pages(self) -> str:
        if not self._texts:
            return ""
        rows = (f"<h4>Step {step:,}</h4><p class='dk-story'>{html.escape(text)}</p>" for step, text in self._texts)
        return panel_html("".join(rows))

    def controls(self) -> ipw.Widget:
        """Fresh widgets that show the run as it is now."""
        view = _View(self)
        self._views.append(view)
        self._draw()
        return self.opened(view.box)

    def still(self) -> str:
        """What a page without a kernel shows: the frame and the line, and nothing that differs between two runs."""
        empty = TrainingDashboard(
            self.steps, entropy=self.entropy, title=self.title, unit=self.unit, level_name=self.level_name
        )
        empty._curve = self.stored
        how = "Without a kernel: a stored run." if self.stored else "The curve is drawn while the cell runs."
        plan = f"<p>{html.escape(self.title)}: {self.steps:,} steps. {how}</p>"
        return panel_html(plan + empty.picture(), role="note")

    def __repr__(self) -> str:
        return f"TrainingDashboard: {self.title}, {self.steps:,} steps"


class _View:
    """The widgets of one display."""

    def __init__(self, dashboard: TrainingDashboard):
        self.curve, self.status, self.alert, self.texts = (ipw.HTML() for _ in range(4))
        self.button = ipw.Button(description="Stop", tooltip="Stop after the current step", icon="stop")
        self.box = ipw.VBox([self.curve, ipw.HBox([self.button]), self.status, self.alert, self.texts])
        self.listen(dashboard)

    def listen(self, dashboard: TrainingDashboard) -> None:
        """Listen to the button while there is a run to stop, and not longer."""
        self.button.on_click(dashboard.stop, remove=not dashboard._is_running)
        self.button.disabled = not dashboard._is_running
        deliver_while_busy(self.button)
