"""The playground: its network, sampler and language in JavaScript against ours, and the page as a reader meets it."""

import importlib.util
import json
import shutil
import sys
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest
import torch
from browsers import PATIENCE, in_chromium, screenshot, serious_problems

from diffkit.data.tokenizer import load_tokenizer
from diffkit.languages.story_language import load_language
from diffkit.model import build_model, load_model, quiet
from diffkit.paths import PRETRAINED
from diffkit.processes.d3pm import D3PM
from diffkit.processes.masked import MaskedDiffusion
from diffkit.sampling.sampler import denoise_frames

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "make_playground.py"
SHIPPED = PRETRAINED / "tales-mdlm"
spec = importlib.util.spec_from_file_location("make_playground", SCRIPT)
assert spec and spec.loader
make_playground = importlib.util.module_from_spec(spec)
spec.loader.exec_module(make_playground)
make_playground.stories_of = cache(make_playground.stories_of)  # a large model, the same in every playground


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def save(model, tokenizer, folder):
    with quiet():
        model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def micro(tmp_path_factory):
    """A random network of another shape: no rotation, a tied head, an odd vocabulary, more positions than the text."""
    language = load_language("micro")
    process = MaskedDiffusion(language.vocab_size, language.mask_id)
    size = {"hidden_size": 24, "num_layers": 3, "num_heads": 2, "intermediate_size": 40}
    model = build_model(process, size, max_length=7, rotary=False, tied=True, language="micro")
    rng = seeded(0)
    with torch.no_grad():
        for weight in model.parameters():  # far from the quiet start, so that every part matters
            weight.add_(0.4 * torch.randn(weight.shape, generator=rng))
    return save(model, language.tokenizer, tmp_path_factory.mktemp("micro"))


@contextmanager
def opened(chromium, folder, clock=False, **settings):
    """The page from disk, every request to a host refused and counted; no error may end up in its console.

    With clock=True its time stands still until `page.clock.run_for(milliseconds)`.
    """
    context = chromium.new_context(**{"viewport": {"width": 1200, "height": 1000}, **settings})
    context.set_default_timeout(PATIENCE)
    page, asked, errors = context.new_page(), [], []
    context.route("**/*", lambda route: route.continue_() if route.request.url.startswith("file:") else route.abort())
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: message.type == "error" and errors.append(message.text))
    if clock:
        page.clock.install()
    page.goto((folder / "index.html").as_uri())
    if clock:
        page.clock.pause_at(2**41)
    yield page
    context.close()
    assert not errors and all(url.startswith(("file:", "data:")) for url in asked), (errors, asked)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The playground of the shipped model, as the course's site has it."""
    out = tmp_path_factory.mktemp("site") / "playground"
    make_playground.write_playground(SHIPPED, out)
    return out


@pytest.fixture(scope="module")
def tales_page(chromium, site):
    with opened(chromium, site) as page:
        yield page


@pytest.fixture(scope="module")
def micro_page(chromium, micro, tmp_path_factory):
    out = tmp_path_factory.mktemp("micro-site")
    make_playground.write_playground(micro, out)
    with opened(chromium, out) as page:
        yield page


def canvases(language, n=2):
    """All hidden, half hidden, clean and random canvases."""
    rng = seeded(3)
    clean = language.sample(n, rng)
    half = torch.where(torch.rand(clean.shape, generator=rng) < 0.5, language.mask_id, clean)
    random = torch.randint(language.vocab_size, clean.shape, generator=rng)
    return torch.cat([torch.full((1, language.length), language.mask_id), half, clean, random])


# ------------------------------------------------------------------------------------------- the page against diffkit


@in_chromium
@pytest.mark.parametrize("name", ["tales", "micro"])
def test_logits_are_those_of_pytorch(request, name):
    """Within 1e-4 of float32 and of float64, MASK at minus infinity, on every kind of canvas."""
    page, folder = request.getfixturevalue(f"{name}_page"), SHIPPED
    if name == "micro":
        folder = request.getfixturevalue("micro")
    language, model = load_language(name), load_model(folder)
    xt = canvases(language)
    ask = "rows => rows.map(ids => Array.from(playground.writer.denoiser.forward(ids), x => isFinite(x) ? x : null))"
    found = torch.tensor([[x if x is not None else -torch.inf for x in row] for row in page.evaluate(ask, xt.tolist())])
    found = found.view(*xt.shape, language.vocab_size)
    assert (found[..., language.mask_id] == -torch.inf).all()
    with torch.no_grad():
        for expected in (model(xt, 0.0), model.double()(xt, 0.0)):
            torch.testing.assert_close(found, expected.float(), atol=1e-4, rtol=0)
            assert expected.isfinite().sum() == expected.numel() - xt.numel()


@in_chromium
@pytest.mark.parametrize("seed", [0, 1, 20_000, 2**32 - 1])
def test_a_seed_gives_the_numbers_of_torch(tales_page, seed):
    """All 53 bits, across several refills of the generator's 624 words."""
    ask = "seed => { const rng = new TorchGenerator(seed); return Array.from(uniformNumbers(1500, rng)); }"
    assert tales_page.evaluate(ask, seed) == torch.rand(1500, generator=seeded(seed), dtype=torch.float64).tolist()


RUN_JS = """({ start, tables, uniforms, how }) => {
  const rng = { uniform: () => uniforms.shift() };
  let canvas = start;
  return tables.map((table, step) => {
    canvas = reveal(Float32Array.from(table), canvas, { ...how, step, steps: tables.length }, rng).canvas;
    return canvas;
  });
}"""


@in_chromium
@pytest.mark.parametrize("order", ["random", "confidence", "left_to_right"])
@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0, 2.0])
@pytest.mark.parametrize("steps", [1, 14, 20])
def test_equal_numbers_reveal_equal_tokens(tales_page, order, temperature, steps):
    """The same predictions and the same uniform numbers: the same canvas after every step, ties included."""
    L, V, mask_id = 20, 11, 4
    rng = seeded(steps)
    tables = torch.randn(steps, 1, L, V, generator=rng).round(decimals=1)  # rounded: equal predictions are common
    tables[:, :, ::3] = tables[:, :, :1]
    start = torch.where(torch.arange(L)[None] % 4 == 1, 7, mask_id)
    frames = denoise_frames(
        MaskedDiffusion(V, mask_id), lambda zt, t: tables[round((1 - t[0].item() / 1000) * steps)],
        start=start, steps=steps, rng=seeded(5), order=order, temperature=temperature,
    )  # fmt: skip
    expected = [frame.tokens[0].tolist() for frame in frames][1:]
    uniforms = torch.rand(2 * L * steps, generator=seeded(5), dtype=torch.float64).tolist()
    how = {"maskId": mask_id, "temperature": temperature, "order": order}
    given = {"start": start[0].tolist(), "tables": tables.flatten(1).tolist(), "uniforms": uniforms, "how": how}
    assert tales_page.evaluate(RUN_JS, given) == expected
    assert mask_id not in expected[-1]


@in_chromium
@pytest.mark.parametrize("name", ["tales", "micro"])
def test_the_exact_language_is_ours(request, name):
    """log p of visible tokens, and what could stand at each position; a canvas outside the language has neither."""
    page, language = request.getfixturevalue(f"{name}_page"), load_language(name)
    xt = canvases(language, n=3)
    ask = """rows => rows.map(ids => [playground.writer.language.logProb(ids),
      ids.map((_, i) => playground.writer.language.posterior(ids, i)).map(row => row && Array.from(row))])"""
    for ids, (log_p, rows) in zip(xt, page.evaluate(ask, xt.tolist()), strict=True):
        assert log_p == pytest.approx(language.log_prob(ids[None]).item(), abs=1e-9)
        alone = ids.repeat(len(ids), 1).fill_diagonal_(language.mask_id)  # row i: position i hidden
        total, probs = language.posterior(language.seen(alone))
        for i, row in enumerate(rows):
            assert (row is None) == (total[i] == -torch.inf)
            assert row is None or row == pytest.approx(probs[i, i].tolist(), abs=1e-9)


@in_chromium
def test_the_page_and_its_recipe_write_the_same_story(tales_page, capsys):
    """The Python that the page shows, run as it stands, prints what the page wrote."""
    page = tales_page
    page.locator("#steps").fill("12")
    page.locator("#temperature").fill("0.8")
    page.locator("#order").select_option("confidence")
    page.locator("#seed").fill("7")
    page.locator("#hide-all").click()
    for _ in range(12):
        page.locator("#step").click()
    exec(page.locator("#recipe").inner_text(), {})
    written = capsys.readouterr().out.strip()
    assert len(written) > 40 and page.locator("#story").inner_text() == written
    assert "48 network calls" not in page.locator("#numbers").inner_text()
    assert "12 network calls" in page.locator("#numbers").inner_text()


# -------------------------------------------------------------------------------------------- the page and its reader


def canvas_of(page):
    return page.evaluate("playground.writer.canvas")


def said(page):
    """What a screen reader is told."""
    return page.locator("#status[role=status][aria-live=polite]").inner_text()


@in_chromium
def test_a_story_unmasks_pauses_and_goes_on(chromium, site):
    """Nothing starts by itself; Start, Pause, Step, Go on and Again do what they say, Again with the next seed."""
    with opened(chromium, site, clock=True) as page:
        page.clock.run_for(5000)
        assert page.locator(".token.hidden").count() == 48 and "░░░" in page.locator(".token").first.inner_text()
        page.locator("#steps").fill("6")
        page.locator("#go").click()
        assert page.locator("#go").inner_text() == "Pause"
        page.clock.run_for(2000)
        paused = canvas_of(page)
        assert paused.count(1) == 32, "two steps of six in two seconds"
        page.locator("#go").click()
        assert page.locator("#go").inner_text() == "Go on" and "Paused at step 2 of 6" in said(page)
        page.clock.run_for(5000)
        assert canvas_of(page) == paused
        page.locator("#step").click()
        fresh = [i for i, id in enumerate(canvas_of(page)) if id != paused[i]]
        assert len(fresh) == 8 == page.locator(".token.new").count()
        weight = "all => all.map(e => getComputedStyle(e).fontWeight)"
        assert set(page.locator(".token.new .glyph").evaluate_all(weight)) == {"700"}  # not by colour alone
        page.locator("#go").click()
        page.clock.run_for(5000)
        assert page.locator(".token.hidden").count() == 0 and page.locator("#go").inner_text() == "Again"
        belongs = load_language("tales").log_prob(torch.tensor([canvas_of(page)])).isfinite().item()
        assert "Finished after 6 steps" in said(page) and ("Not a story" not in said(page)) == belongs
        first = canvas_of(page)
        page.locator("#go").click()
        assert page.locator("#seed").input_value() == "1"
        page.clock.run_for(9000)
        assert 1 not in canvas_of(page) and canvas_of(page) != first


@in_chromium
def test_words_are_hidden_locked_and_refilled(chromium, site):
    """Only hidden positions are written anew; locked ones outlive Hide all; a click on a hidden one fills it alone."""
    with opened(chromium, site) as page:
        page.locator("#steps").fill("1")
        page.locator("#step").click()
        story, mask_id = canvas_of(page), 1
        tokens = page.locator(".token")
        for position in (0, 3):
            tokens.nth(position).click()
        assert [i for i, id in enumerate(canvas_of(page)) if id == mask_id] == [0, 3]
        assert page.locator("#go").inner_text() == "Refill 2"
        page.locator("#step").click()
        refilled = canvas_of(page)
        assert mask_id not in refilled and refilled[1:3] + refilled[4:] == story[1:3] + story[4:]
        page.get_by_label("locks it").check()
        tokens.nth(5).click()
        style = tokens.nth(5).locator(".glyph").evaluate("e => getComputedStyle(e).borderBottomStyle")
        assert style == "double" and "locked" in tokens.nth(5).inner_text()
        page.get_by_label("hides it").check()
        tokens.nth(5).click()
        assert canvas_of(page)[5] == story[5] and "is locked" in said(page)
        page.locator("#hide-all").click()
        assert [i for i, id in enumerate(canvas_of(page)) if id != mask_id] == [5]
        tokens.nth(9).click()
        assert page.locator(".token.hidden").count() == 46 and canvas_of(page)[9] != mask_id


@in_chromium
def test_the_keyboard_is_enough(chromium, site):
    """Tab reaches everything, arrows move in the canvas, Enter and Space hide, L locks, predictions follow."""
    with opened(chromium, site) as page:
        press = page.keyboard.press
        page.locator("#steps").focus()
        press("Home")
        assert page.locator("#steps-shown").inner_text() == "1"
        page.locator("#step").focus()
        press("Enter")
        story = canvas_of(page)
        for _ in range(6):  # past Hide all and the choice of what a click does, into the canvas
            press("Tab")
            if page.evaluate("document.activeElement.classList.contains('token')"):
                break
        press("ArrowRight")
        press("ArrowDown")  # position 9 of a grid eight wide
        page.wait_for_function("document.getElementById('prediction-position').textContent.startsWith('Position 10,')")
        assert page.locator("#prediction tbody tr").count() == 5
        press("Enter")
        press("ArrowLeft")
        press("Space")
        assert [i for i, id in enumerate(canvas_of(page)) if id == 1] == [8, 9]
        press("Home")
        press("l")
        assert page.evaluate("playground.writer.locked[0]") and "locked" in said(page)
        press("End")
        assert page.evaluate("document.activeElement === playground.tokens[47]")
        assert canvas_of(page)[:8] == story[:8]


@in_chromium
def test_beliefs_are_the_models_and_the_exact_ones(tales_page):
    """The percentages of the table are the model's softmax with that position hidden, and the exact posterior."""
    page, language, model = tales_page, load_language("tales"), load_model(SHIPPED)
    ids = language.sample(1, seeded(2))
    page.locator("#temperature").fill("1")
    page.evaluate(
        "ids => { playground.writer.change(ids, ids.map(() => false)); playground.render(); }", ids[0].tolist()
    )
    page.locator(".token").nth(4).hover()
    page.wait_for_function("document.getElementById('prediction-position').textContent.startsWith('Position 5,')")
    given = ids.index_fill(1, torch.tensor([4]), language.mask_id)
    with torch.no_grad():
        best = model(given, 0.0)[0, 4].softmax(-1).topk(5)
    exact = language.posterior(language.seen(given))[1][0, 4]
    rows = [row.split() for row in page.locator("#prediction tbody tr").all_inner_texts()]
    for (word, shown, true), p, v in zip(rows, best.values, best.indices, strict=True):
        assert word == language.tokenizer.convert_ids_to_tokens(v.item())
        for text, number in ((shown, p), (true, exact[v])):
            assert float(text.strip("<>%")) == pytest.approx(100 * number.item(), abs=0.55)


@in_chromium
def test_no_serious_accessibility_problem_in_light_and_dark(chromium, site):
    """axe-core, in the middle of a story; the system's theme and the one chosen on the course's pages both count."""
    grounds = {}
    with opened(chromium, site) as page:
        page.locator("#steps").fill("3")
        page.locator("#step").click()
        page.locator(".token:not(.hidden)").first.focus()
        page.keyboard.press("l")
        page.wait_for_selector("#prediction tbody tr")
        for theme in ("light", "dark"):
            page.emulate_media(color_scheme=theme)
            grounds[theme] = page.evaluate("getComputedStyle(document.body).backgroundColor")
            assert serious_problems(page) == []
            screenshot(page, f"playground-{theme}", full_page=True)
        page.evaluate("localStorage.setItem('theme', 'light')")
        page.reload()
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == grounds["light"] != grounds["dark"]


@in_chromium
def test_a_narrow_screen_shows_everything(chromium, site):
    """400 pixels wide: nothing is cut off at the side."""
    with opened(chromium, site, viewport={"width": 400, "height": 900}) as page:
        page.locator("#steps").fill("1")
        page.locator("#step").click()
        assert page.evaluate("document.documentElement.scrollWidth") <= 400
        widths = page.locator(".token .glyph").evaluate_all(
            "all => all.map(e => [e.offsetWidth, e.parentNode.clientWidth])"
        )
        assert all(glyph <= token for glyph, token in widths)
        screenshot(page, "playground-narrow", full_page=True)


@in_chromium
def test_the_source_folder_says_what_is_missing(chromium, tmp_path):
    """The page opened without its weights names the command that makes them."""
    shutil.copytree(ROOT / "docs" / "playground", tmp_path / "page", ignore=shutil.ignore_patterns("weights.js"))
    page = chromium.new_page()
    page.goto((tmp_path / "page" / "index.html").as_uri())
    said = page.locator("#status").inner_text()
    assert "weights.js is missing" in said and "scripts/make_playground.py" in said
    assert page.locator("#go").is_disabled()
    page.close()


# ------------------------------------------------------------------------------------------------------- the exporter


def test_the_numbers_on_the_page_come_from_the_models_folder(tmp_path, monkeypatch):
    """Settings, words, evaluation and grammar as they are there; the command line writes where it is told."""
    out = tmp_path / "site" / "playground"
    monkeypatch.setattr(sys, "argv", ["make_playground.py", str(out)])
    make_playground.main()
    text = (out / "weights.js").read_text(encoding="ascii")
    told = json.loads(text.partition("const SHIPPED = ")[2].rstrip(";\n"))
    evaluation = json.loads((SHIPPED / "evaluation.json").read_text(encoding="utf-8"))
    assert told["evaluation"] == evaluation and told["parameters"] == evaluation["parameters"]
    assert told["words"][told["mask_id"]] == "[MASK]" and len(told["words"]) == 166
    assert len(told["language"]["templates"]) == len(load_language("tales").grammar.templates)
    assert sum(path.stat().st_size for path in out.iterdir() if path.is_file()) < 5_000_000
    assert sorted(path.name for path in out.iterdir()) == sorted(
        ["weights.js", *(path.name for path in (ROOT / "docs" / "playground").iterdir() if path.name != "weights.js")]
    )


def test_nothing_on_the_page_runs_text_or_asks_a_host():
    """No eval, no HTML from strings, no fetch, no address but the course's own."""
    for path in (ROOT / "docs" / "playground").rglob("*.*"):
        if path.name in ("weights.js", "code.js"):
            continue
        source = path.read_text(encoding="utf-8")
        for forbidden in ("eval(", "innerHTML", "insertAdjacentHTML", "new Function", "fetch(", "http://", "https://"):
            assert forbidden not in source, f"{path.name} has {forbidden}"
        assert len(source.splitlines()) <= 330 and max(map(len, source.splitlines())) <= 120, path.name


def test_other_models_are_refused_with_what_was_expected(tmp_path):
    """Another process, an input for time, a network that looks left, tokens that are pieces of words."""
    micro = load_language("micro")
    V, mask_id = micro.vocab_size, micro.mask_id
    pieces = load_tokenizer(PRETRAINED / "tinystories-mdlm")
    masked = MaskedDiffusion(V, mask_id)
    cases = {
        "expected a model of process 'mdlm', got 'd3pm'": (D3PM(V, mask_id=mask_id), {}, micro.tokenizer),
        "expected a network with time='none', got time='adaln'": (masked, {"time": "adaln"}, micro.tokenizer),
        "expected a network with labels=0, got labels=3": (masked, {"labels": 3}, micro.tokenizer),
        "expected a tokenizer of whole words": (MaskedDiffusion(len(pieces), pieces.mask_token_id), {}, pieces),
    }
    for i, (message, (process, settings, tokenizer)) in enumerate(cases.items()):
        folder = save(build_model(process, "pico", max_length=8, **settings), tokenizer, tmp_path / str(i))
        with pytest.raises(ValueError, match=message.replace("(", r"\(")):
            make_playground.write_playground(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()
