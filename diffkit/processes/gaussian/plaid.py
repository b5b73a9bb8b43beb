"""Plaid: Gaussian diffusion on token embeddings, trained by its likelihood, and a variant that reads soft tokens."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from diffkit.processes.base import Denoise, Denoiser, Network, Time, without_mask
from diffkit.processes.gaussian.embedding_diffusion import EmbeddingDiffusion
from diffkit.processes.transitions import leave_one_out


class Plaid(EmbeddingDiffusion):
    """Plaid: Gaussian diffusion trained by its likelihood. The network predicts tokens; the estimate is their mean.

    The network predicts from the other positions: the likelihood of z_t[i] is known exactly and added ("output prior").
    Embeddings have length sqrt(E), so each channel of z_t has a variance near 1; the paper's have length 1, which is
    the same up to log E in log SNR. -log SNR runs from `first` to `last`, both learned; so is how often training
    visits each piece of that axis (`even_loss`).

    Args:   bins: pieces of the noise axis that may be visited unequally.
    Source: arXiv:2305.18619, section 2; arXiv:2107.00630 (VDM), sections 3 and 4.
    """

    name = "plaid"
    objectives = ("bound", "likelihood")

    def __init__(
        self, vocab_size: int, mask_id: int, T: int = 1000, *, width: int = 16, sampler: str = "ddpm",
        self_conditioned: bool = False, bins: int = 20, score_temperature: float = 1.0, first: float = -0.5,
        last: float = 9.0,
    ):  # fmt: skip
        super().__init__(vocab_size, mask_id, T, width=width, sampler=sampler, self_conditioned=self_conditioned)
        if not (bins >= 1 and score_temperature > 0 and first < last):
            raise ValueError(
                "Plaid: bins must be at least 1, score_temperature positive and first < last, got "
                f"{bins}, {score_temperature}, {first} and {last}."
            )
        self.bins, self.score_temperature = bins, score_temperature
        self.ends = nn.Parameter(torch.tensor([first, last]))
        self.visits = nn.Parameter(torch.zeros(bins))

    def vectors(self) -> Tensor:
        """All of length sqrt(E)."""
        return F.normalize(self.words.double(), dim=-1) * math.sqrt(self.width)

    def visit_probs(self) -> Tensor:
        """How often training visits each piece of the noise axis, (bins,) float64; a tenth is spread evenly."""
        return 0.9 * self.visits.double().softmax(0) + 0.1 / self.bins

    def on_axis(self, t: Time) -> tuple[Tensor, Tensor, Tensor]:
        """Time t as a point of the noise axis [0, 1], its speed there (per t / T), and the piece it lies in."""
        u = self.fraction(t).to(self.words.device)
        probs = self.visit_probs().detach()
        ends = probs.cumsum(0)
        piece = torch.searchsorted(ends, u.contiguous()).clamp(max=self.bins - 1)
        inside = (u - (ends - probs).take(piece)) / probs.take(piece)
        return ((piece + inside) / self.bins).clamp(0, 1), 1 / (self.bins * probs.take(piece)), piece

    def log_snr(self, t: Time) -> Tensor:
        """Linear along the noise axis."""
        first, last = self.ends.double()
        return -(first + (last - first) * self.on_axis(t)[0])

    def weight(self, t: Time) -> Tensor:
        """Half of the fall of SNR in units of t / T: the limit of many steps."""
        first, last = self.ends.double()
        return 0.5 * (last - first) * self.on_axis(t)[1] * self.log_snr(t).exp()

    def logits(self, raw: Tensor, zt: Tensor, t: Time) -> Tensor:
        """The prediction from the other positions times the likelihood of z_t, (B, L, V) float64."""
        return without_mask(raw.double(), self.mask_id) + self.log_likelihood(zt, t)

    def token_probs(self, raw: Tensor, zt: Tensor, t: Time) -> Tensor:
        """Softmax of `logits`."""
        return self.logits(raw, zt, t).softmax(-1)

    def estimate(self, raw: Tensor, zt: Tensor, t: Time) -> Tensor:
        """The mean embedding; with a score temperature below 1 the noise it leaves is taken for larger."""
        x = self.token_probs(raw, zt, t) @ self.vectors()
        signal = self.alpha_sigma(t)[0]
        return x if self.score_temperature == 1 else zt / signal - (zt / signal - x) / self.score_temperature

    def decoder_log_probs(self, denoise: Denoise, z0: Tensor) -> Tensor:
        """The network reads z_0 once more."""
        start = torch.zeros(len(z0), dtype=torch.float64, device=z0.device)
        return self.logits(denoise(z0, start), z0, start).log_softmax(-1)

    def ideal_output(self, log_posterior: Tensor, zt: Tensor, t: Time) -> Tensor:
        return leave_one_out(log_posterior, self.log_likelihood(zt, t))

    def bound(self, denoise: Denoise, x0: Tensor, u: Tensor, rng: Generator, frozen: Tensor | None = None) -> Tensor:
        """The bound in continuous time, at t = u T."""
        return torch.stack(self.loss(denoise, x0, u.double() * self.T, rng, frozen)).sum(0)

    def even_loss(self, nats: Tensor, t: Tensor) -> Tensor:
        """A loss for `visits` alone, whose best value gives the estimates of the bound the least variance.

        Fits the visits of the noise axis to the squared loss of a row: the best piece to visit is where its root mean
        square is large. The bound itself depends on the two ends of the axis only.
        Source: arXiv:2107.00630, appendix I.2, which minimises the variance by a network; a histogram is enough.
        """
        squares = nats.detach().sum(1).square()
        log_probs = self.visit_probs().log()[self.on_axis(t)[2]]
        return -(squares / squares.mean().clamp(min=1e-12) * log_probs).mean()


class SoftTokenPlaid(Plaid):
    """Plaid whose network reads soft tokens: not the points, but what each point says of the words, p(w | z_t[i]).

    At a known time that is all a point has to say (a sufficient statistic of it), and a network that reads tokens can
    read it, as a mixture of its embeddings. So it may go on from the weights of one: see `start_from`.

    Source: ours; in no paper that we know.
    """

    name = "soft_token_plaid"

    def __init__(
        self, vocab_size: int, mask_id: int, T: int = 1000, *, width: int = 16, sampler: str = "ddpm", bins: int = 20,
        score_temperature: float = 1.0, first: float = -0.5, last: float = 9.0,
    ):  # fmt: skip
        super().__init__(
            vocab_size, mask_id, T, width=width, sampler=sampler, bins=bins, score_temperature=score_temperature,
            first=first, last=last,
        )  # fmt: skip
        self.network = Network(vocab_size, input_size=vocab_size)

    def soft_tokens(self, zt: Tensor, t: Time) -> Tensor:
        """p(w | z_t[i]) if all words were equally likely, (B, L, V) float64."""
        return self.log_likelihood(zt, t).softmax(-1)

    def call_network(self, network: Denoiser, zt: Tensor, t: Tensor, where: Tensor | None, is_training: bool) -> Tensor:
        return network(self.soft_tokens(zt, t), t, where)
