"""The unmasking player: its data against the frames, and the page it makes in a real Chromium without a network."""

import json
import re
from itertools import pairwise
from types import SimpleNamespace

import nbformat
import pytest
import torch
from browsers import PATIENCE, in_chromium, serious_problems
from nbformat.v4 import new_code_cell, new_notebook, new_output
from toys import MASK, MICRO, TALES, TEXTS, L, V, generator, masked_diffusion, table_denoiser

from diffkit.cli.show.text import HIDDEN
from diffkit.course.widgets.player import Player, PlayerView, SideBySide
from diffkit.data.tokenizer import load_tokenizer
from diffkit.paths import PRETRAINED
from diffkit.processes.d3pm import D3PM
from diffkit.processes.gaussian.diffusion_lm import DiffusionLM
from diffkit.processes.gaussian.plaid import Plaid
from diffkit.processes.masked import MaskedDiffusion
from diffkit.processes.sedd import SEDD
from diffkit.sampling.remasking import Remasking, rescale
from diffkit.sampling.sampler import Frame, denoise_frames, infill, noising_frames
from diffkit.sampling.skipping import even_times

PROCESS = masked_diffusion()


def frames_of(start=None, order="left_to_right"):
    shape = (1, L) if start is None else None
    return denoise_frames(
        PROCESS, table_denoiser(), shape=shape, start=start, steps=L, rng=generator(1), order=order, keep_probs=True
    )


def run_of(process, steps=8, rows=1):
    """A run by the exact denoiser of `micro`."""
    with torch.no_grad():
        shape = (rows, L)
        return list(
            denoise_frames(
                process, MICRO.denoiser(process), shape=shape, steps=steps, rng=generator(rows + steps), keep_probs=True
            )
        )


@torch.random.fork_rng()
def points(kind):
    torch.manual_seed(0)
    return kind(V, MASK, width=6).requires_grad_(False)


PROCESSES = {
    "masked": masked_diffusion(),
    "d3pm uniform": D3PM(V, MASK, "uniform", "linear"),
    "sedd uniform": SEDD(V, MASK, "uniform", "linear"),
    "plaid": points(Plaid),
    "diffusion_lm": points(DiffusionLM),
}
each_process = pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)

# ---------------------------------------------------------------------------------- reading the data, another way round


def rows(text):
    return [[int(n, 36) for n in part.split()] for part in text.split(";")]


def texts_in(data):
    """Every frame's words, from the first frame and the moves."""
    now = [int(n, 36) for n in data["start"].split()]
    yield [data["words"][n] for n in now]
    for move in rows(data["moves"]) if len(data["captions"]) > 1 else ():
        for position, word in zip(move[::2], move[1::2], strict=True):
            now[position] = word
        yield [data["words"][n] for n in now]


def table_in(data, i, position):
    """[(word, chances...)] that holds at a position in frame i, or None."""
    line, found = rows(data["predictions"])[position], None
    for frame, table in zip(line[::2], line[1::2], strict=True):
        found = table if frame <= i else found
    if found is None:
        return None
    table, width = rows(data["tables"])[found], 1 + len(data["shows"])
    return [(data["words"][table[k]], *table[k + 1 : k + width]) for k in range(0, len(table), width)]


def same_top(table, probs, came, column=1):
    """Are these the five likeliest words and the one that came, with their thousandths, but for those of 0?"""
    wanted = {*probs.topk(min(5, len(probs))).indices.tolist(), int(came)}
    want = sorted((chance for n in wanted if (chance := round(1000 * float(probs[n]))) > 0), reverse=True)
    names = MICRO.tokenizer.convert_tokens_to_ids([row[0] for row in table])
    assert [row[column] for row in table] == want
    assert all(round(1000 * float(probs[n])) == row[column] for n, row in zip(names, table, strict=True))


# ----------------------------------------------------------------------------------------------------- data and frames


@each_process
def test_the_data_gives_back_every_frame(process):
    frames = run_of(process, rows=3)
    for row in range(3):
        data = Player(frames, MICRO.tokenizer, row=row).data
        found = [MICRO.tokenizer.convert_tokens_to_ids(words) for words in texts_in(data)]
        assert found == [frame.tokens[row].tolist() for frame in frames]


def test_the_data_of_a_run_that_takes_words_back():
    process = masked_diffusion()
    sampler = Remasking(process, even_times(1000, 12), rescale(0.9))
    frames = list(denoise_frames(sampler, MICRO.denoiser(process), shape=(1, L), rng=generator(3)))
    assert any(((a.tokens != MASK) & (b.tokens == MASK)).any() for a, b in pairwise(frames)), "none is taken back"
    player = Player(frames, MICRO.tokenizer)
    found = [MICRO.tokenizer.convert_tokens_to_ids(words) for words in texts_in(player.data)]
    assert found == [frame.tokens[0].tolist() for frame in frames]
    assert player.data["shows"] == [] and player.data["tables"] == "", "such frames carry no predictions"


def test_a_hidden_token_shows_the_prediction_now_and_a_revealed_one_the_one_that_revealed_it():
    frames = list(frames_of(order="random"))
    data = Player(frames, MICRO.tokenizer).data
    assert data["shows"] == ["prediction"] and data["words"][data["hidden"]] == "[MASK]"
    shown = torch.stack([frame.tokens[0] for frame in frames])
    for position in range(L):
        revealed = int((shown[:, position] != MASK).nonzero()[0])
        for i in range(L + 1):
            then = frames[min(i + 1, revealed)]
            same_top(table_in(data, i, position), then.probs[0, position], then.tokens[0, position])


@each_process
def test_where_nothing_is_hidden_every_place_shows_the_belief_now(process):
    if process is PROCESSES["masked"]:
        pytest.skip("here tokens are hidden: the test above")
    frames = run_of(process)
    data = Player(frames, MICRO.tokenizer).data
    for i in range(len(frames)):
        for position in range(L):
            then = frames[min(i + 1, 8)]
            same_top(table_in(data, i, position), then.probs[0, position], then.tokens[0, position])
    assert data["hidden"] == -1 and data["asked"] == 7


@each_process
def test_the_exact_posterior_stands_beside_the_belief(process):
    """Held against the language's own posterior, given what the process says of the evidence."""
    if not process.predicts_tokens:
        with pytest.raises(ValueError, match="DiffusionLM predicts points, not words"):
            Player(run_of(process), MICRO.tokenizer, process=process, exact=MICRO.denoiser(process))
        return
    rng, exact = generator(1), MICRO.denoiser(process)

    def wrong(zt, t):
        return exact(zt, t).clamp(min=-20) * 0.5

    frames = list(denoise_frames(process, wrong, shape=(1, L), steps=6, rng=rng, keep_probs=True))
    data = Player(frames, MICRO.tokenizer, process=process, exact=exact).data
    assert data["shows"] == ["prediction", "exact"]
    differ = 0
    for i, frame in enumerate(frames[:-1]):
        t = torch.tensor([frame.t], dtype=torch.float64)
        _, truth = MICRO.posterior(process.log_likelihood(frame.z, t * (1 - 1e-9)))
        for position in range(L):
            if data["hidden"] >= 0 and frame.tokens[0, position] != MASK or not truth.any():
                continue
            table = table_in(data, i, position)
            same_top(table, frames[i + 1].probs[0, position], frames[i + 1].tokens[0, position])
            for word, chance, best in table:
                p = truth[0, position, MICRO.tokenizer.convert_tokens_to_ids(word)]
                assert abs(1000 * p - best) <= 0.501
                differ += abs(chance - best) > 20
    assert differ > 3, "the wrong denoiser was too good for a test"


def test_frames_without_beliefs_can_show_the_exact_ones():
    """On the way there no network is asked; the language knows all the same."""
    process = PROCESSES["d3pm uniform"]
    frames = list(noising_frames(process, TEXTS[2:3], range(0, 1001, 200), rng=generator(2)))
    data = Player(frames, MICRO.tokenizer, process=process, exact=MICRO.denoiser(process)).data
    assert data["shows"] == ["exact"] and data["asked"] == 5
    t = torch.tensor([frames[3].t], dtype=torch.float64)
    _, truth = MICRO.posterior(process.log_likelihood(frames[3].z, t))
    for position in range(L):
        same_top(table_in(data, 3, position), truth[0, position], frames[4].tokens[0, position])


def test_where_the_first_frame_has_a_belief_each_is_about_its_own_state():
    """As notebook 04 makes them: a word shows in the frame whose prediction is sure of it."""
    probs = torch.tensor([[[0.0, 0.6, 0.4]], [[0.0, 0.1, 0.9]]], dtype=torch.float64)
    names = ["[MASK]", "a", "b"]
    tokenizer = SimpleNamespace(
        convert_ids_to_tokens=lambda ids: [names[i] for i in ids], mask_token_id=0, pad_token_id=None
    )
    tokens = torch.tensor([[[0]], [[2]]])
    frames = [Frame(i, 1.0, tokens[i], tokens[i], probs[i : i + 1]) for i in range(2)]
    data = Player(frames, tokenizer).data
    assert table_in(data, 0, 0) == [("a", 600), ("b", 400)] and table_in(data, 1, 0) == [("b", 900), ("a", 100)]


def test_at_time_zero_there_is_no_exact_belief_and_none_is_shown():
    """No step leads from there; tables keep their form all the same."""
    frames = [frame._replace(t=1000 - 200 * frame.step) for frame in frames_of()]
    frames[0] = frames[0]._replace(probs=frames[1].probs)  # each about its own state, the last one at t = 0
    data = Player(frames, MICRO.tokenizer, process=PROCESS, exact=MICRO.denoiser(PROCESS)).data
    assert data["shows"] == ["prediction", "exact"] and data["asked"] == 4 and frames[5].t == 0
    assert all(len(table) % 3 == 0 for table in rows(data["tables"]))


def test_points_tell_how_far_they_are_from_their_word():
    process = PROCESSES["diffusion_lm"]
    frames = run_of(process)
    data = Player(frames, MICRO.tokenizer, process=process).data
    for frame, told in zip(frames, rows(data["far"]), strict=True):
        nearest = torch.cdist(frame.z[0], process.vectors()[:-1] if MASK == V - 1 else process.vectors())
        nearest[:, MASK if nearest.shape[1] == V else []] = torch.inf
        assert torch.allclose(torch.tensor(told) / 10, nearest.amin(1).float(), atol=0.0501)
    assert rows(data["far"])[-1] == [0] * L, "the last step ends on words"
    assert "far" not in Player(frames, MICRO.tokenizer).data, "without the process nobody knows where the words are"


def test_the_data_is_small():
    """48 steps of 48 tokens, with exact values, by a denoiser that knows nothing: no two predictions are alike."""
    process = MaskedDiffusion(TALES.vocab_size, TALES.mask_id)
    rng = generator(0)

    def noise(zt, t):
        return 2 * torch.randn(*zt.shape, TALES.vocab_size, generator=rng, dtype=torch.float64)

    frames = list(
        denoise_frames(process, noise, shape=(1, 48), steps=48, rng=generator(1), order="random", keep_probs=True)
    )
    player = Player(frames, TALES.tokenizer, process=process, exact=TALES.denoiser(process))
    assert len(json.dumps(player.data)) < 60_000
    data, metadata = player._repr_mimebundle_()
    output = new_output("execute_result", data=data, metadata=metadata, execution_count=1)
    notebook = nbformat.writes(new_notebook(cells=[new_code_cell("player", outputs=[output])]))
    assert len(notebook) < 65_000, "a notebook indents its JSON, one item to a line; there are few"


# ------------------------------------------------------------------------------------------------ words around the data


def test_player_shows_every_frame():
    player = Player(frames_of(), MICRO.tokenizer)
    assert repr(player) == "Player: A story unmasks, 6 frames", "fixed, so that notebooks compare equal"
    assert player.hidden == [5, 4, 3, 2, 1, 0]
    assert [player.page(i).count(HIDDEN) for i in range(6)] == player.hidden
    assert player.caption(2) == "Step 2 of 5, t = 600, 3 tokens hidden" == player.data["captions"][2]
    short = Player([frame._replace(t=frame.t / 1000) for frame in frames_of()], MICRO.tokenizer)
    assert short.caption(2) == "Step 2 of 5, t = 0.6, 3 tokens hidden", "an axis that ends at 1"
    assert all(player.page(i).count("<b") == 1 for i in range(1, 6)), "one new token a step, marked"
    assert "<b" not in player.page(0)


def test_player_leaves_a_still_picture_and_its_data_where_widgets_cannot_run():
    player = Player(frames_of(), MICRO.tokenizer, title="Unmask <me>", captions=[f"<{i}>" for i in range(6)])
    data, metadata = player._repr_mimebundle_()
    assert data["text/plain"] == repr(player) and data["text/html"] == player.still()
    assert "application/vnd.jupyter.widget-view+json" in data
    assert metadata == {"diffkit": {"player": player.data}} and json.loads(json.dumps(metadata)) == metadata
    assert player.still().count("<p>") == 1 + 4 and "Unmask &lt;me&gt;" in player.still()  # the title, four frames
    assert "&lt;0&gt;" in player.still() and "&lt;5&gt;" in player.still(), "the first and the last are among them"
    one = Player([next(frames_of())], MICRO.tokenizer)
    assert one.still().count("<p>") == 1 + 1 and one.data["moves"] == ""


def test_a_live_view_gets_the_same_data_and_leaves_nothing_in_the_kernel():
    player = Player(frames_of(), MICRO.tokenizer)
    first, second = player.controls(), player.controls()
    assert isinstance(first, PlayerView) and first.model_id != second.model_id, "each is fresh"
    assert first.data == player.data
    assert not first._msg_callbacks.callbacks and not first._trait_notifiers.get("data"), "no callback waits for it"


def test_player_underlines_what_was_given_and_hides_padding():
    start = TEXTS[:1].clone()
    start[0, 1] = MASK
    player = Player(frames_of(start), MICRO.tokenizer, fixed=start[0] != MASK)
    pages = [player.page(i) for i in range(len(player.frames))]
    assert "<i>Mia</i>" in pages[0] and "<i>Mia</i>" in pages[-1] and "[PAD]" not in "".join(pages)
    assert player.data["given"] == "0 2 3 4" and rows(player.data["predictions"])[0] == []
    filled = infill(PROCESS, table_denoiser(), start, steps=L, rng=generator(1), order="left_to_right")
    new = MICRO.tokenizer.convert_ids_to_tokens(int(filled[0, 1]))
    assert re.search(rf'<b title="p = 0\.\d\d">{re.escape(new)}</b>', "".join(pages))


def test_what_does_not_fit_the_frames_is_refused():
    used = frames_of()
    frames, tokenizer = list(used), MICRO.tokenizer
    for arguments, said in {
        "no frames to play. Was the generator used up": {"frames": used},
        "row must be one of the 1 texts in a frame, 0..0, got 1": {"row": 1},
        r"fixed marks which of 5 tokens were given.* got \(1, 5\)": {"fixed": torch.zeros(1, L, dtype=torch.bool)},
        "exact needs the process too": {"exact": MICRO.denoiser(PROCESS)},
        "texts of one shape": {"frames": [*frames, Frame(0, 0.0, TEXTS[:2], TEXTS[:2], None)]},
    }.items():
        given = {"frames": frames, "tokenizer": tokenizer} | said
        with pytest.raises(ValueError, match=arguments):
            Player(given.pop("frames"), given.pop("tokenizer"), **given)
    with pytest.raises(ValueError, match="two or more players to compare, got 1"):
        SideBySide(Player(frames, tokenizer))


def test_players_side_by_side():
    pair = SideBySide(
        *(Player(frames_of(order=order), MICRO.tokenizer, title=order) for order in ("random", "entropy"))
    )
    assert repr(pair) == "SideBySide: random, 6 frames | entropy, 6 frames"
    data, metadata = pair._repr_mimebundle_()
    assert (
        metadata["diffkit"]["player"] == {"players": [player.data for player in pair.players]} == pair.controls().data
    )
    assert data["text/html"] == "".join(player.still() for player in pair.players)


# ---------------------------------------------------------------------------------- the page, without a kernel or a net

PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Player</title><style>{css}</style>
<body {attributes}><main><h1>A page</h1><div class="dk-mount">{still}</div></main>
<script>{script}
window.stop = mount(document.querySelector(".dk-mount"), {data});</script></body></html>"""


@pytest.fixture
def opened(chromium, tmp_path):
    """Open a page straight from disk that holds one player; no request may leave it, and no error may be thrown."""
    pages, wrong = [], []

    def show(player, attributes="", **context):
        script = PlayerView._esm.split("\nexport ")[0]
        css = PlayerView._css
        data = json.dumps(player.data).replace("</", "<\\/")
        path = tmp_path / f"{len(pages)}.html"
        text = PAGE.format(css=css, script=script, data=data, still=player.still(), attributes=attributes)
        path.write_text(text, encoding="utf-8")
        page = chromium.new_page(**context)
        page.set_default_timeout(PATIENCE)
        page.on("request", lambda request: request.url.startswith("file:") or wrong.append(request.url))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto(path.as_uri())
        pages.append(page)
        return page

    yield show
    for page in pages:
        page.close()
    assert not wrong


def stop_the_clock(page):
    """From here on time passes only where a test says so."""
    page.clock.install(time=0)
    page.reload()
    page.clock.pause_at(60_000)


def text_of(page, n=0):
    return page.locator(".dk-text").nth(n).inner_text()


def text_in(player, i):
    """What a reader should see of frame i: words, blocks for masks, a dot for padding that has just come."""
    pad, mask = MICRO.tokenizer.pad_token_id, MICRO.tokenizer.mask_token_id
    now, before = (player.frames[j].tokens[player.row].tolist() for j in (i, max(0, i - 1)))
    names = player.tokenizer.convert_ids_to_tokens(now)
    shown = [HIDDEN if n == mask else "·" if n == pad else name for n, name in zip(now, names, strict=True)]
    is_new = [a != b for a, b in zip(now, before, strict=True)]
    return " ".join(word for word, n, new in zip(shown, now, is_new, strict=True) if n != pad or new)


@in_chromium
def test_page_shows_every_frame_by_keyboard_alone(opened):
    player = Player(frames_of(order="random"), MICRO.tokenizer)
    page = opened(player)
    caption = page.locator(".dk-caption")
    assert text_of(page) == text_in(player, 0) and caption.inner_text() == player.caption(0)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Play"
    for _ in range(3):  # over first and back to one step on
        page.keyboard.press("Tab")
    for i in range(1, 6):
        page.keyboard.press("Enter")
        assert text_of(page) == text_in(player, i) and caption.inner_text() == player.caption(i)
        assert page.locator(".dk-new").count() == 1
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    slider = page.locator(".dk-slider")
    assert slider.evaluate("it => it === document.activeElement") and slider.input_value() == "5"
    for key, i in {"Home": 0, "ArrowRight": 1, "End": 5, "ArrowLeft": 4}.items():
        page.keyboard.press(key)
        assert text_of(page) == text_in(player, i) and slider.get_attribute("aria-valuetext") == f"{i} of 5"
    assert caption.get_attribute("role") == "status" and caption.get_attribute("aria-live") == "polite"


@in_chromium
def test_page_plays_pauses_and_ends(opened):
    player = Player(frames_of(), MICRO.tokenizer, interval_ms=1000)
    page = opened(player)
    stop_the_clock(page)
    caption, play = page.locator(".dk-caption"), page.locator(".dk-play")
    page.clock.run_for(5000)
    assert caption.inner_text() == player.caption(0), "nothing starts by itself"
    play.press("Space")
    page.clock.run_for(2500)
    assert text_of(page) == text_in(player, 2) and play.inner_text() == "Pause"
    assert caption.get_attribute("aria-live") == "off", "while it plays, not every frame is read out"
    play.press("Space")
    page.clock.run_for(5000)
    assert text_of(page) == text_in(player, 2) and play.inner_text() == "Play"
    assert caption.get_attribute("aria-live") == "polite"
    page.locator(".dk-speed").select_option("2")
    play.click()
    page.clock.run_for(1100)
    assert text_of(page) == text_in(player, 4), "twice as fast"
    page.clock.run_for(5000)
    assert text_of(page) == text_in(player, 5) and play.inner_text() == "Play" and "0 tokens" in caption.inner_text()
    play.click()
    assert text_of(page) == text_in(player, 0), "from the start again"
    page.evaluate("window.stop()")
    page.clock.run_for(5000)
    assert text_of(page) == text_in(player, 0)


@in_chromium
def test_page_is_slower_where_less_motion_is_wanted(opened):
    player = Player(frames_of(), MICRO.tokenizer, interval_ms=100)
    page = opened(player, reduced_motion="reduce")
    stop_the_clock(page)
    page.locator(".dk-play").click()
    page.clock.run_for(900)
    assert text_of(page) == text_in(player, 0)
    page.clock.run_for(200)
    assert text_of(page) == text_in(player, 1)


@in_chromium
def test_page_tells_what_was_likely_at_a_token(opened):
    exact = MICRO.denoiser(PROCESS)
    player = Player(frames_of(order="random"), MICRO.tokenizer, process=PROCESS, exact=exact)
    page = opened(player)
    details, tokens = page.locator(".dk-details"), page.locator(".dk-token")
    tokens.nth(2).hover()
    assert "position 3: hidden" in details.inner_text() and "now" in details.locator("caption").inner_text()
    assert [row.split() for row in details.locator("tbody tr").all_inner_texts()] == [
        [word, f"{p / 1000:.3f}", f"{best / 1000:.3f}"] for word, p, best in table_in(player.data, 0, 2)
    ]
    page.locator(".dk-last").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")  # slider, speed, and the whole text is one stop
    page.keyboard.press("Home")
    for position in range(3):
        word = player.tokenizer.convert_ids_to_tokens(int(player.frames[-1].tokens[0, position]))
        focused = page.evaluate("document.activeElement.getAttribute('aria-label')")
        assert focused.split(",")[0] == word
        assert details.inner_text().startswith(word) and "when it was revealed" in details.inner_text()
        first = table_in(player.data, 5, position)[0]
        assert details.locator("tbody tr").first.inner_text().split()[:2] == [first[0], f"{first[1] / 1000:.3f}"]
        page.keyboard.press("ArrowRight")
    assert page.locator('.dk-token[tabindex="0"]').count() == 1
    assert page.locator(".dk-token[aria-selected=true]").count() == 1


def by_hand(*states, **more):
    """A player of states of three words, for `micro`'s tokenizer."""
    ids = [torch.tensor([MICRO.tokenizer.convert_tokens_to_ids(state.split())]) for state in states]
    return Player([Frame(i, 10.0 - i, one, one, None) for i, one in enumerate(ids)], MICRO.tokenizer, **more)


@in_chromium
def test_page_says_of_each_token_what_it_is(opened):
    player = by_hand("[MASK] ran Mia", "ran ran [MASK]", "Mia ran [PAD]", fixed=torch.tensor([False, True, False]))
    page = opened(player)
    told = []
    for _ in player.frames:
        told.append([token.get_attribute("aria-label") for token in page.locator(".dk-token:visible").all()])
        page.locator(".dk-next").click()
    assert told[0] == ["hidden", "ran, given", "Mia"]
    assert told[1] == ["ran, just revealed", "ran, given", "just hidden"]
    assert told[2] == ["Mia, just changed", "ran, given", "[PAD], just revealed"]
    assert page.locator(".dk-again").count() == 0 and text_of(page) == "Mia ran ·"
    page.locator(".dk-token").first.hover()
    assert "Mia position 1: just changed" in page.locator(".dk-details").inner_text()


@in_chromium
def test_page_says_how_far_a_point_is_from_its_word(opened):
    process = PROCESSES["diffusion_lm"]
    player = Player(run_of(process), MICRO.tokenizer, process=process)
    page = opened(player)
    page.locator(".dk-token").nth(2).hover()
    assert (
        f"at distance {rows(player.data['far'])[0][2] / 10:.1f} from its word"
        in page.locator(".dk-details").inner_text()
    )


@in_chromium
def test_focus_stays_in_the_text_when_its_token_goes(opened):
    """Padding shows only as it comes: a frame later the token in focus is gone."""
    page = opened(by_hand("[MASK] [MASK] [MASK]", "Mia ran [PAD]", "Mia ran [PAD]", interval_ms=1000))
    stop_the_clock(page)
    page.locator(".dk-play").click()
    page.clock.run_for(1100)
    page.locator(".dk-token:visible").last.focus()
    page.clock.run_for(1000)
    assert page.evaluate("document.activeElement.textContent") == "ran"


NASTY = ["[PAD]", "[MASK]", "<script>document.title = 'broken'</script>", "<img src=x onerror=alert(1)>", "</script>"]
NASTY_TOKENIZER = SimpleNamespace(
    convert_ids_to_tokens=lambda ids: [NASTY[i] for i in ids], mask_token_id=1, pad_token_id=0
)


@in_chromium
def test_page_shows_hostile_tokens_as_text(opened):
    """A vocabulary from a stranger may hold anything."""
    ids, probs = torch.tensor([[2, 3, 4]]), torch.full((1, 3, 5), 0.2)
    frames = [Frame(0, 1000.0, ids * 0 + 1, ids * 0 + 1, None), Frame(1, 0.0, ids, ids, probs)]
    player = Player(frames, NASTY_TOKENIZER, title="<b>bold</b>", captions=["<i>one</i>", "<i>two</i>"])
    assert "<script" not in player.still() and "<img" not in player.still() and "<b>" not in player.page(0)
    page = opened(player)
    page.locator(".dk-last").click()
    page.locator(".dk-token").first.hover()
    assert text_of(page) == " ".join(NASTY[2:])
    assert (
        NASTY[2] in page.locator(".dk-details").inner_text()
        and page.locator(".dk-caption").inner_text() == "<i>two</i>"
    )
    assert page.title() == "Player" and page.locator("img, i, b, .dk-player script").count() == 0
    assert page.locator(".dk-title").inner_text() == "<b>bold</b>"


@in_chromium
def test_page_joins_pieces_of_words(opened):
    tokenizer = load_tokenizer(PRETRAINED / "tinystories-mdlm")
    ids = torch.tensor([tokenizer("Lily saw a hedgehog.\nOh")["input_ids"]])
    frames = [Frame(0, 1.0, ids, ids.clone(), None), Frame(1, 0.0, ids, ids, None)]
    frames[0].tokens[0, 1] = tokenizer.mask_token_id
    page = opened(Player(frames, tokenizer))
    assert text_of(page) == f"Lily {HIDDEN} a hedgehog.↵Oh"
    page.locator(".dk-next").click()
    assert text_of(page) == "Lily saw a hedgehog.↵Oh"


@in_chromium
def test_page_runs_two_on_one_clock(opened):
    short = Player(frames_of(), MICRO.tokenizer, title="five steps")
    long = Player(run_of(PROCESS, steps=10), MICRO.tokenizer, title="ten steps")
    page = opened(SideBySide(short, long), viewport={"width": 1000, "height": 700})
    for i in range(11):
        captions = page.locator(".dk-caption").all_inner_texts()
        assert captions == [short.caption(int(i / 2 + 0.5)), long.caption(i)]
        page.locator(".dk-next").click()
    boxes = [page.locator(".dk-board").nth(n).bounding_box() for n in (0, 1)]
    assert boxes[0]["y"] == boxes[1]["y"] and boxes[0]["x"] < boxes[1]["x"]
    page.set_viewport_size({"width": 360, "height": 700})
    boxes = [page.locator(".dk-board").nth(n).bounding_box() for n in (0, 1)]
    assert boxes[0]["y"] < boxes[1]["y"] and boxes[0]["x"] == boxes[1]["x"], "below each other where it is narrow"


@in_chromium
def test_page_says_why_it_cannot_show_a_player(opened):
    page = opened(Player(frames_of(), MICRO.tokenizer))
    page.evaluate("mount(document.querySelector('.dk-mount'), {captions: []})")
    assert "This player cannot be shown" in page.locator("[role=alert]").inner_text()


@in_chromium
@pytest.mark.parametrize("look", ["", "style='background:#111;color:#eee'"], ids=["light", "dark"])
def test_axe_finds_nothing_serious(opened, look):
    start = TEXTS[:1].clone()
    start[0, 1:] = MASK
    process = PROCESSES["diffusion_lm"]
    filled = Player(
        frames_of(start), MICRO.tokenizer, fixed=start[0] != MASK, process=PROCESS, exact=MICRO.denoiser(PROCESS)
    )
    flying = Player(run_of(process, steps=5), MICRO.tokenizer, title="points", process=process)
    page = opened(SideBySide(filled, flying), look)
    for button in ("first", "next", "next", "last"):
        page.locator(f".dk-{button}").click()
        page.locator(".dk-board").first.locator(".dk-token:visible").last.hover()
        assert serious_problems(page) == []
