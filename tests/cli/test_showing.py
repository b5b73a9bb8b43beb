"""Runs to share: pages, pictures, streams and JSON of one run say the same; nothing is written over or by halves."""

import io
import json
import re
import shutil
import sys
from base64 import b64encode
from hashlib import sha256
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from browsers import in_chromium, serious_problems
from PIL import Image
from safetensors.torch import load_file
from toys import MICRO, L, generator, masked_diffusion

from diffkit.cli import main
from diffkit.cli.show.page import player_page
from diffkit.cli.show.picture import gif, reel_of, svg
from diffkit.cli.terminal import HIDDEN, paragraph
from diffkit.sampling.sampler import denoise_frames

MODEL = "--model=pico-mdlm"
NASTY = "</script><img src=x onerror=alert(1)>&\u202e\x1b[31m"

pytestmark = pytest.mark.usefixtures("own_caches")


@pytest.fixture
def here(monkeypatch, tmp_path):
    """An empty folder to stand in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def told(capsys, *words):
    """What a command prints."""
    capsys.readouterr()
    assert main.main([str(word) for word in words]) == 0
    return capsys.readouterr().out


def mistake(capsys, *words):
    """The one line that a command is refused with."""
    capsys.readouterr()
    assert main.main([str(word) for word in words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


class Reader(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.attributes, self.text = [], [], ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def frames():
    process = masked_diffusion()
    start = MICRO.sample(1, generator(4))
    start[:, 1:] = MICRO.mask_id
    run = denoise_frames(process, MICRO.denoiser(process), start=start, steps=L - 1, rng=generator(2), keep_probs=True)
    return [*run]


# ------------------------------------------------------------------------------------------------------ pages, pictures


def test_a_page_needs_nothing_and_runs_only_its_script(frames):
    fixed = frames[0].tokens[0] != MICRO.mask_id
    page = player_page(frames, MICRO.tokenizer, title=NASTY, fixed=fixed)
    reader = Reader(page)
    assert "img" not in reader.tags and not [a for a in reader.attributes if a[1] in ("src", "href", "onerror")]
    (policy,) = [value for _, name, value in reader.attributes if name == "content" and "default-src" in value]
    (script,) = re.findall(r'<script type="module">(.*?)</script>', page, re.S)
    assert f"script-src 'sha256-{b64encode(sha256(script.encode()).digest()).decode()}'" in policy
    assert policy.startswith("default-src 'none'") and ("html", "lang", "en") in reader.attributes
    (data,) = re.findall(r'<script type="application/json" id="film">(.*?)</script>', page, re.S)
    assert json.loads(data)["title"] == NASTY and json.loads(data)["predictions"]
    assert "noscript" in reader.tags and reader.text.count(HIDDEN) >= L - 1


def test_a_picture_shows_each_frame_in_its_time(frames):
    """What the rules leave visible in frame i is frame i; without them, the last."""
    fixed = frames[0].tokens[0] != MICRO.mask_id
    reel = reel_of(frames, MICRO.tokenizer, fixed)
    root = ElementTree.fromstring(svg(reel, NASTY.replace("\x1b", "")))
    assert root.get("role") == "img" and "img src" in root.get("aria-label")
    texts = root.findall("{http://www.w3.org/2000/svg}text")
    for i in range(len(frames)):
        shown = []
        for text in texts:
            moved = re.search(r"animation:f(\d+)_(\d+)", text.get("style"))
            if not moved or int(moved[1]) <= i < int(moved[2]):
                shown.append((text.text, text.get("class")))
        assert shown == [looks[i] for looks in reel.looks if looks[i].text.strip()]
    still = [text.text for text in texts if "opacity:0" not in text.get("style")]
    assert still == [looks[-1].text for looks in reel.looks if looks[-1].text.strip()]
    assert {looks[0].kind for looks in reel.looks} == {"given", "hidden"} and len({*reel.places}) == L


def test_a_gif_has_every_frame_and_rests(frames):
    fixed = frames[0].tokens[0] != MICRO.mask_id
    picture = Image.open(io.BytesIO(gif(reel_of(frames, MICRO.tokenizer, fixed))))
    times = []
    for i in range(picture.n_frames):
        picture.seek(i)
        times.append(picture.info["duration"])
    assert times == [250] * (len(frames) - 1) + [3000]


def test_what_is_saved_is_new_and_whole(here, capsys, monkeypatch):
    plain = told(capsys, "sample", MODEL, "--seed=1", "--steps=6")
    for name in ("run.html", "run.svg", "run.gif"):
        assert told(capsys, "sample", MODEL, "--seed=1", "--steps=6", f"--save={name}") == plain
        before = (here / name).read_bytes()
        assert "is there already" in mistake(capsys, "sample", MODEL, f"--save={name}")
        assert (here / name).read_bytes() == before
    assert {path.name for path in here.iterdir()} == {"run.html", "run.svg", "run.gif"}
    monkeypatch.setattr("diffkit.cli.show.picture.find_spec", lambda name: None)
    for words, said in (
        (["--save=a.gif"], "pip install pillow"), (["--save=a.png"], ".html, .svg, .gif"),
        (["--save=a.svg", "--n=2"], "a picture one"), (["--save=run.html/a.svg"], "not a folder"),
        (["--frames"], "--json"), (["--animate", "--stream"], "--animate"),
    ):  # fmt: skip
        assert said in mistake(capsys, "sample", MODEL, *words)


@in_chromium
def test_the_page_starts_by_its_button_only(chromium, here, capsys):
    from playwright.sync_api import expect

    told(capsys, "sample", MODEL, "--seed=1", "--steps=6", "--save=run.html", "--n=2")
    page = chromium.new_page()
    errors = []
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.goto((here / "run.html").as_uri())
    caption = page.locator(".dk-caption").first
    page.wait_for_timeout(800)
    assert caption.inner_text().startswith("Step 0 of 6") and not serious_problems(page)
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(caption).to_contain_text("Step 6 of 6")
    assert not errors and page.locator(".dk-board").count() == 2
    page.close()


# ------------------------------------------------------------------------------------------- programs, streams, batches


def test_json_streams_and_prints_are_of_one_run(here, capsys):
    how = ["sample", MODEL, "--seed=1", "--steps=6"]
    plain = told(capsys, *how)
    assert told(capsys, *how, "--stream") == plain
    assert told(capsys, *how[:-1], "--order=left_to_right", "--stream") == told(
        capsys, *how[:-1], "--order=left_to_right"
    )
    (found,) = map(json.loads, told(capsys, *how, "--json", "--frames").splitlines())
    assert found["text"] + "\n" == plain and found["seed"] == 1
    assert len(found["frames"]) == 7 and found["frames"][0].startswith(HIDDEN) and found["frames"][-1] == found["text"]
    *steps, last = map(json.loads, told(capsys, *how, "--json", "--stream").splitlines())
    assert [one["step"] for one in steps] == [*range(7)] and steps[-1]["texts"] == [last["text"]] == [found["text"]]
    (new,) = map(json.loads, told(capsys, "sample", MODEL, "--json", "--steps=6").splitlines())
    assert told(capsys, "sample", MODEL, "--steps=6", f"--seed={new['seed']}") == new["text"] + "\n"


def test_a_batch_is_filled_line_by_line_as_if_alone(here, capsys, monkeypatch):
    lines = ["One ___ day Mia walked to the park .", "", "Tom found ___{2} under a tree ."]
    (here / "in.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    alone = [told(capsys, "infill", line, MODEL, "--seed=2", "--complete") for line in lines if line]
    assert told(capsys, "infill", MODEL, "--input", "in.txt", "--seed=2", "--complete") == "".join(alone)
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(lines)))
    found = [
        *map(json.loads, told(capsys, "infill", MODEL, "--input=-", "--seed=2", "--complete", "--json").splitlines())
    ]
    assert [one["text"] + "\n" for one in found] == alone and [one["line"] for one in found] == [1, 3]
    assert found[0]["input"] == lines[0]
    monkeypatch.setattr(sys, "stdin", io.StringIO("One ___ day .\nOne zebra ___ .\n"))
    assert "line 2" in mistake(capsys, "infill", MODEL, "--input=-")
    for words, said in (
        (["--input=nowhere.txt"], "nowhere.txt"), (["--input=in.txt", "--save=a.svg"], "--input"),
        (["a ___", "--input=in.txt"], "a ___"),
    ):  # fmt: skip
        assert said in mistake(capsys, "infill", MODEL, *words)


# ------------------------------------------------------------------------------------------------ samples and run pages

TRAIN = ["train", "--data.corpus=micro", "--data.batch_size=4", "--data.validation_sequences=4", "--model.size=pico"]
TRAIN += ["--train.warmup=1", "--model.dropout=0.1", "--train.validate_every=2"]
TRAIN += ["--train.steps=5", "--train.save_every=2"]


@pytest.fixture
def runs(here, capsys, monkeypatch):
    """The same run twice, with samples and without; and what the trackers were given."""
    logged = []
    monkeypatch.setattr("accelerate.Accelerator.log", lambda self, values, step: logged.append((step, values)))
    assert main.main([*TRAIN, "--out=without"]) == 0
    assert main.main([*TRAIN, "--out=with", "--train.sample_every=1"]) == 0
    return here, logged


def test_samples_change_no_bit_of_a_run(runs, capsys):
    """Dropout draws from torch's own generator; a resumed run repeats no sample."""
    here, logged = runs
    with_samples, without = (load_file(here / name / "model.safetensors") for name in ("with", "without"))
    assert all((with_samples[name] == without[name]).all() for name in without)
    log = here / "with/samples.jsonl"
    found = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    assert [one["step"] for one in found] == [1, 2, 3, 4, 5] and all(len(one["texts"]) == 2 for one in found)
    assert [step for step, values in logged if "samples" in values] == [1, 2, 3, 4, 5]
    assert not (here / "without/samples.jsonl").exists()
    before = log.read_bytes()
    shutil.rmtree(here / "with/checkpoints/step-0000005")
    assert found[4]["texts"][0] in told(capsys, *TRAIN, "--out=with", "--train.sample_every=1", "--resume")
    assert log.read_bytes() == before
    assert "whole model" in mistake(capsys, *TRAIN, "--train.shard=true", "--train.sample_every=1", "--out=x")


def test_a_run_has_a_page(runs, capsys):
    here, _ = runs
    with (here / "with/samples.jsonl").open("a", encoding="utf-8") as log:
        log.write(json.dumps({"step": 3, "texts": [NASTY]}) + '\n{"step": 4, "te')
    assert "report.html" in told(capsys, "report", "with")
    page = (here / "with/report.html").read_text(encoding="utf-8")
    reader = Reader(page)
    assert {"svg", "title", "table", "h1"} <= {*reader.tags} and not {"script", "img", "link"} & {*reader.tags}
    assert not [one for one in reader.attributes if one[1] in ("src", "href") or one[1].startswith("on")]
    alts = [value for tag, name, value in reader.attributes if (tag, name) == ("svg", "aria-label")]
    assert len(alts) == 2 and "held-out bound" in alts[0] and "script-src 'none'" in page
    assert "<img src=x" in reader.text and "\u202e" not in page and "\x1b" not in page and page.count("<h3>Step ") == 6
    assert "data.corpus" in reader.text and "exact entropy" in reader.text and "0.1" in reader.text
    assert "no run" in mistake(capsys, "report", "nowhere")
    assert "is there already" in mistake(capsys, "report", "with", "--out=with/report.html")
    assert "--train.sample_every" in (told(capsys, "report", "without"), (here / "without/report.html").read_text())[1]


def test_a_word_is_only_streamed_when_it_stays(capsys, frames):
    """The pieces that were printed on the way are the text in the end."""
    from diffkit.cli.terminal import stream

    capsys.readouterr()
    assert stream(iter(frames), MICRO.tokenizer) is frames[-1]
    assert capsys.readouterr().out == paragraph(frames[-1].tokens[0], MICRO.tokenizer) + "\n"
