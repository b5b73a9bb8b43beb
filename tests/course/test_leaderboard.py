"""The ruler of the leaderboard on denoisers whose place on it is known, and the stored table against the models."""

import math
from pathlib import Path

import pytest
import torch
from toys import MICRO, TALES, generator, uniform_denoiser

from diffkit.cli.settings import DataSettings, build, read_config
from diffkit.course.experiments.leaderboard import (
    STEPS,
    TITLES,
    Board,
    as_json,
    by_likelihood,
    by_samples,
    likelihood,
    read_board,
    sample_texts,
    samplers_of,
    score_samples,
    steps_of,
)
from diffkit.evaluation.samples import quality
from diffkit.model import fingerprint, load_model
from diffkit.network.transformer import parameter_count
from diffkit.processes.autoregressive import Autoregressive
from diffkit.processes.d3pm import D3PM
from diffkit.processes.gaussian.diffusion_lm import DiffusionLM
from diffkit.processes.gaussian.plaid import Plaid
from diffkit.processes.masked import MaskedDiffusion
from diffkit.processes.sedd import SEDD, UDLM
from diffkit.training.config import TrainConfig

ROOT = Path(__file__).resolve().parents[2]
BOARD = read_board(ROOT / "benchmarks" / "results" / "leaderboard.json")
WORDS = {"vocab_size": MICRO.vocab_size, "mask_id": MICRO.mask_id}
SHARED = {"data": {*DataSettings.__dataclass_fields__}, "model": {"size", "rotary", "dropout", "conditional", "init"}}
SHARED |= {"train": {*TrainConfig.__dataclass_fields__} - {"objective", "curriculum"}}


def config_of(name):
    """The settings of a row's config."""
    return read_config(ROOT / "configs" / "leaderboard" / f"{name}.yaml")


# ---------------------------------------------------------------------------------------------------------- equal terms


def test_every_row_has_a_config_and_every_config_a_row():
    assert {path.stem for path in (ROOT / "configs" / "leaderboard").iterdir()} == set(TITLES)


@pytest.mark.parametrize("name", TITLES)
def test_rows_differ_in_the_method_and_in_nothing_else(name):
    first, own = config_of("mdlm").plain(), config_of(name).plain()
    for section, keys in SHARED.items():
        assert all(own[section][key] == first[section][key] for key in keys), f"{name}: {section} differs"


@pytest.mark.parametrize("name", TITLES)
def test_every_config_builds_and_its_network_is_the_same_but_for_ends_and_time(name):
    shop = build(DataSettings("tales", validation_sequences=2), config_of(name).model, 0)
    inner = [tuple(p.shape) for key, p in shop.model.denoiser.named_parameters() if key.startswith("blocks")]
    of_attention_and_mlp = {(192, 64), (64, 64), (256, 64), (64, 256)}
    assert sum(math.prod(shape) for shape in inner if shape in of_attention_and_mlp) == 3 * 12 * 64**2


# ------------------------------------------------------------------------------------------------------------ the ruler

PROCESSES = {
    "mdlm": lambda: MaskedDiffusion(**WORDS, schedule="linear"),
    "d3pm": lambda: D3PM(**WORDS, noise="uniform"),
    "sedd": lambda: SEDD(**WORDS),
    "udlm": lambda: UDLM(**WORDS),
    "plaid": lambda: Plaid(**WORDS),
    "twin": lambda: Autoregressive(**WORDS),
}


@pytest.mark.parametrize("name", PROCESSES)
def test_the_exact_denoiser_is_at_the_entropy(name):
    """No gap at all, and a slack within 5 standard errors of zero (chance 6e-7), beside what the ends of noise cost."""
    torch.manual_seed(0)
    process = PROCESSES[name]()
    found = likelihood(process, MICRO.denoiser(process), MICRO, 200, seed=3, draws=8)
    assert found.gap.mean == 0 and found.excess == found.slack
    ends = 0.02 if name in ("sedd", "plaid") else 1e-12
    assert abs(found.slack.mean) <= 5 * found.slack.standard_error + ends


def test_a_denoiser_that_knows_nothing_is_log_v_minus_the_entropy_away():
    """Uniform probabilities cost log(V - 1) a token, whatever is hidden: no chance in it but that of the stories."""
    process = PROCESSES["mdlm"]()
    found = likelihood(process, uniform_denoiser, MICRO, 400, seed=3)
    want = math.log(MICRO.vocab_size - 1) - MICRO.entropy() / MICRO.length
    assert abs(found.excess.mean - want) < 5 * found.excess.standard_error < 0.2
    assert found.gap.mean + found.slack.mean == pytest.approx(found.excess.mean, abs=1e-12)


def test_samplers_and_steps_are_those_of_the_process():
    found = {name: (samplers_of(process()), steps_of(process(), 5)) for name, process in PROCESSES.items()}
    assert found["mdlm"] == (("ancestral", "random"), STEPS) and found["twin"] == (("ancestral",), (5,))
    assert found["plaid"] == (("ddpm", "ddim"), STEPS) and found["udlm"] == found["sedd"] == (("ancestral",), STEPS)


@pytest.mark.parametrize("sampler", ["ddpm", "ddim"])
def test_texts_come_from_the_given_sampler_and_the_process_keeps_its_own(sampler):
    torch.manual_seed(0)
    process = DiffusionLM(**WORDS, sampler="renoise")
    drawn = sample_texts(process, MICRO.denoiser(process), sampler, n=70, L=MICRO.length, steps=4, rng=generator())
    assert drawn.shape == (70, MICRO.length) and process.sampler == "renoise"
    process.sampler = sampler
    again = sample_texts(process, MICRO.denoiser(process), sampler, n=70, L=MICRO.length, steps=4, rng=generator())
    assert torch.equal(drawn, again)


def test_the_exact_denoiser_writes_stories_one_position_at_a_time():
    process = PROCESSES["mdlm"]()
    found = score_samples(
        "exact", process, MICRO.denoiser(process), MICRO, sampler="random", steps=MICRO.length, n=100, seed=1
    )
    assert found.valid == 1 and (found.denoiser, found.sampler, found.n) == ("exact", "random", 100)
    few = score_samples("exact", process, MICRO.denoiser(process), MICRO, sampler="random", steps=1, n=100, seed=1)
    assert few.valid < 0.9
    drawn = sample_texts(process, MICRO.denoiser(process), "random", n=100, L=MICRO.length, steps=1, rng=generator(1))
    assert quality(MICRO, drawn).valid == few.valid


# ------------------------------------------------------------------------------------------------------------ the table


def test_the_table_is_whole_and_its_models_are_those_shipped():
    """A row for every method, made with the config that lies here, and scored with the weights that ship."""
    first = [row for row in BOARD.rows if row.seed == 0]
    assert [row.name for row in first] == [*TITLES]
    for row in first:
        settings = config_of(row.name).plain()
        for section, stored in row.settings.items():  # a setting that was added later has its default
            assert settings[section] == settings[section] | {k: v for k, v in stored.items() if k in settings[section]}
        assert row.weights == fingerprint(f"pico-{row.name}"), row.name
        model = load_model(f"pico-{row.name}")
        assert row.parameters == parameter_count(model)
        assert row.tokens == settings["train"]["steps"] * settings["data"]["batch_size"] * TALES.length
        assert row.curve[-1][0] == settings["train"]["steps"] and row.seconds and row.minutes > 1
        tried = {(each.denoiser, each.sampler, each.steps) for each in row.samples}
        samplers, steps = samplers_of(model.process), steps_of(model.process, TALES.length)
        assert tried == {(who, sampler, n) for who in ("trained", "exact") for sampler in samplers for n in steps}


@pytest.mark.slow
@pytest.mark.parametrize("name", [*TITLES][::4])
def test_the_table_can_be_repeated(name):
    """Other stories and texts: the gap within 5 standard errors of both together (6e-7); valid texts likewise."""
    row = next(row for row in BOARD.rows if (row.name, row.seed) == (name, 0))
    model = load_model(f"pico-{name}")
    found = likelihood(model.process, model, TALES, 48, seed=5, draws=4).gap
    error = math.hypot(found.standard_error, row.likelihood.gap.standard_error)
    assert abs(found.mean - row.likelihood.gap.mean) < 5 * error
    sampler, steps = samplers_of(model.process)[0], steps_of(model.process, TALES.length)[0]
    stored = next(s for s in row.samples if (s.denoiser, s.sampler, s.steps) == ("trained", sampler, steps))
    again = score_samples("trained", model.process, model, TALES, sampler=sampler, steps=steps, n=64, seed=5)
    p = (stored.valid * stored.n + again.valid * again.n + 1) / (stored.n + again.n + 2)
    assert abs(stored.valid - again.valid) < 5 * math.sqrt(p * (1 - p) * (1 / stored.n + 1 / again.n))


def test_the_table_is_written_and_read_again(tmp_path):
    path = tmp_path / "board.json"
    path.write_text(as_json(BOARD), encoding="utf-8")
    assert read_board(path) == BOARD
    assert read_board(tmp_path / "none.json") == Board({}, [])


def test_tables_show_every_row_and_the_best_first():
    nats = by_likelihood(BOARD.rows).splitlines()
    best = min(BOARD.rows, key=lambda row: row.likelihood.excess.mean)
    assert nats[1].startswith(best.title()) and len(nats) == 1 + len(BOARD.rows)
    assert len({len(line) for line in nats}) == 1
    for what in ("valid", "plot_kl"):
        table = by_samples(BOARD.rows, what)
        assert all(row.title() in table for row in BOARD.rows) and "64 steps" in table.splitlines()[0]
    twin = next(line for line in by_samples(BOARD.rows).splitlines() if line.startswith("autoregressive"))
    assert twin.split()[-4:-1] == ["-", "-", "-"] and twin.endswith("%")
