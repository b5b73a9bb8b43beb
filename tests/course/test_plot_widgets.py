"""Figures and widgets: pictures say what they show, nothing is left unescaped. The player has a file of its own."""

import base64
import html
import inspect
import re
import struct
from types import SimpleNamespace

import matplotlib.pyplot as plt
import pytest
import torch
from toys import MICRO, TEXTS, V

from diffkit.cli.show.text import HIDDEN, frame_html, token_html, words_of
from diffkit.course import plots
from diffkit.course.widgets.source import show_source
from diffkit.data.tokenizer import load_tokenizer
from diffkit.evaluation.by_count import CountError
from diffkit.evaluation.statistics import Estimate
from diffkit.paths import PRETRAINED
from diffkit.processes.schedules import get_schedule
from diffkit.random import inverse_cdf
from diffkit.sampling.sampler import Frame

# ------------------------------------------------------------------------------------------------------------ figures

WORDS = {"title": "A title", "alt": "What it shows"}
TEXT = {"x_label": "steps"} | WORDS
MORE = {"level": ("entropy", 2.0), "markers": True, "log_x": True, "log_y": True}
ROWS = [CountError(1, 2.0, 1.0, Estimate(1.0, 0.1)), CountError(5, 2.0, 1.9, Estimate(0.1, 0.1))]
FIGURES = {
    "points": lambda: plots.points({"a": [(1, 2.0), (4, 3.0)], "b": [(2, 1.0)]}, y_label="y", **TEXT),
    "scatter": lambda: plots.scatter({"a": (1, 2.0), "b": (4, 3.0)}, y_label="y", **TEXT),
    "word_map": lambda: plots.word_map(torch.eye(3)[:, :2] + 1, ["a", "b", "c"], {"two": ["a", "c"]}, **WORDS),
    "lines": lambda: plots.lines([1, 2, 4], {"one": [1, 2, 3], "two": [3, 2, 1]}, y_label="nats", **TEXT),
    "lines with all": lambda: plots.lines([1, 2, 4], {"one": [1, 2, 3]}, y_label="nats", **MORE, **TEXT),
    "many lines": lambda: plots.lines([1, 2], {str(i): [i, i] for i in range(11)}, y_label="nats", **TEXT),
    "bars": lambda: plots.bars({"Mia": 0.7, "Tom": 0.3}, **TEXT),
    "grouped_bars": lambda: plots.grouped_bars({"x": {"a": 1, "b": 2}, "y": {"a": 1.5}}, y_label="y", **WORDS),
    "token_probs": lambda: plots.token_probs(torch.eye(V)[4] * 0.9 + 0.0125, MICRO.tokenizer, **WORDS),
    "heatmap": lambda: plots.heatmap(torch.eye(3), y_label="rows", colour_label="share", **TEXT),
    "categories": lambda: plots.categories(torch.eye(2).long(), ["word", "slot"], y_label="rows", **TEXT),
    "attention_map": lambda: plots.attention_map(torch.eye(2), ["Mia", "ran"], **WORDS),
    "scaling": lambda: plots.scaling(
        {"one": ([1, 10], [3.0, 1.0]), "two": ([1, 10], [1.0, 0.5])},
        y_label="gap",
        laws={"one": float},
        errors={"two": [(0.8, 1.2), (0.4, 0.6)]},
        others={"one": [(2, 5.0)]},
        **TEXT,
    ),
    "schedules": lambda: plots.schedules([get_schedule("cosine"), get_schedule("linear")], torch.arange(0, 1001, 100)),
    "error_by_count": lambda: plots.error_by_count(ROWS),
}
each_figure = pytest.mark.parametrize("name", FIGURES)


@each_figure
def test_every_figure_is_a_picture_with_words(name):
    picture = FIGURES[name]()
    assert isinstance(picture, plots.Picture)
    assert len(picture.alt) > 10 and repr(picture) == f"Picture: {picture.alt}"
    data, metadata = picture._repr_mimebundle_()
    assert data["text/plain"] == repr(picture)
    assert base64.b64decode(data["image/png"]) == picture.png
    assert metadata["image/png"]["alt"] == html.escape(picture.alt)
    assert picture.png[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", picture.png[16:24])
    assert 100 < width < 1400 and 100 < height < 1400
    assert not plt.get_fignums(), "the figure stays open, and the notebook would show it twice"


def test_the_same_numbers_give_the_same_bytes():
    """So that a notebook run again shows no difference."""
    for name in ("lines", "heatmap"):
        assert FIGURES[name]().png == FIGURES[name]().png
    assert FIGURES["lines"]().png != FIGURES["many lines"]().png


def test_every_kind_of_figure_is_tried():
    drawn = {
        name for name, item in vars(plots).items() if inspect.isfunction(item) and item.__module__ == plots.__name__
    }
    assert drawn - {"axes", "smoothed"} <= FIGURES.keys()


@pytest.fixture
def kept(monkeypatch):
    """What is drawn, before it becomes bytes."""
    figures = []
    monkeypatch.setattr(plots, "Picture", lambda figure, alt: figures.append((figure, alt)) or figures[-1])
    yield figures
    plt.close("all")


def test_figures_name_their_axes_and_draw_their_numbers(kept):
    for draw in FIGURES.values():
        draw()
    assert all(figure.axes[0].get_title() for figure, _ in kept)
    drawn = dict(zip(FIGURES, kept, strict=True))
    axes = drawn["lines with all"][0].axes[0]
    assert axes.get_xlabel() == "steps" and axes.get_ylabel() == "nats"
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert axes.lines[0].get_ydata().tolist() == [1, 2, 3] and set(axes.lines[1].get_ydata()) == {2.0}
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["one", "entropy"]
    looks = {(line.get_color(), line.get_linestyle()) for line in drawn["many lines"][0].axes[0].lines}
    assert len(looks) == 11, "two lines look alike"
    gamma = drawn["schedules"][0].axes[0].lines[0].get_ydata()
    assert gamma.tolist() == get_schedule("cosine").gamma(torch.arange(0, 1001, 100)).tolist()
    assert "cosine, linear" in drawn["schedules"][1]
    assert [bar.get_width() for bar in drawn["bars"][0].axes[0].patches] == [0.7, 0.3]
    assert "with 1 hidden" in drawn["error_by_count"][1]
    calls = drawn["points"][0].axes[0]
    assert drawn["scatter"][0].axes[0].lines[1].get_xydata().tolist() == [[4, 3]]
    assert calls.get_xscale() == "log" and calls.lines[0].get_xydata().tolist() == [[1, 2], [4, 3]]


def test_smoothing_is_a_weighted_mean_of_the_past():
    values = [3.0, 1.0, 4.0, 1.0, 5.0]
    weights = [0.9**k for k in range(5)]
    for n, found in enumerate(plots.smoothed(values, keep=0.9), start=1):
        past = values[:n][::-1]
        assert found == pytest.approx(sum(w * v for w, v in zip(weights, past, strict=False)) / sum(weights[:n]))
    assert plots.smoothed([2.0] * 5) == pytest.approx([2.0] * 5) and plots.smoothed([]) == []


# ------------------------------------------------------------------------------------------------------ tokens as text


NASTY = ["[PAD]", "[MASK]", "<script>alert(1)</script>", 'a"b', "<0x0A>"]
NASTY_TOKENIZER = SimpleNamespace(
    convert_ids_to_tokens=lambda ids: [NASTY[i] for i in ids], mask_token_id=1, pad_token_id=0
)


def test_tokens_are_text_and_never_markup():
    """A vocabulary from a stranger may hold anything."""
    ids = torch.tensor([[2, 3, 4, 1]])
    before = Frame(0, 1000.0, ids, torch.full((1, 4), 1), None)
    after = Frame(1, 0.0, ids, ids, torch.full((1, 4, 5), 0.5))
    shown = frame_html(after, before, torch.zeros(4), NASTY_TOKENIZER)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in shown and "&lt;0x0A&gt;" in shown
    assert "<script" not in shown and "<0x0A" not in shown


def test_tokens_of_bytes_are_shown_as_text():
    """Pieces of a word stand together, words apart, and no letter stands for a space."""
    tokenizer = load_tokenizer(PRETRAINED / "tinystories-mdlm")
    ids = torch.tensor([tokenizer("Lily saw a hedgehog.\nOh")["input_ids"]])
    hidden = ids.clone()
    hidden[0, 1] = tokenizer.mask_token_id
    fixed = torch.zeros(ids.shape[1], dtype=torch.bool)
    pages = [frame_html(Frame(0, 0.0, x, x, None), None, fixed, tokenizer) for x in (ids, hidden)]
    told = [re.sub("<[^>]+>", "", page) for page in pages]
    assert told[0] == "Lily saw a hedgehog.↵Oh" and told[1] == f"Lily {HIDDEN} a hedgehog.↵Oh"


def test_tokens_differ_without_colour():
    """Each kind has its own element or glyph, and a hint is quoted safely."""
    assert token_html("Mia", "hidden") == f"<samp>{HIDDEN}</samp>"
    assert token_html("Mia", "new", 'p = "1"') == '<b title="p = &quot;1&quot;">Mia</b>'
    assert token_html("Mia", "fixed") == "<i>Mia</i>"
    assert token_html("a & b", "old") == "<span>a &amp; b</span>"
    assert words_of(TEXTS[0], MICRO.tokenizer) == ["Mia", "ran", "[EOS]", "[PAD]", "[PAD]"]


# -------------------------------------------------------------------------------------------------------------- source


def test_source_is_shown_as_it_is():
    source = show_source(inverse_cdf)
    assert repr(source) == inspect.getsource(inverse_cdf)
    assert (
        html.escape("(total > 0)") in source._repr_html_()
        and 'aria-label="source of inverse_cdf"' in source._repr_html_()
    )
