"""Hybrid noise: a token turns into MASK or into any token; and the two predictions of a token under such noise."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from diffkit.processes.base import Time
from diffkit.processes.schedules import Schedule
from diffkit.processes.sedd import UDLM
from diffkit.processes.transitions import Mixing, point_mass_at_mask, uniform_over_tokens


class HybridNoise(Mixing):
    """Keep a token with probability alpha, else redraw it: with probability `share` uniformly, otherwise it is MASK.

    At a share of 0 and 1 the limit is to the last bit that of absorbing and of uniform noise.
    """

    def __init__(self, share: float, vocab_size: int, mask_id: int, schedule: Schedule):
        super().__init__("hybrid", vocab_size, mask_id, schedule)
        self.share = share

    def limit(self, device: torch.device | str = "cpu") -> Tensor:
        uniform = uniform_over_tokens(self.vocab_size, self.mask_id)
        masked = point_mass_at_mask(self.vocab_size, self.mask_id)
        return (self.share * uniform + (1 - self.share) * masked).to(device)


class HybridDiffusion(UDLM):
    """Diffusion between MASK and uniform noise: `share` 0 is masked diffusion, 1 is UDLM.

    Like UDLM it predicts a token from the other positions, and its bound is the score entropy of ratios made from that
    prediction: with a = q(z_t | x_0), m what is predicted for it, and x = a(z) / m(z), it is rate(z) / a(z) times
    KL(a || m) + x - log x - 1, as GIDD writes it. In the reverse process a wrong word may go back to MASK, or turn
    into another word.

    Share 1 equals UDLM bit for bit, in its draws too, and share 0 UDLM with absorbing noise, which equals the
    continuous bound and the reverse steps of MaskedDiffusion to the rounding of float64 (its draws are other ones).

    Args:    vocab_size, mask_id, schedule, sampler, dtype: as UDLM; share: of noise that is a uniform token, 0 to 1.
    Raises:  ValueError for a share outside [0, 1], and as UDLM.
    Source:  arXiv:2602.01362 (XDLM, whose uniform tokens include MASK); arXiv:2503.04482 (GIDD, whose share moves).
    """

    name = "hybrid"
    transitions: HybridNoise

    def __init__(
        self, vocab_size: int, mask_id: int, share: float = 0.1, schedule: Schedule | str = "linear", *,
        sampler: str = "tweedie", dtype: torch.dtype = torch.float64,
    ):  # fmt: skip
        if not 0 <= share <= 1:
            raise ValueError(f"HybridDiffusion: share, of noise that is a uniform token, lies in [0, 1], got {share}.")
        kind = "uniform" if share else "absorbing"  # where time ends: words need the ratios to have digits
        super().__init__(vocab_size, mask_id, kind, schedule, sampler=sampler, dtype=dtype)
        self.share = float(share)
        self.transitions = HybridNoise(self.share, vocab_size, mask_id, self.schedule)

    def check_start(self, z: Tensor) -> None:
        """Raises ValueError also for a canvas partly masked: its visible tokens may be noise."""
        super().check_start(z)
        is_masked = z == self.mask_id
        if self.share and is_masked.any() and not is_masked.all():
            raise ValueError(
                f"HybridDiffusion: with share={self.share:g} the words of a canvas may be noise and would change. "
                "Infilling needs share=0, or mdlm."
            )


class HasTransitions(Protocol):
    """What a conversion needs of a process with uniform, absorbing or hybrid noise."""

    @property
    def transitions(self) -> Mixing: ...

    def before_end(self, t: Time) -> Tensor: ...


def own_evidence(process: HasTransitions, zt: Tensor, t: Time) -> Tensor:
    """log(1 + alpha / b(z_t)), (B, L, 1) nats: how much likelier z_t is if it is the clean token than if it is not.

    b(z) is the probability that noise puts z there. Infinite where it never does: a visible token of masked diffusion.
    """
    limit = process.transitions.limit(zt.device)
    alpha, redrawn = process.transitions.keep(0, process.before_end(t), limit)  # (1 or B, 1, 1)
    return torch.log1p(alpha / (redrawn * limit[zt][..., None]))


def to_leave_one_out(process: HasTransitions, log_f: Tensor, zt: Tensor, t: Time) -> Tensor:
    """log p(x_0[i] | z_t at the other positions) from log p(x_0[i] | z_t): (B, L, V) -> (B, L, V), normalised.

    Only the logit of z_t itself moves, down by `own_evidence`; at MASK nothing does. Where z_t cannot be noise there is
    nothing to divide out, and the answer is NaN.
    Source: arXiv:2605.22765, Eq. 13.
    """
    return _shifted(log_f, zt, -own_evidence(process, zt, t))


def to_posterior(process: HasTransitions, log_r: Tensor, zt: Tensor, t: Time) -> Tensor:
    """log p(x_0[i] | z_t) from log p(x_0[i] | z_t at the other positions): the inverse of `to_leave_one_out`."""
    return _shifted(log_r, zt, own_evidence(process, zt, t))


def _shifted(logits: Tensor, zt: Tensor, by: Tensor) -> Tensor:
    """Log-softmax of logits (B, L, V) in float64, those of z_t moved by (B, L, 1)."""
    own = zt[..., None].long()
    logits = logits.double()
    return logits.scatter(-1, own, logits.gather(-1, own) + by).log_softmax(-1)
