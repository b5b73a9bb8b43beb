"""Training: what is minimised and when, one step by hand, going on after a kill, and every way to end."""

import math
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from concurrent.futures import Future
from contextlib import nullcontext
from dataclasses import replace
from itertools import cycle
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from hypothesis import given
from hypothesis import settings as given_settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from diffkit.cli.train import with_progress
from diffkit.data.batches import StoryBatches
from diffkit.languages.story_language import load_language
from diffkit.model import build_model
from diffkit.processes import PROCESSES, process_from
from diffkit.processes.gaussian.diffusion_lm import DiffusionLM
from diffkit.processes.gaussian.plaid import Plaid
from diffkit.processes.masked import MaskedDiffusion
from diffkit.training import prefetch
from diffkit.training.checkpoint import latest_checkpoint, load_checkpoint
from diffkit.training.config import Curriculum, TrainConfig
from diffkit.training.losses import OBJECTIVES, TIME_SAMPLERS, _counts, low_discrepancy, uniform
from diffkit.training.muon import Muon, make_optimizers
from diffkit.training.pooling import pooled
from diffkit.training.resume import save_run
from diffkit.training.trainer import Trainer, TrainingDiverged, fit

MICRO = load_language("micro")
V, L, MASK = MICRO.vocab_size, MICRO.length, MICRO.mask_id
LINEAR = MaskedDiffusion(V, MASK, "linear")
SHAPE = {"hidden_size": 16, "num_layers": 1, "num_heads": 2, "max_length": L, "tied": False}
# Everything that keeps a state: both optimisers, averaging, dropout, warm-up, decay, a curriculum, accumulation.
ALL = TrainConfig(
    steps=20, optimizer="muon", lr=3e-3, warmup=5, decay=0.5, ema=0.9, accumulate=2, save_every=10,
    curriculum=Curriculum(0.5, 0.2, 0.5), objective="count_cross_entropy",
)  # fmt: skip


def micro_model(seed=0, process=LINEAR, **settings):
    torch.manual_seed(seed)
    return build_model(process, SHAPE, language="micro", **settings)


def batches(B=8, seed=0):
    return StoryBatches(MICRO, B, seed)


def quick(**changes):
    return replace(TrainConfig(steps=5, warmup=1, lr=1e-2), **changes)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def zeros(xt, t):
    return torch.zeros(*xt.shape, V)


def weights(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


@pytest.fixture
def objective(monkeypatch):
    """Register an objective for the masked process, for one test; returns its name."""

    def register(function):
        monkeypatch.setitem(OBJECTIVES, "own", function)
        monkeypatch.setattr(MaskedDiffusion, "objectives", (*MaskedDiffusion.objectives, "own"))
        return "own"

    return register


def same(got, want):
    return got.keys() == want.keys() and all(torch.equal(got[name], want[name]) for name in want)


# --------------------------------------------------------------------------------------------------------------- times


@given(B=st.integers(1, 70), T=st.integers(1, 1200), seed=st.integers(0, 2**31))
@given_settings(deadline=None, max_examples=60)
def test_low_discrepancy_takes_one_time_from_each_slice(B, T, seed):
    t = low_discrepancy(B, T, rng(seed))
    assert t.shape == (B,) and t.dtype == torch.int64 and t.min() >= 1 and t.max() <= T
    slices = torch.arange(B)
    assert (t.sort().values >= slices * T // B + 1).all()
    assert (t.sort().values <= -(-(slices + 1) * T // B)).all()


@pytest.mark.parametrize("sampler", TIME_SAMPLERS.values(), ids=TIME_SAMPLERS)
@pytest.mark.parametrize("row", ["all", 0])
def test_times_are_uniform_in_the_batch_and_in_every_row(sampler, row):
    """The first row too: were its times always early, a fixed batch would be learnt unevenly."""
    T, B, draws = 10, 4, 6000
    times = torch.stack([sampler(B, T, rng) for rng in [rng(1)] for _ in range(draws)])
    times = times if row == "all" else times[:, row]
    counts = torch.bincount(times.flatten(), minlength=T + 1)[1:]
    expected = times.numel() / T
    assert counts.sum() == times.numel()  # whole, within 1..T
    assert ((counts - expected) ** 2 / expected).sum() < 27.9  # chi-square, 9 degrees of freedom, p = 0.001


# ---------------------------------------------------------------------------------------------------------- objectives


def mean_objective(name, process, denoise, rows=256, repeats=40, seed=3):
    """Mean and standard error of an objective over many batches of `micro`."""
    generator, values = rng(seed), []
    for _ in range(repeats):
        x0, t = MICRO.sample(rows, generator), uniform(rows, process.T, generator)
        values.append(OBJECTIVES[name](process, denoise, x0, t, generator).double())
    values = torch.stack(values)
    return values.mean().item(), values.std().item() / math.sqrt(repeats)


@pytest.mark.parametrize("name", ["sequence_mean", "bound", "count_bound"])
def test_with_the_exact_denoiser_a_bound_equals_the_entropy(name):
    """The exact denoiser makes the bound tight: with the linear schedule these three estimate the entropy per token."""
    mean, error = mean_objective(name, LINEAR, MICRO.denoiser(LINEAR))
    assert error < 0.01 and mean == pytest.approx(MICRO.entropy() / L, abs=5 * error + 1e-3)  # 1e-3: steps of 1/T


def test_the_simplest_objective_is_no_bound():
    """Pooled over the batch, the exact denoiser's loss is not the entropy: which is why it must not be reported."""
    mean, error = mean_objective("cross_entropy", LINEAR, MICRO.denoiser(LINEAR))
    assert abs(mean - MICRO.entropy() / L) > 10 * error


@pytest.mark.parametrize("name", ["cross_entropy", "sequence_mean", "count_cross_entropy", "count_bound"])
def test_a_denoiser_that_knows_nothing_costs_the_logarithm_of_the_vocabulary(name):
    x0 = MICRO.sample(16, rng())
    loss = OBJECTIVES[name](LINEAR, zeros, x0, torch.arange(1, 17) * 60, rng())
    assert loss.item() == pytest.approx(math.log(V - 1), rel=1e-6)  # MASK is never predicted


@pytest.mark.parametrize("name", ["cross_entropy", "sequence_mean"])
def test_nothing_masked_costs_nothing(name):
    """At t = 1 of a fine schedule no token may be hit; that is a loss of 0 and not 0 / 0."""
    x0 = MICRO.sample(2, rng())
    assert OBJECTIVES[name](LINEAR, zeros, x0, torch.zeros(2, dtype=torch.long), rng()).item() == 0


def test_cross_entropy_pools_the_batch_and_sequence_mean_does_not():
    """Two rows, 1 and 4 tokens masked, losses of known size: (1 a + 4 b) / 5 against (a + b) / 2."""
    x0 = torch.tensor([[4, 4, 4, 4, 4], [5, 5, 5, 5, 5]])
    is_masked = torch.tensor([[1, 0, 0, 0, 0], [1, 1, 1, 1, 0]]).bool()

    class Fixed(MaskedDiffusion):
        def corrupt(self, x0, t, rng):
            return torch.where(is_masked, MASK, x0), is_masked

    def denoise(xt, t):
        return torch.zeros(2, L, V).index_fill(2, torch.tensor([4]), 2.0)

    a, b = math.log(math.e**2 + V - 2) - 2, math.log(math.e**2 + V - 2)
    process, t = Fixed(V, MASK, "linear"), torch.ones(2)
    assert OBJECTIVES["cross_entropy"](process, denoise, x0, t, rng()).item() == pytest.approx((a + 4 * b) / 5)
    assert OBJECTIVES["sequence_mean"](process, denoise, x0, t, rng()).item() == pytest.approx((a + b) / 2)


def test_counts_are_uniform_under_the_linear_schedule():
    """Also where T is no multiple of L (here 7 steps for 5 tokens), which is what makes count_bound unbiased."""
    process = process_from({**LINEAR.settings(), "T": 7})
    n = 20_000
    counts = torch.bincount(_counts(process, torch.zeros(n, L), uniform(n, 7, rng()), rng(1)), minlength=L + 1)
    assert counts[0] == 0 and ((counts[1:] - n / L) ** 2 / (n / L)).sum() < 18.5  # chi-square, 4 df, p = 0.001


# ------------------------------------------------------------------------------------------------------------ settings


def test_the_curriculum_widens_from_start_to_everything():
    course = Curriculum(start=0.25, hold=0.2, ramp=0.4)
    reached = [course.reach(progress) for progress in (0, 0.1, 0.199, 0.2, 0.4, 0.6, 0.9, 1)]
    assert reached == pytest.approx([0.25, 0.25, 0.25, 0.25, 0.625, 1, 1, 1])
    assert reached == sorted(reached) and Curriculum().reach(0) == 1 and Curriculum(0.5, 0.5).reach(0.51) == 1


def test_only_early_times_are_drawn_while_the_curriculum_holds(monkeypatch):
    seen = []

    def spy(B, T, rng):
        seen.append(T)
        return uniform(B, T, rng)

    monkeypatch.setitem(TIME_SAMPLERS, "spy", spy)
    list(fit(micro_model(), batches(), quick(steps=4, times="spy", curriculum=Curriculum(0.3, 0.5, 0.25))))
    assert seen == [300, 300, 300, 1000]


def test_the_rate_warms_up_stays_and_falls():
    settings = TrainConfig(steps=100, warmup=10, decay=0.5)
    lr_scale = [settings.lr_scale(step) for step in range(100)]
    assert lr_scale[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert lr_scale[10:51] == pytest.approx([1.0] * 41)
    assert lr_scale[75] == pytest.approx(0.5)  # half-way down the half cosine
    assert lr_scale[50:] == sorted(lr_scale[50:], reverse=True) and 0 < lr_scale[99] < 0.002
    assert [TrainConfig(steps=5, warmup=0).lr_scale(step) for step in range(5)] == [1.0] * 5
    assert TrainConfig(steps=100, warmup=0, decay=1.0).lr_scale(50) == pytest.approx(0.5)


def test_both_optimizers_follow_the_warm_up():
    trainer = Trainer(micro_model(), batches(), replace(ALL, warmup=4, muon_lr=0.02), Accelerator())
    for step in range(3):
        trainer.step()
        rates = [group["lr"] for optimizer in trainer.optimizers for group in optimizer.param_groups]
        assert rates == pytest.approx([3e-3 * (step + 1) / 4] * 2 + [0.02 * (step + 1) / 4])


@pytest.mark.parametrize("values", [(0.0,), (1.5,), (0.5, -0.1), (0.5, 0.6, 0.6)])
def test_a_curriculum_that_makes_no_sense_is_refused(values):
    with pytest.raises(ValueError, match="Curriculum: start must be in"):
        Curriculum(*values)


def test_an_objective_of_another_process_is_refused():
    with pytest.raises(ValueError, match="'hybrid' is made for another process.*MaskedDiffusion.*'count_bound'"):
        next(fit(micro_model(), batches(), quick(objective="hybrid")))


def test_each_process_lists_objectives_that_exist():
    assert {name for process in PROCESSES.values() for name in process.objectives} == {*OBJECTIVES}
    assert all("bound" in process.objectives for process in PROCESSES.values())


def test_every_weight_has_exactly_one_optimizer():
    model = micro_model(time="table")
    adamw, muon = make_optimizers(model, ALL)
    groups = [group["params"] for optimizer in (adamw, muon) for group in optimizer.param_groups]
    assert sorted(id(p) for group in groups for p in group) == sorted(id(p) for p in model.parameters())
    names = {id(p): name for name, p in model.named_parameters()}
    assert all(p.ndim == 2 for p in groups[2])
    assert sorted(names[id(p)] for p in groups[0]) == [
        "denoiser.position_embedding.weight", "denoiser.time.table.weight", "denoiser.token_embedding.weight",
    ]  # fmt: skip
    assert [group["weight_decay"] for group in adamw.param_groups] == [0.01, 0.0]  # none for biases and norms
    assert len(make_optimizers(model, quick())) == 1


@pytest.mark.parametrize("process", [DiffusionLM, Plaid])
def test_word_vectors_are_not_orthogonalized(process):
    """A row of them is a token's own: Muon, which moves all directions of a matrix alike, gets the layers only."""
    model = build_model(process(V, MASK), "pico", max_length=L)
    adamw, muon = make_optimizers(model, ALL)
    assert isinstance(muon, Muon)
    names = {id(p): name for name, p in model.named_parameters()}
    trained_by = [{names[id(p)] for g in optimizer.param_groups for p in g["params"]} for optimizer in (adamw, muon)]
    assert "process.words" in trained_by[0] and not any(name.startswith("process.") for name in trained_by[1])
    assert "denoiser.token_embedding.weight" in trained_by[1]  # here a projection of vectors, no table


# ----------------------------------------------------------------------------------------------------------- the steps


def test_fit_yields_one_record_a_step():
    settings, model = quick(validate_every=2), micro_model()
    judged = []
    records = list(fit(model, batches(), settings, validate=lambda m: judged.append(m.training) or 1.5))
    assert [record.step for record in records] == [1, 2, 3, 4, 5]
    assert [record.validation for record in records] == [None, 1.5, None, 1.5, 1.5]  # and at the end
    assert judged == [False] * 3 and not model.training
    assert all(math.isfinite(r.loss) and r.grad_norm > 0 and r.tokens_per_second > 0 for r in records)
    assert records[0].lr == settings.lr


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_one_batch_can_be_overfitted(optimizer, objective):
    """Three stories, each with its fourth word hidden: the network learns them by heart."""
    x0 = torch.tensor(MICRO.tokenizer(["Mia ran Tom ran", "Tom hid Mia hid", "Mia hid Mia ran"])["input_ids"])
    x0 = torch.cat([x0, torch.full((3, 1), MICRO.eos_id)], 1)
    fourth = torch.where(torch.arange(L) == 3, MASK, x0)
    name = objective(lambda process, denoise, x0, t, rng: process.token_loss(denoise, x0, fourth, t).sum() / 3)
    settings = TrainConfig(steps=100, warmup=5, lr=1e-2, optimizer=optimizer, ema=0, objective=name)
    model = micro_model()
    losses = [record.loss for record in fit(model, cycle([x0]), settings)]
    assert losses[0] > 1.5 and losses[-1] < 0.05
    assert torch.equal(model(fourth, 1).argmax(-1)[:, 3], x0[:, 3])


def test_two_steps_equal_adamw_by_hand():
    """The loop against a plain one: same masks, same rates, same clipping."""
    settings = quick(steps=2, clip=0.1, times="uniform")
    trained, plain = micro_model(), micro_model()
    records = list(fit(trained, batches(), replace(settings, ema=0)))
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in plain.parameters() if p.ndim > 1], "weight_decay": 0.01},
            {"params": [p for p in plain.parameters() if p.ndim < 2], "weight_decay": 0.0},
        ],
        lr=1e-2,
        betas=(0.9, 0.98),
    )
    generator, texts = rng(settings.seed), batches()
    for record in records:
        x0, t = next(texts), uniform(8, 1000, generator)
        loss = OBJECTIVES["cross_entropy"](LINEAR, plain, x0, t, generator)
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(plain.parameters(), 0.1)
        optimizer.step()
        assert (record.loss, record.grad_norm) == pytest.approx((loss.item(), norm.item()), rel=1e-6)
    for (name, got), want in zip(trained.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(got, want, msg=name)


@pytest.mark.parametrize("name", ["cross_entropy", "sequence_mean", "bound"])
def test_a_step_of_several_batches_is_a_step_of_one(name):
    """32 rows, 2 x 16 and 4 x 8: the same noise, and means over all of them, though their masks are not as many."""
    results = []
    for accumulate in (1, 2, 4):
        texts = (part for batch in batches(32) for part in batch.chunk(accumulate))
        model, config = micro_model(), quick(objective=name, accumulate=accumulate, ema=0, steps=2)
        records = list(fit(model, texts, config))
        results.append([torch.tensor([(r.loss, r.grad_norm) for r in records]), *weights(model).values()])
    for others in results[1:]:
        torch.testing.assert_close(others, results[0], atol=1e-5, rtol=1e-3)


def test_a_step_in_which_nothing_is_masked_moves_nothing(objective):
    """Neither 0 / 0, nor a weight of 0 for the batches that follow."""
    masks = iter([0, 0, 0, 1])

    def few(process, denoise, x0, t, rng):
        xt = x0.clone()
        xt[:, : next(masks)] = MASK
        return pooled(process.token_loss(denoise, x0, xt, t).sum(), (xt == MASK).sum())

    records = list(fit(micro_model(), batches(), quick(objective=objective(few), accumulate=2, steps=2)))
    assert records[0].loss == records[0].grad_norm == 0 and records[1].loss > 1 and records[1].grad_norm > 0


@pytest.mark.parametrize("most", [0.3, 0.9])
def test_the_average_equals_one_made_by_hand(most):
    """It starts at the first weights, and after n steps keeps min(ema, (1 + n) / (10 + n)) of itself."""
    model, seen = micro_model(), []
    average, config = weights(model), quick(ema=most, validate_every=1)
    for n, _ in enumerate(fit(model, batches(), config, validate=lambda m: seen.append(weights(m)) or 0.0)):
        keep, now = min(most, (1 + n) / (10 + n)), weights(model)
        average = {name: keep * average[name] + (1 - keep) * now[name] for name in now}
        for name, value in average.items():
            torch.testing.assert_close(seen[n][name], value, atol=1e-6, rtol=1e-5)  # what was validated
    assert same(weights(model), seen[-1])  # after the loop the model holds the average


def test_the_average_of_weights_that_grow_evenly_lags_by_a_tenth_of_the_run():
    """Weights 1, 2, 3 ...: the lag obeys d(n + 1) = (1 + n) / (10 + n) (d(n) + 1) from d(0) = 0, solved by n / 10."""
    trainer = Trainer(micro_model(), batches(), quick(ema=0.999), Accelerator())
    weight, average = (each["denoiser.head_bias"] for each in (trainer.weights, trainer.average))
    for optimizer in trainer.optimizers:
        optimizer.step = lambda: weight.add_(1.0)
    for n in range(1, 31):
        trainer.step()
        assert weight.unique().tolist() == [n]
        torch.testing.assert_close(average, torch.full((V,), 0.9 * n))


def test_without_averaging_the_model_keeps_its_last_weights():
    model = micro_model()
    for _ in fit(model, batches(), quick(ema=0)):
        last = weights(model)
    assert same(weights(model), last)


def test_the_same_seed_gives_the_same_training():
    runs = []
    for seed in (0, 0, 1):
        model = micro_model()
        runs.append([record.loss for record in fit(model, batches(), quick(seed=seed))])
    assert runs[0] == runs[1] != runs[2]


def test_half_precision_learns_and_keeps_full_weights():
    """bfloat16 inside the network; and a second accelerator in the process is no problem, nor is the first for it."""
    losses = {}
    for precision in ("no", "bf16", "no"):
        model = micro_model()
        losses[precision] = [r.loss for r in fit(model, batches(), quick(steps=3, precision=precision))]
        assert {p.dtype for p in model.parameters()} == {torch.float32}
        assert model(torch.full((1, L), MASK), 1).dtype == torch.float32
    assert losses["bf16"] == pytest.approx(losses["no"], rel=0.05) and losses["bf16"] != losses["no"]


class Reads(TorchDispatchMode):
    """Counts what is read back from tensors: each of these makes a GPU's queue run empty."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += str(func).startswith(("aten._local_scalar_dense", "aten.is_nonzero", "aten.equal"))
        return func(*args, **kwargs or {})


@pytest.mark.parametrize("name", ["count_cross_entropy", "count_bound"])
def test_a_step_reads_nothing_back_but_what_it_logs(name):
    """Loss and norm come in one list; AdamW's own counter of steps, on the CPU, is left out here."""
    trainer = Trainer(micro_model(), batches(), quick(objective=name), Accelerator())
    trainer.source = iter([(next(batches()), None)] * 2)
    for optimizer in trainer.optimizers:
        optimizer.step = lambda: None
    trainer.step()
    with Reads() as reads:
        trainer.step()
    assert reads.count == 0


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch warns of itself while it traces
@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a compiler")
def test_a_compiled_run_has_the_same_losses(tmp_path):
    if " " in torch.__file__:
        pytest.skip("the C++ compiler of torch.compile does not take a folder with a space")
    losses, names = [], []
    for config in (quick(), quick(compile=True)):
        folder = tmp_path / str(config.compile)
        losses.append([record.loss for record in fit(micro_model(), batches(), config, folder=folder)])
        names.append({*load_checkpoint(latest_checkpoint(folder))[0]})
    assert losses[1] == pytest.approx(losses[0], rel=1e-4) and names[1] == names[0]


# ------------------------------------------------------------------------------------------------------------- resuming

CHILD = """
import sys, torch
sys.path.insert(0, {folder!r})
torch.set_num_threads({threads})
from pathlib import Path
from test_trainer import ALL, batches, fit, micro_model
for record in fit(micro_model(dropout=0.1), batches(), ALL, folder=Path({run!r})):
    print(record.step, record.loss.hex(), flush=True)
    if record.step == 13:
        sys.stdin.read()  # until it is killed
"""


def run_until_killed(folder):
    """Train in another process and kill -9 it three steps after the checkpoint; the losses it had reported."""
    code = CHILD.format(folder=str(Path(__file__).parent), threads=torch.get_num_threads(), run=str(folder))
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8") as child:
        told = dict(child.stdout.readline().split() for _ in range(13))
        child.kill()
    assert child.returncode == -signal.SIGKILL
    return {int(step): float.fromhex(loss) for step, loss in told.items()}


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no kill -9 here")
def test_twenty_steps_equal_ten_a_kill_and_ten_more(tmp_path):
    """Bit for bit: losses, weights, averages, both optimisers' moments, random states and the place in the data."""
    straight = micro_model(dropout=0.1)
    losses = {r.step: r.loss for r in fit(straight, batches(), ALL, folder=tmp_path / "straight")}
    before_the_kill = run_until_killed(tmp_path / "killed")
    assert before_the_kill == {step: losses[step] for step in range(1, 14)}
    assert latest_checkpoint(tmp_path / "killed").name == "step-0000010"
    torch.manual_seed(99)  # nothing may hang on what happens to be around
    resumed, texts = build_model(LINEAR, SHAPE, language="micro", dropout=0.1), batches()
    records = list(fit(resumed, texts, ALL, folder=tmp_path / "killed", resume=True))
    assert {r.step: r.loss for r in records} == {step: losses[step] for step in range(11, 21)}
    assert same(weights(resumed), weights(straight))
    ends = [load_checkpoint(latest_checkpoint(tmp_path / run)) for run in ("straight", "killed")]
    assert same(ends[1][0], ends[0][0]) and ends[1][1] == ends[0][1]
    names = {name.split(".")[0] for name in ends[0][0]}
    assert names == {"model", "average", "optimizer", "rng", "rng_torch"} and ends[0][1]["step"] == 20


def test_a_finished_run_resumes_to_its_model(tmp_path):
    model, again = micro_model(), micro_model(seed=1)
    list(fit(model, batches(), quick(), folder=tmp_path))
    assert list(fit(again, batches(), quick(), folder=tmp_path, resume=True)) == []
    assert same(weights(again), weights(model))


def test_the_newest_two_checkpoints_are_kept(tmp_path):
    list(fit(micro_model(), batches(), quick(save_every=1), folder=str(tmp_path)))  # a string is a path, too
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-0000004", "step-0000005"]


def test_a_second_run_in_the_same_folder_is_refused(tmp_path):
    list(fit(micro_model(), batches(), quick(), folder=tmp_path))
    with pytest.raises(ValueError, match="already holds a run .step-0000005.*Resume it, or choose another folder"):
        next(fit(micro_model(), batches(), quick(), folder=tmp_path))


@pytest.mark.parametrize(
    ("model", "settings", "texts", "message"),
    [
        ({"num_layers": 2}, {}, {}, r"another run .denoiser\.num_layers: 1 there, 2 here.*Resume with the config"),
        ({"causal": True}, {}, {}, r"another run .denoiser\.causal: False there, True here"),  # the weights would fit
        ({}, {"optimizer": "muon"}, {}, "another run .optimizer: adamw there, muon here"),
        ({}, {}, {"B": 4}, "other batches .batch_size 8 there, 4 here"),
        ({"process": MaskedDiffusion(V, MASK, "cosine")}, {}, {}, r"process\.schedule: linear there, cosine here"),
    ],
)
def test_the_checkpoint_of_another_run_is_refused(tmp_path, model, settings, texts, message):
    list(fit(micro_model(), batches(), quick(), folder=tmp_path))
    with pytest.raises(ValueError, match=message):
        next(fit(micro_model(**model), batches(**texts), quick(steps=9, **settings), folder=tmp_path, resume=True))


def test_a_damaged_checkpoint_stops_the_resume_and_the_one_before_still_works(tmp_path):
    list(fit(micro_model(), batches(), quick(save_every=4), folder=tmp_path))
    newest = latest_checkpoint(tmp_path)
    state = newest / "state.safetensors"
    state.write_bytes(state.read_bytes()[:-100])
    with pytest.raises(ValueError, match="step-0000005 is not a whole checkpoint.*Delete that folder"):
        next(fit(micro_model(), batches(), quick(), folder=tmp_path, resume=True))
    shutil.rmtree(newest)
    assert [r.step for r in fit(micro_model(), batches(), quick(), folder=tmp_path, resume=True)] == [5]


class AtOnce(nullcontext):
    """In place of a thread that is as fast as can be."""

    def __init__(self, workers):
        super().__init__(self)

    def submit(self, make):
        future = Future()
        future.set_result(make())
        return future


@pytest.mark.parametrize("used", [0, 1, 3])
def test_batches_made_ahead_are_not_lost(used, monkeypatch):
    """The position is that of the last batch handed out, though the next is made already; so it is at the end."""
    monkeypatch.setattr(prefetch, "ThreadPoolExecutor", AtOnce)
    straight, ahead = batches(), batches()
    source = prefetch.prefetched(ahead)
    for _ in range(used):
        batch, position = next(source)
        assert torch.equal(batch, next(straight)) and position == straight.state_dict() != ahead.state_dict()
    source.close()
    assert ahead.state_dict() == straight.state_dict() and torch.equal(next(ahead), next(straight))


def test_a_run_with_batches_made_ahead_resumes_bit_for_bit(tmp_path):
    """With both optimizers, dropout and accumulation; see the test with kill -9 for the same from another process."""
    config = replace(ALL, steps=5)
    straight, resumed = micro_model(dropout=0.1), micro_model(dropout=0.1)
    losses = [record.loss for record in fit(straight, batches(), config)]
    trainer = Trainer(micro_model(dropout=0.1), batches(), config, Accelerator())
    trainer.source = prefetch.prefetched(trainer.batches)
    assert [trainer.step()[0] for _ in range(3)] == losses[:3]
    save_run(trainer, tmp_path)
    trainer.source.close()
    torch.manual_seed(99)
    assert [record.loss for record in fit(resumed, batches(), config, folder=tmp_path, resume=True)] == losses[3:]
    assert same(weights(resumed), weights(straight))


# -------------------------------------------------------------------------------------------------------- other endings


def poisoned(step, how):
    """An objective that turns bad in a certain call: its value, or only its gradient."""
    calls = []

    def objective(process, denoise, x0, t, rng):
        loss = OBJECTIVES["cross_entropy"](process, denoise, x0, t, rng)
        calls.append(1)
        if len(calls) < step:
            return loss
        return loss * float(how) if how != "gradient" else loss + (loss - loss.detach()).abs().sqrt()

    return objective


@pytest.mark.parametrize("how", ["nan", "inf", "gradient"])
def test_divergence_stops_before_it_reaches_weights_or_checkpoints(tmp_path, objective, how):
    name, model, seen = objective(poisoned(4, how)), micro_model(), []
    with pytest.raises(TrainingDiverged, match="gradient norm .* at step 4.*lower the learning rate"):
        for record in fit(model, batches(), quick(objective=name, save_every=1), folder=tmp_path):
            seen.append(record.step)
    assert seen == [1, 2, 3] and latest_checkpoint(tmp_path).name == "step-0000003"
    tensors, _ = load_checkpoint(latest_checkpoint(tmp_path))
    assert all(torch.isfinite(value).all() for value in (*tensors.values(), *model.state_dict().values()))
    again = fit(model, batches(), quick(), folder=tmp_path, resume=True)  # the same model, its gradients cleared
    assert [record.step for record in again] == [4, 5]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_while_the_caller_works_ends_after_the_step_and_saves(tmp_path, number):
    before, seen = signal.getsignal(number), []
    for record in fit(micro_model(), batches(), quick(steps=50), folder=tmp_path):
        seen.append(record.step)
        if record.step == 3:
            os.kill(os.getpid(), number)
    assert seen == [1, 2, 3] and latest_checkpoint(tmp_path).name == "step-0000003"
    assert signal.getsignal(number) is before
    assert next(fit(micro_model(), batches(), quick(steps=50), folder=tmp_path, resume=True)).step == 4


def test_ctrl_c_within_a_step_lets_it_finish(tmp_path, objective):
    def interrupted(process, denoise, x0, t, rng):
        os.kill(os.getpid(), signal.SIGINT)
        return OBJECTIVES["cross_entropy"](process, denoise, x0, t, rng)

    records = list(fit(micro_model(), batches(), quick(objective=objective(interrupted)), folder=tmp_path))
    assert [record.step for record in records] == [1] and latest_checkpoint(tmp_path).name == "step-0000001"


def test_a_second_ctrl_c_breaks_off_at_once():
    before = signal.getsignal(signal.SIGINT)
    run = fit(micro_model(), batches(), quick(steps=50))
    next(run)
    os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
    run.close()
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize("how", ["end", "break", "error"])
def test_signal_handlers_are_put_back(how):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    try:
        for _ in fit(micro_model(), batches(), quick(steps=2)):
            assert signal.getsignal(signal.SIGINT) is not before[0]
            if how == "break":
                break
            if how == "error":
                raise RuntimeError
    except RuntimeError:
        pass
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_training_works_outside_the_main_thread():
    """Where no signal can be caught, as in some notebooks' callbacks."""
    records = []
    thread = threading.Thread(target=lambda: records.extend(fit(micro_model(), batches(), quick())))
    thread.start()
    thread.join()
    assert len(records) == 5


# ----------------------------------------------------------------------------------------------------------- the bar


def test_the_bar_of_a_resumed_run_starts_where_it_was(tmp_path, capsys):
    settings = quick(steps=8, save_every=4)
    for record in fit(micro_model(), batches(), settings, folder=tmp_path):
        if record.step == 4:
            break
    run = with_progress(fit(micro_model(), batches(), settings, folder=tmp_path, resume=True), settings)
    assert [record.step for record in run] == [5, 6, 7, 8]
    shown = capsys.readouterr().err.replace("\r", "\n").strip().splitlines()
    assert "4/8" in shown[0]
    assert re.search(r"100%\|.*\| 8/8 \[.*step.*loss \d\.\d{3}, [\d,]+ tokens/s\]", shown[-1]), shown[-1]


def test_a_run_without_steps_left_shows_no_bar(capsys):
    assert list(with_progress(iter(()), quick())) == []
    assert capsys.readouterr() == ("", "")


def test_denormal_numbers_are_flushed_only_while_training():
    """`fit` must not leave the process computing differently from before, finished or left early."""
    tiny = torch.tensor([1e-310], dtype=torch.float64)
    for steps in (1, 2):
        records = fit(micro_model(), batches(), TrainConfig(steps=2, warmup=1))
        for _ in range(steps):
            next(records)
        assert (tiny * 1.0).item() == 0
        records.close()
        assert (tiny * 1.0).item() > 0
