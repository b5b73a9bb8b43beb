"""The shipped configs, and `build`, which turns settings into everything that a run needs."""

import shutil
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path

import pytest
import torch
from datasets import IterableDataset

from diffkit.cli.settings import DataSettings, ModelSettings, _split, build, read, read_config, read_held_out
from diffkit.data import corpus
from diffkit.data.tokenizer import word_level_tokenizer
from diffkit.languages.story_language import load_language
from diffkit.model import load_model
from diffkit.network.transformer import parameter_count
from diffkit.paths import PRETRAINED
from diffkit.processes.block import BlockDiffusion
from diffkit.processes.d3pm import D3PM
from diffkit.processes.masked import MaskedDiffusion

FOLDER = Path(__file__).resolve().parents[2] / "configs"
CONFIGS, LEADERBOARD = sorted(FOLDER.glob("*.yaml")), sorted(FOLDER.glob("leaderboard/*.yaml"))
LETTERS = "abcdefghij"
LINEAR = partial(MaskedDiffusion, schedule="linear")


pytestmark = pytest.mark.usefixtures("own_caches")


@pytest.fixture
def stand_in(tmp_path):
    """A local text and tokenizer in place of those on the Hub, as settings."""
    lines = [" ".join(LETTERS[(i + k * k) % 10] for k in range(5 + i % 7)) for i in range(400)]
    (tmp_path / "text.txt").write_text("\n".join(lines), encoding="utf-8")
    word_level_tokenizer(LETTERS).save_pretrained(tmp_path / "tokenizer")
    return {"corpus": str(tmp_path / "text.txt"), "tokenizer": str(tmp_path / "tokenizer")}


def test_there_is_a_config_for_every_size_and_a_default():
    sizes, others = {"default", "nano", "tiny", "small", "medium"}, {"finish", "ar", "conditional", "block", "hybrid"}
    others |= {"d3pm-absorbing", "d3pm-uniform", "sedd", "diffusion-lm", "plaid", "soft-plaid", "udlm"}
    real = {"wikitext2", "openwebtext"} | {
        f"tinystories-{model}{part}" for model in ("mdlm", "block", "ar") for part in ("", "-finish")
    }
    assert {path.stem for path in CONFIGS} == sizes | {f"nano-{other}" for other in others} | real


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_builds(path, stand_in, tmp_path, monkeypatch):
    """Names, types and values are right, and a batch fits the model; real text is replaced by a local stand-in."""
    settings = read_config(path)
    monkeypatch.chdir(tmp_path)
    data, model = settings.data, settings.model
    real = data.corpus not in ("tales", "micro")
    if real:
        model = replace(model, init="")  # of another vocabulary than the stand-in's
    if model.init:
        shutil.copytree(PRETRAINED / "tales-mdlm", model.init)  # shadows a shipped model of the same name
    small = {"validation_sequences": 2, "validation_fraction": 0.5, "batch_size": 2}
    shop = build(DataSettings(**{**vars(data), **small, **(stand_in if real else {})}), model, 0)
    x0 = next(shop.batches)
    assert x0.shape == (2, data.length if real else 48) and x0.dtype == torch.int64
    own = {key: value for key, value in shop.model.process.settings().items() if key not in ("vocab_size", "mask_id")}
    assert own.pop("name") == settings.model.plain()["process"] and all(
        settings.model.plain()[key] == own[key] for key in own
    )
    assert (shop.language is None) == real == (shop.model.config.language is None)
    named, real_stories = path.stem.split("-")[0], {"hidden_size": 192, "num_layers": 5, "num_heads": 6, "tied": True}
    others = {"default": "nano", "wikitext2": "tiny", "openwebtext": "small", "tinystories": real_stories}
    assert settings.model.size == others.get(named, named)
    assert settings.train.steps >= 100 and 0 < settings.train.lr < 0.01


@pytest.mark.parametrize("path", sorted(FOLDER.rglob("*.yaml")), ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_every_line_of_a_config_is_explained(path):
    for line in path.read_text(encoding="utf-8").splitlines():
        assert "#" in line or line.endswith(":"), f"{path.name}: {line}"


def test_openwebtext_is_streamed_and_so_is_a_part_of_it(monkeypatch):
    """What its config asks for, on a stand-in that counts the pages it gives: nothing is read ahead of need."""
    given = []

    def pages():
        for i in range(5000):
            given.append(i)
            yield {"text": " ".join(LETTERS[(i + k) % 10] for k in range(40))}

    monkeypatch.setattr(corpus, "_from_hub", lambda *_: IterableDataset.from_generator(pages))
    settings = read_config(FOLDER / "openwebtext.yaml")
    train, validation = _split(replace(settings.data, limit=3000, validation_fraction=0.1), seed=0)
    assert isinstance(train, IterableDataset) and isinstance(validation, IterableDataset)
    given.clear()
    assert len(list(islice(train, 20))) == 20 and len(given) < 100
    assert len(list(train)) + len(list(validation)) == 3000


def test_the_same_seed_builds_the_same_run():
    data, model = DataSettings("micro", validation_sequences=4), ModelSettings("nano", LINEAR)
    shops = [build(data, model, seed) for seed in (3, 3, 4)]
    batches = [next(shop.batches) for shop in shops]
    weights = [torch.cat([p.flatten() for p in shop.model.parameters()]) for shop in shops]
    assert torch.equal(batches[0], batches[1]) and not torch.equal(batches[0], batches[2])
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    assert shops[0].validate(shops[0].model.eval()) == shops[1].validate(shops[1].model.eval())


def test_a_language_brings_its_own_words_and_length():
    language = load_language("micro")
    shop = build(DataSettings("micro", tokenizer="none", length=999), ModelSettings("nano"), 0)
    assert shop.model.denoiser.config.max_length == language.length
    assert shop.model.config.language == "micro" and len(shop.tokenizer) == language.vocab_size
    assert parameter_count(shop.model) > 100_000


def test_held_out_text_is_what_training_never_sees(stand_in):
    data = DataSettings(**stand_in, length=8, validation_fraction=0.3, validation_sequences=10**6)
    held_out = read_held_out(data, 0)
    assert torch.equal(read(data, 0).validation, held_out)
    whole = read_held_out(DataSettings(**{**vars(data), "validation_fraction": 1.0}), 0)
    assert 0.2 < len(held_out) / len(whole) < 0.4


def test_nothing_left_to_train_on_is_an_error(stand_in):
    with pytest.raises(ValueError, match="both sides need a document"):
        read(DataSettings(**stand_in, length=8, validation_fraction=1.0), 0)


def test_too_little_text_is_an_error(stand_in):
    with pytest.raises(ValueError, match="one chunk needs 100000 tokens"):
        read(DataSettings(**stand_in, length=100_000, validation_fraction=0.5), 0)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"size": "huge"}, "'nano', 'tiny', 'small', 'medium'"),
        ({"time": "noon"}, "'adaln'"),
        ({"dropout": 1.0}, "dropout"),
        ({"process": partial(MaskedDiffusion, schedule="wavy")}, "cosine"),
        ({"process": partial(MaskedDiffusion, weight="heavy")}, "'heavy'"),
        ({"process": partial(D3PM, noise="loud")}, "'loud'"),
        ({"process": partial(BlockDiffusion, block=0)}, "block=0"),
        ({"process": partial(BlockDiffusion, block="few")}, "process"),
        ({"process": lambda vocab_size, mask_id: None}, "process must be one of"),
    ],
)
def test_model_settings_are_checked_before_any_text_is_read(wrong, named):
    with pytest.raises(ValueError, match=named):
        ModelSettings(**{"size": "nano"} | wrong)


def test_a_schedule_of_another_length_comes_from_a_config(tmp_path):
    """The settings of a process may hold those of its schedule."""
    schedule = "{class_path: diffkit.get_schedule, init_args: {name: linear, T: 100}}"
    process = f"{{class_path: MaskedDiffusion, init_args: {{schedule: {schedule}}}}}"
    (tmp_path / "own.yaml").write_text(f"data: {{corpus: micro}}\nmodel: {{size: pico, process: {process}}}\n")
    assert read_config(tmp_path / "own.yaml").plain()["model"]["T"] == 100


def test_a_run_starts_from_the_weights_of_another_model():
    """All weights are taken over, and training on goes from there."""
    settings = ModelSettings("nano", LINEAR, init="tales-mdlm")
    model = build(DataSettings("tales", batch_size=2, validation_sequences=1), settings, 0).model
    trained = load_model("tales-mdlm").state_dict()
    assert trained and all(torch.equal(value, trained[name]) for name, value in model.state_dict().items())


def test_weights_of_another_shape_are_refused():
    settings = ModelSettings("nano", LINEAR, init="tales-mdlm")
    with pytest.raises(ValueError, match=r"start_from: .* of 'tales-mdlm' do not fit .* the same size"):
        build(DataSettings("micro", batch_size=2, validation_sequences=1), settings, 0)
