"""What every diffusion method here has in common (Process), and the first method: masked diffusion (MDLM)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Self

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from diffkit.checks import check_whole
from diffkit.processes.schedules import (
    Schedule,
    check_mask_id,
    corrupt,
    corrupt_count,
    get_schedule,
    schedule_from,
    schedule_settings,
)
from diffkit.random import categorical, uniform_like

CACHED = 2**19  # logits that stay in the cache of a CPU from one pass over them to the next
Denoise = Callable[[Tensor, Tensor], Tensor]  # (z_t, t) -> raw, (B, L, head): a network or any function


class LossTerms(NamedTuple):
    """Parts of a bound on -log p(x_0), each (B, L) nats; their sum over positions and parts is the bound of a row."""

    diffusion: Tensor
    reconstruction: Tensor
    prior: Tensor


class Step(NamedTuple):
    """One step back in time."""

    zs: Tensor  # the state at the earlier time s
    probs: Tensor  # (B, L, V), the belief about each clean token that led there


class Process(nn.Module):
    """A way to destroy text and the matching way back.

    A method brings `prior`, `corrupt`, `loss`, `bound`, `step`, `evidence` and `raw_from`, and says where it differs
    from the facts below. It is a module, as some have buffers or train word vectors; the network is never its own.

    Args:   vocab_size: V, special tokens included; mask_id: id of MASK; T: length of the time axis in steps.
    Raises: ValueError for a MASK outside the vocabulary, or no time.
    """

    name: str  # in configs and saved models
    options: tuple[str, ...] = ()  # attributes that are settings of its own, beside vocab_size, mask_id and T
    head: int  # channels it needs from the denoiser
    input_size = 0  # numbers in a noisy word vector; 0: its states are ids
    names_words = True  # are the channels one for each word of the vocabulary
    causal = False  # does its network look left only
    block = 0  # tokens of a block of its network, 0 without blocks
    bound_varies = True  # is `bound` a random estimate
    default_rule = "ancestral"  # how its text is made if nobody says: a name from sample.RULES, or "ancestral"

    def __init__(self, vocab_size: int, mask_id: int, T: int = 1000):
        super().__init__()
        check_mask_id(vocab_size, mask_id, type(self).__name__)
        check_whole(T, "T", type(self).__name__)
        self.vocab_size = self.head = vocab_size
        self.mask_id, self.T = mask_id, int(T)

    @classmethod
    def from_settings(cls, settings: dict[str, Any]) -> Self:
        """Build from plain numbers and names: what `settings` returns; what is not its own is passed over."""
        own = {name: settings[name] for name in cls.options if name in settings}
        return cls(settings["vocab_size"], settings["mask_id"], T=settings["T"], **own)

    def settings(self) -> dict[str, Any]:
        """What `from_settings` needs to build this process again; JSON can hold it."""
        common = {"name": self.name, "vocab_size": self.vocab_size, "mask_id": self.mask_id, "T": self.T}
        return common | {name: getattr(self, name) for name in self.options}

    def prior(self, B: int, L: int, rng: Generator) -> Tensor:
        """The state at t = T: (B, L) ids, or (B, L, E) vectors. All MASK, if nothing else is said."""
        return torch.full((B, L), self.mask_id)

    def corrupt(self, x0: Tensor, t: Tensor, rng: Generator) -> tuple[Tensor, Tensor]:
        """Draw z_t ~ q(z_t | x_0), and say which tokens were hit, (B, L) bool."""
        raise NotImplementedError

    def loss(self, denoise: Denoise, x0: Tensor, t: Tensor, rng: Generator) -> LossTerms:
        """One-sample estimate of the bound at times t ~ U(0, T], unbiased when averaged over t."""
        raise NotImplementedError

    def bound(self, denoise: Denoise, x0: Tensor, u: Tensor, rng: Generator) -> Tensor:
        """The bound of each token, (B, L) nats, estimated at the place u (B,) in [0, 1) of whatever is averaged over.

        Unbiased for u ~ U[0, 1), and of less variance than `loss` where a method knows how: what evaluation uses.
        """
        raise NotImplementedError

    def step(self, denoise: Denoise, zt: Tensor, t: Tensor, s: Tensor, rng: Generator) -> Step:
        """Draw z_s ~ p(z_s | z_t) for s < t."""
        raise NotImplementedError

    def decode(self, z: Tensor) -> Tensor:
        """(B, L) ids to print: the state itself where it is ids."""
        return z

    def evidence(self, zt: Tensor, t: Tensor) -> Tensor:
        """log q(z_t[i] | x_0[i] = v) up to a constant per position, (B, L, V): what an exact posterior needs.

        A process whose places know different things gives a row of evidence for each of them.
        """
        raise NotImplementedError

    def raw_from(self, log_posterior: Tensor, zt: Tensor, t: Tensor) -> Tensor:
        """What a perfect denoiser would output, given log p(x_0[i] = v | z_t), (B, L, V) -> (B, L, head)."""
        raise NotImplementedError


def network_of(denoise: Denoise) -> Denoise:
    """The network inside what may be wrapped around it: several devices, a label, a count of calls, a memory."""
    for name in ("module", "model", "denoise"):
        denoise = getattr(denoise, name, denoise)
    return denoise


def beside(denoise: Denoise, x: Tensor) -> Tensor:
    """x on the device that a network computes on; for a plain function x stays where it is."""
    network = network_of(denoise)
    weight = next(network.parameters(), x) if isinstance(network, nn.Module) else x
    return x.to(weight.device)


def logits_at(denoise: Denoise, zt: Tensor, t: Tensor, where: Tensor) -> Tensor:
    """The denoiser's output at the chosen positions only: (B, L) bool -> (N, head), rows in reading order.

    A network of ours (`selects_positions`) computes its head there and nowhere else, which is most of the cost when the
    vocabulary is large; any other function is called in full.
    """
    network = getattr(denoise, "module", denoise)  # unwrap a network split over several devices
    if getattr(network, "selects_positions", False):
        return denoise(zt, t, where)  # type: ignore[call-arg]
    return denoise(zt, t)[where]


def without_mask(logits: Tensor, mask_id: int) -> Tensor:
    """MASK is never an answer: (..., V) logits with -inf for it."""
    return logits.index_fill(-1, torch.tensor([mask_id], device=logits.device), -torch.inf)


def beliefs_of(logits: Tensor, zt: Tensor, mask_id: int) -> Tensor:
    """Log-beliefs about the clean tokens: never MASK, and what is visible is certain. (B, L, V) -> (B, L, V).

    Source: arXiv:2406.07524, section 3.2.3 (SUBS).
    """
    is_visible, own = (zt != mask_id)[..., None], zt[..., None]
    hidden = without_mask(logits, mask_id).log_softmax(-1).masked_fill(is_visible, -torch.inf)
    return hidden.scatter(-1, own, torch.where(is_visible, 0.0, hidden.gather(-1, own)))


def hidden_nats(logits: Tensor, x0: Tensor, is_masked: Tensor, mask_id: int) -> Tensor:
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

    name = "mdlm"
    default_rule = "random"

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
        """Log-beliefs about the clean tokens, see `beliefs_of`: (B, L, V) -> (B, L, V)."""
        return beliefs_of(logits, zt, self.mask_id)

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
        return hidden_nats(logits_at(denoise, xt, t, is_masked), x0, is_masked, self.mask_id)

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

    def evidence(self, zt: Tensor, t: Tensor) -> Tensor:
        seen = F.one_hot(zt, self.vocab_size).double().log()
        return seen.masked_fill((zt == self.mask_id)[..., None], 0.0)

    def raw_from(self, log_posterior: Tensor, zt: Tensor, t: Tensor) -> Tensor:
        return log_posterior
