"""The page of real stories: its 16-bit network, filters, order and pieces against diffkit's, and its reader."""

import json
from pathlib import Path

import pytest
import torch
from browsers import in_chromium, javascript_beside, screenshot, serious_problems
from test_playground import make_playground, opened, save

from diffkit.data.tokenizer import load_tokenizer
from diffkit.languages.story_language import load_language
from diffkit.model import build_model, load_model
from diffkit.paths import PRETRAINED
from diffkit.processes.autoregressive import Autoregressive
from diffkit.processes.block import BlockDiffusion
from diffkit.processes.masked import MaskedDiffusion
from diffkit.sampling.logits import top_p_filter
from diffkit.sampling.sampler import sample

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "playground"
FILES = ["model.js", "sample.js", "stories/write.js", "stories/pieces.js"]
CODE = "\n".join((FOLDER / name).read_text(encoding="utf-8") for name in FILES)
L = 12
PIECES = load_tokenizer(make_playground.STORIES[0])
SHIPPED = dict(zip(["block", "mdlm"], make_playground.STORIES, strict=True))
PROCESSES = {
    "block": BlockDiffusion(len(PIECES), PIECES.mask_token_id, block=5),  # the last block is shorter
    "mdlm": MaskedDiffusion(len(PIECES), PIECES.mask_token_id),
}


@pytest.fixture(scope="module")
def javascript(request):
    return javascript_beside(CODE, request)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Random models of the shape of the shipped ones, made small: tied, six heads, a tokenizer of bytes."""
    folders, size = {}, {"hidden_size": 48, "num_layers": 2, "num_heads": 6, "tied": True}
    for name, process in PROCESSES.items():
        torch.manual_seed(0)
        model = build_model(process, size, max_length=L)
        with torch.no_grad():
            for weight in model.parameters():
                weight.add_(0.15 * torch.randn_like(weight))
        folders[name] = save(model, PIECES, tmp_path_factory.mktemp(name))
    own = {"order": "entropy", "temperature": None, "top_p": 0.7}
    (folders["mdlm"] / "generation_config.json").write_text(json.dumps(own), encoding="utf-8")
    return folders


def test_a_setting_without_a_value_is_plain(small):
    about, _ = make_playground.stories_of(small["mdlm"])
    assert about["how"] == {"order": "entropy", "temperature": 1.0, "top_p": 0.7}


@pytest.mark.parametrize("name", ["block", "mdlm"])
@pytest.mark.parametrize("size", ["shipped", "small"])
def test_logits_of_sixteen_bits_are_those_of_pytorch(javascript, small, name, size):
    """Within 1e-2 of the float32 model, at the positions that are asked for; MASK is never an answer."""
    folder = SHIPPED[name] if size == "shipped" else small[name]
    model, (_, told) = load_model(folder), make_playground.stories_of(folder)
    rng, mask_id, where = torch.Generator().manual_seed(0), told["mask_id"], [0, 3, 7, 11]
    xt = torch.randint(told["config"]["vocab_size"], (2, L), generator=rng)
    xt[torch.rand(xt.shape, generator=rng) < 0.5] = mask_id
    ask = """({ told, rows, where }) => {
      const denoiser = new Denoiser(told.config, unpack(told.weights));
      return rows.map((ids) => Array.from(denoiser.forward(ids, where), (x) => (isFinite(x) ? x : null)));
    }"""
    found = javascript(ask, {"told": told, "rows": xt.tolist(), "where": where})
    found = torch.tensor([[-torch.inf if x is None else x for x in row] for row in found]).view(2, len(where), -1)
    with torch.no_grad():
        expected = model(torch.cat([xt, xt], 1) if name == "block" else xt, 0.0)[:, where]
    torch.testing.assert_close(found, expected, atol=1e-2, rtol=0)
    assert (found[..., mask_id] == -torch.inf).all()


def test_what_was_read_need_not_be_read_again(javascript, small):
    """To the last digit, as blocks fill, when an earlier token changes, and for the shorter last block."""
    _, told = make_playground.stories_of(small["block"])
    mask, ids = told["mask_id"], torch.randint(400, (L,), generator=torch.Generator().manual_seed(2)).tolist()
    changed = [*ids[:2], 7, *ids[3:]]
    calls = [
        ([mask] * 5, [3]), ([mask] * 3 + ids[3:4] + [mask], [0, 4]), (ids[:5] + [mask] * 5, [6, 9]),
        (ids[:10] + [mask] * 2, [10, 11]), (changed[:10] + [mask] * 2, [11]), (changed[:6] + [mask] * 4, [7]),
        (ids[:5] + [mask] * 5, [2, 8]),
    ]  # fmt: skip
    ask = """({ told, calls }) => {
      const plain = new Denoiser(told.config, unpack(told.weights)), cached = new CachedDenoiser(plain);
      return calls.map(([ids, where]) => {
        const expected = plain.forward(ids, where), found = cached.forward(ids, where);
        return [found.length === expected.length && found.every((x, i) => x === expected[i]), cached.cache.length];
      });
    }"""
    found = javascript(ask, {"told": told, "calls": calls})
    assert found == [[True, read] for read in (0, 0, 0, 5, 0, 5, 0)]


@pytest.mark.parametrize("order", ["random", "confidence", "entropy", "blocks"])
@pytest.mark.parametrize("steps", [2, 5])
def test_a_seed_writes_the_same_text_as_diffkit(javascript, small, order, steps):
    """With the same 16-bit weights: temperature, then top-p, then the order, with given pieces in the middle."""
    folder = small["block" if order == "blocks" else "mdlm"]
    model, (_, told) = load_model(folder), make_playground.stories_of(folder)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(weight.half())
    start = torch.full((1, L), told["mask_id"])
    start[0, 4:6] = torch.tensor([300, 17])
    how = {"start": start, "steps": steps, "temperature": 0.8, "top_p": 0.9}
    how |= {} if order == "blocks" else {"order": order}
    expected = sample(model.process, model, rng=torch.Generator().manual_seed(3), **how)
    ask = """({ told, start, steps, order }) => {
      const plain = new Denoiser(told.config, unpack(told.weights)), rng = new TorchGenerator(3), canvas = start;
      const denoiser = order === "blocks" ? new CachedDenoiser(plain) : plain;
      for (let step = 0; step < steps; step++) {
        const how = { maskId: told.mask_id, temperature: 0.8, topP: 0.9, order, step, steps };
        const { positions, ids } = (order === "blocks" ? revealBlocks : revealSome)(denoiser, canvas, how, rng);
        positions.forEach((position, n) => { canvas[position] = ids[n]; });
      }
      return canvas;
    }"""
    given = {"told": told, "start": start[0].tolist(), "steps": steps, "order": order}
    assert javascript(ask, given) == expected[0].tolist()


@pytest.mark.parametrize("p", [0.3, 0.85, 1.0])
def test_the_nucleus_is_that_of_top_p(javascript, p):
    logits = torch.randn(40, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).round(decimals=1)
    kept = javascript(f"(probs) => [...nucleus(Float64Array.from(probs), {p})]", logits.softmax(-1).tolist())
    assert kept == pytest.approx(top_p_filter(p)(logits).softmax(-1).tolist(), rel=1e-9, abs=0)


def test_halves_are_those_of_numpy(javascript):
    """All 65,536 but infinity and what is no number: signs, the smallest, the largest."""
    words = torch.arange(2**16).to(torch.uint16)
    numbers = words.view(torch.float16).double()
    finite = numbers.isfinite()
    found = javascript("(words) => [...halves(Uint16Array.from(words))]", words.int()[finite].tolist())
    assert found == numbers[finite].tolist()


def test_pieces_are_the_text_of_the_tokenizer(javascript):
    """Blanks, line ends and letters of several bytes."""
    ids = PIECES('Once upon a time,\n\n"naïve" said Zoë – “no” … 日.')["input_ids"]
    pieces = PIECES.convert_ids_to_tokens(ids)
    whole = javascript('(pieces) => textOf(pieces.join(""))', pieces)
    assert whole == PIECES.decode(ids) and "Zoë" in whole
    assert javascript("(pieces) => pieces.map(textOf)", pieces)[:3] == ["Once", " upon", " a"]


def test_other_models_are_refused(tmp_path):
    """Whole words, a network that looks left, labels."""
    micro, block, pieces = load_language("micro"), PROCESSES["block"], len(PIECES)
    words = MaskedDiffusion(micro.vocab_size, micro.mask_id)
    cases = {
        "expected a tokenizer of bytes": (words, {}, micro.tokenizer),
        "'block' or 'mdlm', got 'autoregressive'": (Autoregressive(pieces, PIECES.mask_token_id), {}, PIECES),
        "with labels=0, got labels=3": (block, {"labels": 3}, PIECES),
    }
    for i, (message, (process, settings, tokenizer)) in enumerate(cases.items()):
        folder = save(build_model(process, "pico", max_length=5, **settings), tokenizer, tmp_path / str(i))
        with pytest.raises(ValueError, match=message):
            make_playground.stories_of(folder)


# ---------------------------------------------------------------------------------------------- the page and its reader


@pytest.fixture(scope="module")
def site(tmp_path_factory, small):
    out = tmp_path_factory.mktemp("site") / "playground"
    make_playground.write_playground(PRETRAINED / "tales-mdlm", out, stories=list(small.values()))
    return out / "stories"


def load(page, number=0):
    """Choose one of the two models."""
    page.locator("#models button").nth(number).click()
    page.wait_for_function(f"storiesPage.writer === storiesPage.writers[{number}]")


@in_chromium
def test_it_loads_on_request_writes_and_fills_in(chromium, site):
    with opened(chromium, site) as page:
        assert page.evaluate("typeof STORIES") == "undefined" and page.locator("#go").is_disabled()
        load(page)
        assert page.locator(".token.hidden").count() == L and page.locator("#order").is_disabled()
        page.locator("#steps").fill("6")
        page.locator("#step").click()
        page.wait_for_function("storiesPage.run && storiesPage.run.step === 1")
        assert page.locator(".token.hidden").count() == 10 and page.locator("#go").inner_text() == "Go on"
        page.locator("#go").click()
        page.wait_for_function("storiesPage.hidden === 0 && !storiesPage.run")
        assert "Finished after 6 steps" in page.locator("#status").inner_text()
        story = page.evaluate("storiesPage.canvas")
        page.locator(".token").nth(5).click()
        assert page.locator("#go").inner_text() == "Refill 1"
        page.locator(".token").nth(5).press("ArrowRight")
        page.keyboard.press("Enter")
        page.locator("#go").click()
        page.wait_for_function("storiesPage.hidden === 0 && !storiesPage.run")
        written = page.evaluate("storiesPage.canvas")
        assert [i for i in range(L) if written[i] != story[i]] in ([], [5], [6], [5, 6])
        page.evaluate("storiesPage.canvas.splice(0, 12, ...Array(12).fill(40))")
        page.get_by_label("its sentence").check()
        page.locator(".token").nth(2).click()
        assert page.evaluate("storiesPage.hidden") == L  # there is no full stop


@in_chromium
def test_the_other_model_goes_on_with_the_text(chromium, site):
    """Each is loaded once, and brings the settings that its folder names."""
    state = "storiesPage.writers.map(({ button }) => [button.ariaPressed, button.lastChild.textContent])"
    with opened(chromium, site) as page:
        size = page.evaluate("MODELS[0].megabytes")
        assert page.evaluate(state) == [["false", f"load {size} MB"]] * 2
        load(page)
        page.locator("#steps").fill("1")
        page.locator("#go").click()
        page.wait_for_function("storiesPage.hidden === 0 && !storiesPage.run")
        story = page.evaluate("storiesPage.canvas")
        load(page, 1)
        assert page.evaluate(state) == [["false", "loaded"], ["true", "in use"]]
        shown = [page.locator(f"#{name}").input_value() for name in ("order", "temperature", "top-p")]
        assert shown == ["entropy", "1", "0.7"] and page.evaluate("storiesPage.canvas") == story
        page.locator(".token").nth(5).click()
        page.locator("#go").click()
        page.wait_for_function("storiesPage.hidden === 0 && !storiesPage.run")
        written = page.evaluate("storiesPage.canvas")
        assert written[:5] + written[6:] == story[:5] + story[6:]
        load(page)
        assert page.evaluate(state) == [["true", "in use"], ["false", "loaded"]]
        assert page.locator("#order").input_value() == "blocks"


@in_chromium
def test_no_serious_accessibility_problem_in_light_and_dark(chromium, site):
    """axe-core, wide and narrow; nothing is cut off at the side."""
    with opened(chromium, site) as page:
        load(page)
        page.locator("#steps").fill("3")
        page.locator("#step").click()
        page.wait_for_function("storiesPage.run && storiesPage.run.step === 1")
        for theme, width in (("light", 1200), ("dark", 380)):
            page.emulate_media(color_scheme=theme)
            page.set_viewport_size({"width": width, "height": 900})
            assert serious_problems(page) == []
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            screenshot(page, f"stories-{theme}", full_page=True)
