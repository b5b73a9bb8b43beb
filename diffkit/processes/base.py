"""What every diffusion process has in common, and what a denoiser is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Self

import torch
from torch import Generator, Tensor, nn

from diffkit.checks import check_whole

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

    A method brings `prior`, `corrupt`, `loss`, `bound`, `step`, `evidence` and `ideal_output`, and says where it differs
    from the facts below. It is a module, as some have buffers or train word vectors; the network is never its own.

    Args:   vocab_size: V, special tokens included; mask_id: id of MASK; T: length of the time axis in steps.
    Raises: ValueError for a MASK outside the vocabulary, or no time.
    """

    name: str  # in configs and saved models
    objectives: tuple[str, ...] = ("bound",)  # names in training/losses.py that it can be trained with
    options: tuple[str, ...] = ()  # attributes that are settings of its own, beside vocab_size, mask_id and T
    head: int  # channels it needs from the denoiser
    input_size = 0  # numbers in a noisy word vector; 0: its states are ids
    predicts_tokens = True  # are the channels one for each word of the vocabulary
    causal = False  # does its network look left only
    block = 0  # tokens of a block of its network, 0 without blocks
    bound_varies = True  # is `bound` a random estimate
    default_order = (
        "ancestral"  # how its text is made if nobody says: a name from sample.UNMASKING_ORDERS, or "ancestral"
    )

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

    def log_likelihood(self, zt: Tensor, t: Tensor) -> Tensor:
        """log q(z_t[i] | x_0[i] = v) up to a constant per position, (B, L, V): what an exact posterior needs.

        A process whose places know different things gives a row of evidence for each of them.
        """
        raise NotImplementedError

    def ideal_output(self, log_posterior: Tensor, zt: Tensor, t: Tensor) -> Tensor:
        """What a perfect denoiser would output, given log p(x_0[i] = v | z_t), (B, L, V) -> (B, L, head)."""
        raise NotImplementedError


def network_of(denoise: Denoise) -> Denoise:
    """The network inside what may be wrapped around it: several devices, a label, a count of calls, a memory."""
    for name in ("module", "model", "denoise"):
        denoise = getattr(denoise, name, denoise)
    return denoise


def on_device_of(denoise: Denoise, x: Tensor) -> Tensor:
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


def check_mask_id(vocab_size: int, mask_id: int, where: str) -> None:
    """Raise ValueError, in the name of `where`, if MASK is no id of the vocabulary."""
    if vocab_size < 2:
        raise ValueError(f"{where}: a vocabulary holds MASK and at least one word, got vocab_size={vocab_size}.")
    if not 0 <= mask_id < vocab_size:
        raise ValueError(f"{where}: mask_id must be one of the {vocab_size} ids, got {mask_id}.")


def check_clean(x0: Tensor, mask_id: int, frozen: Tensor | None = None) -> None:
    """Raise as `corrupt` does unless x0 is (B, L) integer ids without MASK, and frozen fits it."""
    if x0.is_floating_point() or x0.dtype == torch.bool:
        raise TypeError(f"corrupt: x0 must hold integer token ids, got {x0.dtype}.")
    if x0.ndim != 2:
        raise ValueError(f"corrupt: x0 must be (B, L), got {tuple(x0.shape)}. Add a batch axis with x0[None]?")
    if frozen is not None and (frozen.shape != x0.shape or frozen.dtype != torch.bool):
        raise ValueError(
            f"corrupt: frozen must be bool of shape {tuple(x0.shape)}, got {frozen.dtype} {tuple(frozen.shape)}."
        )
    if (x0 == mask_id).any():
        raise ValueError(f"corrupt: x0 is clean text, but it holds MASK (id {mask_id}). Was it corrupted already?")
