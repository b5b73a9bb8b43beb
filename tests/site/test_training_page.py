"""The page that trains: its loss and gradients against PyTorch, its bound against the entropy, and its reader."""

import math
from pathlib import Path

import pytest
import torch
from browsers import in_chromium, javascript_beside, screenshot, serious_problems
from test_playground import make_playground, opened
from torch.nn import functional as F

from diffkit.languages.story_language import load_language
from diffkit.network.attention import SHARPEST
from diffkit.network.transformer import Denoiser, DenoiserConfig

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "playground"
FILES = [name for name in make_playground.WORKERS["training"] if not name.endswith("worker.js")]
CODE = "\n".join((FOLDER / name).read_text(encoding="utf-8") for name in FILES)
MICRO = make_playground.listed("micro")


@pytest.fixture(scope="module")
def javascript(request):
    return javascript_beside(CODE, request)


GRADIENTS = """({ config, weights, batch }) => {
  const network = new Network(config, new Map(Object.entries(weights))), tape = new Tape();
  const loss = lossOf(network, tape, batch, { length: config.max_length, maskId: config.mask_token_id });
  tape.backward();
  return { loss, grads: Object.fromEntries([...network.weights].map(([name, { grad }]) => [name, [...grad]])) };
}"""


@pytest.mark.parametrize("D, H, layers, wide, L, V", [(16, 2, 2, 32, 5, 8), (12, 3, 1, 20, 7, 11)])
def test_loss_and_every_gradient_are_those_of_pytorch(javascript, D, H, layers, wide, L, V):
    """For the same weights, far from the quiet start: the loss to 1e-6, every gradient to 1e-4."""
    torch.manual_seed(0)
    config = {"vocab_size": V, "mask_token_id": 1, "hidden_size": D, "num_heads": H, "num_layers": layers}
    config |= {"intermediate_size": wide, "max_length": L, "rotary": False, "tied": False}
    model = Denoiser(DenoiserConfig(**config)).double()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.3 * torch.randn_like(weight))
    x0 = torch.randint(2, V, (9, L))
    is_masked = torch.rand(x0.shape) < 0.6
    share = is_masked / is_masked.sum(1, keepdim=True).clamp(min=1) / len(x0)
    xt = x0.masked_fill(is_masked, 1)
    loss = (F.cross_entropy(model(xt, 0.0).transpose(1, 2), x0, reduction="none") * share.double()).sum()
    loss.backward()
    batch = {"seen": xt.flatten().tolist(), "targets": x0.flatten().tolist(), "weights": share.flatten().tolist()}
    weights = {name: weight.flatten().tolist() for name, weight in model.state_dict().items()}
    found = javascript(GRADIENTS, {"config": config | {"sharpest": SHARPEST}, "weights": weights, "batch": batch})
    assert found["loss"] == pytest.approx(loss.item(), abs=1e-6)
    assert set(found["grads"]) == {name for name, _ in model.named_parameters()}
    for name, weight in model.named_parameters():
        ours = torch.tensor(found["grads"][name], dtype=torch.float64).view_as(weight)
        torch.testing.assert_close(ours, weight.grad, atol=1e-4, rtol=0, msg=lambda text, name=name: f"{name}: {text}")
        assert weight.grad.abs().max() > 1e-3, name


def test_a_step_of_adamw_is_that_of_pytorch(javascript):
    ask = """({ start, grads, rate }) => {
      const tensor = new Tensor(Float64Array.from(start)), optimizer = new AdamW(new Map([["w", tensor]]));
      for (const grad of grads) { tensor.grad.set(grad); optimizer.step(rate); }
      return { data: [...tensor.data], decay: DECAY, memory: MEMORY };
    }"""
    start, grads = torch.randn(5, dtype=torch.float64), torch.randn(4, 5, dtype=torch.float64)
    found = javascript(ask, {"start": start.tolist(), "grads": grads.tolist(), "rate": 0.01})
    weight = torch.nn.Parameter(start.clone())
    optimizer = torch.optim.AdamW([weight], lr=0.01, betas=found["memory"], weight_decay=found["decay"], eps=1e-8)
    for grad in grads:
        weight.grad = grad
        optimizer.step()
    assert found["data"] == pytest.approx(weight.tolist(), abs=1e-9)


def test_the_examination_of_the_exact_answers_is_the_entropy(javascript):
    """All questions, weighed as the page weighs them: what the exact posterior loses on them is the entropy."""
    ask = """(micro) => {
      const language = new ListedLanguage(micro), { seen, targets, weights } = everyQuestion(language);
      const L = language.length;
      return targets.reduce((sum, target, n) => {
        if (!weights[n]) return sum;
        const canvas = seen.slice(n - (n % L), n - (n % L) + L);
        return sum - weights[n] * Math.log(language.posterior(canvas, n % L)[target]);
      }, 0);
    }"""
    micro = load_language("micro")
    assert javascript(ask, MICRO) == pytest.approx(micro.entropy() / micro.length, abs=1e-9)


def test_the_listed_language_is_ours(javascript):
    """Probability of what is visible, the posterior at each position, and the entropy."""
    ask = """({ micro, rows }) => {
      const language = new ListedLanguage(micro);
      return { entropy: language.entropyNats, rows: rows.map((ids) => ({ p: Math.exp(language.logProb(ids)),
        posteriors: ids.map((_, i) => language.posterior(ids, i)).map((row) => row && [...row]) })) };
    }"""
    micro, rng = load_language("micro"), torch.Generator().manual_seed(1)
    xt = micro.sample(6, rng).masked_fill(torch.rand(6, micro.length, generator=rng) < 0.5, micro.mask_id)
    found = javascript(ask, {"micro": MICRO, "rows": xt.tolist()})
    assert found["entropy"] == pytest.approx(micro.entropy(), abs=1e-9)
    for ids, row in zip(xt, found["rows"], strict=True):
        assert row["p"] == pytest.approx(micro.log_prob(ids[None]).exp().item(), abs=1e-9)
        alone = ids.repeat(len(ids), 1).fill_diagonal_(micro.mask_id)
        expected = micro.posterior(micro.seen(alone))[1].diagonal().T
        assert torch.allclose(torch.tensor(row["posteriors"], dtype=torch.float64), expected, atol=1e-9)


def test_a_seed_trains_the_same_network_twice_and_it_learns(javascript):
    """Also that each number of hidden words comes equally often."""
    ask = """(micro) => {
      const language = new ListedLanguage(micro);
      const { weights } = batchOf(language, 10, new TorchGenerator(0));
      const hidden = Array.from({ length: 10 }, (_, b) => trues(weights.slice(5 * b, 5 * b + 5).map(Boolean)));
      const run = () => {
        const training = new Training(language, 3, 100), before = training.examine();
        for (let i = 0; i < 12; i++) training.step();
        return [before, training.examine()];
      };
      return { hidden, runs: [run(), run()] };
    }"""
    found = javascript(ask, MICRO)
    assert found["hidden"] == [1, 2, 3, 4, 5] * 2
    first, second = found["runs"]
    assert first == second and first[0] - first[1] > 0.3


def test_words_of_a_visitor_become_a_language(javascript):
    ask = "(text) => { try { return languageOfWords(text); } catch (error) { return error.message; } }"
    found = javascript(ask, "Ada, bo\nada  Bo Eve")
    assert found["words"] == ["[PAD]", "[MASK]", "[EOS]", "a", "d", "b", "o", "e", "v"]
    assert found["texts"] == [[3, 4, 3, 2], [5, 6, 2, 0], [7, 8, 7, 2]] and math.isclose(sum(found["probs"]), 1)
    assert "got 0" in javascript(ask, " 12 ") and "got 2 of up to 11" in javascript(ask, "ab abcdefghijk")


# ---------------------------------------------------------------------------------------------- the page and its reader


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    out = tmp_path_factory.mktemp("site") / "playground"
    make_playground.write_playground(make_playground.PRETRAINED / "tales-mdlm", out)
    return out / "training"


def numbers(page):
    return page.locator("#training-numbers").inner_text()


@in_chromium
def test_it_trains_pauses_goes_on_and_begins_again(chromium, site):
    """From disk, in a worker; nothing starts by itself; the writer has the network of the last report."""
    with opened(chromium, site) as page:
        page.wait_for_function("trainingPage.reports.length === 1")
        page.wait_for_timeout(500)
        assert numbers(page).startswith("Step 0 of 2000") and page.locator("#train").inner_text() == "Train"
        page.locator("#train").focus()
        page.keyboard.press("Enter")
        page.wait_for_function("trainingPage.reports.length > 3")
        page.keyboard.press("Enter")
        assert page.locator("#train").inner_text() == "Go on"
        page.wait_for_timeout(1500)
        paused = numbers(page)
        page.wait_for_timeout(1000)
        assert numbers(page) == paused and "entropy 0.513" in paused
        reports = page.evaluate("trainingPage.reports.map(({ bound }) => bound)")
        assert reports[-1] < 0.8 * reports[0]
        assert page.evaluate("playground.writer.denoiser.weights === trainingPage.reports.at(-1).weights")
        points = page.locator("#curve .bound").get_attribute("points").split()
        assert len(points) == len(reports) and page.locator("#written tbody tr").count() == 16
        page.locator("#go").click()
        page.wait_for_function("window.playground?.writer.hidden === 0")
        page.locator(".token").first.click()
        assert page.locator("#go").inner_text() == "Refill 1"
        page.locator("#restart").click()
        page.wait_for_function("trainingPage.reports.length === 1")
        assert numbers(page).startswith("Step 0 of 2000") and page.locator(".token.hidden").count() == 5


@in_chromium
def test_it_reads_words_that_a_visitor_writes(chromium, site):
    with opened(chromium, site) as page:
        page.locator("#text").select_option("own")
        page.locator("#own").fill("one two three")
        page.locator("#restart").click()
        page.wait_for_function("window.playground?.writer.length === 6")
        page.locator("#train").click()
        page.wait_for_function("trainingPage.reports.length > 2")
        assert "entropy 0.183" in numbers(page)  # log(3) / 6
        page.locator("#own").fill("one")
        page.locator("#restart").click()
        assert "got 1" in page.locator("#training-status").inner_text() and page.locator("#train").is_disabled()


@in_chromium
def test_no_serious_accessibility_problem_in_light_and_dark(chromium, site):
    """axe-core, wide and narrow; nothing is cut off at the side."""
    with opened(chromium, site) as page:
        page.wait_for_function("trainingPage.reports.length === 1")
        page.locator("#step").click()
        page.locator(".token").first.focus()
        page.wait_for_selector("#prediction tbody tr")
        for theme, width in (("light", 1200), ("dark", 380)):
            page.emulate_media(color_scheme=theme)
            page.set_viewport_size({"width": width, "height": 900})
            assert serious_problems(page) == []
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            screenshot(page, f"training-{theme}", full_page=True)
