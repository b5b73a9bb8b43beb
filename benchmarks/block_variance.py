"""How much the loss and the gradient of block diffusion wander with the masks alone, by size of block and way to mask.

    python benchmarks/block_variance.py        # results/block_variance.json, which notebook 09 reads; some minutes

One batch of `tales`, the weights of tales-block (which learned blocks of eight) reading it in blocks of every size, and
many draws of the masks. Three ways: a masking rate for each block, uniform as in MDLM; rates between two limits, chosen
for the least variance of the loss as arXiv:2503.09573 (section 4.3) does; and a number of masks, as `hide` draws it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor

from diffkit.io import write_json
from diffkit.languages.story_language import load_language
from diffkit.model import DiffusionModel, build_model, load_model
from diffkit.processes.block import BlockDiffusion
from diffkit.processes.masked import masked_nll

RESULTS = Path(__file__).resolve().parent / "results" / "block_variance.json"
SIZES, STORIES, DRAWS = (1, 4, 8, 16), 16, 64
LIMITS = [(0.0, 1.0), (0.0, 0.5), (0.0, 0.8), (0.3, 0.8), (0.45, 0.95), (0.5, 1.0), (0.9, 1.0)]  # of the rates
SMALLEST = 1e-3  # rate, as in the paper
Masks = Callable[[Generator], tuple[Tensor, Tensor]]  # noisy texts (B, L), and the weight of each position


def by_rate(process: BlockDiffusion, x0: Tensor, low: float, high: float, rng: Generator) -> tuple[Tensor, Tensor]:
    """Each token of a block is masked with the block's rate t, uniform in [low, high]; weights 1 / t."""
    number = process.blocks(x0.shape[1])
    N = int(number[-1]) + 1
    u = (torch.rand(len(x0), 1, generator=rng) + torch.arange(N) / N) % 1  # spread over the blocks, as in `hide`
    t = (low + (high - low) * u).clamp(min=SMALLEST)[:, number]
    return torch.where(torch.rand(x0.shape, generator=rng) < t, process.mask_id, x0), 1 / t


def by_count(process: BlockDiffusion, x0: Tensor, rng: Generator) -> tuple[Tensor, Tensor]:
    """So many tokens of each block are masked, every number alike; weights one over their share."""
    xt, share = process.hide(x0, torch.rand(len(x0), generator=rng), rng)
    return xt, 1 / share


def loss_of(model: DiffusionModel, x0: Tensor, xt: Tensor, weight: Tensor) -> Tensor:
    """Nats a token; the bound if rates or counts are uniform."""
    is_masked = xt == model.process.mask_id
    raw = model(torch.cat([xt, x0], 1), torch.zeros(len(x0)), is_masked)
    return (masked_nll(raw, x0, is_masked, model.process.mask_id) * weight).mean()


def loss_deviation(model: DiffusionModel, x0: Tensor, masks: Masks) -> float:
    """Standard deviation of the loss of the batch, from one draw of the masks to the next."""
    rng = Generator().manual_seed(1)
    with torch.no_grad():
        return float(torch.stack([loss_of(model, x0, *masks(rng)) for _ in range(DRAWS)]).std())


def measured(model: DiffusionModel, x0: Tensor, masks: Masks) -> dict[str, float]:
    """Mean and deviation of the loss; noise (root of the trace of the covariance) and length of the gradient."""
    rng, losses, squared = Generator().manual_seed(2), [], 0.0
    total = [torch.zeros_like(p, dtype=torch.float64) for p in model.parameters()]
    for _ in range(DRAWS):
        model.zero_grad()
        loss = loss_of(model, x0, *masks(rng))
        loss.backward()
        losses.append(float(loss.detach()))
        for sum_, p in zip(total, model.parameters(), strict=True):
            if p.grad is not None:
                sum_ += p.grad
                squared += float(p.grad.double().square().sum())
    length = sum(float(s.square().sum()) for s in total) / DRAWS**2
    noise = max(0.0, squared / DRAWS - length) * DRAWS / (DRAWS - 1)
    signal = max(0.0, length - noise / DRAWS)  # the mean of draws has noise, too
    found = torch.tensor(losses, dtype=torch.float64)
    return {"loss": float(found.mean()), "loss_deviation": float(found.std()), "noise": noise**0.5,
            "signal": signal**0.5}  # fmt: skip


def rows() -> list[dict[str, Any]]:
    """A row for each size of block and way to mask."""
    tales, shipped = load_language("tales"), load_model("tales-block")
    x0, found = tales.sample(STORIES, Generator().manual_seed(0)), []
    for size in SIZES:
        process = BlockDiffusion(tales.vocab_size, tales.mask_id, size)
        model = build_model(process, dict(shipped.config.denoiser, block=size)).eval()
        model.load_state_dict(shipped.state_dict())
        ways: dict[tuple[float, float], Masks] = {
            limits: lambda rng, p=process, ends=limits: by_rate(p, x0, *ends, rng)  # type: ignore[misc]
            for limits in LIMITS
        }
        deviations = {limits: loss_deviation(model, x0, way) for limits, way in ways.items()}
        best = min(deviations, key=lambda limits: deviations[limits])
        three = {
            "a rate for each block": ways[0.0, 1.0], f"rates from {best[0]:g} to {best[1]:g}": ways[best],
            "a number of masks": lambda rng, p=process: by_count(p, x0, rng),
        }  # fmt: skip
        for name, masks in three.items():
            found.append({"block": size, "masks": name} | measured(model, x0, masks))
            print(found[-1], flush=True)
    return found


def main() -> None:
    found = {"stories": STORIES, "draws": DRAWS, "limits": LIMITS, "torch": torch.__version__.split("+")[0]}
    write_json(RESULTS, found | {"rows": rows()})


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
