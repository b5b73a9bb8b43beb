"""Insertion (FlexMDM, Edit Flows): noise deletes tokens, the reverse process inserts them; no length is fixed."""

from __future__ import annotations

from typing import NamedTuple, NoReturn

import torch
from torch import Generator, Tensor

from diffkit.processes.base import Denoise, LossTerms, Network, Process, Time, as_rows, one_hot
from diffkit.processes.masked import continuous_weight, subs_log_probs
from diffkit.processes.schedules import Schedule, get_schedule
from diffkit.random import inverse_cdf, uniform_like


class Shortened(NamedTuple):
    """A text without its absent tokens. Its gap i is the one in front of token i, the last gap that before EOS."""

    zt: Tensor  # (B, L) ids: the tokens left, EOS, PAD
    slot: Tensor  # (B, L): where in z_t a token of x_0 is; for an absent one the gap that it is missing from
    absent: Tensor  # (B, L) bool, of the tokens of x_0
    masked: Tensor  # (B, L) bool, of the tokens of x_0


class Insertion(Process):
    """What FlexMDM and Edit Flows share: at time t a token of the text is absent with probability gamma(t).

    Every text ends with EOS, which is never deleted, and PAD fills the canvas. A state is such a canvas too, of a
    shorter text; the prior is the empty one. The denoiser's raw (B, L, V + 1) holds for position i the logits of a word
    and, last, the log of y_i, the expected number of tokens that gap i lacks. Both depend on t by gamma(t) alone, so a
    network needs its time (`time="adaln"`).

    Positions of z_t are not those of x_0: evidence about a text does not split into evidence about its positions, and
    so StoryLanguage has no exact denoiser for these processes (course/insertion.py enumerates `micro`).

    Args:    vocab_size: V, special tokens included; mask_id, eos_id, pad_id: ids of MASK, EOS, PAD; schedule: gamma, a
             Schedule or its name. "poly" (power 2) spreads the terms of the bound evenly over time.
    Raises:  ValueError for ids outside the vocabulary, and a schedule that jumps at an end.
    """

    aligned = False

    def __init__(
        self, vocab_size: int, mask_id: int, eos_id: int = 2, pad_id: int = 0, schedule: Schedule | str = "poly"
    ):
        curve = get_schedule(schedule) if isinstance(schedule, str) else schedule
        super().__init__(vocab_size, mask_id, curve.T, Network(vocab_size + 1))
        name = type(self).__name__
        if not 0 <= min(eos_id, pad_id) <= max(eos_id, pad_id) < vocab_size or mask_id in (eos_id, pad_id):
            raise ValueError(f"{name}: eos_id and pad_id are ids other than MASK, got {eos_id} and {pad_id}.")
        with torch.device("cpu"):  # not "meta", where models are built that are then loaded
            jumps = curve.jumps
        if any(jumps):
            raise ValueError(f"{name}: gamma must rise from 0 to 1 without a jump, but {curve.name} has {jumps}.")
        self.eos_id, self.pad_id, self.schedule = eos_id, pad_id, curve

    # -------------------------------------------------------------------------------------------------- forward process

    def prior(self, B: int, L: int, rng: Generator) -> Tensor:
        """Empty texts: EOS, then PAD."""
        return torch.full((B, L), self.pad_id).index_fill(1, torch.tensor([0]), self.eos_id)

    def chances(self, is_masked: Tensor, s: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Probabilities that a token that is there at s < t is absent, and that it is MASK, at t: (B, L) each."""
        raise NotImplementedError

    def shorten(self, zs: Tensor, s: Time, t: Time, rng: Generator, frozen: Tensor | None = None) -> Shortened:
        """Mask and delete tokens on the way from s to t."""
        (zs, t), (_, s) = as_rows(zs, t), as_rows(zs, s)
        absent_p, masked_p = self.chances(zs == self.mask_id, s[:, None].to(zs.device), t[:, None].to(zs.device))
        u = uniform_like(zs, rng)
        is_word = (zs == self.eos_id).cumsum(1) == 0
        is_word = is_word if frozen is None else is_word & ~frozen
        absent, masked = is_word & (u < absent_p), is_word & (u >= absent_p) & (u < absent_p + masked_p)
        return self.cut(zs, absent, masked)

    def cut(self, zs: Tensor, absent: Tensor, masked: Tensor) -> Shortened:
        """Take the absent tokens out, (B, L) bool, and close up."""
        slot = (~absent).cumsum(1) - (~absent).long()
        target = slot.masked_fill(absent, zs.shape[1])  # absent ones go to a column that is cut off
        canvas = zs.new_full((len(zs), zs.shape[1] + 1), self.pad_id)
        zt = canvas.scatter(1, target, zs.masked_fill(masked, self.mask_id))[:, :-1]
        return Shortened(zt, slot, absent, masked)

    def corrupt(self, x0: Tensor, t: Time, rng: Generator) -> tuple[Tensor, Tensor]:
        """z_t, and which tokens of x_0 were hit: deleted, or hidden by MASK."""
        short = self.shorten(x0, 0.0, t, rng)
        return short.zt, short.absent | short.masked

    def add_noise(self, zs: Tensor, s: Time, t: Time, rng: Generator) -> Tensor:
        return self.shorten(zs, s, t, rng).zt

    # -------------------------------------------------------------------------------------------------------- the bound

    def asked(self, short: Shortened) -> Tensor:
        """Tokens of x_0 whose word the denoiser is asked for, (B, L) bool."""
        raise NotImplementedError

    def nats(self, denoise: Denoise, x0: Tensor, t: Time, rng: Generator, frozen: Tensor | None = None) -> Tensor:
        """`terms` at a draw of z_t."""
        x0, t = as_rows(x0, t)
        short = self.shorten(x0, 0.0, t, rng, frozen)
        return self.terms(self.columns(denoise(short.zt, t)), x0, short)

    def terms(self, raw: Tensor, x0: Tensor, short: Shortened) -> Tensor:
        """The words' cross-entropy, and y - n - n log y of each gap that lacks n tokens: (B, L), weight left out.

        Each absent token comes back at the rate w = d log gamma / dt; the model inserts into a gap at the rate w y.
        """
        raw = raw.to(torch.promote_types(raw.dtype, torch.float32))
        log_p, row = self.token_logits(raw, short.zt).log_softmax(-1), torch.arange(len(x0), device=x0.device)[:, None]
        words = torch.where(self.asked(short), -log_p[row, short.slot, x0], 0.0)
        n = torch.zeros_like(words).scatter_add(1, short.slot, short.absent.to(words))
        y = raw[..., -1].exp()
        return words + torch.where(self.gaps(short.zt), y - n - torch.special.xlogy(n, y), 0.0)

    def loss(self, denoise: Denoise, x0: Tensor, t: Time, rng: Generator, frozen: Tensor | None = None) -> LossTerms:
        """The bound, estimated at one time per row; a single term may be negative."""
        nats = self.nats(denoise, x0, t, rng, frozen)
        weight = continuous_weight(self.schedule, as_rows(x0, t)[1]).to(nats)
        return LossTerms(weight[:, None] * nats, torch.zeros_like(nats), torch.zeros_like(nats))

    def bound(self, denoise: Denoise, x0: Tensor, u: Tensor, rng: Generator, frozen: Tensor | None = None) -> Tensor:
        """The same at gamma = (1 - u)^2, whatever the schedule: with gamma uniform the variance would be infinite."""
        root = 1 - u.double()
        nats = self.nats(denoise, x0, self.schedule.time(root**2), rng, frozen)
        return (2 / root).to(nats)[:, None] * nats

    # --------------------------------------------------------------------------------------- the output of the denoiser

    def gaps(self, zt: Tensor) -> Tensor:
        """The gaps of a text, up to the one before EOS, (B, L) bool."""
        is_end = zt == self.eos_id
        return is_end.cumsum(1) - is_end.long() == 0

    def token_logits(self, raw: Tensor, zt: Tensor) -> Tensor:
        """Logits of words: no MASK, EOS or PAD."""
        special = torch.tensor([self.mask_id, self.eos_id, self.pad_id], device=raw.device)
        return self.columns(raw)[..., :-1].index_fill(-1, special, -torch.inf)

    def with_token_logits(self, raw: Tensor, zt: Tensor, logits: Tensor) -> Tensor:
        return torch.cat([logits, raw[..., -1:].to(logits)], -1)

    def log_likelihood(self, zt: Tensor, t: Time) -> NoReturn:
        raise ValueError(
            f"{type(self).__name__}: a shortened text is no evidence about single positions; see its docs."
        )

    def ideal_output(self, log_posterior: Tensor, zt: Tensor, t: Time) -> NoReturn:
        self.log_likelihood(zt, t)

    # -------------------------------------------------------------------------------------------------- reverse process

    def returning(self, t: Time, s: Time) -> Tensor:
        """Probability that what is absent at t is back at s < t, or MASK revealed: 1 - gamma(s) / gamma(t), (B,)."""
        return 1 - self.schedule.rate(s) / self.schedule.rate(t)

    def insert(self, raw: Tensor, zt: Tensor, share: Tensor, rng: Generator) -> tuple[Tensor, Tensor]:
        """Give each gap a Poisson number of MASKs, its mean `share` (B,) of what the gap lacks, while there is room.

        Returns: the longer canvas (B, L), and of each of its positions the gap of z_t that it is in, -1 for old tokens.
        """
        L, gaps = zt.shape[1], self.gaps(zt)
        mean = torch.where(gaps, share[:, None].to(raw.device) * raw[..., -1].double().exp(), 0.0)
        below = torch.special.gammaincc(torch.arange(1.0, L + 1, device=raw.device).double(), mean[..., None])
        count = (uniform_like(zt, rng)[..., None] >= below).sum(-1)  # below[k] is the probability of at most k
        shift = torch.minimum(count.cumsum(1), L - gaps.sum(1, keepdim=True))
        target = torch.arange(L, device=zt.device) + shift
        longer = zt.new_full((len(zt), 2 * L), self.mask_id).scatter(1, target, zt)[:, :L]
        is_old = torch.zeros(len(zt), 2 * L, dtype=torch.bool, device=zt.device).scatter(1, target, True)[:, :L]
        return longer, is_old.cumsum(1).masked_fill(is_old, -1)

    def check_start(self, z: Tensor) -> None:
        """Raises ValueError unless every row is a text with its EOS. It may hold MASK, and all of its gaps are open."""
        super().check_start(z)
        if not (z == self.eos_id).any(1).all():
            raise ValueError(f"{type(self).__name__}: a start is a text, EOS and PAD, but a row has no EOS. Add it.")


class FlexMDM(Insertion):
    """A token is inserted as MASK and revealed later: masked diffusion on a canvas that grows.

    In the forward process a token turns into MASK, and is then deleted. At rate gamma it is absent with probability
    gamma, MASK with -gamma log gamma, itself otherwise: the insertion and the unmasking schedule are the same.
    Source: arXiv:2509.01025. Its code adds n log n to the bound; without it the exact denoiser reaches -log p(x).
    """

    name = "flexmdm"

    def chances(self, is_masked: Tensor, s: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        now, before = self.schedule.rate(t), self.schedule.rate(s)
        clean_t, clean_s = (1 - rate + torch.xlogy(rate, rate) for rate in (now, before))
        absent_p = torch.where(
            is_masked, 1 - now.log() / before.log(), (now - before - torch.xlogy(before, now / before)) / clean_s
        )
        masked_p = torch.where(is_masked, 1.0, 1 - clean_t / clean_s) - absent_p
        return absent_p, masked_p

    def asked(self, short: Shortened) -> Tensor:
        return short.masked

    def token_probs(self, raw: Tensor, zt: Tensor, t: Time) -> Tensor:
        return subs_log_probs(self.token_logits(raw.double(), zt), zt, self.mask_id).exp()

    def reverse_step(self, raw: Tensor, zt: Tensor, t: Time, s: Time, rng: Generator) -> Tensor:
        """Reveal each MASK with probability 1 - gamma(s) / gamma(t), and insert MASKs, at s = 0 none."""
        (zt, t), (_, s) = as_rows(zt, t), as_rows(zt, s)
        share = self.returning(t, s)
        reveal = (zt == self.mask_id) & (uniform_like(zt, rng) < share.to(zt.device)[:, None])
        which = uniform_like(zt, rng)
        probs = self.token_logits(raw[reveal].double(), zt[reveal]).softmax(-1)
        shown = zt.masked_scatter(reveal, inverse_cdf(probs, which[reveal]))
        return self.insert(raw, shown, torch.where(s > 0, share, 0.0), rng)[0]


class EditFlow(Insertion):
    """A token is inserted as the word that it is. Of the edits of Edit Flows only insertion, from the empty text.

    The rate of inserting v into gap i is w(t) y_i p(v), p the softmax of the logits there.
    Source: arXiv:2506.09018, whose rates lambda^ins Q^ins these are.
    """

    name = "edit_flow"

    def chances(self, is_masked: Tensor, s: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        return self.schedule.lost(s, t).expand(is_masked.shape), torch.zeros(is_masked.shape, device=is_masked.device)

    def asked(self, short: Shortened) -> Tensor:
        return short.absent

    def token_probs(self, raw: Tensor, zt: Tensor, t: Time) -> Tensor:
        return one_hot(zt, self.vocab_size)

    def reverse_step(self, raw: Tensor, zt: Tensor, t: Time, s: Time, rng: Generator) -> Tensor:
        """Insert a Poisson number of words into each gap, each drawn independently."""
        (zt, t), (_, s) = as_rows(zt, t), as_rows(zt, s)
        zs, gap = self.insert(raw, zt, self.returning(t, s), rng)
        row, which = torch.arange(len(zt), device=zt.device)[:, None].expand_as(zt), uniform_like(zt, rng)
        is_new = gap >= 0
        probs = self.token_logits(raw[row[is_new], gap[is_new]].double(), zt).softmax(-1)
        return zs.masked_scatter(is_new, inverse_cdf(probs, which[is_new]))
