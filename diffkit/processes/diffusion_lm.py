"""Diffusion-LM and Plaid: two ways to make text from points in space, by Gaussian noise on word vectors."""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn

from diffkit.processes.base import Denoise, without_mask
from diffkit.processes.embedding_diffusion import EmbeddingDiffusion

LEAST_SIGNAL = 1e-4  # share of the variance that is still signal at the end of Diffusion-LM's schedule


class DiffusionLM(EmbeddingDiffusion):
    """Diffusion-LM: the word vectors are learned with the network, which says where in space the word is.

    Its x_0, a word vector with a little noise, is z_0 here, and its network's guess of x_0 a guess of e(w) here: the
    same chain, up to the length of the vectors, and the same bound.

    Args:   clamp: share of the time axis, from 0, in which guesses snap to the nearest word.
    Source: arXiv:2205.14217, sections 4.1, 4.2 and its appendix (square-root schedule).
    """

    objectives = ("bound", "end_to_end")
    name, predicts_tokens = "diffusion_lm", False
    options = ("width", "sampler", "self_conditioned", "clamp")

    def __init__(
        self, vocab_size: int, mask_id: int, T: int = 1000, *, width: int = 16, sampler: str = "ddpm",
        self_conditioned: bool = False, clamp: float = 0.1,
    ):  # fmt: skip
        super().__init__(vocab_size, mask_id, T, width=width, sampler=sampler, self_conditioned=self_conditioned)
        if not 0 <= clamp <= 1:
            raise ValueError(f"DiffusionLM: clamp is a share of the time axis in [0, 1], got {clamp}.")
        self.clamp, self.head = clamp, width
        self.bias = nn.Parameter(torch.zeros(vocab_size))

    def vectors(self) -> Tensor:
        """As learned."""
        return self.words.double()

    def log_snr(self, t: Tensor | float) -> Tensor:
        """alpha^2 = 1 - sqrt(t / T + 0.0001), never less than LEAST_SIGNAL: noise comes fast at first."""
        return (1 - (self.fraction(t) + 1e-4).sqrt()).clamp(min=LEAST_SIGNAL).logit()

    def weight(self, t: Tensor) -> Tensor:
        """T / 2 times the loss of SNR in the step that ends at t, whole in 1..T."""
        if not torch.equal(t, t.round()) or (t < 1).any():
            raise ValueError(f"DiffusionLM: the bound sums over whole times t in 1..{self.T}.")
        return self.T / 2 * (self.log_snr(t - 1).exp() - self.log_snr(t).exp())

    def estimate(self, raw: Tensor, zt: Tensor, t: Tensor) -> Tensor:
        """The network's output itself, or early in time the nearest word."""
        snaps = (t <= self.clamp * self.T).reshape(-1, 1, 1).to(raw.device)
        return torch.where(snaps, self.vectors()[self.nearest(raw)], raw.double())

    def rounding(self, x: Tensor) -> Tensor:
        """log p(w | x), (B, L, V): the word vectors read what they wrote."""
        return without_mask(x.double() @ self.vectors().T + self.bias, self.mask_id).log_softmax(-1)

    def token_probs(self, raw: Tensor, zt: Tensor, t: Tensor) -> Tensor:
        """How the guess would be read; a way to look at it, and no part of the bound."""
        return self.rounding(raw).exp()

    def decoder_log_probs(self, denoise: Denoise, z0: Tensor) -> Tensor:
        """Without the network: z_0 says it all."""
        return self.rounding(z0)

    def ideal_output(self, log_posterior: Tensor, zt: Tensor, t: Tensor) -> Tensor:
        """The mean word vector."""
        return log_posterior.exp() @ self.vectors()

    def bound(self, denoise: Denoise, x0: Tensor, u: Tensor, rng: Generator) -> Tensor:
        """The term of the step that lies at u of 1..T, with the ends."""
        t = (u * self.T).long().clamp(max=self.T - 1) + 1
        return torch.stack(self.loss(denoise, x0, t, rng)).sum(0)

    def end_to_end(self, denoise: Denoise, x0: Tensor, t: Tensor, rng: Generator) -> Tensor:
        """The paper's own objective, not a bound: squared error, rounding and the end of the noise, each a plain mean.

        All three also move the word vectors. Without the rounding term they would fall into one point.
        Source: arXiv:2205.14217, Eq. 2; the released code gives the last two full weight at every t, as we do.
        """
        zt = self.diffuse(x0, t, rng)
        squared = (self.vectors()[x0] - denoise(zt, t)).square().mean()
        end = self.alpha_sigma(float(self.T))[0] * self.vectors()[x0]
        return squared + self.reconstruction_loss(denoise, x0, rng).mean() + end.square().mean()
