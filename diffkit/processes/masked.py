"""Masked diffusion (MDLM): corruption, the bound, and the reverse step."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from diffkit.processes.base import (
    Denoise,
    LossTerms,
    Process,
    Time,
    as_denoiser,
    as_rows,
    keep_given,
    one_hot,
    without_mask,
)
from diffkit.processes.schedules import Schedule, get_schedule
from diffkit.random import inverse_cdf, uniform_like

CACHED = 2**19  # logits that fit a CPU's cache from one pass over them to the next


def subs_log_probs(logits: Tensor, zt: Tensor, mask_id: int) -> Tensor:
    """Log-probabilities of the clean tokens: MASK has none, and a visible token is certain. (B, L, V) -> (B, L, V).

    Source: arXiv:2406.07524, section 3.2.3 (SUBS).
    """
    is_visible, own = (zt != mask_id)[..., None], zt[..., None].long()
    hidden = without_mask(logits, mask_id).log_softmax(-1).masked_fill(is_visible, -torch.inf)
    return hidden.scatter(-1, own, torch.where(is_visible, 0.0, hidden.gather(-1, own)))


def masked_nll(logits: Tensor, x0: Tensor, is_masked: Tensor, mask_id: int) -> Tensor:
    """-log p of the masked tokens, (B, L) nats and 0 elsewhere, from logits (N, V) at the N masked positions.

    On a CPU a few rows at a time, which stay in its cache: the same numbers, faster and in less memory.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    logits.detach()[:, mask_id] = -torch.inf  # outside the graph: where the softmax is 0, so is the gradient
    rows = max(1, CACHED // logits.shape[1]) if logits.is_cpu else max(1, len(logits))
    pieces = zip(logits.split(rows), x0[is_masked].split(rows), strict=True)
    nats = torch.cat([F.cross_entropy(some, tokens, reduction="none") for some, tokens in pieces])
    return nats.new_zeros(x0.shape).masked_scatter(is_masked, nats)


def discrete_weight(schedule: Schedule, t: Tensor) -> Tensor:
    """T (gamma_t - gamma_{t-1}) / gamma_t, t whole in 1..T: the weight of a masked token's loss in the T-step bound."""
    gamma = schedule.rate(t)
    return torch.where(gamma > 0, schedule.T * (gamma - schedule.rate(t - 1)) / gamma, schedule.T)


def continuous_weight(schedule: Schedule, t: Tensor) -> Tensor:
    """T gamma'(t) / gamma(t) for t in (0, T]: the same weight in the limit of infinitely many steps."""
    gamma = schedule.rate(t)
    return torch.where(gamma > 0, schedule.T * schedule.slope(t) / gamma, 0.0)  # gamma rounds to 0: nothing is masked


WEIGHTS = {"discrete": discrete_weight, "continuous": continuous_weight}


class MaskedDiffusion(Process):
    """Absorbing-state diffusion: tokens turn into MASK one by one; the reverse process reveals them.

    Args:    vocab_size: V, special tokens included; mask_id: id of MASK; schedule: a Schedule or its name (T = 1000);
             weight: "discrete" for the bound of the T-step chain, "continuous" for its limit.
    Raises:  ValueError for an unknown schedule or weight, or a MASK outside the vocabulary.
    Source:  arXiv:2406.07524 (MDLM), sections 3.1-3.4; the same objective in arXiv:2406.04329 (MD4).

    >>> process = MaskedDiffusion(vocab_size=10, mask_id=1, schedule="linear")
    >>> process.stay_masked(t=torch.tensor([1000.0]), s=torch.tensor([750.0])).tolist()
    [0.75]
    """

    name = "mdlm"
    objectives = ("cross_entropy", "sequence_mean", "bound", "count_cross_entropy", "count_bound")
    default_order, any_order = "random", True

    def __init__(self, vocab_size: int, mask_id: int, schedule: Schedule | str = "cosine", weight: str = "discrete"):
        curve = get_schedule(schedule) if isinstance(schedule, str) else schedule
        super().__init__(vocab_size, mask_id, curve.T)
        if weight not in WEIGHTS:
            raise ValueError(f"MaskedDiffusion: weight must be one of {sorted(WEIGHTS)}, got {weight!r}.")
        self.schedule, self.weight = curve, weight

    def corrupt(self, x0: Tensor, t: Time, rng: Generator) -> tuple[Tensor, Tensor]:
        return _masked_at_rate(x0, self.schedule.rate(t), self.mask_id, rng)

    def add_noise(self, zs: Tensor, s: Time, t: Time, rng: Generator) -> Tensor:
        return _masked_at_rate(zs, self.schedule.lost(s, t), self.mask_id, rng)[0]

    def corrupt_count(
        self, x0: Tensor, count: Tensor, rng: Generator, frozen: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """As `corrupt`, with exactly `count` (B,) tokens of each row masked."""
        return _masked_by_count(x0, count[:, None], self.mask_id, rng, frozen)

    def log_probs(self, logits: Tensor, zt: Tensor) -> Tensor:
        """Log-probabilities of the clean tokens, see `subs_log_probs`: (B, L, V) -> (B, L, V)."""
        return subs_log_probs(logits, zt, self.mask_id)

    def loss(self, denoise: Denoise, x0: Tensor, t: Time, rng: Generator, frozen: Tensor | None = None) -> LossTerms:
        """The bound on -log p(x_0), estimated at one time per row.

        The discrete weight is that of whole times in 1..T, where step 1 reveals everything; the continuous one that of
        times in (0, T], to which the ends add what `jump_losses` says.
        Source: arXiv:2406.07524, section 3.4; arXiv:2406.04329, section 3.
        """
        x0, t = as_rows(x0, t)
        xt = keep_given(self.corrupt(x0, t, rng)[0], x0, frozen)
        nats = self.token_loss(denoise, x0, xt, t)
        weight = WEIGHTS[self.weight](self.schedule, t).to(nats)
        return LossTerms(weight[:, None] * nats, *self.jump_losses(denoise, x0, rng, frozen))

    def jump_losses(self, denoise: Denoise, x0: Tensor, rng: Generator, frozen: Tensor | None) -> Iterator[Tensor]:
        """What the continuous bound costs at 0 and at T, (B, L) nats each: where gamma jumps, a step of its own.

        Just after 0 all masks that are there are revealed, weight 1; just before T a share of all tokens.
        """
        first, last = self.schedule.jumps if self.weight == "continuous" else (0.0, 0.0)
        for weight, rate, t in ((float(first > 0), first, 0.0), (last, 1.0, float(self.T))):
            if not weight:
                yield torch.zeros(x0.shape, device=x0.device)
                continue
            xt, _ = _masked_at_rate(x0, torch.tensor(rate), self.mask_id, rng)
            yield weight * self.token_loss(denoise, x0, keep_given(xt, x0, frozen), as_rows(x0, t)[1])

    def token_loss(self, denoise: Denoise, x0: Tensor, xt: Tensor, t: Time) -> Tensor:
        """-log p(x_0[i] | x_t) at masked positions, (B, L) nats; 0 where the token is visible."""
        (xt, t), is_masked = as_rows(xt, t), xt == self.mask_id
        raw = self.columns(as_denoiser(denoise)(xt, t, is_masked))
        return masked_nll(raw, x0.long(), is_masked, self.mask_id)

    def count_loss(
        self, denoise: Denoise, x0: Tensor, count: Tensor, rng: Generator, frozen: Tensor | None = None
    ) -> Tensor:
        """The bound with exactly `count` (B,) in 1..L tokens masked: (L / count) times their loss, (B, L) nats.

        Averaged over count ~ U{1..L} this equals the continuous-time bound of a denoiser that ignores t, whatever the
        schedule, with a far smaller variance than a draw of t. A denoiser with time gets the t whose rate is count / L.
        Of `frozen` texts, L is the number of tokens that are free.
        Source: arXiv:2406.03736 and arXiv:2502.09992.
        """
        xt, _ = self.corrupt_count(x0.long(), count, rng, frozen)
        share = (count.to(x0.device).double() / count_free(x0, frozen)).nan_to_num(1.0)  # no token is free: 0 / 0
        nats = self.token_loss(denoise, x0, xt, self.schedule.time(share))
        return nats / share[:, None].to(nats)

    def bound(self, denoise: Denoise, x0: Tensor, u: Tensor, rng: Generator, frozen: Tensor | None = None) -> Tensor:
        """`count_loss` at the number of masks that is the quantile u of 1..L."""
        L = count_free(x0, frozen)
        return self.count_loss(denoise, x0, (u.to(L.device) * L).long().clamp(max=L - 1) + 1, rng, frozen)

    def stay_masked(self, t: Time, s: Time) -> Tensor:
        """Probability that a token masked at t is still masked at an earlier time s: gamma(s) / gamma(t), float64.

        Source: arXiv:2406.07524, reverse posterior of a masked token; it holds for any s < t, so steps may be skipped.
        """
        gamma = self.schedule.rate(t)
        return torch.where(gamma > 0, self.schedule.rate(s) / gamma, 0.0)

    def reverse_step(self, raw: Tensor, zt: Tensor, t: Time, s: Time, rng: Generator) -> Tensor:
        """Reveal each masked token with probability 1 - gamma(s) / gamma(t), drawn from the denoiser's prediction.

        Two draws, first whether, then what: one draw over V + 1 outcomes needs probabilities that floats cannot hold.
        """
        (zt, t), (_, s) = as_rows(zt, t), as_rows(zt, s)
        u, which = uniform_like(zt, rng), uniform_like(zt, rng)
        reveal = (zt == self.mask_id) & (u >= self.stay_masked(t, s).to(zt.device)[:, None])
        probs = self.token_logits(raw[reveal].double(), zt[reveal]).log_softmax(-1).exp()
        return zt.masked_scatter(reveal, inverse_cdf(probs, which[reveal]))

    def token_probs(self, raw: Tensor, zt: Tensor, t: Time) -> Tensor:
        return self.log_probs(raw.double(), zt).exp()

    def log_likelihood(self, zt: Tensor, t: Time) -> Tensor:
        seen = one_hot(zt, self.vocab_size).log()
        return seen.masked_fill((zt == self.mask_id)[..., None], 0.0)

    def ideal_output(self, log_posterior: Tensor, zt: Tensor, t: Time) -> Tensor:
        return log_posterior


def count_free(x0: Tensor, frozen: Tensor | None) -> Tensor:
    """(B,) number of tokens of each row that are not given."""
    return x0.new_full((len(x0),), x0.shape[1]) if frozen is None else (~frozen).sum(1)


def check_clean(x0: Tensor, mask_id: int, frozen: Tensor | None = None) -> None:
    """Raise as `corrupt` does unless x0 is (B, L) integer ids without MASK, and frozen fits it."""
    if x0.is_floating_point() or x0.dtype == torch.bool:
        raise TypeError(f"corrupt: x0 must hold integer token ids, got {x0.dtype}.")
    if x0.ndim != 2 or (frozen is not None and (frozen.shape != x0.shape or frozen.dtype != torch.bool)):
        raise ValueError(f"corrupt: x0 must be (B, L), and frozen bool of its shape, got x0 {tuple(x0.shape)}.")
    if (x0 == mask_id).any():
        raise ValueError(f"corrupt: x0 is clean text, but it holds MASK (id {mask_id}). Was it corrupted already?")


def corrupt(
    x0: Tensor,
    t: Time,
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
    gamma = schedule.gamma(t)
    if gamma.ndim > 1 or (gamma.ndim == 1 and len(gamma) != len(x0)):
        raise ValueError(f"corrupt: t must be one number or ({len(x0)},), one per row of x0, got {tuple(gamma.shape)}.")
    return _masked_at_rate(x0, gamma, mask_id, rng, frozen)


def _masked_at_rate(
    x0: Tensor, gamma: Tensor, mask_id: int, rng: Generator, frozen: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Mask each token with probability gamma, () or (B,)."""
    gamma = gamma.to(x0.device, non_blocking=True)
    is_masked = uniform_like(x0, rng, torch.float32) < (gamma[:, None] if gamma.ndim else gamma)
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
    B = len(x0)
    count = torch.as_tensor(count, device=x0.device)
    if count.is_floating_point() or count.shape not in ((), (B,)):
        raise ValueError(
            f"corrupt_count: count must be one whole number or ({B},) of them, got {count.dtype} {tuple(count.shape)}."
        )
    free = count_free(x0, frozen) - count
    if (count < 0).any() or (free < 0).any():
        raise ValueError(
            f"corrupt_count: a row has fewer free positions than tokens to mask, got count={count.tolist()}."
        )
    return _masked_by_count(x0, count.expand(B)[:, None], mask_id, rng, frozen)


def _masked_by_count(
    x0: Tensor, count: Tensor, mask_id: int, rng: Generator, frozen: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Mask `count` (B, 1) of the free positions of each row."""
    u = uniform_like(x0, rng, torch.float32)
    u = u if frozen is None else u.masked_fill(frozen, 2.0)  # last in line
    is_masked = u.argsort(1).argsort(1) < count.to(x0.device)
    return torch.where(is_masked, mask_id, x0), is_masked
