"""Diffusion-LM: Gaussian diffusion on token embeddings, trained to predict them."""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn

from diffkit.processes.base import Denoise, Time, as_rows, without_mask
from diffkit.processes.gaussian.embedding_diffusion import EmbeddingDiffusion

LEAST_SIGNAL = 1e-4  # share of the variance that is still signal at the end of Diffusion-LM's schedule


class DiffusionLM(EmbeddingDiffusion):
    """Diffusion-LM: embeddings are learned with the network, which predicts the embedding of each token.

    Its x_0, an embedding with a little noise, is z_0 here, and its network's prediction of x_0 one of e(w) here: the
    same chain, up to the length of the embeddings, and the same bound.

    Args:   clamp: share of the time axis, from 0, in which predictions snap to the nearest embedding.
    Source: arXiv:2205.14217, sections 4.1, 4.2 and its appendix (square-root schedule).
    """

    name, predicts_tokens = "diffusion_lm", False
    objectives = ("bound", "end_to_end")

    def __init__(
        self, vocab_size: int, mask_id: int, T: int = 1000, *, width: int = 16, sampler: str = "ddpm",
        self_conditioned: bool = False, clamp: float = 0.1,
    ):  # fmt: skip
        super().__init__(
            vocab_size, mask_id, T, width=width, sampler=sampler, self_conditioned=self_conditioned, head=width
        )
        if not 0 <= clamp <= 1:
            raise ValueError(f"DiffusionLM: clamp is a share of the time axis in [0, 1], got {clamp}.")
        self.clamp = clamp
        self.bias = nn.Parameter(torch.zeros(vocab_size))

    def vectors(self) -> Tensor:
        """As learned."""
        return self.words.double()

    def log_snr(self, t: Time) -> Tensor:
        """alpha^2 = 1 - sqrt(t / T + 0.0001), never less than LEAST_SIGNAL: noise comes fast at first."""
        return (1 - (self.fraction(t) + 1e-4).sqrt()).clamp(min=LEAST_SIGNAL).logit()

    def weight(self, t: Time) -> Tensor:
        """T / 2 times the loss of SNR in the step that ends at t, whole in 1..T."""
        return self.T / 2 * (self.log_snr(t - 1).exp() - self.log_snr(t).exp())

    def estimate(self, raw: Tensor, zt: Tensor, t: Time) -> Tensor:
        """The network's output itself, or early in time the nearest embedding."""
        snaps = (as_rows(raw, t)[1] <= self.clamp * self.T).reshape(-1, 1, 1).to(raw.device)
        return torch.where(snaps, self.vectors()[self.nearest(raw)], raw.double())

    def rounding(self, x: Tensor) -> Tensor:
        """log p(w | x), (B, L, V), with the embeddings as weights."""
        return without_mask(x.double() @ self.vectors().T + self.bias, self.mask_id).log_softmax(-1)

    def token_probs(self, raw: Tensor, zt: Tensor, t: Time) -> Tensor:
        """How the prediction would be read; not part of the bound."""
        return self.rounding(raw).exp()

    def decoder_log_probs(self, denoise: Denoise, z0: Tensor) -> Tensor:
        """Without the network."""
        return self.rounding(z0)

    def ideal_output(self, log_posterior: Tensor, zt: Tensor, t: Time) -> Tensor:
        """The mean embedding."""
        return log_posterior.exp() @ self.vectors()

    def end_to_end(self, denoise: Denoise, x0: Tensor, t: Tensor, rng: Generator) -> Tensor:
        """The paper's own objective, not a bound: squared error, rounding and the end of the noise, each a plain mean.

        All three also train the embeddings. Without the rounding term they would collapse to a point.
        Source: arXiv:2205.14217, Eq. 2; the released code gives the last two full weight at every t, as we do.
        """
        zt = self.diffuse(x0, t, rng)
        squared = (self.vectors()[x0] - denoise(zt, t)).square().mean()
        end = self.alpha_sigma(float(self.T))[0] * self.vectors()[x0]
        return squared + self.reconstruction_loss(denoise, x0, rng).mean() + end.square().mean()
