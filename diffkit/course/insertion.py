"""Insertion on a language small enough to enumerate: the exact denoiser, lengths, and holes of unknown length."""

from __future__ import annotations

import math
from itertools import product
from typing import NamedTuple

import numpy
import torch
from torch import Generator, Tensor

from diffkit.languages.story_language import StoryLanguage
from diffkit.processes.base import Denoise
from diffkit.processes.insertion import FlexMDM, Insertion, Shortened
from diffkit.sampling.sampler import denoise_frames

WHOLE, HIDDEN, ABSENT = 0, 1, 2  # what noise makes of a token


def texts_of(language: StoryLanguage) -> Tensor:
    """Every text of a language of a few dozen texts, (n, L), in lexical order."""
    return language.sample(4000, Generator().manual_seed(0)).unique(dim=0)


def fates(n: int, with_mask: bool) -> Tensor:
    """Everything that can become of n tokens, one way a row: WHOLE, ABSENT and, in FlexMDM, HIDDEN."""
    kinds = (WHOLE, HIDDEN, ABSENT) if with_mask else (WHOLE, ABSENT)
    return torch.tensor([*product(kinds, repeat=n)]).view(-1, n)


def outcomes(process: Insertion, text: Tensor) -> Shortened:
    """All that noise can make of a text (L,), one row each; what it is made of tells `chances` how likely it is."""
    n = int((text == process.eos_id).int().argmax())
    ways = torch.nn.functional.pad(fates(n, isinstance(process, FlexMDM)), (0, len(text) - n), value=WHOLE)
    return process.cut(text.expand(len(ways), -1), ways == ABSENT, ways == HIDDEN)


def chances(process: Insertion, text: Tensor, short: Shortened, gamma: float) -> Tensor:
    """Probabilities of these outcomes at the rate gamma, (n,) float64."""
    n, absent, masked = int((text == process.eos_id).int().argmax()), short.absent.sum(1), short.masked.sum(1)
    hidden = -gamma * math.log(gamma) if isinstance(process, FlexMDM) else 0.0
    return gamma**absent * hidden**masked * (1 - gamma - hidden) ** (n - absent - masked)


@torch.no_grad()
def expected_terms(process: Insertion, denoise: Denoise, text: Tensor, gamma: float) -> Tensor:
    """What a text (L,) costs at the rate gamma without the weight, added up over all outcomes: (L,) nats."""
    short = outcomes(process, text)
    raw = denoise(short.zt, process.schedule.time(torch.tensor(gamma).double()).expand(len(short.zt)))
    nats = process.terms(raw, text.expand(len(short.zt), -1), short)
    return (chances(process, text, short, gamma)[:, None] * nats).sum(0)


def enumerated_bound(process: Insertion, denoise: Denoise, text: Tensor, nodes: int = 40) -> float:
    """The bound of a text (L,), to about six digits: the integral of `expected_terms` / gamma, by quadrature."""
    v, weight = (torch.from_numpy(part) for part in numpy.polynomial.legendre.leggauss(nodes))
    v, weight = (v + 1) / 2, weight / 2
    root = v**2 * (3 - 2 * v)  # gamma = root^2: nodes close to both ends, where the integrand has logarithms
    shares = weight * 6 * v * (1 - v) * 2 / root
    each = [expected_terms(process, denoise, text, float(r) ** 2).sum() for r in root]
    return float(shares @ torch.stack(each).double())


class ExactInsertion:
    """The best denoiser of an insertion process: every text, and everything that noise can make of it, enumerated.

    Given z_t, a text that lacks k tokens has a weight of its probability times gamma^k, once for each way to be
    shortened to z_t. For a state that no text can become nothing is known, and nothing is inserted.

    Args: texts: (N, L) all texts, a few dozen short ones; log_p: (N,) their log-probabilities.
    """

    def __init__(self, process: Insertion, texts: Tensor, log_p: Tensor):
        self.process, L, V = process, texts.shape[1], process.vocab_size
        cuts = [outcomes(process, text) for text in texts]
        every, size = Shortened(*map(torch.cat, zip(*cuts, strict=True))), torch.tensor([len(each.zt) for each in cuts])
        source, p = texts.repeat_interleave(size, 0), log_p.exp().repeat_interleave(size)
        states, state = every.zt.unique(dim=0, return_inverse=True)
        self.index = {tuple(row): i for i, row in enumerate(states.tolist())}
        key = (state, every.absent.sum(1))  # z_t, and how many tokens it lacks
        self.weight = torch.zeros(len(states), L, dtype=torch.float64).index_put_(key, p, accumulate=True)
        missing, words = torch.zeros(len(states), L, L).double(), torch.zeros(len(states), L, L, V).double()
        row, i = every.absent.nonzero().unbind(1)
        self.missing = missing.index_put_((key[0][row], key[1][row], every.slot[row, i]), p[row], accumulate=True)
        row, i = process.asked(every).nonzero().unbind(1)
        where = (key[0][row], key[1][row], every.slot[row, i], source[row, i])
        self.words = words.index_put_(where, p[row], accumulate=True)

    def __call__(self, zt: Tensor, t: Tensor) -> Tensor:
        state = torch.tensor([self.index.get(tuple(row), -1) for row in zt.tolist()])
        known = state >= 0
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

    def pieces(ids: Tensor) -> Tensor:
        end = (ids == process.eos_id).int().argmax(1, keepdim=True)
        return torch.cat([ids[:, :before], ids.gather(1, end + torch.arange(-after, 0))], 1)

    ids, intact = start, torch.ones(len(start), dtype=torch.bool)
    for frame in denoise_frames(process, denoise, start=start, steps=steps, rng=rng):
        ids, intact = frame.tokens, intact & (pieces(frame.tokens) == pieces(start)).all(1)
    return Filled(ids, intact)
