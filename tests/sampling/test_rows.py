"""A text does not depend on what is beside it in its batch."""

import pytest
import torch
from toys import MASK, MICRO, TEXTS, L, V, generator

from diffkit.course.block_cache import Blockwise
from diffkit.network.transformer import TIMES, Denoiser, DenoiserConfig
from diffkit.processes.autoregressive import Autoregressive
from diffkit.processes.block import BlockDiffusion
from diffkit.processes.d3pm import D3PM
from diffkit.processes.gaussian.diffusion_lm import DiffusionLM
from diffkit.processes.gaussian.plaid import Plaid
from diffkit.processes.hybrid import HybridDiffusion
from diffkit.processes.masked import MaskedDiffusion
from diffkit.processes.schedules import get_schedule
from diffkit.processes.sedd import SEDD, UDLM
from diffkit.random import SharedGenerator
from diffkit.sampling.parallel import ParallelUnmasking, above_threshold, confidence_threshold, entropy_bounded
from diffkit.sampling.remasking import RATES, remasking
from diffkit.sampling.sampler import Ancestral, sample
from diffkit.sampling.skipping import SkipIdle, even_times, first_hitting
from diffkit.sampling.unmasking import UNMASKING_ORDERS, Unmasking

B = 5
STEPS = even_times(1000, 4)
PROCESS = MaskedDiffusion(V, MASK)
FROM_PROMPTS = {
    "skip idle": SkipIdle(PROCESS, STEPS),
    "first hitting": first_hitting(PROCESS),
    "threshold": confidence_threshold(PROCESS, 0.5),
    "entropy": entropy_bounded(PROCESS, 0.5),
    "blocks": Blockwise(PROCESS, 2, above_threshold(0.7)),
    "parallel": ParallelUnmasking(PROCESS, above_threshold(0.9)),
    "absorbing": Ancestral(D3PM(V, MASK, "absorbing"), STEPS),
    "sedd": Ancestral(SEDD(V, MASK, "absorbing"), STEPS),
    **{order: Unmasking(PROCESS, order, STEPS) for order in UNMASKING_ORDERS},
    **{rate: remasking(PROCESS, steps=4, rate=rate, eta=0.5) for rate in RATES},
}
# The steps of the first two draw as often as the row with most masked tokens needs: rows are alike if each has as many.
FROM_NOISE = {
    "autoregressive": Autoregressive(V, MASK),
    "block": BlockDiffusion(V, MASK, 2),
    "uniform": D3PM(V, MASK, "uniform"),
    "gaussian": D3PM(V, MASK, "gaussian", get_schedule("linear", 20)),
    "sedd": SEDD(V, MASK, "uniform"),
    "udlm": UDLM(V, MASK),
    "hybrid": HybridDiffusion(V, MASK),
    "diffusion_lm": DiffusionLM(V, MASK),
    "plaid": Plaid(V, MASK),
}


def row_of(row, seed=0):
    """The numbers that a row of a batch draws from the generator of the batch."""
    rng = SharedGenerator(row, B)
    rng.manual_seed(seed)
    return rng


@pytest.mark.parametrize("name", FROM_PROMPTS)
def test_a_row_is_filled_in_as_it_would_be_alone(name):
    """Beside a complete text, an empty canvas and prompts of other lengths."""
    sampler, start = FROM_PROMPTS[name], TEXTS[[0, 5, 9, 12, 15]].clone()
    start[torch.arange(L) >= torch.tensor([0, 5, 2, 4, 3])[:, None]] = MASK
    denoise = MICRO.denoiser(sampler.process)
    batch = sample(sampler, denoise, start=start, rng=generator())
    for row in range(B):
        assert torch.equal(sample(sampler, denoise, start=start[row : row + 1], rng=row_of(row)), batch[row : row + 1])


@pytest.mark.parametrize("name", FROM_NOISE)
def test_a_row_is_drawn_as_it_would_be_alone(name):
    process = FROM_NOISE[name]
    denoise, how = MICRO.denoiser(process), {"steps": 3}
    batch = sample(process, denoise, shape=(B, L), rng=generator(), **how)
    for row in range(B):
        assert torch.equal(sample(process, denoise, shape=(1, L), rng=row_of(row), **how), batch[row : row + 1])


@pytest.mark.parametrize(
    "settings",
    [*({"time": time} for time in TIMES), {"causal": True}, {"block": 2}, {"input_size": 3}, {"labels": 2}],
    ids=str,
)
def test_the_network_reads_a_row_whatever_is_beside_it(settings):
    """To the bit in a batch of one size. Alone to 1e-13: BLAS sums matrices of other sizes in another order."""
    torch.manual_seed(0)
    shape = {"vocab_size": V, "mask_token_id": MASK, "hidden_size": 16, "num_layers": 2, "num_heads": 2, "T": 10}
    network = Denoiser(DenoiserConfig(**shape | {"max_length": L} | settings)).double().eval()
    for p in network.parameters():
        torch.nn.init.normal_(p)
    xt = torch.randn(B, L, 3) if "input_size" in settings else TEXTS[:B].repeat(1, 2 if "block" in settings else 1)
    t, where = torch.arange(B).double(), torch.rand(B, L) < 0.5
    whole = network(xt, t)
    torch.testing.assert_close(network(xt, t, where), whole[where], atol=1e-13, rtol=1e-13)
    for row in range(B):
        padding = torch.full_like(xt, MICRO.pad_id)
        padding[row] = xt[row]
        assert torch.equal(network(padding, t)[row], whole[row])
        torch.testing.assert_close(network(xt[row : row + 1], t[row : row + 1])[0], whole[row], atol=1e-13, rtol=1e-13)
