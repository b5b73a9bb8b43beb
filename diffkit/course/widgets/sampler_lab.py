"""The sampler lab: turn every knob of sampling, and see validity and KL settle next to their exact values."""

from __future__ import annotations

import html
import math
import threading
from collections.abc import Iterator
from contextvars import copy_context
from typing import Any, NamedTuple

import ipywidgets as ipw
import torch
from torch import Generator, Tensor

from diffkit.cli.show.chart import Window, chart
from diffkit.course.widgets.panel import Display, guarded, panel_html
from diffkit.evaluation.samples import plots_of
from diffkit.evaluation.statistics import Estimate, kl_floor, kl_of_counts, mean_of, wilson
from diffkit.languages.story_language import StoryLanguage
from diffkit.model import DiffusionModel
from diffkit.processes.base import Denoise
from diffkit.processes.masked import MaskedDiffusion
from diffkit.sampling.guidance import condition_on, guide
from diffkit.sampling.sampler import sample
from diffkit.sampling.unmasking import UNMASKING_ORDERS

ANY = "any"  # no ending is asked for
ROWS = 12  # of the table of what was tried
STORIES = 3  # shown
THREAD = "sampler lab"


class Settings(NamedTuple):
    """The knobs. top_k = 0 and top_p = 1 filter nothing."""

    denoiser: str = "exact"
    order: str = "random"
    steps: int = 16
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    ending: str = ANY
    strength: float = 0.0  # of guidance towards the ending: 0 follows the label as it was learned

    def __str__(self) -> str:
        parts = [self.denoiser, self.order, f"{self.steps} steps"]
        parts += [f"temperature {self.temperature:g}"] if self.temperature != 1 else []
        parts += [f"top-k {self.top_k}"] if self.top_k else []
        parts += [f"top-p {self.top_p:g}"] if self.top_p < 1 else []
        return ", ".join(parts + ([f"ending {self.ending}, w = {self.strength:g}"] if self.ending != ANY else []))


class Tried(NamedTuple):
    """What the stories drawn so far with these settings show; KLs are of valid ones, nats, infinite for none."""

    settings: Settings
    n: int
    valid: float
    low: float  # 95 % interval (Wilson)
    high: float
    log_prob: Estimate | None  # mean exact log p of the valid ones, and its standard error; None below two
    kl: dict[str, tuple[float, float]]  # "plots" and "endings": KL to the exact distribution, and a perfect sampler's
    obeyed: float | None  # share of valid stories with the ending asked for
    latest: Tensor  # (b, L) the last stories drawn


def _kl(counts: Tensor, probs: Tensor) -> tuple[float, float]:
    """KL of counts (K,) to exact probs (K,), and what as many perfect draws show."""
    n, possible = int(counts.sum()), probs > 0
    if not n:
        return math.inf, math.inf
    return kl_of_counts(counts[possible], probs[possible]), kl_floor(probs[possible], n)


class SamplerLab(Display):
    """Choose a denoiser, an order, steps, filters and an ending, then draw; the numbers settle batch by batch.

    With an ending, the reference is the exact distribution given that ending, and only stories that end so are counted.

    Args: model: a trained denoiser to compare; conditional: a model with labels, for guidance (the exact denoiser
          is guided by its own two posteriors); batch, batches: stories at a time, and how often; seed: of
          every draw, so that two settings differ by nothing else.
    """

    def __init__(
        self,
        process: MaskedDiffusion,
        language: StoryLanguage,
        *,
        model: Denoise | None = None,
        conditional: DiffusionModel | None = None,
        batch: int = 32,
        batches: int = 8,
        seed: int = 0,
    ):
        if batch < 1 or batches < 1:
            raise ValueError(f"SamplerLab: needs batch >= 1 and batches >= 1, got {batch} and {batches}.")
        self.process, self.language, self.conditional = process, language, conditional
        self.denoisers: dict[str, Denoise] = {"exact": language.denoiser(process)}
        if model is not None:
            self.denoisers["trained"] = model
        self.endings = [ANY, *language.labels] if conditional is not None else [ANY]
        self.batch, self.batches, self.seed = batch, batches, seed
        self.tried: list[Tried] = []

    def denoiser(self, settings: Settings) -> Denoise:
        """The denoiser of these settings, guidance included; filters come later, in `sample`."""
        if settings.ending == ANY:
            return self.denoisers[settings.denoiser]
        label = self.language.label_id(settings.ending)
        if settings.denoiser == "exact":
            return guide(
                self.language.denoiser(self.process, settings.ending), self.denoisers["exact"], settings.strength
            )
        if self.conditional is None:
            raise ValueError("SamplerLab: an ending needs a conditional model; give conditional=load_model(...).")
        return condition_on(self.conditional, label, settings.strength)

    def draw(self, settings: Settings) -> Iterator[Tried]:
        """Draw batch after batch and yield what all of them show together; leave the loop to stop."""
        rng, drawn, denoise = Generator().manual_seed(self.seed), [], self.denoiser(settings)
        filters = {"temperature": settings.temperature, "top_k": settings.top_k or None}
        filters["top_p"] = settings.top_p if settings.top_p < 1 else None
        for _ in range(self.batches):
            drawn.append(sample(
                self.process, denoise, shape=(self.batch, self.language.length), steps=settings.steps, rng=rng,
                order=settings.order, **filters,
            ))  # fmt: skip
            yield self.judge(settings, torch.cat(drawn), drawn[-1])

    def judge(self, settings: Settings, ids: Tensor, latest: Tensor) -> Tried:
        """Compare stories (n, L) with the exact distribution of plots and endings."""
        language, plots = self.language, plots_of(self.language, ids)
        valid = plots >= 0
        hits, probs, kept = int(valid.sum()), language.template_probs, valid
        ends, obeyed = language.template_labels[plots.clamp(min=0)], None
        if settings.ending != ANY:
            label = language.label_id(settings.ending)
            kept, probs = valid & (ends == label), probs * (language.template_labels == label)
            obeyed = int(kept.sum()) / hits if hits else None
        counts = torch.bincount(plots[kept], minlength=len(probs))
        kl = {"plots": _kl(counts, probs / probs.sum())}
        if obeyed is None:
            by_label = torch.zeros(len(language.labels), dtype=torch.float64)
            by_label.index_add_(0, language.template_labels, language.template_probs)
            kl["endings"] = _kl(torch.bincount(ends[valid], minlength=len(by_label)), by_label)
        log_prob = mean_of(language.log_prob(ids[valid])) if hits > 1 else None
        return Tried(settings, len(ids), hits / len(ids), *wilson(hits, len(ids)), log_prob, kl, obeyed, latest)

    def stories(self, tried: Tried) -> str:
        """A few of the last stories as HTML; marked valid or not."""
        shown = tried.latest[:STORIES]
        is_story = (self.language.log_prob(shown) > -math.inf).tolist()
        rows = [
            f'<p class="dk-story">{"✓ valid" if ok else "✗ <b>no story</b>"}: {html.escape(text)}</p>'
            for ok, text in zip(is_story, self.language.decode(shown), strict=True)
        ]
        return f"<h4>From the last batch</h4>{''.join(rows)}"

    def table(self, rows: list[Tried]) -> str:
        """What was tried, the newest first, above what a perfect sampler shows."""
        names = ("settings", "stories", "valid (95 %)", "KL of plots (floor)", "KL of endings (floor)", "mean log p")
        head = "".join(f'<th scope="col">{name}</th>' for name in names)
        body = "".join(_row(tried) for tried in rows[: -ROWS - 1 : -1])
        perfect = ("a perfect sampler", "", "100.0%", "its floor", "its floor", f"{-self.language.entropy():.2f}")
        last = "".join(f"<td>{cell}</td>" for cell in perfect[1:])
        last = f'<tr><th scope="row">{perfect[0]}</th>{last}</tr>'
        return f"<table><caption>Settings tried, in nats</caption><tr>{head}</tr>{body}{last}</table>"

    def controls(self) -> ipw.Widget:
        """Fresh widgets; the table goes on."""
        return self.opened(_Panel(self).box)

    def still(self) -> str:
        """One batch of the exact denoiser as HTML: what a page without a kernel shows."""
        first = next(self.draw(Settings(steps=min(16, self.language.length))))
        return panel_html(f"<p>{html.escape(repr(self))}</p>{self.table([first])}{self.stories(first)}")

    def __repr__(self) -> str:
        return f"SamplerLab: {' and '.join(self.denoisers)} denoiser, {self.batches} batches of {self.batch} stories"


def _row(tried: Tried) -> str:
    """One line of the table."""
    cells = [str(tried.n), f"{tried.valid:.1%} [{tried.low:.1%}, {tried.high:.1%}]"]
    for name in ("plots", "endings"):
        kl, floor = tried.kl.get(name, (math.nan, math.nan))
        cells.append(f"{kl:.3f} ({floor:.3f})" if math.isfinite(kl) else "")
    if tried.obeyed is not None:
        cells[-1] = f"{tried.obeyed:.0%} of the valid end as asked"
    log_p = tried.log_prob
    cells.append(f"{log_p.mean:.2f} ± {log_p.standard_error:.2f}" if log_p else "")
    return f'<tr><th scope="row">{html.escape(str(tried.settings))}</th>{"".join(f"<td>{c}</td>" for c in cells)}</tr>'


def _knobs(lab: SamplerLab) -> dict[str, ipw.Widget]:
    """A control for every setting, by its name; guidance only where there is a conditional model."""
    style = {"style": {"description_width": "8em"}, "layout": ipw.Layout(width="24em")}
    start = Settings(steps=min(16, lab.language.length))
    knobs: dict[str, ipw.Widget] = {
        "denoiser": ipw.Dropdown(options=list(lab.denoisers), description="denoiser", **style),
        "order": ipw.Dropdown(
            options=["ancestral", *UNMASKING_ORDERS], value=start.order, description="order", **style
        ),
        "steps": ipw.IntSlider(min=1, max=lab.language.length, value=start.steps, description="steps", **style),
        "temperature": ipw.FloatSlider(min=0, max=2, step=0.1, value=1, description="temperature", **style),
        "top_k": ipw.IntSlider(min=0, max=20, value=0, description="top-k (0: off)", **style),
        "top_p": ipw.FloatSlider(min=0.05, max=1, step=0.05, value=1, description="top-p (1: off)", **style),
    }
    if len(lab.endings) > 1:
        knobs["ending"] = ipw.Dropdown(options=lab.endings, description="ending", **style)
        knobs["strength"] = ipw.FloatSlider(min=-1, max=4, step=0.5, value=0, description="guidance w", **style)
    return knobs


class _Panel:
    """The controls of one display. Drawing has its own thread, so that the stop button works."""

    def __init__(self, lab: SamplerLab):
        self.lab, self.knobs, self.thread = lab, _knobs(lab), threading.Thread()
        self.stopping, self.curve = threading.Event(), list[Tried]()
        self.go = ipw.Button(description="Draw", tooltip="Draw stories with these settings")
        self.halt = ipw.Button(description="Stop", tooltip="Stop after the current batch", icon="stop", disabled=True)
        self.go.on_click(self.begin)
        self.halt.on_click(self.stop)
        self.alert, self.page = ipw.HTML(), ipw.HTML()
        row = ipw.Layout(flex_flow="row wrap")
        self.box = ipw.VBox([
            ipw.HBox(list(self.knobs.values()), layout=row), ipw.HBox([self.go, self.halt], layout=row),
            self.alert, self.page,
        ])  # fmt: skip
        self.show("Nothing drawn yet. Choose, guess, then press Draw.")

    def settings(self) -> Settings:
        """The values of the controls."""
        return Settings(**{name: knob.value for name, knob in self.knobs.items()})

    def stop(self, _: Any) -> None:
        """After the current batch."""
        self.stopping.set()

    def begin(self, _: Any) -> None:
        """Draw in the background."""
        with guarded(self.alert):
            if self.thread.is_alive():
                raise ValueError("Still drawing. Press Stop first, or wait.")
            self.stopping.clear()
            self.go.disabled, self.halt.disabled = True, False
            context = copy_context()  # so that what the thread sends is known to belong to this cell
            self.thread = threading.Thread(
                target=context.run, args=(self.draw, self.settings()), daemon=True, name=THREAD
            )
            self.thread.start()

    def draw(self, settings: Settings) -> None:
        """Draw until the end or until stopped, then note the outcome in the table."""
        self.curve = []
        with guarded(self.alert):
            self.show(f"Drawing: {settings} …")
            for tried in self.lab.draw(settings):
                self.curve.append(tried)
                self.show(f"{tried.n} of {self.lab.batch * self.lab.batches} stories: {settings}")
                if self.stopping.is_set():
                    break
            self.lab.tried.append(self.curve[-1])
            self.show(f"{'Stopped' if self.stopping.is_set() else 'Done'} after {self.curve[-1].n} stories: {settings}")
        self.go.disabled, self.halt.disabled = False, True

    def show(self, state: str) -> None:
        """The state in words, the numbers, the curve and the last stories."""
        running = [tried for tried in self.curve[-1:] if all(tried is not noted for noted in self.lab.tried)]
        rows = self.lab.tried + running
        heading = f"<p><b>{html.escape(state)}</b></p>"
        self.page.value = panel_html(
            heading + (self.lab.table(rows) if rows else "") + self.picture() + self.last(rows)
        )

    def last(self, rows: list[Tried]) -> str:
        """The stories of the newest row."""
        return self.lab.stories(rows[-1]) if rows else ""

    def picture(self) -> str:
        """KL of plots against stories drawn, with the floor of a perfect sampler."""
        points = [(tried.n, *tried.kl["plots"]) for tried in self.curve if math.isfinite(tried.kl["plots"][0])]
        if not points:
            return ""
        top = math.ceil(2 * max(max(kl, floor) for _, kl, floor in points)) / 2
        return chart(
            {"these stories": [(n, kl) for n, kl, _ in points], "floor": [(n, floor) for n, _, floor in points]},
            Window(0, self.lab.batch * self.lab.batches, 0, top),
            title="KL of plots", x_label="stories drawn", y_label="nats", bold="these stories",
            marker=points[-1][:2],
            alt=f"After {points[-1][0]} stories {points[-1][1]:.3f}; a perfect sampler shows {points[-1][2]:.3f}.",
        )  # fmt: skip
