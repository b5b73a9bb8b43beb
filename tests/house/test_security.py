"""A vocabulary, model, config or name from a stranger runs nothing, shows as what it is, and leaves no folder."""

import ast
import copy
import json
import os
import pickle
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
import torch
from browsers import in_chromium
from safetensors.torch import load_file, save_file
from test_playground import make_playground, opened, save
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from toys import MASK, MICRO, TEXTS, L, generator, masked_diffusion
from transformers import PreTrainedTokenizerFast

from diffkit.cli import report
from diffkit.cli.evaluate import evaluate
from diffkit.cli.main import main
from diffkit.cli.settings import DataSettings, ModelSettings, default_output
from diffkit.cli.terminal import paragraph
from diffkit.course import plots
from diffkit.course.widgets.board import InfillingBoard
from diffkit.course.widgets.dashboard import TrainingDashboard
from diffkit.course.widgets.explorer import NoiseExplorer
from diffkit.course.widgets.player import Player, PlayerView, SideBySide
from diffkit.course.widgets.sampler_lab import SamplerLab
from diffkit.data.chunks import tokenize_corpus
from diffkit.data.corpus import load_corpus
from diffkit.data.tokenizer import SPECIAL_TOKENS, load_tokenizer
from diffkit.io import write_atomic
from diffkit.model import build_model, load_model, model_folder
from diffkit.paths import PRETRAINED
from diffkit.processes.masked import MaskedDiffusion
from diffkit.processes.schedules import get_schedule
from diffkit.sampling.sampler import denoise_frames
from diffkit.training.trainer import Record

ROOT = Path(__file__).resolve().parents[2]

# ------------------------------------------------------------------------------------------------------ text is text

NASTY = [
    "<script>window.pwned=1</script>", "<img src=x onerror=window.pwned=1>", '"onmouseover="window.pwned=1', "'",
    "&lt;b&gt;", "]]>", "</script>", "--><!--", "a\nb", "\u200fright", "\u202eturned", "\x1b[31mred", "$$", "$\\frac",
    "{}", "`", "${window.pwned=1}",
]  # fmt: skip


@pytest.fixture(scope="module")
def hostile():
    """`micro`, each of whose words is written as something else."""
    words = {word: i for i, word in enumerate([*SPECIAL_TOKENS, *NASTY])}
    made = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel(words, unk_token="[UNK]")),
        pad_token="[PAD]", mask_token="[MASK]", eos_token="[EOS]", unk_token="[UNK]",
    )  # fmt: skip
    language = copy.copy(MICRO)
    language.tokenizer = made
    return language


def player_of(language):
    process = masked_diffusion()
    frames = list(
        denoise_frames(process, MICRO.denoiser(process), shape=(1, L), steps=L, rng=generator(0), keep_probs=True)
    )
    captions = (NASTY * 2)[: len(frames)]
    return Player(frames, language.tokenizer, title=NASTY[0], captions=captions, fixed=torch.arange(L) == 0)


def board_pages(language):
    """A board as it starts and after a run, with its error."""
    board = InfillingBoard(masked_diffusion(), MICRO.denoiser(masked_diffusion()), language, TEXTS[4], hidden=(0, 1))
    panel = board.controls()
    _, _, actions, alert, page = panel.children
    actions.children[0].click()
    found = [page.value]
    panel.children[0].children[0].value, panel.children[0].children[1].value = "type", NASTY[0]
    panel.children[1].children[0].click()
    return [*found, page.value, alert.value, board.still()]


@pytest.fixture(scope="module")
def pages(hostile):
    """All HTML that the viewers make of the hostile language: name -> pages."""
    language, process, player = hostile, masked_diffusion(), player_of(hostile)
    schedule = replace(get_schedule("linear"), name=NASTY[1])
    dashboard = TrainingDashboard(3, samples=lambda _: " ".join(NASTY), every=1, title=NASTY[0])
    controls = dashboard.controls()
    list(dashboard.watch([Record(1, 1.0, 1.0, 1.0, 1.0)]))
    lab = SamplerLab(process, language, model=MICRO.denoiser(process), batch=8, batches=1)
    return {
        "player": [player.still(), SideBySide(player, player).still()],
        "board": board_pages(language),
        "explorer": [NoiseExplorer(TEXTS[4], language.tokenizer, [schedule], points=2).still()],
        "dashboard": [dashboard.still(), *(part.value for part in controls.children if hasattr(part, "value"))],
        "sampler lab": [lab.still()],
    }


class Reader(HTMLParser):
    """What a browser would make of a page: its elements, its attributes, its text."""

    def __init__(self, page):
        super().__init__(convert_charrefs=True)
        self.tags, self.attributes, self.text = set(), set(), ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data):
        self.text += data


OURS = set(
    "style div p span b i samp small strong table caption tr th td h4 svg title path polyline text circle pre".split()
)


def test_hostile_tokens_show_as_what_they_are_in_every_viewer(pages):
    """No element and no attribute but our own, and each page shows one of the tokens letter by letter."""
    for name, made in pages.items():
        seen = ""
        for page in made:
            reader = Reader(page)
            assert reader.tags <= OURS, f"{name} has the elements {reader.tags - OURS}"
            assert not [a for a in reader.attributes if a.startswith("on") or a in ("src", "href")], name
            seen += reader.text
        assert any(word in seen for word in NASTY if "<" in word), f"{name} shows none of the tokens"


@in_chromium
def test_hostile_tokens_run_nothing_in_a_browser(chromium, hostile, pages):
    """The player's own script, and the HTML of the others put into the page as ipywidgets does it."""
    player = player_of(hostile)
    others = json.dumps("".join(page for name in pages for page in pages[name])).replace("<", "\\u003c")
    data = json.dumps(player.data).replace("<", "\\u003c")
    script = PlayerView._esm.split("\nexport ")[0]
    page = chromium.new_page()
    page.set_content(f"""<!DOCTYPE html><div id=player></div><div id=others></div><script>{script}
      mount(document.querySelector("#player"), {data}); document.querySelector("#others").innerHTML = {others};
    </script>""")
    page.locator("#player .dk-last").click()
    for token in page.locator("#player .dk-token").all():
        token.hover()
    page.mouse.move(0, 0)
    page.wait_for_timeout(300)
    assert page.evaluate("typeof window.pwned") == "undefined"
    assert page.locator("img, #player script, #others script, iframe").count() == 0
    shown = page.locator("body").inner_text()
    assert NASTY[0] in page.locator("#player").inner_text() and NASTY[0] in shown and NASTY[1] in shown
    page.close()


@in_chromium
def test_hostile_tokens_run_nothing_in_the_playground(chromium, hostile, tmp_path):
    torch.manual_seed(0)
    process = MaskedDiffusion(len(hostile.tokenizer), MASK)
    model = build_model(process, {"hidden_size": 16, "num_layers": 1, "num_heads": 2}, max_length=L)
    folder = save(model, hostile.tokenizer, tmp_path / "<i>model")
    make_playground.write_playground(folder, tmp_path / "page")
    with opened(chromium, tmp_path / "page") as page:
        page.locator("#go").click()
        page.wait_for_timeout(1500)
        assert page.evaluate("typeof window.pwned") == "undefined"
        assert page.locator("img, main script").count() == 0
        assert any(word in page.locator("body").inner_text() for word in NASTY)


def test_hostile_tokens_move_no_terminal(hostile, tmp_path, capsys):
    """Neither as a text nor in an error, here the name of a weight; the reading direction is not turned either."""
    shown = paragraph(torch.arange(len(hostile.tokenizer)), hostile.tokenizer)
    assert "\x1b" not in shown and "\u202e" not in shown and "�[31mred" in shown and "�turned" in shown
    folder = shutil.copytree(PRETRAINED / "pico-mdlm", tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    save_file(weights | {"\x1b[2J": torch.zeros(1)}, folder / "model.safetensors", metadata={"format": "pt"})
    assert main(["sample", "--model", str(folder)]) == 2
    line = capsys.readouterr().err
    assert "�[2J" in line and "\x1b" not in line and line.count("\n") == 1


@pytest.mark.filterwarnings("ignore:Glyph")
@pytest.mark.parametrize("word", ["$$", "$\\frac$\x1b[31m", "<b>a$b\u202e"])
def test_hostile_tokens_are_words_in_a_figure(word):
    """A dollar starts no formula, which might be none; no figure stays open."""
    how, both = {"title": word, "alt": word}, {word: [1, 2], "b": [2, 1]}
    for picture in (
        plots.bars({word: 1.0, "b": 2.0}, x_label=word, **how),
        plots.lines([1, 2], both, x_label="x", y_label="y", level=(word, 1.0), log_x=True, **how),
        plots.word_map(torch.eye(3), [word, "b", "c"], {word: [word, "b"]}, **how),
        plots.attention_map(torch.eye(2), [word, "b"], **how),
    ):
        assert picture.png[:4] == b"\x89PNG" and "<b>" not in json.dumps(picture._repr_mimebundle_()[1])
    assert not plt.get_fignums()


def test_a_report_names_a_hostile_folder_as_text():
    found = {"exact": True, "nats_per_sequence": 1.0, "nats_per_sequence_se": 0.1, "sequences": 1, "length": 1}
    found |= {"policy": "", "perplexity": 1.0, "units": {}, "unknown": 0.0, "entropy_nats_per_token": 1.0}
    found |= {"gap_nats_per_token": 0.1, "gap_se": 0.1, "by_count": [], "true_stories": {}, "sampled": {}}
    assert report.page(NASTY[0], found).startswith("# &lt;script&gt;window.pwned=1&lt;/script&gt;\n")


# -------------------------------------------------------------------------------------------------- code is never run


class Bomb:
    """What runs a command when it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def change(path, **settings):
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | settings), encoding="utf-8")


def own_code(folder, marker):
    """Code beside the model, named as transformers wants it."""
    classes = "class C(PretrainedConfig):\n    model_type = 'own'\nclass M(PreTrainedModel): pass\n"
    classes += "class T(PreTrainedTokenizerFast): pass\n"
    code = f"import os\nos.mkdir({str(marker)!r})\nfrom transformers import *\n{classes}"
    (folder / "own.py").write_text(code, encoding="utf-8")
    names = {"AutoConfig": "own.C", "AutoModel": "own.M", "AutoModelForCausalLM": "own.M"}
    change(folder / "config.json", auto_map=names)
    change(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["own.T", "own.T"]}, tokenizer_class="T")


def own_type(folder, marker):
    own_code(folder, marker)
    change(folder / "config.json", model_type="own")


def pickle_beside(folder, marker):
    torch.save(Bomb(marker), folder / "pytorch_model.bin")


def pickle_alone(folder, marker):
    pickle_beside(folder, marker)
    (folder / "model.safetensors").unlink()


def index_of(folder, weights):
    """The index of shards says that all weights are in one file."""
    names = dict.fromkeys(load_file(folder / "model.safetensors"), weights)
    index = json.dumps({"metadata": {}, "weight_map": names})
    (folder / "model.safetensors.index.json").write_text(index, encoding="utf-8")


def pickle_in_the_index(folder, marker):
    """Safetensors lie there too, but the index of shards names a pickle."""
    (folder / "part.bin").write_bytes(pickle.dumps(Bomb(marker)))
    index_of(folder, "part.bin")
    (folder / "model.safetensors").rename(folder / "part.safetensors")


def index_leads_away(folder, marker):
    index_of(folder, "../away.safetensors")
    (folder / "model.safetensors").rename(folder.parent / "away.safetensors")
    (folder / "other.safetensors").touch()


def pickle_in_the_config(folder, marker):
    (folder / "part.bin").write_bytes(pickle.dumps(Bomb(marker)))
    change(folder / "config.json", transformers_weights="part.bin")


def kernel_from_the_hub(folder, marker):
    change(folder / "config.json", attn_implementation="someone/kernel")


def kernel_within(folder, marker):
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    change(folder / "config.json", denoiser=config["denoiser"] | {"attn_implementation": "someone/kernel"})


def library_of_quantisation(folder, marker):
    change(folder / "config.json", quantization_config={"quant_method": "gptq", "bits": 4})


LOADED = (own_code, pickle_beside, pickle_in_the_config, kernel_from_the_hub, library_of_quantisation)
REFUSED = (own_type, pickle_alone, pickle_in_the_index, index_leads_away, kernel_within)


@pytest.fixture
def visited(tmp_path, monkeypatch):
    """A model's folder, what a spoiled one would leave, and a reader who says yes to every question."""
    asked = []
    monkeypatch.setattr("builtins.input", lambda *question: asked.append(question) or "y")
    yield shutil.copytree(PRETRAINED / "pico-mdlm", tmp_path / "model"), tmp_path / "marker"
    assert not (tmp_path / "marker").exists(), "code was run"
    assert not asked, f"the reader was asked {asked}"


@pytest.mark.parametrize("spoil", LOADED, ids=lambda spoil: spoil.__name__)
def test_a_model_is_loaded_without_what_comes_with_it(visited, spoil):
    folder, marker = visited
    before = load_model(folder).state_dict()
    spoil(folder, marker)
    after = load_model(folder).state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("spoil", REFUSED, ids=lambda spoil: spoil.__name__)
def test_a_model_that_needs_more_than_safetensors_is_refused(visited, spoil):
    spoil(*visited)
    with pytest.raises(ValueError):
        load_model(visited[0])


def test_a_tokenizer_with_code_of_its_own_is_refused(visited):
    own_type(*visited)
    with pytest.raises(ValueError, match="custom code"):
        load_tokenizer(visited[0])


@pytest.mark.parametrize("text", ["!!python/object/apply:os.mkdir ['{}']", "{{class_path: os.mkdir, init_args: {{}}}}"])
def test_a_config_makes_no_object(tmp_path, capsys, text):
    config = (ROOT / "configs" / "default.yaml").read_text(encoding="utf-8")
    spoiled = re.sub(r"corpus: \S+", lambda _: f"corpus: {text.format(tmp_path / 'marker')}", config, count=1)
    (tmp_path / "run.yaml").write_text(spoiled, encoding="utf-8")
    assert main(["data", "--config", str(tmp_path / "run.yaml")]) == 2
    assert capsys.readouterr().err.count("\n") == 1 and not (tmp_path / "marker").exists()


# Called by none of our programs; `subprocess` is for tests, and for the script that runs them on broken code.
NEVER = set(
    "eval exec compile __import__ os.system os.popen os.execv os.execl os.spawnv pickle.load pickle.loads torch.load "
    "numpy.load joblib.load marshal.loads shelve.open yaml.load yaml.unsafe_load yaml.full_load runpy.run_path "
    "importlib.import_module subprocess.run subprocess.Popen subprocess.call subprocess.check_output "
    "torch.hub.load shutil.unpack_archive tarfile.open zipfile.ZipFile".split()
)
PROGRAMS = sorted(
    path for folder in ("diffkit", "scripts", "benchmarks", "docs") for path in (ROOT / folder).rglob("*.py")
)


def dangers(tree):
    """(line, what) for each call of NEVER, under whatever name it was imported, and each Auto class left to ask."""
    real = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            real |= {one.asname or one.name.split(".")[0]: one.name if one.asname else one.name.split(".")[0]
                     for one in node.names}  # fmt: skip
        elif isinstance(node, ast.ImportFrom):
            real |= {one.asname or one.name: f"{node.module}.{one.name}" for one in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute):  # also where it is handed on and not called
            first, dot, rest = ast.unparse(node).partition(".")
            name = real.get(first, first) + dot + rest
            if name.removeprefix("builtins.") in NEVER:
                yield node.lineno, name
        if isinstance(node, ast.Call):
            name, options = ast.unparse(node.func), {one.arg: ast.unparse(one.value) for one in node.keywords}
            if re.fullmatch(r"Auto\w+\.from_pretrained", name) and options.get("trust_remote_code") != "False":
                yield node.lineno, f"{name} without trust_remote_code=False"
            if options.get("shell", "False") != "False":
                yield node.lineno, f"{name} by a shell"


def test_no_program_of_ours_runs_text():
    found = {str(path.relative_to(ROOT)): [*dangers(ast.parse(path.read_text(encoding="utf-8")))] for path in PROGRAMS}
    known = {name: {"subprocess.run"} for name in ("scripts/mutants.py", "benchmarks/side_by_side.py")}
    known |= {name: {"importlib.import_module"} for name in ("diffkit/__init__.py", "diffkit/cli/main.py")}
    known["benchmarks/speedrun/run.py"] = {"importlib.import_module"}  # one of the records beside it
    known["diffkit/training/config.py"] = {"compile"}  # a setting of that name
    assert {path: {what for _, what in calls} for path, calls in found.items() if calls} == known


@pytest.mark.parametrize(
    "source",
    [
        "from os import system as s\ns('ls')", "import yaml as y\ny.load(f)", "from torch import load\nload(f)",
        "import builtins\nbuiltins.eval('1')", "map(eval, lines)", "import numpy as np\nnp.load(f)",
        "AutoTokenizer.from_pretrained(name)", "AutoModel.from_pretrained(name, trust_remote_code=settings.trust)",
        "import subprocess\nsubprocess.run('ls')", "run('ls', shell=True)",
    ],
)  # fmt: skip
def test_a_danger_is_seen(source):
    """The checker itself."""
    assert list(dangers(ast.parse(source)))


# -------------------------------------------------------------------------------------------------- names stay names


def test_a_name_of_a_model_does_not_climb():
    """Only a plain name is looked up among the shipped models; anything else is the path that it says."""
    assert model_folder("pico-mdlm") == PRETRAINED / "pico-mdlm"
    for name in ("../pretrained/pico-mdlm", "..", "pico-mdlm/..", "/etc", "nowhere/pico-mdlm"):
        assert model_folder(name) == Path(name)


def test_a_report_of_the_folder_above_stays_in_reports(tmp_path, monkeypatch):
    """`--model ..` made reports/.., which is the folder of the reader's own README.md."""
    inside = shutil.copytree(PRETRAINED / "pico-mdlm", tmp_path / "mine") / "inside"
    inside.mkdir()
    monkeypatch.chdir(inside)
    written = []
    monkeypatch.setattr(report, "measure", lambda *_, **__: {})
    monkeypatch.setattr(report, "write", lambda name, _, folder: written.append((name, folder)))
    with pytest.raises(KeyError):  # nothing to print
        evaluate(model="..", all=True)
    assert written == [("mine", Path("reports/mine"))]


def test_a_run_has_a_folder_of_its_own_under_runs():
    model = ModelSettings("nano")
    for corpus in ("../../secret.txt", "/etc/passwd", "..", ".", "a/../b.txt", "tales"):
        folder = default_output(DataSettings(corpus), model)
        assert folder.parent == Path("runs") and folder.name not in ("", ".", "..")


def test_what_is_cached_has_no_name_from_outside(tmp_path, own_caches):
    """Neither the name of the text nor its words become part of a path."""
    text = tmp_path / "$(touch marker);..%2F..%2Fx.txt"
    text.write_text("\n".join(f"Mia ran ../../{i} . Mia ran ." for i in range(20)), encoding="utf-8")
    before = set(tmp_path.iterdir())
    tokenize_corpus(load_corpus(text), MICRO.tokenizer, 5)
    kept = sorted(path.name for path in Path(os.environ["DIFFKIT_CACHE"]).rglob("*"))
    assert re.fullmatch(r"chunks-[0-9a-f]{32}\.arrow documents-[0-9a-f]{32}\.arrow", " ".join(kept))
    assert set(tmp_path.iterdir()) == before


def test_a_file_is_not_written_through_a_link(tmp_path):
    """The link is replaced; what it led to stays."""
    (tmp_path / "theirs").write_text("theirs", encoding="utf-8")
    (tmp_path / "report.json").symlink_to(tmp_path / "theirs")
    write_atomic(tmp_path / "report.json", "ours")
    assert (tmp_path / "theirs").read_text(encoding="utf-8") == "theirs"
    assert not (tmp_path / "report.json").is_symlink()


# ------------------------------------------------------------------------------------------------------- JupyterLab

OPEN = (
    r"(token|password)\s*=\s*(''|\"\"|$|\s--)", r"allow_origin(_pat)?\s*=\s*\S*[*]", r"disable_check_xsrf",
    r"allow_remote_access", r"allow_unauthenticated_access", r"trust_all",
)  # fmt: skip


def test_the_lab_is_for_this_machine_and_keeps_its_token():
    dry = ["make", "-n", "lab", "READY=.nobody"]
    line = subprocess.run(dry, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "--ServerApp.ip=127.0.0.1" in line and "token" not in line and "password" not in line
    configs = [path for path in (ROOT / ".jupyter").rglob("*") if path.is_file()]
    pages = [ROOT / "Makefile", ROOT / "README.md", *ROOT.glob("Dockerfile*"), *(ROOT / "docs").rglob("*.md"), *configs]
    for path in pages:
        text = path.read_text(encoding="utf-8")
        found = [one for one in OPEN if re.search(one, text, re.MULTILINE)]
        assert not found, f"{path.name}: {found}"
