"""What all processes have in common: each trains by the same loop, is saved as one folder, and names its mistakes."""

import json
from functools import partial

import pytest
import torch
from toys import MASK, MICRO, TEXTS, L, V, generator, table_denoiser

from diffkit.cli.settings import DataSettings, ModelSettings, build
from diffkit.evaluation.bounds import gap_to_entropy
from diffkit.model import load_model, quiet
from diffkit.processes import process_from
from diffkit.processes.autoregressive import Autoregressive
from diffkit.processes.block import BlockDiffusion
from diffkit.processes.d3pm import D3PM, REVERSES
from diffkit.processes.gaussian.diffusion_lm import DiffusionLM
from diffkit.processes.gaussian.plaid import Plaid, SoftTokenPlaid
from diffkit.processes.hybrid import HybridDiffusion
from diffkit.processes.insertion import EditFlow, FlexMDM
from diffkit.processes.masked import MaskedDiffusion
from diffkit.processes.schedules import get_schedule
from diffkit.processes.sedd import SEDD, UDLM
from diffkit.processes.transitions import TRANSITIONS
from diffkit.sampling.sampler import sample
from diffkit.training.config import TrainConfig
from diffkit.training.losses import OBJECTIVES
from diffkit.training.trainer import fit

TRAINED = {  # (process, objective, how the network is told the time)
    "autoregressive": (Autoregressive, "bound", "none"),
    "block": (partial(BlockDiffusion, block=2), "bound", "none"),
    "d3pm uniform": (partial(D3PM, noise="uniform", schedule=get_schedule("linear", 100)), "hybrid", "sinusoidal"),
    "sedd uniform": (partial(SEDD, noise="uniform", schedule="geometric"), "score_entropy", "adaln"),
    "udlm": (UDLM, "score_entropy", "adaln"),
    "hybrid": (partial(HybridDiffusion, share=0.2), "score_entropy", "adaln"),
    "flexmdm": (FlexMDM, "bound", "adaln"),
    "edit flow": (EditFlow, "bound", "adaln"),
    "diffusion_lm": (partial(DiffusionLM, self_conditioned=True), "end_to_end", "adaln"),
    "plaid": (partial(Plaid, self_conditioned=True), "likelihood", "adaln"),
    "soft_token_plaid": (SoftTokenPlaid, "likelihood", "adaln"),
}


def plain(process):
    """The settings of a process as a file holds them."""
    return json.loads(json.dumps(process.settings()))


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAINED)
def test_it_trains_and_is_saved_as_one_folder(name, tmp_path):
    """In 40 steps the gap falls by 5 standard errors, never below 0; settings, weights and samples come back."""
    kind, objective, time = TRAINED[name]
    data = DataSettings("micro", batch_size=32, validation_sequences=16)
    shop = build(data, ModelSettings("pico", kind, time), 0)
    model, process = shop.model, shop.model.process
    words = [p.detach().clone() for p in process.parameters()]

    def gap():
        return gap_to_entropy(process, model, MICRO, 150, rng=generator(), draws=8)

    before = gap()
    train = TrainConfig(steps=40, objective=objective, lr=3e-3, warmup=10, ema=0.0, optimizer="muon")
    assert all(record.step for record in fit(model, shop.batches, train))
    after = gap()
    assert -5 * after.standard_error < after.mean < before.mean - 5 * after.standard_error
    assert all((new - old).abs().max() > 0 for new, old in zip(process.parameters(), words, strict=True))
    with quiet():
        model.save_pretrained(tmp_path)
    again = load_model(tmp_path)
    assert type(again.process) is type(process) and again.process.settings() == plain(process)
    assert all(torch.equal(again.state_dict()[name], value) for name, value in model.state_dict().items())
    assert torch.equal(*(sample(m.process, m, shape=(4, L), steps=3, rng=generator()) for m in (again, model)))


SET = [  # each with settings of its own
    MaskedDiffusion(V, MASK, get_schedule("poly", 50, power=3.0), weight="continuous"),
    MaskedDiffusion(V, MASK, get_schedule("loglinear", eps=0.1)),
    *(D3PM(V, MASK, noise, get_schedule("cosine", 30), reverse="mixture", auxiliary=0.25) for noise in TRANSITIONS),
    SEDD(V, MASK, "absorbing", get_schedule("loglinear", 30), sampler="euler"),
    SEDD(V, MASK, "uniform", get_schedule("geometric", 30, sigma_max=5.0)),
    HybridDiffusion(V, MASK, 0.3, "cosine"),
    DiffusionLM(V, MASK, 30, width=6, sampler="ddim", clamp=0.2),
    Plaid(V, MASK, 30, width=6, sampler="ddim", score_temperature=0.9),
    SoftTokenPlaid(V, MASK, 30, width=6, sampler="ddim", score_temperature=0.9),
    FlexMDM(9, 0, eos_id=3, pad_id=4, schedule="cosine"),
    EditFlow(9, 0, eos_id=3, pad_id=4, schedule="cosine"),
]


@pytest.mark.parametrize("process", SET, ids=lambda process: type(process).__name__)
def test_settings_build_the_process_again(process):
    """The same class, settings and curve, not only the same name; and for tokens the same loss."""
    again = process_from(plain(process))
    assert type(again) is type(process) and again.settings() == process.settings()
    if not isinstance(process, DiffusionLM | Plaid | FlexMDM | EditFlow):
        t = torch.linspace(0, process.T, 33)
        assert torch.equal(again.schedule.gamma(t), process.schedule.gamma(t))
        ask = table_denoiser(), TEXTS, torch.full((16,), 7)
        first, second = (sum(p.loss(*ask, generator())) for p in (process, again))
        assert torch.equal(first, second)


FINITE = [  # process, objectives beside `bound`, how sure the network is of a wrong token
    *((D3PM(V, MASK, noise, reverse=reverse), ["hybrid"], 200) for noise in TRANSITIONS for reverse in REVERSES),
    *((SEDD(V, MASK, "absorbing", schedule), ["score_entropy"], 0) for schedule in ("loglinear", "geometric")),
    *((SEDD(V, MASK, "uniform", schedule), ["score_entropy"], 0) for schedule in ("geometric", "linear", "cosine")),
    *((UDLM(V, MASK, noise), ["score_entropy"], 0) for noise in ("absorbing", "uniform")),
    *((HybridDiffusion(V, MASK, share), [], 0) for share in (0.1, 0.5)),
    *((kind(V, MASK), [], 1000) for kind in (DiffusionLM, Plaid)),
]


@pytest.mark.parametrize(("process", "objectives", "sure"), FINITE, ids=lambda value: getattr(value, "name", ""))
def test_values_and_gradients_are_finite_at_both_ends(process, objectives, sure):
    """Float32 outputs, MASK at -inf, of words and of words alike, at times that are whole for chains."""
    for t in (0.0, 1.0, 2.0, 999.0, 1000.0)[isinstance(process, DiffusionLM) :]:  # its first step is 1
        raw = torch.randn(16, L, process.network.head, generator=generator())
        raw[..., 3] += sure
        if process.predicts_tokens:
            raw[..., MASK] = -torch.inf
        raw.requires_grad_()
        times = torch.full((16,), t, dtype=torch.float64)
        for name in ("bound", *objectives):
            when = times if name == "bound" else times.clamp(min=1)  # training draws no earlier one
            value = OBJECTIVES[name](process, lambda zt, t: raw, TEXTS, when, generator())  # noqa: B023
            assert value.isfinite() and torch.autograd.grad(value, raw)[0].isfinite().all(), (name, t)
        if process.predicts_tokens:
            zt, _ = process.corrupt(TEXTS, times, generator())
            assert process.token_probs(MICRO.denoiser(process)(zt, times), zt, times).isfinite().all()
