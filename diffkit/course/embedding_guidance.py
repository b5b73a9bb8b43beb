"""Guidance in embedding space: by a classifier's gradient, and infilling by replacement."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor

from diffkit.checks import check_finite, check_ids
from diffkit.languages.story_language import StoryLanguage
from diffkit.processes.base import Denoise, Denoiser, Process, Time
from diffkit.processes.gaussian.embedding_diffusion import EmbeddingDiffusion

LogClassifier = Callable[[Tensor, Tensor], Tensor]  # (z_t, t) -> (B,) log p(label | z_t), differentiable in z_t


def exact_log_classifier(language: StoryLanguage, process: EmbeddingDiffusion, label: str) -> LogClassifier:
    """The best possible classifier of noisy texts: log p(label | z_t) up to a constant, by two exact posteriors."""
    language.label_id(label)  # raises for an unknown one

    def log_classifier(zt: Tensor, t: Tensor) -> Tensor:
        evidence = process.log_likelihood(zt, t)
        return language.posterior(evidence, label)[0] - language.posterior(evidence)[0]

    return log_classifier


def gradient_guided(
    process: EmbeddingDiffusion, denoise: Denoise, log_classifier: LogClassifier, scale: float
) -> Denoiser:
    """Classifier guidance: add scale sigma^2 / alpha^2 times the gradient of log p(y | z) by z / alpha to the estimate.

    At scale 1, with the exact estimate and classifier, the mean under Bayes' rule: E[x | z, label]. For a process whose
    network predicts embeddings. Diffusion-LM itself takes several small steps on z (arXiv:2205.14217, section 4.3).
    Source: arXiv:2105.05233, section 4.1, by way of Tweedie's formula.
    """
    if process.predicts_tokens:
        raise ValueError(
            f"gradient_guided: the network of {type(process).__name__} predicts tokens; it takes classifier_guided."
        )
    check_finite(scale, "scale", "gradient_guided")

    def guided(zt: Tensor, t: Tensor, where: Tensor | None = None) -> Tensor:
        with torch.enable_grad():
            point = zt.detach().requires_grad_()
            (slope,) = torch.autograd.grad(log_classifier(point, t).sum(), point)
        signal, noise = process.alpha_sigma(t)
        estimate = denoise(zt, t) + scale * (noise.square() / signal) * slope
        return estimate if where is None else estimate[where]

    return guided


class ReplacementInfilling(Process):
    """Infilling in embedding space: after each step the given tokens are put back, with the noise of that time.

    Given tokens reach the others only through their noisy embeddings, so this is not exact, however many the steps: by
    the time a token is legible the others may be decided. Takes the place of the process, with the same denoiser.

    Args:   start: (B, L) ids, MASK where tokens are missing.
    Source: arXiv:2205.14217, section 4.3 (infilling); arXiv:2201.09865 for images.
    """

    def __init__(self, process: EmbeddingDiffusion, start: Tensor):
        check_ids(start, process.vocab_size, "ReplacementInfilling")
        super().__init__(process.vocab_size, process.mask_id, process.T, process.network)
        self.process, self.known = process, (start != process.mask_id)[..., None]
        self.given = torch.where(self.known[..., 0], start, 0 if process.mask_id else 1)
        self.predicts_tokens = process.predicts_tokens

    def _put_back(self, z: Tensor, t: Time, rng: Generator) -> Tensor:
        return torch.where(self.known, self.process.diffuse(self.given, t, rng), z)

    def prior(self, B: int, L: int, rng: Generator) -> Tensor:
        if (B, L) != self.given.shape:
            raise ValueError(f"ReplacementInfilling: the canvas to fill in is {tuple(self.given.shape)}, got {(B, L)}.")
        end = torch.full((B,), float(self.T), dtype=torch.float64)
        return self._put_back(self.process.prior(B, L, rng), end, rng)

    def reverse_step(self, raw: Tensor, zt: Tensor, t: Time, s: Time, rng: Generator) -> Tensor:
        zs, s = self.process.reverse_step(raw, zt, t, s, rng), torch.as_tensor(s)
        return self._put_back(zs, s, rng) if (s > 0).all() else zs

    def finish(self, denoise: Denoise, z: Tensor, rng: Generator) -> Tensor:
        return torch.where(self.known, self.process.vectors()[self.given], self.process.finish(denoise, z, rng))

    def token_probs(self, raw: Tensor, zt: Tensor, t: Time) -> Tensor:
        return self.process.token_probs(raw, zt, t)

    def decode(self, z: Tensor) -> Tensor:
        return self.process.decode(z)
