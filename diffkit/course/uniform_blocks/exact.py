"""What is exact about uniform noise: the denoiser without a time, blocks, and the law of a sampler by enumeration."""

from __future__ import annotations

import itertools

import numpy
import torch
from torch import Generator, Tensor

from diffkit.languages.exact import Language
from diffkit.processes.base import Denoise, Process
from diffkit.processes.transitions import TransitionProcess
from diffkit.sampling.sampler import Sampler


def time_agnostic(language: Language, process: TransitionProcess, nodes: int = 32) -> Denoise:
    """The best denoiser that does not see the time: log f*, (B, L, V).

    f*(z) ~ sum over x of p(x) times the integral of q_t(z | x) over t, uniform: the posterior at every time, weighed by
    how likely z is at that time. The integral is taken at Gauss-Legendre nodes.
    """
    points, weights = (torch.from_numpy(part) for part in numpy.polynomial.legendre.leggauss(nodes))
    times = process.T * (points + 1) / 2

    def denoise(zt: Tensor, t: Tensor) -> Tensor:
        answers = [language.posterior(process.log_likelihood(zt, time.expand(len(zt)))) for time in times]
        level = (torch.stack([log_p for log_p, _ in answers]) + weights.log()[:, None]).softmax(0)  # (nodes, B)
        parts = [share[:, None, None] * probs for share, (_, probs) in zip(level, answers, strict=True)]
        return torch.stack(parts).sum(0).log()

    return denoise


# --------------------------------------------------------------------------------------------------------------- blocks


class BlockEvidence:
    """What is known of a text in a block: the text before `first` is clean, the block noisy, what follows not seen.

    `language.denoiser` of it is the exact denoiser of the block.
    """

    def __init__(self, language: Language, process: Process, first: int, size: int):
        self.language, self.process, self.first, self.after = language, process, first, first + size

    def log_likelihood(self, zt: Tensor, t: Tensor) -> Tensor:
        evidence = self.process.log_likelihood(zt, t)
        evidence[:, : self.first] = self.language.seen(zt)[:, : self.first]
        evidence[:, self.after :] = 0.0
        return evidence

    def ideal_output(self, log_posterior: Tensor, zt: Tensor, t: Tensor) -> Tensor:
        return self.process.ideal_output(log_posterior, zt, t)


@torch.no_grad()
def sample_in_blocks(language: Language, sampler: Sampler, n: int, size: int, rng: Generator) -> Tensor:
    """n texts, block by block: each starts as noise and is finished by the sampler, with the text before it clean."""
    z = sampler.process.prior(n, language.length, rng)
    for first in range(0, language.length, size):
        denoise = language.denoiser(BlockEvidence(language, sampler.process, first, size))
        inside = (torch.arange(language.length) >= first) & (torch.arange(language.length) < first + size)
        for _, moved in sampler.states(denoise, z, rng):
            z = torch.where(inside, moved, z)
    return z


# -------------------------------------------------------------------------------------------------- laws by enumeration


def word_states(language: Language) -> Tensor:
    """Every canvas without MASK, (K^L, L), the last position changing fastest."""
    return torch.tensor(list(itertools.product(words_of(language).tolist(), repeat=language.length)))


def words_of(language: Language | Process) -> Tensor:
    """(K,) every id but MASK: what uniform noise draws from."""
    ids = torch.arange(language.vocab_size)
    return ids[ids != language.mask_id]


class Tabulated:
    """A denoiser of a small language, computed once for every canvas without MASK and each time that it is asked for.

    Args: ignores_time: one table for all times.
    """

    def __init__(self, language: Language, denoise: Denoise, ignores_time: bool = False):
        self.language, self.denoise, self.ignores_time = language, denoise, ignores_time
        self.states, K = word_states(language), language.vocab_size - 1
        self.powers = K ** torch.arange(language.length - 1, -1, -1)
        self.tables: dict[float, Tensor] = {}

    def __call__(self, zt: Tensor, t: Tensor) -> Tensor:
        column = zt - (zt > self.language.mask_id).long()
        return self.table(float(t[0]))[(column * self.powers).sum(1)]

    def table(self, t: float) -> Tensor:
        """(K^L, L, V), in the order of `word_states`."""
        key = 0.0 if self.ignores_time else t
        if key not in self.tables:
            self.tables[key] = self.denoise(self.states, torch.full((len(self.states),), t, dtype=torch.float64))
        return self.tables[key]


def next_law(law: Tensor, tokens: Tensor) -> Tensor:
    """The law of the canvas after a step that draws all positions independently given the canvas.

    Args: law: (S,) of the canvas now; tokens: (S, L, K) probabilities of the next tokens; both as in `word_states`.
    """
    S, L, K = tokens.shape
    left, right = torch.ones(S, 1, dtype=torch.float64), torch.ones(S, 1, dtype=torch.float64)
    for i in range(L):
        part = tokens[:, i]
        if i < (L + 1) // 2:
            left = (left[:, :, None] * part[:, None]).flatten(1)
        else:
            right = (right[:, :, None] * part[:, None]).flatten(1)
    return ((law[:, None] * left).T @ right).flatten()


def total_variation(language: Language, law: Tensor, states: Tensor) -> float:
    """Half the sum of |law - p| over all canvases, in [0, 1]."""
    return 0.5 * float((law - language.log_prob(states).exp()).abs().sum())
