"""What a GPU must not change. Skipped where there is none: run on a machine with CUDA, `pytest tests/test_cuda.py`."""

import importlib
from collections import Counter
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Generator

from diffkit.cli.main import main
from diffkit.cli.train import read_log
from diffkit.course.infilling import conditional_gap
from diffkit.course.network_calls import NoChangeCache
from diffkit.course.orders import order_bounds
from diffkit.course.parallel_cost import score_order
from diffkit.course.variable_length import grow
from diffkit.data.batches import StoryBatches
from diffkit.evaluation.bounds import nelbo
from diffkit.evaluation.by_count import error_by_count
from diffkit.languages.story_language import load_language
from diffkit.model import build_model, load_model
from diffkit.paths import PRETRAINED
from diffkit.processes.masked import MaskedDiffusion
from diffkit.sampling.guidance import condition_on
from diffkit.sampling.parallel import confidence_threshold
from diffkit.sampling.sampler import denoise_frames, last_frame, sample
from diffkit.sampling.skipping import FirstHitting, SkipIdle, even_times
from diffkit.training.config import TrainConfig
from diffkit.training.trainer import Trainer, fit

sampling = importlib.import_module("diffkit.sampling.sampler")
if not torch.cuda.is_available():
    pytest.skip("no GPU here; CUDA is tested on a machine that has one", allow_module_level=True)
TALES, L = load_language("tales"), 48
MODELS = sorted(path.name for path in PRETRAINED.glob("tales-*"))


def seeded(seed=0):
    return Generator().manual_seed(seed)


@pytest.fixture(autouse=True)
def exact_products(monkeypatch):
    """TF32 would round the products of matrices to ten bits; what is compared here are two float32 results."""
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)


@pytest.fixture(params=MODELS)
def pair(request):
    return load_model(request.param), load_model(request.param).cuda()


def test_bounds_agree(pair):
    """The same draws: 1e-3 nats of 23 a story is 2e-6 a token and layer, what reordered float32 sums may cost."""
    x0 = TALES.sample(8, seeded())
    here, there = (nelbo(model.process, model, x0, rng=seeded(1), draws=2) for model in pair)
    assert here.mean == pytest.approx(there.mean, abs=1e-3)


def test_same_seed_same_story(pair):
    """Draws are made on the CPU in float64, so a token differs only at a near tie: one story of three may."""
    model, on_gpu = pair
    order = model.process.default_order
    texts = [
        sample(each.process, each, shape=(3, L), steps=12, rng=seeded(2), order=order).cpu() for each in (model, on_gpu)
    ]
    assert (texts[0] == texts[1]).all(1).sum() >= 2


def test_exact_denoiser_answers_on_the_gpu():
    process = load_model("tales-mdlm").process
    zt = TALES.sample(4, seeded()).masked_fill(torch.rand(4, L, generator=seeded(1)) < 0.5, TALES.mask_id)
    t = torch.full((4,), 500.0)
    there = TALES.denoiser(process)(zt.cuda(), t.cuda())
    assert there.is_cuda and torch.equal(there.cpu(), TALES.denoiser(process)(zt, t))


@pytest.mark.parametrize("order", sampling.UNMASKING_ORDERS)
def test_rules(order):
    model = load_model("tales-mdlm")
    texts = [
        sample(model.process, each, shape=(3, L), steps=12, rng=seeded(3), order=order, top_k=20).cpu()
        for each in (model, load_model("tales-mdlm").cuda())
    ]
    assert (texts[0] == texts[1]).all(1).sum() >= 2


def test_fast_samplers():
    model, on_gpu = load_model("tales-mdlm"), load_model("tales-mdlm").cuda()
    process = model.process
    for sampler in (SkipIdle(process, even_times(1000, 12)), FirstHitting(process), confidence_threshold(process, 0.9)):
        texts = [last_frame(denoise_frames(sampler, each, shape=(3, L), rng=seeded(4))) for each in (model, on_gpu)]
        assert texts[1].tokens.is_cuda
        assert (texts[0].tokens == texts[1].tokens.cpu()).all(1).sum() >= 2
    kept = sample(process, NoChangeCache(on_gpu), shape=(2, L), steps=12, rng=seeded(5))
    assert torch.equal(kept, sample(process, on_gpu, shape=(2, L), steps=12, rng=seeded(5)))


def test_grow_and_write():
    for name in ("tales-block", "tales-ar"):
        texts = []
        for model in (load_model(name), load_model(name).cuda()):
            if name == "tales-ar":
                texts.append(sample(model.process, model, shape=(3, L), steps=L, rng=seeded(6)).cpu())
                continue
            ends = {"eos_id": TALES.eos_id, "pad_id": TALES.pad_id}
            frames = grow(model.process, model, rows=3, length=L, steps=8, rng=seeded(6), **ends)
            texts.append(last_frame(frames).tokens.cpu())
        assert (texts[0] == texts[1]).all(1).sum() >= 2


def test_guidance_and_exact_comparisons():
    model = load_model("tales-mdlm-conditional").cuda()
    told = condition_on(model, 1)
    assert sample(model.process, told, shape=(2, L), steps=4, rng=seeded()).is_cuda
    plain = [load_model("tales-mdlm"), load_model("tales-mdlm").cuda()]
    x0 = TALES.sample(4, seeded())
    missing = torch.rand(4, L, generator=seeded(1)) < 0.4
    process = plain[0].process
    gaps = [conditional_gap(process, each, TALES, x0, missing, rng=seeded(2)).mean for each in plain]
    assert gaps[0] == pytest.approx(gaps[1], abs=1e-3)
    counts = [error_by_count(process, each, TALES, counts=(4, 48), n=4, rng=seeded(3)) for each in plain]
    assert counts[0][1].model == pytest.approx(counts[1][1].model, abs=1e-4)
    orders = torch.stack([torch.randperm(L, generator=seeded(i)) for i in range(4)])
    nats = [order_bounds(process, each, x0, orders) for each in plain]
    assert torch.allclose(nats[0], nats[1], atol=2e-3)
    costs = [score_order("confidence", TALES, steps=6, n=4, model=each).mean for each in plain]
    assert costs[0] == pytest.approx(costs[1], abs=1e-2)


def trained(folder, precision):
    """A fresh nano model after twelve steps of the command line."""
    AcceleratorState._reset_state(reset_partial_state=True)
    words = ["train", "--out", str(folder), "--train.precision", precision, "--train.warmup", "2"]
    words += ["--data.batch_size", "16", "--train.save_every", "6", "--data.validation_sequences", "8"]
    words += ["--train.validate_every", "12", "--train.optimizer", "adamw", "--train.steps", "12"]
    assert main(words) == 0


def test_training_from_the_command_line(tmp_path, capsys):
    """accelerate takes the GPU. bfloat16 has 8 bits: 2 % of a loss near 5 nats; both learn the same."""
    told = []
    for precision in ("no", "bf16"):
        folder = tmp_path / precision
        trained(folder, precision)
        told.append(torch.tensor([record["loss"] for record in read_log(folder)]))
        assert main(["sample", "--model", str(folder), "--steps", "4", "--seed", "1"]) == 0
    assert "cuda" in capsys.readouterr().out
    assert len(told[0]) == 12 and torch.allclose(told[0], told[1], rtol=0.02)


def run(on_cpu, folder=None, steps=12, resume=False, **more):
    """Losses of a run of twelve steps, left after some of them."""
    AcceleratorState._reset_state(reset_partial_state=True)
    torch.manual_seed(0)
    model = build_model(MaskedDiffusion(TALES.vocab_size, TALES.mask_id), "pico", max_length=L)
    settings = TrainConfig(steps=12, warmup=2, save_every=6, optimizer="muon", **more)
    batches, accelerator = StoryBatches(TALES, 16, 0), Accelerator(cpu=on_cpu)
    records = fit(model, batches, settings, folder=folder, accelerator=accelerator, resume=resume)
    return [record.loss for _, record in zip(range(steps), records, strict=False)]


def test_a_gpu_run_follows_a_cpu_run(tmp_path):
    """The same weights, batches and masks: apart by rounding only; what one began, the other goes on with."""
    here, there = run(on_cpu=True), run(on_cpu=False)
    assert there == pytest.approx(here, abs=2e-3)
    assert run(on_cpu=False, folder=tmp_path, steps=6) == pytest.approx(here[:6], abs=2e-3)
    assert run(on_cpu=True, folder=tmp_path, resume=True) == pytest.approx(here[6:], abs=2e-3)


@pytest.mark.parametrize("objective", ["count_cross_entropy", "count_bound"])
def test_a_step_reads_the_gpu_once(objective, recwarn):
    """To read loss and gradient norm; beyond that only the number of masked positions is waited for."""
    AcceleratorState._reset_state(reset_partial_state=True)
    model = build_model(MaskedDiffusion(TALES.vocab_size, TALES.mask_id), "pico", max_length=L)
    config = TrainConfig(objective=objective, optimizer="muon")
    trainer = Trainer(model, StoryBatches(TALES, 16, 0), config, Accelerator())
    trainer.step()
    recwarn.clear()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        trainer.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
        trainer.source.close()
    waits = Counter(Path(warning.filename).name for warning in recwarn)
    assert waits["trainer.py"] == 1
    assert {*waits} <= {"trainer.py", "transformer.py", "masked.py", "graph.py"}  # graph.py: the same in backward


def test_a_compiled_run_has_the_losses_of_an_eager_one():
    """What remains is rounding: the compiler fuses sums."""
    assert run(on_cpu=False, compile=True) == pytest.approx(run(on_cpu=False), abs=2e-3)


def test_bfloat16_answers_nearly_the_same():
    """Weights and all in bfloat16, 8 bits a number: a hundredth of a nat a token at most (an H200: 0.00002)."""
    model, rounded = load_model("tales-mdlm").cuda(), load_model("tales-mdlm").cuda().bfloat16()
    x0 = TALES.sample(256, seeded())
    nats = [nelbo(each.process, each, x0, rng=seeded(1)).mean / L for each in (model, rounded)]
    assert nats[1] == pytest.approx(nats[0], abs=0.01)
    texts = sample(rounded.process, rounded, shape=(256, L), steps=L, rng=seeded(2), order="random").cpu()
    assert (TALES.log_prob(texts) > -torch.inf).double().mean() > 0.7  # 0.9 of a model in float32, too
