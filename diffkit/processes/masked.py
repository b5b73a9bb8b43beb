"""What every diffusion method here has in common (Process), and the first method: masked diffusion (MDLM)."""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from diffkit.processes.base import Denoise, LossTerms, Process, Step, check_clean, logits_at, without_mask
from diffkit.processes.schedules import Schedule, get_schedule, schedule_from, schedule_settings
from diffkit.random import categorical, uniform_like

CACHED = 2**19  # logits that stay in the cache of a CPU from one pass over them to the next


def subs_log_probs(logits: Tensor, zt: Tensor, mask_id: int) -> Tensor:
    """Log-beliefs about the clean tokens: never MASK, and what is visible is certain. (B, L, V) -> (B, L, V).

    Source: arXiv:2406.07524, section 3.2.3 (SUBS).
    """
    is_visible, own = (zt != mask_id)[..., None], zt[..., None]
    hidden = without_mask(logits, mask_id).log_softmax(-1).masked_fill(is_visible, -torch.inf)
    return hidden.scatter(-1, own, torch.where(is_visible, 0.0, hidden.gather(-1, own)))


def masked_nll(logits: Tensor, x0: Tensor, is_masked: Tensor, mask_id: int) -> Tensor:
    """-log p of the hidden tokens, (B, L) nats and 0 elsewhere, from logits (N, V) at the N hidden places.

    A CPU takes a few rows at a time, which stay in its cache: the same numbers, sooner and in less memory.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    logits.detach()[:, mask_id] = -torch.inf  # beside the graph: where the softmax is 0, so is the gradient
    rows = max(1, CACHED // logits.shape[1]) if logits.is_cpu else max(1, len(logits))
    pieces = zip(logits.split(rows), x0[is_masked].split(rows), strict=True)
    nats = torch.cat([F.cross_entropy(some, words, reduction="none") for some, words in pieces])
    return nats.new_zeros(x0.shape).masked_scatter(is_masked, nats)


def discrete_weight(schedule: Schedule, t: Tensor) -> Tensor:
    """T (gamma_t - gamma_{t-1}) / gamma_t, t whole in 1..T: the weight of a masked token's loss in the T-step bound."""
    if not torch.equal(t, t.round()) or (t < 1).any():
        raise ValueError(
            f"discrete_weight: t must be whole numbers in 1..{schedule.T}, got {t.min():g}..{t.max():g}; use "
            "weight='continuous' for others."
        )
    gamma = schedule.gamma(t)
    return schedule.T * (gamma - schedule.gamma(t - 1)) / gamma


def continuous_weight(schedule: Schedule, t: Tensor) -> Tensor:
    """T gamma'(t) / gamma(t) for t in (0, T]: the same weight in the limit of infinitely many steps."""
    if (t <= 0).any():
        raise ValueError(
            "continuous_weight: t must be positive; at t = 0 nothing is masked and the weight is infinite."
        )
    return schedule.T * schedule.dgamma(t) / schedule.gamma(t)


WEIGHTS = {"discrete": discrete_weight, "continuous": continuous_weight}


class MaskedDiffusion(Process):
    """Absorbing-state diffusion: tokens turn into MASK one by one; the way back reveals them.

    Args:    vocab_size: V, special tokens included; mask_id: id of MASK; schedule: a Schedule or its name (T = 1000);
             weight: "discrete" for the bound of the T-step chain, "continuous" for its limit.
    Raises:  ValueError for an unknown schedule or weight, or a MASK outside the vocabulary.
    Source:  arXiv:2406.07524 (MDLM), sections 3.1-3.4; the same objective in arXiv:2406.04329 (MD4).

    >>> process = MaskedDiffusion(vocab_size=10, mask_id=1, schedule="linear")
    >>> process.stay_masked(t=torch.tensor([1000.0]), s=torch.tensor([750.0])).tolist()
    [0.75]
    """

    objectives = ("cross_entropy", "sequence_mean", "bound", "count_cross_entropy", "count_bound")
    name = "mdlm"
    default_order = "random"

    def __init__(self, vocab_size: int, mask_id: int, schedule: Schedule | str = "cosine", weight: str = "discrete"):
        curve = get_schedule(schedule) if isinstance(schedule, str) else schedule
        super().__init__(vocab_size, mask_id, curve.T)
        if weight not in WEIGHTS:
            raise ValueError(f"MaskedDiffusion: weight must be one of {sorted(WEIGHTS)}, got {weight!r}.")
        self.schedule, self.weight = curve, weight

    @classmethod
    def from_settings(cls, settings: dict[str, Any]) -> Self:
        return cls(settings["vocab_size"], settings["mask_id"], schedule_from(settings), settings["weight"])

    def settings(self) -> dict[str, Any]:
        return super().settings() | schedule_settings(self.schedule) | {"weight": self.weight}

    def corrupt(self, x0: Tensor, t: Tensor, rng: Generator) -> tuple[Tensor, Tensor]:
        return corrupt(x0, t, schedule=self.schedule, mask_id=self.mask_id, rng=rng)

    def log_probs(self, logits: Tensor, zt: Tensor) -> Tensor:
        """Log-beliefs about the clean tokens, see `subs_log_probs`: (B, L, V) -> (B, L, V)."""
        return subs_log_probs(logits, zt, self.mask_id)

    def loss(self, denoise: Denoise, x0: Tensor, t: Tensor, rng: Generator) -> LossTerms:
        """The bound on -log p(x_0), estimated at one time per row; no term for t = 0, as step 1 reveals everything.

        Source: arXiv:2406.07524, section 3.4; arXiv:2406.04329, section 3.
        """
        xt, _ = self.corrupt(x0, t, rng)
        nats = self.token_loss(denoise, x0, xt, t)
        weight = WEIGHTS[self.weight](self.schedule, t).to(nats)
        return LossTerms(weight[:, None] * nats, torch.zeros_like(nats), torch.zeros_like(nats))

    def token_loss(self, denoise: Denoise, x0: Tensor, xt: Tensor, t: Tensor) -> Tensor:
        """-log p(x_0[i] | x_t) at masked positions, (B, L) nats; 0 where the token is visible."""
        is_masked = xt == self.mask_id
        return masked_nll(logits_at(denoise, xt, t, is_masked), x0, is_masked, self.mask_id)

    def count_loss(self, denoise: Denoise, x0: Tensor, count: Tensor, rng: Generator) -> Tensor:
        """The bound with exactly `count` (B,) tokens masked: (L / count) times their loss, (B, L) nats.

        Averaged over count ~ U{1..L} this equals the continuous-time bound of a denoiser that ignores t, whatever the
        schedule, with a far smaller variance than a draw of t. A denoiser with time sees the t whose rate is count / L.
        Source: arXiv:2406.03736 and arXiv:2502.09992.
        """
        L = x0.shape[1]
        if (count < 1).any():
            raise ValueError(f"count_loss: mask at least one token of each row (1..{L}), got {int(count.min())}.")
        xt, _ = corrupt_count(x0, count, mask_id=self.mask_id, rng=rng)
        share = count.double() / L
        nats = self.token_loss(denoise, x0, xt, self.schedule.time_of(share).to(x0.device))
        return nats / share[:, None].to(nats)

    def bound(self, denoise: Denoise, x0: Tensor, u: Tensor, rng: Generator) -> Tensor:
        """`count_loss` at the number of masks that lies at u of 1..L."""
        L = x0.shape[1]
        return self.count_loss(denoise, x0, (u * L).long().clamp(max=L - 1) + 1, rng)

    def stay_masked(self, t: Tensor, s: Tensor) -> Tensor:
        """Chance that a token masked at t is still masked at the earlier time s: gamma(s) / gamma(t), (B,) float64.

        Raises: ValueError if some s >= t.
        Source: arXiv:2406.07524, reverse posterior of a masked token; it holds for any s < t, so steps may be skipped.
        """
        if (s >= t).any():
            bad = int((s >= t).reshape(-1).nonzero()[0])
            raise ValueError(
                f"stay_masked: time must run back (s < t), but row {bad} has t={t.reshape(-1)[bad]:g}, "
                f"s={s.reshape(-1)[bad]:g}. Swap them?"
            )
        return self.schedule.gamma(s) / self.schedule.gamma(t)

    def step(self, denoise: Denoise, zt: Tensor, t: Tensor, s: Tensor, rng: Generator) -> Step:
        """Reveal each masked token with chance 1 - gamma(s) / gamma(t), drawing it from the denoiser's belief.

        Two draws, first whether, then what: one draw over V + 1 outcomes needs probabilities that floats cannot hold.
        """
        u = uniform_like(zt, rng)
        reveal = (zt == self.mask_id) & (u >= self.stay_masked(t, s).to(zt.device)[:, None])
        probs = self.log_probs(denoise(zt, t).double(), zt).exp()
        return Step(torch.where(reveal, categorical(probs, rng), zt), probs)

    def log_likelihood(self, zt: Tensor, t: Tensor) -> Tensor:
        seen = F.one_hot(zt, self.vocab_size).double().log()
        return seen.masked_fill((zt == self.mask_id)[..., None], 0.0)

    def ideal_output(self, log_posterior: Tensor, zt: Tensor, t: Tensor) -> Tensor:
        return log_posterior


def corrupt(
    x0: Tensor,
    t: Tensor | float,
    *,
    schedule: Schedule,
    mask_id: int,
    rng: Generator,
    frozen: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Mask every token independently with probability gamma(t).

    Args:    x0: (B, L) ids without MASK; t: one time for all rows, or (B,) times in [0, T]; schedule: gamma;
             mask_id: id of MASK; rng: decides which tokens are hit.
             frozen: (B, L) bool, positions that are never masked (a prompt, or padding that is not to be learned).
    Returns: xt (B, L), and is_masked (B, L) bool, true exactly where xt is MASK. x0 is left as it is.
    Raises:  ValueError for shapes that do not fit, times outside [0, T], or a MASK in x0; TypeError for ids that are
             not integers.
    Source:  arXiv:2406.07524, forward process.

    >>> x0, rng = torch.arange(4, 12)[None], torch.Generator().manual_seed(0)
    >>> xt, is_masked = corrupt(x0, 500, schedule=get_schedule("linear"), mask_id=1, rng=rng)
    >>> xt.tolist()
    [[1, 5, 1, 1, 1, 9, 1, 11]]
    """
    check_clean(x0, mask_id, frozen)
    gamma = schedule.gamma(t).to(x0.device)
    if gamma.ndim > 1 or (gamma.ndim == 1 and len(gamma) != len(x0)):
        raise ValueError(f"corrupt: t must be one number or ({len(x0)},), one per row of x0, got {tuple(gamma.shape)}.")
    u = uniform_like(x0, rng, torch.float32)
    is_masked = u < (gamma[:, None] if gamma.ndim else gamma)
    if frozen is not None:
        is_masked &= ~frozen
    return torch.where(is_masked, mask_id, x0), is_masked


def corrupt_count(
    x0: Tensor, count: Tensor | int, *, mask_id: int, rng: Generator, frozen: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Mask exactly `count` tokens of each row, every subset of the free positions equally likely.

    Args:    count: one number for all rows, or (B,) int64, each at least 0 and at most the row's free positions.
    Returns: as `corrupt`. Raises as `corrupt`, and ValueError for a count that does not fit.
    Source:  arXiv:2502.09992 and arXiv:2406.03736, likelihood estimate with a fixed number of masks.
    """
    check_clean(x0, mask_id, frozen)
    B, L = x0.shape
    u = uniform_like(x0, rng, torch.float32)
    if frozen is not None:
        u = u.masked_fill(frozen, 2.0)  # last in line
    count = torch.as_tensor(count, device=x0.device)
    if count.is_floating_point() or count.shape not in ((), (B,)):
        raise ValueError(
            f"corrupt_count: count must be one whole number or ({B},) of them, got {count.dtype} {tuple(count.shape)}."
        )
    count = count.expand(B)
    free = (u < 2).sum(1)
    if (count < 0).any() or (count > free).any():
        bad = int(((count < 0) | (count > free)).nonzero()[0])
        raise ValueError(
            f"corrupt_count: row {bad} has {int(free[bad])} free positions, cannot mask {int(count[bad])}."
        )
    is_masked = u.argsort(1).argsort(1) < count[:, None]
    return torch.where(is_masked, mask_id, x0), is_masked
