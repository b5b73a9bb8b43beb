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
        # [state, tokens that are absent] -> weight, times tokens missing from each gap, times words asked for at each slot
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
