"""Gaussian noise on token embeddings: the chain, its bound and its reverse step, which Diffusion-LM and Plaid share."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor, nn

from diffkit.processes.base import (
    Denoise,
    Denoiser,
    LossTerms,
    Network,
    Process,
    Time,
    as_denoiser,
    as_rows,
    without_mask,
)
from diffkit.random import normal_like

Mover = Callable[["EmbeddingDiffusion", Tensor, Tensor, Tensor, Tensor, Generator], Tensor]  # x, z_t, t, s -> z_s


def ddpm(process: EmbeddingDiffusion, x: Tensor, zt: Tensor, t: Tensor, s: Tensor, rng: Generator) -> Tensor:
    """Draw z_s ~ q(z_s | z_t, x): the step of the bound.

    Source: arXiv:2006.11239, Eq. 6 and 7; arXiv:2107.00630, appendix A.4.
    """
    mean, std = process.posterior(x, zt, t, s)
    return mean + std * normal_like(zt, rng)


def ddim(process: EmbeddingDiffusion, x: Tensor, zt: Tensor, t: Tensor, s: Tensor, rng: Generator) -> Tensor:
    """Keep the noise that z_t holds if the estimate x is right, at its new strength: deterministic given the start.

    Source: arXiv:2010.02502, Eq. 12 with sigma = 0.
    """
    (signal, noise), (signal_s, noise_s) = process.alpha_sigma(t), process.alpha_sigma(s)
    return signal_s * x + noise_s * (zt - signal * x) / noise


def renoise(process: EmbeddingDiffusion, x: Tensor, zt: Tensor, t: Tensor, s: Tensor, rng: Generator) -> Tensor:
    """Forget z_t and add new noise to the estimate x: Diffusion-LM's own step.

    Source: arXiv:2205.14217, section 4.2.
    """
    signal, noise = process.alpha_sigma(s)
    return signal * x + noise * normal_like(zt, rng)


MOVERS: dict[str, Mover] = {"ddpm": ddpm, "ddim": ddim, "renoise": renoise}


class EmbeddingDiffusion(Process):
    """What both share: token w has an embedding e(w), and z_t = alpha e(w) + sigma noise, alpha^2 + sigma^2 = 1.

    The chain ends at z_0, still a little noisy, from which tokens are read. All that depends on time does so through
    log SNR = log(alpha^2 / sigma^2), which falls as t grows.

    Args:   vocab_size: V, special tokens included; mask_id: id of MASK, which no text holds; T: length of time;
            width: E, the size of an embedding; sampler: the reverse step, "ddpm", "ddim" or "renoise";
            self_conditioned: the network also reads its own first estimate, see `self_conditioned_output`.
    Source: arXiv:2107.00630, section 3, for the chain and its bound.
    """

    def __init__(
        self, vocab_size: int, mask_id: int, T: int = 1000, *, width: int = 16, sampler: str = "ddpm",
        self_conditioned: bool = False, head: int = 0,
    ):  # fmt: skip
        network = Network(head or vocab_size, input_size=2 * width if self_conditioned else width)
        super().__init__(vocab_size, mask_id, T, network)
        if width < 1:
            raise ValueError(f"{type(self).__name__}: width must be at least 1, got {width}.")
        if sampler not in MOVERS:
            raise ValueError(f"{type(self).__name__}: sampler must be one of {sorted(MOVERS)}, got {sampler!r}.")
        self.width, self.sampler, self.self_conditioned = width, sampler, self_conditioned
        self.words = nn.Parameter(torch.randn(vocab_size, width))

    # ------------------------------------------------------------------------------------------ what each method brings

    def vectors(self) -> Tensor:
        """e(w) of every token, (V, E) float64."""
        raise NotImplementedError

    def log_snr(self, t: Time) -> Tensor:
        """log(alpha^2 / sigma^2) at times in [0, T], same shape as t, float64."""
        raise NotImplementedError

    def weight(self, t: Time) -> Tensor:
        """Weight of the squared error at t, (B,) nats, so that its mean over t is the bound's middle part."""
        raise NotImplementedError

    def estimate(self, raw: Tensor, zt: Tensor, t: Time) -> Tensor:
        """The estimate x of e(w) behind z_t that the network's output stands for, (B, L, E)."""
        raise NotImplementedError

    def decoder_log_probs(self, denoise: Denoise, z0: Tensor) -> Tensor:
        """log p(w | z_0) of every token, (B, L, V): how the end of the chain is read."""
        raise NotImplementedError

    # -------------------------------------------------------------------------------------------------- forward process

    def fraction(self, t: Time) -> Tensor:
        """t / T, float64."""
        return torch.as_tensor(t, dtype=torch.float64) / self.T

    def alpha_sigma(self, t: Time) -> tuple[Tensor, Tensor]:
        """alpha and sigma at t, each (B, 1, 1) float64, or (1, 1, 1) for one time."""
        log_snr = self.log_snr(t).reshape(-1, 1, 1).to(self.words.device)
        return log_snr.sigmoid().sqrt(), (-log_snr).sigmoid().sqrt()

    def prior(self, B: int, L: int, rng: Generator) -> Tensor:
        return normal_like(self.words.new_zeros(B, L, self.width), rng)

    def diffuse(self, x0: Tensor, t: Time, rng: Generator) -> Tensor:
        """Draw z_t ~ q(z_t | w), (B, L, E) float64."""
        signal, noise = self.alpha_sigma(t)
        clean = self.vectors()[x0]
        return signal * clean + noise * normal_like(clean, rng)

    def corrupt(self, x0: Tensor, t: Time, rng: Generator) -> tuple[Tensor, Tensor]:
        """Draw z_t; hit are the tokens that are no longer nearest to their own embedding."""
        zt = self.diffuse(x0, t, rng)
        with torch.no_grad():
            return zt, self.log_likelihood(zt, t).argmax(-1) != x0

    def add_noise(self, zs: Tensor, s: Time, t: Time, rng: Generator) -> Tensor:
        """Draw z_t ~ q(z_t | z_s) for s < t: a forward step."""
        (signal, noise), (signal_s, noise_s) = self.alpha_sigma(t), self.alpha_sigma(s)
        kept = signal / signal_s
        return kept * zs + (noise.square() - (kept * noise_s).square()).clamp(min=0).sqrt() * normal_like(zs, rng)

    def posterior(self, x: Tensor, zt: Tensor, t: Time, s: Time) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of q(z_s | z_t, x) for any s < t.

        Source: arXiv:2107.00630, appendix A.4, Eq. 33.
        """
        (signal, _), (signal_s, noise_s) = self.alpha_sigma(t), self.alpha_sigma(s)
        share = -torch.expm1(self.log_snr(t) - self.log_snr(s)).reshape(-1, 1, 1).to(x.device)  # 1 - SNR_t / SNR_s
        return signal_s / signal * (1 - share) * zt + share * signal_s * x, share.sqrt() * noise_s

    # -------------------------------------------------------------------------------------------------------- the bound

    def diffusion_loss(self, denoise: Denoise, x0: Tensor, t: Tensor, rng: Generator) -> Tensor:
        """weight(t) |e(w) - x|^2, (B, L) nats."""
        zt = self.diffuse(x0, t, rng)
        error = (self.vectors()[x0] - self.estimate(denoise(zt, t), zt, t)).square().sum(-1)
        return self.weight(t).to(error)[:, None] * error

    def reconstruction_loss(self, denoise: Denoise, x0: Tensor, rng: Generator) -> Tensor:
        """-log p(w | z_0), (B, L) nats."""
        z0 = self.diffuse(x0, torch.zeros(len(x0), dtype=torch.float64), rng)
        return -self.decoder_log_probs(denoise, z0).gather(-1, x0[..., None])[..., 0]

    def prior_loss(self, x0: Tensor) -> Tensor:
        """KL(q(z_T | w) || standard normal), (B, L) nats."""
        signal, noise = (strength.reshape(()) for strength in self.alpha_sigma(float(self.T)))
        squares = (signal * self.vectors()[x0]).square().sum(-1)
        return 0.5 * (squares + self.width * (noise.square() - 1 - noise.square().log()))

    def loss(self, denoise: Denoise, x0: Tensor, t: Time, rng: Generator, frozen: Tensor | None = None) -> LossTerms:
        """The bound on -log p(x_0) of all tokens: noise between 0 and T, reading z_0, and what is left at T.

        Raises: ValueError for `frozen` tokens: as in infilling, no embedding can be given.
        """
        if frozen is not None:
            raise ValueError(f"{type(self).__name__}: frozen tokens need a process on tokens, such as mdlm or d3pm.")
        x0, t = as_rows(x0, t)
        return LossTerms(
            self.diffusion_loss(denoise, x0, t, rng), self.reconstruction_loss(denoise, x0, rng), self.prior_loss(x0)
        )

    # -------------------------------------------------------------------------------------------------- reverse process

    def self_conditioned_output(
        self, network: Denoise, zt: Tensor, t: Time, rows: int, where: Tensor | None = None
    ) -> Tensor:
        """Self-conditioning: the network's output at z_t when it also reads its own estimate x, made without one.

        Two calls, and still a function of z_t, so bounds and samplers take it for any other denoiser. (The papers keep
        the estimate of the step before, which costs one call.) The first `rows` texts get an estimate, the others
        zeros: in training a few, so that the network can do without. No gradient flows through an estimate.
        Source: arXiv:2208.04202, section 3.2; arXiv:2305.18619, section 3.5.
        """
        t, first = torch.as_tensor(t).expand(len(zt)), torch.zeros_like(zt)
        if rows:
            with torch.no_grad():
                raw = network(torch.cat([zt, first], -1)[:rows], t[:rows])
                first[:rows] = self.estimate(raw, zt[:rows], t[:rows])
        return as_denoiser(network)(torch.cat([zt, first], -1), t, where)

    def call_network(self, network: Denoiser, zt: Tensor, t: Tensor, where: Tensor | None, is_training: bool) -> Tensor:
        if not self.self_conditioned:
            return network(zt, t, where)
        return self.self_conditioned_output(network, zt, t, len(zt) // 4 if is_training else len(zt), where)

    def reverse_step(self, raw: Tensor, zt: Tensor, t: Time, s: Time, rng: Generator) -> Tensor:
        (zt, t), (_, s) = as_rows(zt, t), as_rows(zt, s)
        return MOVERS[self.sampler](self, self.estimate(raw, zt, t), zt, t, s, rng)

    def finish(self, denoise: Denoise, z: Tensor, rng: Generator) -> Tensor:
        """Read z_0: at each position the embedding of the token that is most likely by `decoder_log_probs`."""
        return self.vectors()[self.decoder_log_probs(denoise, z).argmax(-1)]

    def nearest(self, z: Tensor) -> Tensor:
        """Ids of the nearest embeddings, (B, L); never MASK."""
        return without_mask(self.closeness(z), self.mask_id).argmax(-1)

    def closeness(self, z: Tensor, signal: Tensor | float = 1.0) -> Tensor:
        """Falls as |z - signal e(w)|^2 / 2 grows, from which it differs by a constant; (B, L, V)."""
        vectors = self.vectors()
        product, square = z.double() @ vectors.T, vectors.square().sum(-1)
        return signal * product - signal**2 / 2 * square

    def check_start(self, z: Tensor) -> None:
        if z.ndim != 3 or z.shape[-1] != self.width:
            raise ValueError(
                f"{type(self).__name__}: a state is (B, L, {self.width}) noisy embeddings, got {tuple(z.shape)}. "
                "Infilling needs a process with MASK: mdlm, or d3pm and sedd with absorbing noise."
            )

    def decode(self, z: Tensor) -> Tensor:
        with torch.no_grad():
            return self.nearest(z)

    def log_likelihood(self, zt: Tensor, t: Time) -> Tensor:
        """log of the normal density of z_t around alpha e(w), up to a constant; -inf for MASK."""
        signal, noise = self.alpha_sigma(t)
        return without_mask(self.closeness(zt, signal) / noise.square(), self.mask_id)  # last: -inf has no slope
