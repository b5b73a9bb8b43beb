"""The widgets but the player, driven through their controls, and held against the functions that they show."""

import gc
import math
import os
import re
import signal
import threading
import weakref
from types import SimpleNamespace

import ipywidgets as ipw
import pytest
import torch
from ipywidgets.widgets.widget import _instances
from toys import MASK, MICRO, TEXTS, L, V, generator, masked_diffusion, table_denoiser

from diffkit.cli.show.chart import BOTTOM, HEIGHT, LEFT, MAX_POINTS, RIGHT, TOP, WIDTH, Window, chart
from diffkit.cli.show.text import HIDDEN
from diffkit.course import plots
from diffkit.course.widgets.board import InfillingBoard, _Panel
from diffkit.course.widgets.dashboard import TrainingDashboard
from diffkit.course.widgets.explorer import NoiseExplorer
from diffkit.course.widgets.panel import OPEN_AT_ONCE, deliver_while_busy, guarded, parts_of
from diffkit.course.widgets.sampler_lab import THREAD, SamplerLab, Settings
from diffkit.data.batches import StoryBatches
from diffkit.evaluation.samples import marginals, quality
from diffkit.model import build_model
from diffkit.processes.masked import corrupt
from diffkit.processes.schedules import get_schedule
from diffkit.sampling.guidance import condition_on, guide
from diffkit.sampling.sampler import sample
from diffkit.training.checkpoint import latest_checkpoint
from diffkit.training.config import TrainConfig
from diffkit.training.trainer import Record, TrainingDiverged, fit

PROCESS, EXACT = masked_diffusion(), MICRO.denoiser(masked_diffusion())
SHAPE = {"hidden_size": 16, "num_layers": 1, "num_heads": 2}
NASTY = "<script>alert(1)</script>"


def conditional():
    torch.manual_seed(0)
    return build_model(PROCESS, SHAPE, max_length=L, labels=len(MICRO.labels)).eval()


def explorer(points=11):
    return NoiseExplorer(TEXTS[4], MICRO.tokenizer, [get_schedule("linear"), get_schedule("cosine")], points=points)


def board(denoise=EXACT, ids=TEXTS[4], **more):
    return InfillingBoard(PROCESS, denoise, MICRO, ids, **more)


def dashboard(**more):
    return TrainingDashboard(5, **more)


def lab(**more):
    return SamplerLab(PROCESS, MICRO, **({"batch": 16, "batches": 3} | more))


WIDGETS = {
    "explorer": lambda: explorer(points=2),
    "board": lambda: board(hidden=[1]),
    "dashboard": dashboard,
    "lab": lab,
}
each_widget = pytest.mark.parametrize("name", WIDGETS)


def found(controls, kind, **traits):
    """The one widget of a kind with these values, wherever it stands."""
    these = [
        part for part in parts_of(controls)
        if type(part) is kind and all(getattr(part, name) == value for name, value in traits.items())
    ]  # fmt: skip
    assert len(these) == 1, f"{len(these)} of {kind.__name__} with {traits}"
    return these[0]


def text_of(controls):
    """What all pages and messages say, without markup."""
    pages = " ".join(part.value for part in parts_of(controls) if type(part) is ipw.HTML)
    return re.sub(r"\s+", " ", re.sub("<[^>]+>", " ", re.sub("<style>.*?</style>", "", pages)))


# --------------------------------------------------------------------------------------------------------- all of them


@each_widget
def test_a_widget_leaves_a_still_and_its_words_are_fixed(name):
    one, other = WIDGETS[name](), WIDGETS[name]()
    bundles = [widget._repr_mimebundle_()[0] for widget in (one, one, other)]
    for bundle in bundles:
        assert "application/vnd.jupyter.widget-view+json" in bundle
        assert bundle["text/plain"] == repr(one) and bundle["text/html"] == bundles[0]["text/html"]
    views = [bundle["application/vnd.jupyter.widget-view+json"]["model_id"] for bundle in bundles]
    assert len(set(views)) == 3, "fresh controls for every display"
    assert len(re.sub("<[^>]+>", "", bundles[0]["text/html"])) > 40 and type(one).__doc__


@each_widget
def test_a_widget_shown_many_times_does_not_grow(name):
    widget = WIDGETS[name]()
    for _ in range(OPEN_AT_ONCE):
        widget.controls()
    before = len(_instances)
    for _ in range(40):
        widget.controls()
    assert len(_instances) == before


@each_widget
def test_controls_that_were_closed_can_be_forgotten(name):
    """No callback, link or list keeps them."""
    widget = WIDGETS[name]()
    first = weakref.ref(widget.controls())
    for _ in range(OPEN_AT_ONCE):
        widget.controls()
    gc.collect()
    assert first() is None


@each_widget
def test_every_control_has_a_name(name):
    for part in parts_of(WIDGETS[name]().controls()):
        if isinstance(
            part, ipw.Button | ipw.Dropdown | ipw.Text | ipw.RadioButtons | ipw.SelectionSlider | ipw.IntSlider
        ):
            assert part.description, part


def test_an_error_becomes_a_sentence_in_the_widget():
    position = ipw.HTML()
    with guarded(position):
        raise KeyError(NASTY)
    assert 'role="alert"' in position.value and "KeyError" in position.value
    assert "&lt;script&gt;" in position.value and "<script" not in position.value
    with guarded(position):
        raise ValueError("Hide a word.")
    assert "Problem:</b> Hide a word." in position.value
    with guarded(position):
        pass
    assert position.value == "", "what was said before is over"
    with pytest.raises(KeyboardInterrupt), guarded(position):
        raise KeyboardInterrupt


def test_a_click_goes_where_the_page_sent_it_and_not_to_the_busy_loop():
    """ipykernel 7.4 notes on a comm which loop wrote to it last."""
    button = ipw.Button()
    button.comm._reply_subshell_id = None
    deliver_while_busy(button)
    assert not hasattr(button.comm, "_reply_subshell_id")
    button.close()
    deliver_while_busy(button)


# -------------------------------------------------------------------------------------------------------------- charts


def numbers(svg):
    """The points of every line, in pixels."""
    return [
        [tuple(map(float, pair.split(","))) for pair in line.split()] for line in re.findall(r'points="(.*?)"', svg)
    ]


def test_a_chart_puts_points_where_they_belong():
    labels = {"title": "A & B", "x_label": "x", "y_label": "y", "alt": '"up"'}
    svg = chart({"one": [(0, 0), (5, 1), (10, 4)], "two": [(0, 9)]}, Window(0, 10, 0, 4), bold="one", **labels)
    one, two = numbers(svg)
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    assert one == [(LEFT, bottom), ((LEFT + right) / 2, bottom - (bottom - TOP) / 4), (right, TOP)]
    assert two == [(LEFT, TOP)], "what is outside is shown at the edge"
    assert 'aria-label="A &amp; B. &quot;up&quot;"' in svg and "<title>A &amp; B. &quot;up&quot;</title>" in svg
    dashes = re.findall(r'stroke-dasharray="(.*?)"/><text', svg)
    assert len(dashes) == len(set(dashes)) == 2, "lines differ without colour"


def test_a_long_line_keeps_few_points_and_both_ends():
    line = [(float(i), 1.0) for i in range(10_007)]
    svg = chart({"one": line}, Window(0, 10_006, 0, 1), title="t", x_label="x", y_label="y", alt="")
    (points,) = numbers(svg)
    assert MAX_POINTS / 2 < len(points) <= MAX_POINTS + 1
    assert points[0][0] == LEFT and points[-1][0] == WIDTH - RIGHT


# ------------------------------------------------------------------------------------------------------ noise explorer


def test_noise_explorer_hides_what_the_schedule_says():
    one = explorer()
    assert repr(one) == "NoiseExplorer: linear, cosine; 11 times"
    for schedule, pages in zip(one.schedules, one.texts, strict=True):
        for t, page in zip(range(0, 1001, 100), pages, strict=True):
            _, hidden = corrupt(TEXTS[4:5], float(t), schedule=schedule, mask_id=MASK, rng=generator(0))
            gamma, masks = float(schedule.gamma(t)), int(hidden.sum())
            assert page.count(HIDDEN) == masks
            told = f"t = {t}, gamma(t) = {gamma:.3f}; {gamma * L:.1f} of {L} tokens hidden on average, {masks} here"
            assert f"{schedule.name}: {told}" in page
        counts = [page.count(HIDDEN) for page in pages]
        assert counts == sorted(counts) and (counts[0], counts[-1]) == (0, L), "a hidden token stays hidden"
        assert pages[5] in one.still()


def test_noise_explorer_marks_t_on_the_curve_of_the_chosen_schedule():
    one, frame = explorer(), Window(0, 1000, 0, 1)
    for which, schedule in enumerate(one.schedules):
        for i, t in enumerate(one.times.tolist()):
            svg = one.curves[which][i]
            x, y = map(float, re.search(r'<circle cx="(.*?)" cy="(.*?)"', svg).groups())
            assert (x, y) == pytest.approx(frame.pixels(t, float(schedule.gamma(t))), abs=0.06)
            assert f"The marker at t = {t:.0f} is at {float(schedule.gamma(t)):.3f}".lower() in svg.lower()
        curve = numbers(svg)[which]
        positions = [frame.pixels(t, float(schedule.gamma(t))) for t in torch.linspace(0, 1000, len(curve)).tolist()]
        assert [p for pair in curve for p in pair] == pytest.approx([p for pair in positions for p in pair], abs=0.06)
        assert "2.4" in re.findall(r"<polyline.*?>", svg)[which], "the chosen one is bold"


def test_noise_explorer_is_linked_in_the_browser():
    one = explorer()
    before = set(_instances)
    controls = one.controls()
    slider, choice = found(controls, ipw.SelectionSlider), found(controls, ipw.Dropdown)
    assert [label for label, _ in slider.options] == [str(t) for t in range(0, 1001, 100)]
    assert (slider.description, choice.description) == ("time t", "schedule")
    stacks = [part for part in parts_of(controls) if isinstance(part, ipw.Stack)]
    assert [len(stack.children) for stack in stacks] == [2, 11, 11]
    for i, page in enumerate(stacks[2].children):
        assert one.texts[1][i] in page.value and one.curves[1][i] in page.value
    made = [_instances[key] for key in set(_instances) - before]
    links = {(link.source[0].model_id, link.source[1], link.target[0].model_id, link.target[1])
             for link in made if type(link).__name__ == "Link"}  # fmt: skip
    ends = [(choice, stacks[0]), (slider, stacks[1]), (slider, stacks[2])]
    assert links == {(source.model_id, "index", stack.model_id, "selected_index") for source, stack in ends}


def test_words_of_a_stranger_are_text_and_never_markup():
    words = ["[PAD]", "[MASK]", NASTY]
    tokenizer = SimpleNamespace(
        convert_ids_to_tokens=lambda ids: [words[i] for i in ids], mask_token_id=1, pad_token_id=0
    )
    shown = NoiseExplorer(torch.tensor([2, 2]), tokenizer, [get_schedule("linear")], points=3)._repr_mimebundle_()[0]
    assert "&lt;script&gt;" in shown["text/html"] and "<script" not in shown["text/html"]


# ------------------------------------------------------------------------------------------------------ infilling board


def words(ids):
    return MICRO.tokenizer.convert_ids_to_tokens(list(ids))


def press(controls, name):
    found(controls, ipw.Button, description=name).click()


def click(controls, position, mode="hide", word=""):
    found(controls, ipw.RadioButtons).value = mode
    found(controls, ipw.Text).value = word
    word_buttons(controls)[position].click()


def word_buttons(controls):
    return [part for part in parts_of(controls) if type(part) is ipw.Button and part.tooltip]


def shown_words(controls):
    return [button.description for button in word_buttons(controls)]


def test_the_board_hides_locks_and_types_and_can_go_back():
    controls = board(ids=TEXTS[0]).controls()  # Mia ran
    assert shown_words(controls) == ["Mia", "ran"] and "EOS" not in text_of(controls)
    click(controls, 0)
    assert shown_words(controls) == [HIDDEN, "ran"]
    assert word_buttons(controls)[0].tooltip == "word 1, hidden"
    click(controls, 0)
    assert shown_words(controls) == ["Mia", "ran"], "a second click gives the word back"
    click(controls, 0)
    press(controls, "Run")
    (filled, ran) = shown_words(controls)
    assert filled.startswith("✎ ") and ran == "ran"
    click(controls, 0, "lock")
    assert shown_words(controls)[0] == filled.replace("✎", "▣")
    assert word_buttons(controls)[0].tooltip.startswith("word 1, locked: ")
    click(controls, 0, "lock")
    assert shown_words(controls)[0] == filled
    other = "Tom" if filled != "✎ Tom" else "Mia"
    click(controls, 0, "type", f" {other} ")
    assert shown_words(controls) == [other, "ran"]
    for expected in (filled, filled.replace("✎", "▣"), filled, HIDDEN, "Mia", HIDDEN, "Mia", "Mia"):
        press(controls, "Undo")
        assert shown_words(controls) == [expected, "ran"]
    assert found(controls, ipw.Button, description="Undo").disabled
    click(controls, 1)
    press(controls, "Reset")
    assert shown_words(controls) == ["Mia", "ran"]
    press(controls, "Undo")
    assert shown_words(controls) == ["Mia", HIDDEN], "a reset can be taken back"


def test_a_locked_word_counts_as_given():
    one = board(hidden=[0, 1, 2])
    state = one.run(one.start, generator(0))
    for position in (0, 2):
        state = one.clicked(state, position, "lock")
    canvas = one.canvas(state)
    assert canvas[[0, 2]].tolist() == [state.written[0], state.written[2]] and canvas[1] == MASK
    again = one.run(state, generator(5))
    assert [again.written[i] for i in (0, 2)] == [state.written[i] for i in (0, 2)]
    assert again.kinds[:3] == ("locked", "filled", "locked")
    assert one.clicked(state, 0, "hide").kinds[0] == "hidden" and one.clicked(state, 0, "hide").given == one.start.given


@pytest.mark.parametrize("seed", range(4))
def test_the_boards_numbers_are_those_of_the_language(seed):
    """log p(missing | given) is a difference of exact log-probabilities; the columns show posterior and prediction."""
    denoise, hidden = table_denoiser(1), [0, 2]
    one = board(denoise, hidden=hidden)
    state = one.run(one.start, generator(seed))
    canvas = one.canvas(one.start)[None]
    stories = re.findall(r'<p class="dk-story">(.*?)</p>', state.result)
    nats = re.findall(r"\(missing \| given\) = (\S+) nats", state.result)
    assert len(stories) == len(nats) == 2
    for story, told in zip(stories, nats, strict=True):
        text = re.sub("<[^>]+>", "", story).split()
        assert len(re.findall("<b>", story)) == len(hidden)
        ids = torch.tensor(one.start.given)
        ids[: len(text)] = torch.tensor(MICRO.tokenizer.convert_tokens_to_ids(text))
        assert ((ids == canvas[0]) | (canvas[0] == MASK)).all(), "what was given stands"
        exact = (MICRO.log_prob(ids[None]) - MICRO.log_prob(canvas)).item()
        assert told == ("−∞" if exact == -math.inf else f"{exact + 0.0:.2f}")
    assert nats[1] != "−∞", "an exact draw is a story"
    predictions = MICRO.posterior(MICRO.seen(canvas))[1][0], PROCESS.log_probs(denoise(canvas, None), canvas).exp()[0]
    for position in hidden:
        row = re.search(rf'scope="row">{position + 1}</th><td>(.*?)</td><td>(.*?)</td>', state.result).groups()
        for told, probs in zip(row[::-1], predictions, strict=True):
            ranked = sorted(range(V), key=lambda i: (-round(probs[position, i].item(), 4), i))[:3]  # noqa: B023
            pairs = zip(words(ranked), (round(probs[position, i].item(), 4) for i in ranked), strict=True)
            assert told.replace("&nbsp;", " ") == ", ".join(f"{word} {p:.2f}" for word, p in pairs if p >= 0.005)


def test_the_boards_exact_draws_follow_the_exact_conditional():
    """Where the model is exact both columns are: the words of one position against its marginal, within 5 sigma."""
    one, rng = board(hidden=[0, 1, 2]), generator(3)
    probs = MICRO.posterior(MICRO.seen(one.canvas(one.start)[None]))[1][0, 0]
    n, counts = 50, torch.zeros(2, V)
    for _ in range(n):
        stories = re.findall(r'<p class="dk-story">(.*?)</p>', one.run(one.start, rng).result)
        for column, story in enumerate(stories):
            counts[column, MICRO.tokenizer.convert_tokens_to_ids(re.findall("<b>(.*?)</b>", story)[0])] += 1
    sigma = (probs * (1 - probs) / n).sqrt()
    assert ((counts / n - probs).abs() <= 5 * sigma + 1e-9).all()


@pytest.mark.parametrize(
    ("position", "mode", "word", "told"),
    [(0, "type", "[MASK]", "'[MASK]'"), (0, "lock", "", "Word 1"), (0, "type", NASTY, "'<script>alert(1)</script>'")],
)
def test_what_cannot_be_done_is_said_on_the_board(position, mode, word, told):
    controls = board(hidden=[1]).controls()
    before = shown_words(controls)
    click(controls, position, mode, word)
    alert = [part.value for part in parts_of(controls) if type(part) is ipw.HTML and 'role="alert"' in part.value]
    assert len(alert) == 1 and "<script" not in alert[0]
    assert told.replace("'", "&#x27;").replace("<", "&lt;").replace(">", "&gt;") in alert[0]
    assert shown_words(controls) == before
    click(controls, 0)
    assert not any('role="alert"' in part.value for part in parts_of(controls) if type(part) is ipw.HTML)


def test_words_that_no_story_holds_are_said_plainly_and_the_model_still_fills():
    controls = board(table_denoiser(), ids=TEXTS[0]).controls()  # Mia ran
    click(controls, 1, "type", "Mia")
    click(controls, 0)
    press(controls, "Run")
    told = text_of(controls)
    assert "no story of the language has the given words at these positions" in told and "= −∞ nats" in told
    assert shown_words(controls)[0].startswith("✎ ") and "nan" not in told
    press(controls, "Undo")
    assert "Hide words, then press Run" in text_of(controls), "the result goes back, too"


def test_a_panel_of_the_board_starts_at_the_beginning():
    one = board(hidden=[1])
    first = one.controls()
    click(first, 0)
    assert shown_words(one.controls())[0] == words(one.start.given)[0]
    assert _Panel(one).states == [one.start]


# -------------------------------------------------------------------------------------------------- training dashboard

RECORDS = [Record(step, 6.0 / step, 1.0, 1e-3, 1000.0 + step) for step in range(1, 6)]


def micro_model():
    torch.manual_seed(0)
    return build_model(masked_diffusion(), SHAPE, language="micro")


def run(folder=None, resume=False, model=None, steps=40):
    settings = TrainConfig(steps=steps, warmup=1, lr=1e-2, save_every=1000)
    return fit(model or micro_model(), StoryBatches(MICRO, 8, 0), settings, folder=folder, resume=resume)


def test_a_page_without_a_kernel_shows_the_stored_run_in_its_own_unit():
    stored = [(1, 5.0), (3, 2.0), (5, 1.5)]
    one = dashboard(entropy=0.5, stored=stored, unit="nats per hidden token", level_name="exact denoiser")
    page = one.still()
    assert numbers(page) and "nats per hidden token" in page and "exact denoiser" in page and one._curve == []


def test_the_dashboard_passes_records_on_and_shows_them():
    one = dashboard(entropy=0.5, keep=0.8)
    controls = one.controls()
    assert list(one.watch(iter(RECORDS))) == RECORDS
    told = text_of(controls)
    smooth = plots.smoothed([record.loss for record in RECORDS], keep=0.8)
    told_loss = f"Loss {smooth[-1]:.3f} nats per token, smoothed (exact entropy per token: 0.500)"
    assert f"Finished after step 5 of 5. {told_loss}" in told
    assert "1,005 tokens/s" in told and "left" not in told
    (curve,) = numbers(one.picture())
    frame = Window(0, 5, 0, 6)
    positions = [frame.pixels(step, loss) for step, loss in enumerate(smooth, start=1)]
    assert [p for pair in curve for p in pair] == pytest.approx([p for pair in positions for p in pair], abs=0.06)
    line = re.search(r'<path d="M[\d.]+ ([\d.]+)H', one.picture())[1]
    assert float(line) == pytest.approx(frame.pixels(0, 0.5)[1], abs=0.06) and "exact entropy" in one.picture()


def test_samples_are_asked_every_so_many_steps_and_are_text():
    asked = []

    def write(record):
        asked.append(record.step)
        if record.step == 4:
            raise RuntimeError("no text today")
        return f"{NASTY} {record.step}"

    one = dashboard(samples=write, every=2)
    controls, pages = one.controls(), []
    for record in one.watch(iter(RECORDS)):
        pages.append((record.step, text_of(controls)))
    assert asked == [2, 4]
    assert "Step 2 &lt;script&gt;" in pages[1][1]
    assert "the text of step 4 could not be made: no text today" in pages[-1][1] and len(pages) == 5, "the run goes on"
    assert not any("<script" in part.value for part in parts_of(controls) if type(part) is ipw.HTML)


def test_the_stop_button_ends_at_a_clean_step_and_the_run_can_go_on(tmp_path):
    """Pressed from another thread, as JupyterLab does; then resumed: the same losses as without a stop."""
    straight = [record.loss for record in run()]
    one = TrainingDashboard(40)
    button = found(one.controls(), ipw.Button)
    assert button.disabled, "nothing to stop yet"
    losses, before = [], signal.getsignal(signal.SIGINT)
    for record in one.watch(run(tmp_path)):
        losses.append(record.loss)
        if record.step == 7:
            assert not button.disabled
            presser = threading.Thread(target=button.click)
            presser.start()
            presser.join()
    assert len(losses) == 7 and latest_checkpoint(tmp_path).name == "step-0000007"
    assert "Stopped, as you asked, after step 7 of 40" in one.status()
    assert button.disabled and not button._click_handlers.callbacks and signal.getsignal(signal.SIGINT) is before
    losses += [record.loss for record in one.watch(run(tmp_path, resume=True))]
    assert losses == straight and "Finished after step 40 of 40" in one.status()


@pytest.mark.parametrize("interrupts", [True, False], ids=["interrupt", "break"])
def test_interrupting_the_kernel_or_leaving_the_loop_stops_as_cleanly(tmp_path, interrupts):
    one = TrainingDashboard(40)
    controls = one.controls()
    for record in one.watch(run(tmp_path)):
        if record.step == 3 and not interrupts:
            break
        if record.step == 3:
            os.kill(os.getpid(), signal.SIGINT)
    assert latest_checkpoint(tmp_path).name == "step-0000003"
    assert not interrupts or "Stopped after step 3 of 40" in text_of(controls) and found(controls, ipw.Button).disabled


def test_an_error_of_the_run_is_shown_and_raised():
    """A script must not go on as if it had a model."""

    def diverging():
        yield RECORDS[0]
        raise TrainingDiverged("loss nan at step 2")

    one = dashboard()
    controls = one.controls()
    with pytest.raises(TrainingDiverged):
        list(one.watch(diverging()))
    assert "TrainingDiverged: loss nan at step 2" in text_of(controls)
    assert (
        "Stopped after step 1 of 5" in text_of(controls) and not found(controls, ipw.Button)._click_handlers.callbacks
    )
    assert list(one.watch(iter(RECORDS))) == RECORDS and "Problem" not in text_of(controls), "a new run starts afresh"


def test_a_dashboard_shown_during_a_run_follows_it_and_its_still_does_not_change():
    one = dashboard()
    still = one.still()
    for record in one.watch(iter(RECORDS)):
        if record.step == 2:
            late = one.controls()
            assert not found(late, ipw.Button).disabled
    assert "Finished after step 5" in text_of(late)
    assert one.still() == still, "speeds and losses differ from machine to machine"
    assert "5 steps" in still and 'role="note"' in still


# -------------------------------------------------------------------------------------------------------- sampler lab


def drawn(controls):
    """Press Draw and wait for the thread; what the page says then."""
    press(controls, "Draw")
    for thread in threading.enumerate():
        if thread.name == THREAD:
            thread.join(30)
    return text_of(controls)


def test_the_lab_judges_as_the_functions_of_the_package_do():
    one = lab(batch=40, batches=2)
    for settings in (Settings(steps=5), Settings(order="confidence", steps=2), Settings(steps=1, temperature=2.0)):
        tried = list(one.draw(settings))
        assert [row.n for row in tried] == [40, 80]
        rng, ids = generator(0), []
        for _ in range(2):
            ids.append(sample(PROCESS, EXACT, shape=(40, L), steps=settings.steps, rng=rng, order=settings.order,
                              temperature=settings.temperature))  # fmt: skip
        assert torch.equal(tried[-1].latest, ids[1])
        last, found_here = tried[-1], quality(MICRO, torch.cat(ids))
        assert (last.valid, last.low, last.high) == found_here[:3]
        assert last.log_prob.mean == pytest.approx(found_here.log_prob)
        assert last.kl["plots"] == pytest.approx((found_here.plot_kl, found_here.plot_kl_floor))
        assert last.kl["endings"] == pytest.approx(marginals(MICRO, torch.cat(ids))["ending"][:2])
    assert list(one.draw(Settings(steps=5)))[-1].valid == 1.0, "the exact denoiser, one token a step"


def test_filters_reach_the_sampler():
    one = lab()
    texts = {how: next(one.draw(Settings(steps=5, **dict([how])))).latest.unique(dim=0) for how in
             [("temperature", 0.0), ("top_k", 1), ("top_p", 0.05), ("top_k", 0)]}  # fmt: skip
    sizes = [len(text) for text in texts.values()]
    assert max(sizes[:3]) < sizes[3] / 2, "the likeliest word everywhere leaves few texts"


@pytest.mark.parametrize("strength", [0.0, 2.0])
def test_with_an_ending_the_law_to_compare_with_is_the_exact_conditional(strength):
    told = conditional()
    one, ending = lab(conditional=told, model=told, batch=64, batches=1), MICRO.labels[1]
    exact = next(one.draw(Settings(steps=5, ending=ending, strength=strength)))
    assert exact.obeyed == 1.0 and exact.valid == 1.0 and set(exact.kl) == {"plots"}
    of_label = MICRO.template_labels == 1
    counts = torch.bincount(MICRO.parse(exact.latest), minlength=len(of_label))[of_label].double()
    share, law = counts / counts.sum(), MICRO.template_probs[of_label] / MICRO.template_probs[of_label].sum()
    expected = torch.special.xlogy(share, share / law).sum().item()
    assert exact.kl["plots"][0] == pytest.approx(expected)
    xt = torch.full((1, L), MASK)
    t = torch.tensor([500.0])
    guided = guide(MICRO.denoiser(PROCESS, ending), EXACT, strength)(xt, t)
    assert torch.equal(one.denoiser(Settings(ending=ending, strength=strength))(xt, t), guided)
    trained = one.denoiser(Settings(denoiser="trained", ending=ending, strength=strength))
    with torch.no_grad():
        assert torch.equal(trained(xt, t), condition_on(told, 1, strength)(xt, t))


def test_the_lab_draws_when_asked_and_keeps_what_was_tried():
    one = lab(model=table_denoiser())
    controls = one.controls()
    found(controls, ipw.IntSlider, description="steps").value = 5
    told = drawn(controls)
    assert "Done after 48 stories: exact, random, 5 steps" in told and "exact, random, 5 steps 48 100.0%" in told
    assert "✓ valid" in told and "no story" not in told
    found(controls, ipw.Dropdown, description="denoiser").value = "trained"
    found(controls, ipw.FloatSlider, description="temperature").value = 0.5
    told = drawn(controls)
    assert "✗ no story" in told, "a sign and a word, not a colour"
    names = [str(tried.settings) for tried in one.tried]
    assert names == ["exact, random, 5 steps", "trained, random, 5 steps, temperature 0.5"]
    assert told.index(names[1] + " 48") < told.index(names[0] + " 48") < told.index("a perfect sampler")
    assert f"{-MICRO.entropy():.2f}" in told and 'role="status"' in found(controls, ipw.VBox).children[-1].value
    assert not found(controls, ipw.Button, description="Draw").disabled
    assert one.tried[0].settings == next(one.draw(Settings(steps=5))).settings


def test_the_lab_stops_after_a_batch():
    started, go_on = threading.Event(), threading.Event()

    def slow(zt, t):
        started.set()
        go_on.wait(30)
        return EXACT(zt, t)

    one = lab(model=slow)
    controls = one.controls()
    found(controls, ipw.Dropdown, description="denoiser").value = "trained"
    press(controls, "Draw")
    assert started.wait(30)
    assert found(controls, ipw.Button, description="Draw").disabled
    press(controls, "Stop")
    go_on.set()
    for thread in threading.enumerate():
        if thread.name == THREAD:
            thread.join(30)
    assert [tried.n for tried in one.tried] == [16] and "Stopped after 16 stories" in text_of(controls)
    assert found(controls, ipw.Button, description="Stop").disabled


def test_a_denoiser_that_breaks_is_reported_in_the_widget():
    def broken(zt, t):
        raise RuntimeError(NASTY)

    one = lab(model=broken)
    controls = one.controls()
    found(controls, ipw.Dropdown, description="denoiser").value = "trained"
    assert "RuntimeError: &lt;script&gt;" in drawn(controls) and not one.tried
    controls = board(broken, hidden=[0]).controls()
    press(controls, "Run")
    assert "RuntimeError: &lt;script&gt;" in text_of(controls) and shown_words(controls)[0] == HIDDEN
