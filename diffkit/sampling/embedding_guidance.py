"""Steering while text is still points in space: push by a classifier's gradient, and put known words back."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor

from diffkit.checks import check_finite, check_ids
from diffkit.languages.story_language import StoryLanguage
from diffkit.processes.base import Denoise, Process, Step
from diffkit.processes.embedding_diffusion import EmbeddingDiffusion

LogClassifier = Callable[[Tensor, Tensor], Tensor]  # (z_t, t) -> (B,) log p(label | z_t), differentiable in z_t


def exact_log_classifier(language: StoryLanguage, process: EmbeddingDiffusion, label: str) -> LogClassifier:
    """The best classifier of noisy texts there can be: log p(label | z_t) up to a constant, by two sums over plots."""

    language.label_id(label)  # an unknown one is told now, not in the first call

    def opinion(zt: Tensor, t: Tensor) -> Tensor:
        evidence = process.log_likelihood(zt, t)
        return language.posterior(evidence, label)[0] - language.posterior(evidence)[0]

    return opinion


def gradient_guided(process: EmbeddingDiffusion, denoise: Denoise, opinion: LogClassifier, strength: float) -> Denoise:
    """Classifier guidance of guesses: x + strength sigma^2 / alpha^2 times the gradient of the opinion by z_t / alpha.

    At strength 1, with the exact guess and opinion, the mean under Bayes' rule: E[x | z, label]. For a process whose
    network gives points. Diffusion-LM itself climbs by several small steps on z (arXiv:2205.14217, section 4.3).
    Source: arXiv:2105.05233, section 4.1, by way of Tweedie's formula.
    """
    if process.predicts_tokens:
        raise ValueError(f"pushed: the network of {type(process).__name__} names words; it takes classifier_guided.")

    check_finite(strength, "strength", "pushed")

    def guided(zt: Tensor, t: Tensor) -> Tensor:
        with torch.enable_grad():
            point = zt.detach().requires_grad_()
            (slope,) = torch.autograd.grad(opinion(point, t).sum(), point)
        signal, noise = process.alpha_sigma(t)
        return denoise(zt, t) + strength * (noise.square() / signal) * slope

    return guided


class ReplacementInfilling(Process):
    """A process that fills in: after each step the known words are put back, at the noise of that moment.

    Given words reach the others only through the noisy points that stand for them, so this is not exact, however many
    the steps: by the time a word is legible the others may have made up their minds. Takes the place of the process,
    with the same denoiser.

    Args:   start: (B, L) ids, MASK where words are missing.
    Source: arXiv:2205.14217, section 4.3 (infilling); arXiv:2201.09865 for pictures.
    """

    def __init__(self, process: EmbeddingDiffusion, start: Tensor):
        check_ids(start, process.vocab_size, "ReplacementInfilling")
        super().__init__(process.vocab_size, process.mask_id, process.T)
        self.process, self.known = process, (start != process.mask_id)[..., None]
        self.given = torch.where(self.known[..., 0], start, 0 if process.mask_id else 1)
        self.predicts_tokens = process.predicts_tokens

    def _put_back(self, z: Tensor, t: Tensor, rng: Generator) -> Tensor:
        return torch.where(self.known, self.process.diffuse(self.given, t, rng), z)

    def prior(self, B: int, L: int, rng: Generator) -> Tensor:
        if (B, L) != self.given.shape:
            raise ValueError(f"ReplacementInfilling: the canvas to fill in is {tuple(self.given.shape)}, got {(B, L)}.")
        end = torch.full((B,), float(self.T), dtype=torch.float64)
        return self._put_back(self.process.prior(B, L, rng), end, rng)

    def step(self, denoise: Denoise, zt: Tensor, t: Tensor, s: Tensor, rng: Generator) -> Step:
        zs, probs = self.process.step(denoise, zt, t, s, rng)
        if (s > 0).all():
            return Step(self._put_back(zs, s, rng), probs)
        return Step(torch.where(self.known, self.process.vectors()[self.given], zs), probs)

    def decode(self, z: Tensor) -> Tensor:
        return self.process.decode(z)
