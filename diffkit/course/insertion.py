"""Insertion on a language small enough to enumerate: the exact denoiser, lengths, and holes of unknown length."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from diffkit.languages.story_language import StoryLanguage
from diffkit.processes.base import Denoise
from diffkit.processes.insertion import EditFlow, FlexMDM, Insertion
from diffkit.sampling.sampler import denoise_frames

WHOLE, HIDDEN, ABSENT = 0, 1, 2  # what noise makes of a token


def texts_of(language: StoryLanguage) -> Tensor:
    """Every text of a language of a few dozen texts, (n, L), in lexical order."""
    return language.sample(4000, Generator().manual_seed(0)).unique(dim=0)


def fates(n: int, with_mask: bool) -> Tensor:
    """Everything that can become of n tokens, one way a row: WHOLE, ABSENT and, in FlexMDM, HIDDEN."""
    kinds = (WHOLE, HIDDEN, ABSENT) if with_mask else (WHOLE, ABSENT)
    return torch.tensor([*product(kinds, repeat=n)]).view(-1, n)


class ExactInsertion:
    """The best denoiser of an insertion process: every text, and everything that noise can make of it, enumerated.

    Given z_t, a text that lacks k tokens has a weight of its probability times gamma^k, once for each way to be
    shortened to z_t. For a state that no text can become nothing is known, and nothing is inserted.

    Args: texts: (N, L) all texts, a few dozen short ones; log_p: (N,) their log-probabilities.
    """

    def __init__(self, process: Insertion, texts: Tensor, log_p: Tensor):
        self.process, self.states = process, {}
        L, V = texts.shape[1], process.vocab_size
        sizes = (texts == process.eos_id).int().argmax(1)
        rows = [
            (text, fate, p)
            for text, n, p in zip(texts, sizes.tolist(), log_p.exp(), strict=True)
            for fate in fates(n, isinstance(process, FlexMDM))
        ]
        # [state, tokens absent] -> weight, and weighted: tokens missing from each gap, words asked for at each slot
        self.weight = torch.zeros(len(rows), L, dtype=torch.float64)
        self.missing = torch.zeros(len(rows), L, L, dtype=torch.float64)
        self.words = torch.zeros(len(rows), L, L, V, dtype=torch.float64)
        for text, fate, p in rows:
            kept = text[: len(fate)][fate != ABSENT].where(fate[fate != ABSENT] == WHOLE, process.mask_id).tolist()
            state = self.states.setdefault(tuple(kept), len(self.states))
            k = int((fate == ABSENT).sum())
            slot = (fate != ABSENT).cumsum(0) - (fate != ABSENT).long()
            self.weight[state, k] += p
            self.missing[state, k].index_add_(0, slot[fate == ABSENT], p.expand(k))
            asked = fate == (ABSENT if isinstance(process, EditFlow) else HIDDEN)
            for i in asked.nonzero().flatten():
                self.words[state, k, slot[i], text[i]] += p

    def __call__(self, zt: Tensor, t: Tensor) -> Tensor:
        ends = (zt == self.process.eos_id).int().argmax(1).tolist()
        found = [self.states.get(tuple(row[:end]), -1) for row, end in zip(zt.tolist(), ends, strict=True)]
        state, known = torch.tensor(found), torch.tensor(found) >= 0
        power = self.process.schedule.rate(t).expand(len(zt))[:, None] ** torch.arange(zt.shape[1])  # gamma^k
        total = (power * self.weight[state]).sum(1).where(known, 1.0)
        y = torch.einsum("bk,bki->bi", power, self.missing[state]) / total[:, None]
        words = torch.einsum("bk,bkiv->biv", power, self.words[state])
        logits = words.where(known[:, None, None] & words.any(-1, keepdim=True), 1.0).log()
        return torch.cat([logits, y.where(known[:, None], 0.0).log()[..., None]], -1)


# ------------------------------------------------------------------------------------------------------------- lengths


def length_law(language: StoryLanguage) -> Tensor:
    """The exact p(length) of a language, tokens before EOS, (L,) float64: the templates' lengths, weighted."""
    lengths = torch.tensor([len(template.text.split()) for template in language.grammar.templates])
    return torch.zeros(language.length, dtype=torch.float64).index_add_(0, lengths, language.template_probs)


def hole_law(language: StoryLanguage, before: Tensor, after: Tensor) -> Tensor:
    """The exact p(length of a hole between two pieces), (L - known,) float64: a sum over all that fits, by length.

    Raises: ValueError if no text starts with `before` (n,) and ends with `after` (m,).
    """
    room = language.length - 1 - len(before) - len(after)
    hidden = [before.new_full((k,), language.mask_id) for k in range(room + 1)]
    canvases = torch.stack([whole_canvas(language, before, hole, after) for hole in hidden])
    log_p = language.log_prob(canvases)
    if log_p.max() == -torch.inf:
        raise ValueError("hole_law: no text of the language starts and ends so. Shorten one of the pieces.")
    return log_p.softmax(0)


def whole_canvas(language: StoryLanguage, *pieces: Tensor) -> Tensor:
    """Pieces of a text one after the other, EOS and PAD: (L,) ids."""
    text = torch.cat([*pieces, torch.tensor([language.eos_id])])
    return torch.nn.functional.pad(text, (0, language.length - len(text)), value=language.pad_id)


# -------------------------------------------------------------------------------------------- a hole of unknown length


def only_between(process: Insertion, denoise: Denoise, before: int, after: int) -> Denoise:
    """The denoiser with nothing missing outside one hole, behind the first `before` and in front of the last `after`.

    Not exact: it still counts on texts that continue the pieces elsewhere, and the rates within the hole are theirs.
    """

    def closed(zt: Tensor, t: Tensor) -> Tensor:
        place, end = torch.arange(zt.shape[1]), (zt == process.eos_id).int().argmax(1, keepdim=True)
        is_open = (place >= before) & (place <= end - after)
        raw = denoise(zt, t)
        return torch.cat([raw[..., :-1], raw[..., -1:].masked_fill(~is_open[..., None], -torch.inf)], -1)

    return closed


class Filled(NamedTuple):
    """Texts that grew around two pieces."""

    ids: Tensor  # (n, L)
    intact: Tensor  # (n,) bool: nothing was ever inserted but between the pieces


def fill_hole(
    process: FlexMDM, denoise: Denoise, start: Tensor, before: int, after: int, *, steps: int, rng: Generator
) -> Filled:
    """Let texts `start` (n, L) grow, and say in which of them only the hole has: those fill it with its exact law.

    All gaps are open. A MASK that is inserted elsewhere moves a token of a piece, and a frame shows it.
    """
    row, intact = start[:, None, :], torch.ones(len(start), dtype=torch.bool)
    ends = (start == process.eos_id).int().argmax(1, keepdim=True)
    tail = torch.arange(-after, 0)
    ids = start
    for frame in denoise_frames(process, denoise, start=start, steps=steps, rng=rng):
        ids, end = frame.tokens, (frame.tokens == process.eos_id).int().argmax(1, keepdim=True)
        intact &= (ids[:, :before] == row[:, 0, :before]).all(1)
        intact &= (ids.gather(1, (end + tail).clamp(min=0)) == start.gather(1, ends + tail)).all(1)
    return Filled(ids, intact)


def played(process: Insertion, x0: Tensor, rates: list[float], rng: Generator) -> Iterator[Tensor]:
    """One text (L,) losing its tokens: the states (L,) at rising rates gamma, each made from the one before."""
    zt, s = x0[None], 0.0
    for rate in rates:
        t = float(process.schedule.time_of(rate))
        zt, s = process.add_noise(zt, s, t, rng), t
        yield zt[0]
