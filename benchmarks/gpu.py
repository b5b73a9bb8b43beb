"""Tokens a second of a training step of tiny on one GPU: eager, with torch.compile, and as one CUDA graph.

    python benchmarks/gpu.py                            # batches of 128 and 512 texts of 128 tokens, bfloat16
    python benchmarks/gpu.py --device cpu --steps 2     # no measurement: shows that the script runs

`diffkit train` gathers the hidden places by a mask, whose number of hits the GPU has to tell the CPU at every step.
Here the number of hidden tokens in a batch is fixed, by corruption with an exact count, so that every shape is known
before; the loss is the same (tests/test_benchmarks.py). The prototype of this course made 1.05 million and 3.4 million
tokens a second on one H100. Prints a table, writes JSON.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor
from torch.nn import functional as F
from training import RESULTS, SETUPS, our_model, write_results

from diffkit.network.transformer import Denoiser, sinusoids
from diffkit.processes.masked import corrupt_count

STEPS_OF_CONFIG = 50_000  # configs/tiny.yaml
PROTOTYPE = (1.05e6, 3.4e6)  # tokens/s on one H100


class Fixed(NamedTuple):
    """A batch of fixed shape: ids with N tokens hidden, the places of those in it read as one row, and their words."""

    xt: Tensor  # (B, L)
    places: Tensor  # (N,)
    words: Tensor  # (N,)


def fixed_batch(V: int, mask_id: int, B: int, L: int, rng: Generator) -> Fixed:
    """Random ids; row i hides a share of (i + 1/2) / B of its tokens, so N is the same for every batch."""
    x0 = torch.randint(mask_id + 1, V, (B, L), generator=rng)
    count = ((torch.arange(B) + 0.5) / B * L).ceil().long()
    xt, is_masked = corrupt_count(x0, count, mask_id=mask_id, rng=rng)
    return Fixed(xt, is_masked.flatten().nonzero()[:, 0], x0[is_masked])


def fixed_loss(denoiser: Denoiser, batch: Fixed) -> Tensor:
    """Mean cross-entropy of the hidden tokens, without a check that would make the GPU wait for the CPU."""
    places = torch.arange(batch.xt.shape[1], device=batch.xt.device)
    x = denoiser.token_embedding(batch.xt) + denoiser.position_embedding(places)  # (B, L, D)
    angles = sinusoids(places, denoiser.config.hidden_size // denoiser.config.num_heads).to(x.dtype).chunk(2, -1)
    for block in denoiser.blocks:
        x = block(x, None, angles)
    logits = denoiser._output(x.flatten(0, 1)[batch.places])  # (N, V)
    return F.cross_entropy(logits.float(), batch.words)


def make_step(device: str, still: Fixed, compiled: bool) -> Callable[[], Tensor]:
    """A training step on the batch that lies in `still`; the matrix products are in bfloat16, the weights float32."""
    torch.manual_seed(0)
    denoiser = our_model(SETUPS["tiny"]).denoiser.to(device).train()
    on_gpu = device == "cuda"
    optimizer = torch.optim.AdamW(denoiser.parameters(), lr=3e-4, fused=on_gpu, capturable=on_gpu)
    loss_of: Callable[[Denoiser, Fixed], Tensor] = torch.compile(fixed_loss) if compiled else fixed_loss

    def step() -> Tensor:
        with torch.autocast(device, dtype=torch.bfloat16, cache_enabled=False):
            loss = loss_of(denoiser, still)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    return step


def captured(step: Callable[[], Tensor]) -> Callable[[], None]:
    """Record the whole step, optimizer included, as one CUDA graph; each call plays it on what `still` then holds."""
    on_device_of = torch.cuda.Stream()
    on_device_of.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(on_device_of):
        for _ in range(3):  # compiles, and makes the optimizer's state
            step()
    torch.cuda.current_stream().wait_stream(on_device_of)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def speed(step: Callable[[], Any], still: Fixed, batches: list[Fixed], steps: int) -> float:
    """Tokens a second, copying each batch to its place included; three steps to warm up."""
    started = 0.0
    for i in range(steps + 3):
        if i == 3:
            wait(still)
            started = time.perf_counter()
        for place, given in zip(still, batches[i % len(batches)], strict=True):
            place.copy_(given)
        step()
    wait(still)
    return steps * still.xt.numel() / (time.perf_counter() - started)


def wait(still: Fixed) -> None:
    """Until the GPU has done what it was told."""
    if still.xt.is_cuda:
        torch.cuda.synchronize()


def ways(device: str, still: Fixed) -> dict[str, Callable[[], Callable[[], Any]]]:
    """Name -> what makes the step; a CPU runs the plain one only."""
    every: dict[str, Callable[[], Callable[[], Any]]] = {"eager": lambda: make_step(device, still, False)}
    if device == "cuda":
        every["torch.compile"] = lambda: make_step(device, still, True)
        every["CUDA graph"] = lambda: captured(make_step(device, still, False))
        every["torch.compile, CUDA graph"] = lambda: captured(make_step(device, still, True))
    return every


def main() -> None:
    """Run every way at every batch size and store the table; without a GPU say so and stop."""
    parser = argparse.ArgumentParser(description="Training steps of tiny on one GPU.")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--steps", type=int, default=100, help="measured steps")
    parser.add_argument("--batch", type=int, nargs="+", default=[128, 512], help="texts in a batch")
    parser.add_argument("--out", type=Path, default=RESULTS / "gpu.json", help="where the JSON goes")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        print("benchmarks/gpu.py: no CUDA device here, nothing measured (--device cpu --steps 2 shows that it runs).")
        return
    torch.set_float32_matmul_precision("high")
    setup, rng, rows = SETUPS["tiny"], Generator().manual_seed(0), []
    for B in options.batch:
        batches = [
            Fixed(*(part.to(options.device) for part in fixed_batch(setup.V, setup.mask_id, B, setup.L, rng)))
            for _ in range(4)
        ]
        still = Fixed(*(part.clone() for part in batches[0]))
        for name, make in ways(options.device, still).items():
            rate = speed(make(), still, batches, options.steps)
            minutes = STEPS_OF_CONFIG * B * setup.L / rate / 60
            rows.append({"batch": B, "way": name, "tokens_a_second": rate, "minutes_for_50000_steps": minutes})
            print(f"batch {B:4}  {name:26}{rate:14,.0f} tokens/s{minutes:9,.1f} minutes for 50,000 steps")
    print("The prototype, on one H100: " + " and ".join(f"{rate / 1e6:g} million" for rate in PROTOTYPE) + " tokens/s.")
    if options.device == "cuda":
        settings = {"gpu": torch.cuda.get_device_name(), "cuda": torch.version.cuda, "precision": "bfloat16"}
        write_results(options.out, settings | {"length": setup.L, "steps": options.steps}, rows)


if __name__ == "__main__":
    main()
