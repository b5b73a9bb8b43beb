"""Samplers of uniform and hybrid noise: a Gibbs corrector; acceptance by entropy, with fresh noise elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Generator, Tensor

from diffkit.checks import check_whole
from diffkit.processes.base import Denoiser, Process
from diffkit.processes.d3pm import D3PM
from diffkit.processes.sedd import UDLM
from diffkit.random import categorical, uniform_numbers
from diffkit.sampling.parallel import within_entropy
from diffkit.sampling.skipping import even_times


def gibbs_sweep(process: UDLM | D3PM, denoise: Denoiser, zs: Tensor, s: Tensor, rng: Generator) -> Tensor:
    """Redraw one position of each row, uniformly chosen, from its law given the others: alpha_s r + noise.

    r is the prediction from the other positions. This keeps the law of z_s. A position chosen by its confidence, or
    several positions at once, would not.
    Source: arXiv:2605.22765 (which chooses by confidence).
    """
    r = Process.token_logits(process, denoise(zs, s), zs).double().softmax(-1)
    rows = torch.arange(len(zs), device=zs.device)
    i = (uniform_numbers((len(zs),), rng) * zs.shape[1]).long().to(zs.device)
    law = process.transitions.marginal(r, 0, s)[rows, i]
    return zs.index_put((rows, i), categorical(law, rng))


class Corrected:
    """Reverse steps with Gibbs sweeps between them, `calls` of the network in all.

    Of the N steps the last ones but one are followed by `sweeps` sweeps each; what the sweeps cost is saved in steps.

    Args:   process: its denoiser predicts from the other positions (UDLM, hybrid, or D3PM in the joint form).
    Raises: ValueError where a token cannot be noise, so that nothing would be redrawn; or for counts below 1.
    Source: arXiv:2605.22765, predictor-corrector at equal numbers of calls.
    """

    def __init__(self, process: UDLM | D3PM, calls: int, sweeps: int = 1):
        check_whole(calls, "calls", "Corrected")
        check_whole(sweeps, "sweeps", "Corrected")
        tokens = process.transitions.limit().index_fill(0, torch.tensor([process.mask_id]), 0.0)
        if not tokens.any():
            raise ValueError("Corrected: absorbing noise has no wrong tokens to redraw; see sampling/remasking for it.")
        self.process, self.sweeps = process, sweeps
        self.corrected = (calls - 1) // (1 + sweeps)  # steps that are
        self.times = even_times(process.T, calls - self.corrected * sweeps)

    def states(self, denoise: Denoiser, z: Tensor, rng: Generator) -> Iterator[tuple[float, Tensor]]:
        steps = len(self.times) - 1
        for j, (t, s) in enumerate(pairwise(self.times)):
            z = self.process.advance(denoise, z, t.expand(len(z)), s.expand(len(z)), rng)
            for _ in range(self.sweeps if steps - 1 - self.corrected <= j < steps - 1 else 0):
                z = gibbs_sweep(self.process, denoise, z, s.expand(len(z)), rng)
            yield float(s), z


class EntropyBounded:
    """Draw every token, accept the most certain, fill the rest with fresh noise: the sampler of DiffusionGemma.

    Accepted are the positions with the least entropies, all of which but the largest sum to at most `bound_nats`.
    Nothing is remembered: the next call accepts anew. The last state is the likeliest token everywhere, or with
    `best` off the canvas itself, with the noise that is in it.

    Args:   process: with uniform noise; its denoiser predicts from all positions (D3PM with reverse="mixture");
            steps: calls of the network; temperatures: of the first and of the last call, between them a line.
    Source: the released code of DiffusionGemma; the bound of arXiv:2505.24857, whose proof is for masks.
    """

    def __init__(
        self, process: Process, steps: int = 48, bound_nats: float = 0.1,
        temperatures: tuple[float, float] = (0.8, 0.4), best: bool = True,
    ):  # fmt: skip
        check_whole(steps, "steps", "EntropyBounded")
        self.process, self.steps, self.accept = process, steps, within_entropy(bound_nats)
        self.temperatures, self.best = temperatures, best

    def states(self, denoise: Denoiser, z: Tensor, rng: Generator) -> Iterator[tuple[float, Tensor]]:
        (B, L), (first, last) = z.shape, self.temperatures
        everywhere = torch.ones_like(z, dtype=torch.bool)
        for left in range(self.steps, 0, -1):
            share = left / self.steps
            t = torch.full((len(z),), self.process.T * share, dtype=torch.float64)
            logits = self.process.token_logits(denoise(z, t), z).double() / (last + (first - last) * share)
            probs = logits.softmax(-1)
            accepted = self.accept(probs.flatten(0, 1), everywhere)
            z = torch.where(accepted, categorical(probs, rng), self.process.prior(B, L, rng).to(z.device))
            if left == 1 and self.best:
                z = probs.argmax(-1)
            yield float(self.process.T * (left - 1) / self.steps), z
