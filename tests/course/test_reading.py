"""What notebooks show to be read: source code, drawings, the difference of two files."""

import ast
import html.parser
import re
import xml.etree.ElementTree as ET

import pytest
import torch

from diffkit.course import one_page, plots
from diffkit.course.diagrams import data, insertion, noise
from diffkit.course.widgets.source import coloured, core_of, show_source
from diffkit.processes import masked
from diffkit.processes.schedules import get_schedule

CODE = '''
def half(x):
    """What it does."""
    if x < 0:
        raise ValueError("no")  # a check
    if x > 9:
        return 9  # not a check
    # said aloud
    return x / 2
'''


def test_the_core_has_no_docstring_and_no_checks():
    core = core_of(CODE)
    assert core.split("\n") == ["", "def half(x):", "    if x > 9:", "        return 9  # not a check",
                                "    # said aloud", "    return x / 2", ""]  # fmt: skip


@pytest.mark.parametrize("thing", [masked.corrupt, masked.MaskedDiffusion, masked.subs_log_probs, get_schedule])
def test_what_is_left_is_the_same_program(thing):
    """Python reads the core, and it names nothing new; the whole is shown where it is asked for."""
    shown = show_source(thing, core=True)
    assert ast.parse(repr(shown)) and '"""' not in repr(shown) and "raise" not in repr(shown)
    assert set(repr(shown).splitlines()) <= set(repr(show_source(thing)).splitlines())


class Text(html.parser.HTMLParser):
    """The text of HTML, tags left out."""

    def __init__(self, page):
        super().__init__()
        self.text = ""
        self.feed(page)

    def handle_data(self, data):
        self.text += data


def test_colours_change_no_letter():
    code = 'x = "<b>&amp;"  # 1 < 2\n'
    assert Text(coloured(code)).text == code and "<q>" in coloured(code) and "<i>" in coloured(code)


@pytest.mark.parametrize(
    "picture", [noise.there_and_back, noise.hit_times, data.documents_to_batch, insertion.deleted_and_inserted]
)
def test_a_drawing_has_a_text_alternative_and_stays_inside(picture):
    drawing = picture()
    svg = ET.fromstring(drawing._repr_html_())
    width, height = map(float, svg.get("viewBox").split()[2:])
    assert svg.get("role") == "img" and svg.get("aria-label") == drawing.alt and len(drawing.alt) > 80
    for text in svg.iter("text"):
        half = 3.4 * len(text.text or "") * int(text.get("font-size")) / 13
        x, anchor = float(text.get("x")), text.get("text-anchor")
        left = {"start": 0, "middle": half, "end": 2 * half}[anchor]
        assert -2 <= x - left and x - left + 2 * half <= width + 2 and 0 <= float(text.get("y")) <= height, text.text


def test_the_step_in_the_drawing_reveals_what_it_says():
    """Tokens hit after s and by t come back."""
    svg = noise.hit_times(s=350, t=620)._repr_html_()
    assert svg.count(">revealed<") == sum(350 < hit <= 620 for hit in noise.HIT) == 2


def test_the_difference_of_two_files_is_whole():
    """Lines that differ are shown, the others counted; together they are both files."""
    masked_one, other = one_page.load_example("nano_mdlm"), one_page.load_example("nano_gpt")
    shown = one_page.difference(masked_one, other)
    page = shown._repr_html_()
    counts = [int(n) for n in re.findall(r"(\d+) lines? the same", page)]
    assert sum(counts) == shown.equal and "is_causal=True" in Text(page).text
    assert f"{shown.equal} are the same" in repr(shown)
    differing = sum(b - a for kind, a, b, _, _ in shown.steps if kind != "equal")
    assert differing + shown.equal == len(shown.lines[0])


def test_categories_have_names_and_no_scale():
    picture = plots.categories(
        torch.tensor([[0, 1], [2, 2]]), ["a", "b", "c"], title="t", x_label="x", y_label="y", alt="An alternative."
    )
    assert picture.alt == "An alternative." and picture.png.startswith(b"\x89PNG")
