"""The course as web pages: whole, sound, usable by keyboard and screen reader, and silent towards other hosts.

The site is built once. What goes into it, and the walk over its links, are also tested alone on small cases.
"""

import json
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from browsers import PATIENCE, in_chromium, screenshot, serious_problems, stored_player
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "docs" / "_extensions")]

import check_site  # noqa: E402
import docstrings  # noqa: E402
import make_site  # noqa: E402
import mathml  # noqa: E402
from sphinx.errors import ExtensionError  # noqa: E402

NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
PLAYED = "notebooks/00_start_here.html"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site as `make site` builds it; what is unchanged since the last build is taken from there."""
    folder = tmp_path_factory.mktemp("site") / "pages"
    command = [sys.executable, str(ROOT / "scripts" / "make_site.py"), "--out", str(folder)]
    built = subprocess.run(command, capture_output=True, text=True, encoding="utf-8")
    assert built.returncode == 0, built.stdout + built.stderr
    assert "0 problems" in built.stdout and folder.as_uri() in built.stdout, "it says where to open the site"
    return folder


# ------------------------------------------------------------------------------------------------ what goes into a page


def output(data, **metadata):
    return new_output("execute_result", data=data, metadata=metadata, execution_count=1)


def page_of(*outputs):
    cells = [new_markdown_cell("# Title"), new_code_cell("show()", outputs=list(outputs), execution_count=1)]
    return make_site.page_of(new_notebook(cells=cells), "07_made_up.ipynb")


def test_a_player_becomes_data_that_no_text_can_break_out_of():
    player = {"title": "a </script><!-- b", "words": ["é"]}
    view = {make_site.WIDGET_VIEW: {"model_id": "x"}, "text/html": "<p>strip</p>", "text/plain": "Player"}
    shown = page_of(output(view, diffkit={"player": player})).cells[-1].outputs[0].data
    assert set(shown) == {"text/html", "text/plain"}, "the live view needs a kernel and goes"
    html = shown["text/html"]
    start, end = html.index('class="dk-data">') + len('class="dk-data">'), html.index("</script>")
    assert json.loads(html[start:end]) == player and "<!--" not in html
    assert html[end:] == "</script><p>strip</p></div>", "the film strip stays for those without scripts"


def test_pictures_keep_their_words_and_sources_become_code():
    picture = {"image/png": "aGk=\n", "text/plain": "Picture"}
    page = page_of(output(dict(picture), **{"image/png": {"alt": 'a "line"'}}))
    assert page.cells[-1].metadata["mystnb"] == {"image": {"alt": 'a "line"'}}
    two = page_of(*[output(dict(picture), **{"image/png": {"alt": f"<{i}>"}}) for i in range(2)])
    found = [check_site.Page(one.data["text/html"]) for one in two.cells[-1].outputs]
    assert [page.loaded for page in found] == [["data:image/png;base64,aGk="]] * 2 and not found[0].no_alt
    source = {"text/html": '<pre class="dk-source" aria-label="source of f">', "text/plain": "def f(): ..."}
    assert page_of(output(source)).cells[-1].outputs[0].data == {"text/markdown": "```python\ndef f(): ...\n```"}
    assert "notebooks/07_made_up.ipynb" in page.cells[1].source and "make lab" in page.cells[1].source


def test_the_player_is_loaded_as_a_classic_script():
    """A page opened from disk may not load modules."""
    script = make_site.classic_script("function mount(el, data) {}\n" + make_site.EXPORTS)
    assert "export" not in script and script.startswith("(() =>")
    with pytest.raises(ValueError, match="must end with"):
        make_site.classic_script("function mount() {}\n")


def test_formulas_become_mathml():
    written = mathml.mathml(r"\sum_{i\ \mathrm{masked}} -\log p(x_i)", "block")
    assert written.startswith("<math") and 'display="block"' in written and "alttext=" in written
    assert written.count("mspace") > mathml.mathml(r"\log(p)", "inline").count("mspace") == 0
    assert "msup" not in mathml.mathml(r"\gamma'(t)", "inline"), "a prime is no exponent"
    assert "⏟" not in mathml.mathml(r"\underbrace{a}_{b}", "inline")
    for wrong in (r"\nosuchcommand{x}", "x_"):
        with pytest.raises(ExtensionError, match="mathml: "):
            mathml.mathml(wrong, "inline")


def test_docstrings_are_read_as_plain_text():
    lines = ["Keep `x` of x_ and *y*.", "", "Args:   a: one;", "        b: `two words`.", "Source: arXiv:2406.07524."]
    first, *fields = [line for line in docstrings.to_rst([*lines, "", "    code *here*"]) if line]
    assert first == r"Keep \ :py:obj:`x`\  of x\_ and \*y\*."
    assert fields[0] == r":Args: a: one; b: \ ``two words``\ ."
    assert "<https://arxiv.org/abs/2406.07524>" in fields[1]
    assert fields[2:] == ["::", "    code *here*"]
    shown = docstrings.to_rst(["Source: a paper.", "", ">>> f(x_)", "`y`"])
    assert shown == [":Source: a paper.", "", ">>> f(x_)", "`y`", "", ""], "an example stays as it is"


# ------------------------------------------------------------------------------------------------- the walk over a site


def walked(folder, body, **files):
    """Problems of a site of one page with this body."""
    for name, text in files.items():
        (folder / name.replace("_", ".")).write_text(text, encoding="utf-8")
    (folder / "index.html").write_text(f"<html><body>{body}</body></html>", encoding="utf-8")
    return check_site.check_site(folder)


def test_a_sound_page_has_no_problems(tmp_path):
    body = (
        '<h1 id="top1">x</h1><a href="other.html#there">a</a><a href="#top1">b</a><a href="https://arxiv.org/">c</a>'
        '<img src="data:image/png;base64,aGk=" alt="hi"><svg xmlns="http://www.w3.org/2000/svg"></svg>'
        "<p>from https://arxiv.org/ <code>$\\gamma</code></p><script>const ns = 'http://www.w3.org/2000/svg'; // see https://x.org</script>"
    )
    problems, external = walked(tmp_path, body, other_html='<p id="there">')
    assert not problems and external == {"https://arxiv.org/": ["index.html"]}


@pytest.mark.parametrize(
    ("body", "what"),
    [
        ('<a href="gone.html">x</a>', "no such file"),
        ('<a href="other.html#gone">x</a>', "no such anchor"),
        ('<a href="#gone">x</a>', "no such anchor"),
        ('<a href="/index.html">x</a>', "a path of one machine"),
        ('<a href="file:///home/me/index.html">x</a>', "a path of one machine"),
        ('<a href="http://localhost:8888/lab">x</a>', "a path of one machine"),
        ('<a href="http://arxiv.org/">x</a>', "not https"),
        ('<script src="https://cdn.example/require.js"></script>', "from another host"),
        ('<script src="//cdn.example/require.js"></script>', "from another host"),
        ('<link rel="stylesheet" href="https://fonts.example/a.css">', "from another host"),
        ('<img src="https://pictures.example/a.png" alt="a">', "from another host"),
        ('<img src="gone.png" alt="a">', "no such file"),
        ('<img src="data:image/png;base64,aGk=">', "without alternative text"),
        ("<script>fetch('https://host.example/x')</script>", "a script loads"),
        ("<script>import('https://host.example/x')</script>", "a script loads"),
        ("<style>@font-face {src: url(https://fonts.example/a.woff2)}</style>", "a style loads"),
        ("<p style=\"background: url('//host.example/a.png')\">x</p>", "a style loads"),
        ('<p id="a"></p><p id="a"></p>', "is there 2 times"),
        ("<p>Error displaying widget</p>", "shows"),
        (r"<p>$\gamma(t)</p>", "as it was written"),
        ("<p>see [gamma](glossary.md#gamma)</p>", "as it was written"),
    ],
)
def test_a_planted_fault_is_found(tmp_path, body, what):
    problems, _ = walked(tmp_path, body, other_html='<p id="there">')
    assert len(problems) == 1 and what in problems[0], problems


def test_scripts_and_styles_in_files_are_read_too(tmp_path):
    problems, _ = walked(tmp_path, "", a_js='new Worker("https://host.example/w.js")', b_css='@import "//host.example"')
    assert [problem.split(":")[0] for problem in problems] == ["a.js", "b.css"]


def test_no_site_is_told_in_one_line(tmp_path):
    with pytest.raises(FileNotFoundError, match="make site"):
        check_site.check_site(tmp_path)


# ------------------------------------------------------------------------------------------------------- the built site


@pytest.mark.slow
def test_every_notebook_is_there_with_what_it_printed(site):
    for path in NOTEBOOKS:
        page = check_site.Page((site / "notebooks" / f"{path.stem}.html").read_text(encoding="utf-8"))
        seen = " ".join(page.visible.split())
        cells = nbformat.read(path, as_version=4).cells
        outputs = [output for cell in cells for output in cell.get("outputs", [])]
        printed = [output.text for output in outputs if output.output_type == "stream"]
        missing = [text for text in printed if " ".join(text.split()) not in seen]
        assert printed and not missing, f"{path.name}: {missing[:1]}"
        pictures = sum("image/png" in output.get("data", {}) for output in outputs)
        assert sum("_images/" in one or one.startswith("data:image/png") for one in page.loaded) == pictures, path.name
        hints = sum(cell.source.count("<details>") for cell in cells if cell.cell_type == "markdown")
        html = (site / "notebooks" / f"{path.stem}.html").read_text(encoding="utf-8")
        assert html.count("<details>") == hints, path.name
        assert ("$" in "".join(cell.source for cell in cells if cell.cell_type == "markdown")) <= ("<math" in html)
        assert "MathJax" not in html


@pytest.mark.slow
def test_the_other_pages_are_there(site):
    names = "CONTRIBUTING CHANGELOG EXPERIMENTS docs/costs docs/maintainers/promises notebooks/glossary"
    for name in names.split():
        assert (site / f"{name}.html").is_file(), name
    api = (site / "api" / "processes.html").read_text(encoding="utf-8")
    assert 'id="diffkit.processes.masked.corrupt"' in api and "forward process" in api
    assert (site / "playground" / "weights.js").is_file()
    glossary = check_site.Page((site / "notebooks" / "glossary.html").read_text(encoding="utf-8"))
    assert {"gamma", "exact-denoiser"} <= set(glossary.ids)


@pytest.mark.slow
def test_the_next_page_is_the_next_notebook(site):
    for path, following in zip(NOTEBOOKS, NOTEBOOKS[1:], strict=False):
        html = (site / "notebooks" / f"{path.stem}.html").read_text(encoding="utf-8")
        assert f'<link rel="next" title="{following.stem[:2]}' in html, path.name


# --------------------------------------------------------------------------------------------------------- in a browser


@pytest.fixture(scope="module")
def reader(site, chromium):
    """A page that opens the site from disk; every request to a host is refused and noted."""
    context = chromium.new_context(viewport={"width": 1300, "height": 1000}, color_scheme="light")
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    page.asked, page.errors, page.site = [], [], site.as_uri()
    context.route(lambda url: not url.startswith(("file:", "data:", "blob:")), lambda route: route.abort())
    page.on("request", lambda request: page.asked.append(request.url))
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    yield page
    hosts = [url for url in page.asked if not url.startswith(("file:", "data:", "blob:"))]
    context.close()
    assert hosts == [], "the site asked other hosts"
    assert page.errors == [], "a script of the site failed"


@in_chromium
def test_the_player_plays_from_disk(reader):
    """Without a server, a kernel or a network; its texts are the frames of the notebook."""
    reader.goto(f"{reader.site}/{PLAYED}")
    player = reader.locator(".dk-mount .dk-player").first
    caption = player.locator(".dk-caption")
    assert "Step 0 of" in caption.inner_text()
    assert reader.locator(".dk-mount").first.locator(".dk-data").count() == 0, "the film strip has made room"
    player.locator(".dk-play").click()
    reader.wait_for_function("text => !document.querySelector('.dk-caption').innerText.includes(text)", arg="Step 0 of")
    player.locator(".dk-play").click()
    player.locator(".dk-slider").press("End")
    data = stored_player(Path(PLAYED).stem)
    assert caption.inner_text() == data["captions"][-1]
    words = player.locator(".dk-text").inner_text().split()
    assert words and set(words) <= set(data["words"]) | {"·"}
    screenshot(reader, "site_player")


@in_chromium
def test_search_finds_a_word_from_disk(reader):
    reader.goto(f"{reader.site}/index.html")
    reader.get_by_role("searchbox").or_(reader.locator("input[name=q]")).first.fill("nucleus")
    reader.keyboard.press("Enter")
    reader.wait_for_selector("#search-results li a")
    found = reader.locator("#search-results li a").evaluate_all("links => links.map(link => link.getAttribute('href'))")
    assert any("glossary" in link or "06_sampling" in link for link in found), found
    screenshot(reader, "site_search")


@in_chromium
def test_dark_mode_toggles_and_stays(reader):
    reader.goto(f"{reader.site}/index.html")
    background = "getComputedStyle(document.body).backgroundColor"
    light, toggle = reader.evaluate(background), reader.locator("button.theme-toggle:visible").first
    for _ in range(3):  # auto, light, dark, in an order that the theme chooses
        toggle.click()
        if reader.evaluate("document.body.dataset.theme") == "dark":
            break
    dark = reader.evaluate(background)
    assert dark != light and sum(map(int, dark.strip("rgb()").split(","))) < 150
    reader.goto(f"{reader.site}/api.html")
    assert reader.evaluate("document.body.dataset.theme") == "dark"
    reader.evaluate("localStorage.removeItem('theme')")


@in_chromium
@pytest.mark.parametrize(
    "name", ["index", "notebooks/00_start_here", "notebooks/07_evaluation", "notebooks/glossary", "api/evaluation"]
)
def test_axe_finds_no_serious_problem(reader, name):
    reader.goto(f"{reader.site}/{name}.html")
    for scheme in ("light", "dark"):
        reader.emulate_media(color_scheme=scheme)
        assert serious_problems(reader) == [], (name, scheme)
        screenshot(reader, f"site_{name.replace('/', '_')}_{scheme}")


@in_chromium
def test_what_scrolls_is_reached_by_keyboard_and_a_phone_shows_it_all(reader):
    reader.set_viewport_size({"width": 400, "height": 900})
    reader.emulate_media(color_scheme="light")
    for name in ("index", "notebooks/02_noise_schedules", "api/processes"):
        reader.goto(f"{reader.site}/{name}.html")
        wide = reader.evaluate("document.documentElement.scrollWidth")
        assert wide <= 400, f"{name} is {wide} pixels wide on a screen of 400"
        unreachable = (
            "[...document.querySelectorAll('pre')].filter(p => p.scrollWidth > p.clientWidth + 1 && p.tabIndex)"
        )
        assert reader.evaluate(f"{unreachable}.length") == 0, name
    screenshot(reader, "site_phone")
    reader.set_viewport_size({"width": 1300, "height": 1000})
