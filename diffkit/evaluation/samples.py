"""Statistics of samples: variety, repetition, copying, and marginals compared with the exact ones."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from typing import NamedTuple

import torch
from torch import Tensor

from diffkit.evaluation.statistics import binomial, kl_floor, kl_of_counts, wilson
from diffkit.languages.exact import Language
from diffkit.languages.story_language import StoryLanguage
from diffkit.languages.tales import slot_and_form


def until_end(ids: Tensor, eos_id: int) -> list[list[int]]:
    """The tokens of each row (n, L) before its first EOS; all of them where there is none."""
    return [row[: row.index(eos_id)] if eos_id in row else row for row in ids.tolist()]


def distinct_n(ids: Tensor, n: int, *, eos_id: int) -> float:
    """Share of different n-grams among all n-grams of the samples; NaN if there is none.

    It falls as the samples grow in number, so compare sets of one size only.
    Source: arXiv:1510.03055, section 4.
    """
    grams = [tuple(row[i : i + n]) for row in until_end(ids, eos_id) for i in range(len(row) - n + 1)]
    return len(set(grams)) / len(grams) if grams else math.nan


def token_entropy(ids: Tensor, *, eos_id: int) -> float:
    """Entropy of the tokens within one sample, nats, averaged over samples; low where a text repeats itself.

    It grows with length, so compare samples of the same length.
    """

    def entropy(row: list[int]) -> float:
        shares = torch.tensor([count / len(row) for count in Counter(row).values()], dtype=torch.float64)
        return torch.special.entr(shares).sum().item()

    return sum(map(entropy, until_end(ids, eos_id))) / len(ids)


def self_bleu(ids: Tensor, *, eos_id: int) -> float:
    """How much each sample (n, L) looks like the others: its BLEU-4 against all of them, averaged, from 0 to 100.

    High where samples repeat each other. It grows with the number of samples, so compare sets of one size only.
    Source: arXiv:1802.01886 (Texygen); computed with sacrebleu, exponential smoothing, our tokens.
    Raises: ValueError for fewer than two samples.
    """
    if len(ids) < 2:
        raise ValueError(f"self_bleu: needs at least two samples to compare, got {len(ids)}.")
    from sacrebleu import sentence_bleu  # takes a moment to import

    texts = [" ".join(map(str, row)) for row in until_end(ids, eos_id)]
    scores = [sentence_bleu(text, texts[:i] + texts[i + 1 :], tokenize="none").score for i, text in enumerate(texts)]
    return sum(scores) / len(scores)


def repeated_sentences(ids: Tensor, *, eos_id: int, stop_id: int) -> float:
    """Share of samples that hold some sentence twice; a sentence ends with the token `stop_id`."""

    def repeats(row: list[int]) -> bool:
        ends = [i for i, token in enumerate(row) if token == stop_id]
        sentences = [tuple(row[a + 1 : b]) for a, b in zip([-1, *ends], ends, strict=False)]
        return len(set(sentences)) < len(sentences)

    return sum(map(repeats, until_end(ids, eos_id))) / len(ids)


class Copied(NamedTuple):
    """How many samples are copies of training texts."""

    share: float
    by_chance: float  # what fresh stories of the language would show: the probability of the training set
    standard_error: float  # of the share, if it were by chance


def copied(ids: Tensor, training: Tensor, language: Language) -> Copied:
    """Compare samples (n, L) with the stories (N, L) that a model was trained on."""
    known = training.unique(dim=0)
    seen = {tuple(row) for row in known.tolist()}
    share = sum(tuple(row) in seen for row in ids.tolist()) / len(ids)
    chance = language.log_prob(known).exp().sum().item()
    return Copied(share, chance, math.sqrt(chance * (1 - min(chance, 1.0)) / len(ids)))


class Distance(NamedTuple):
    """How far the frequencies of a sample are from exact probabilities."""

    kl: float  # KL(sample || exact), nats
    kl_floor: float  # what a perfect sampler of this many samples shows on average
    total_variation: float
    total_variation_floor: float


def distance(counts: Tensor, probs: Tensor) -> Distance:
    """Compare counts (K,) of outcomes, at least one, with their exact probabilities (K,)."""
    n = int(counts.sum())
    share, k = counts.double() / n, torch.arange(n + 1, dtype=torch.float64)
    away = (binomial(probs, n) * (k / n - probs[:, None]).abs()).sum() / 2
    variation = (share - probs).abs().sum().item() / 2
    return Distance(kl_of_counts(counts, probs), kl_floor(probs, n), variation, away.item())


def marginals(language: Language, ids: Tensor) -> dict[str, Distance]:
    """Plots, endings and lengths of the valid samples among (n, L), each compared with its exact distribution.

    Raises: ValueError if no sample is valid.
    """
    plots, lengths = plots_of(language, ids), torch.tensor([len(row) for row in until_end(ids, language.eos_id)])
    valid = plots >= 0
    if not valid.any():
        raise ValueError("marginals: no sample is a story of the language, so nothing can be counted.")
    endings, plots = language.template_labels, plots[valid]
    by_ending = torch.zeros(len(language.labels), dtype=torch.float64).index_add_(0, endings, language.template_probs)
    kinds = {
        "plot": (plots, language.template_probs),
        "ending": (endings[plots], by_ending),
        "length": (lengths[valid], language.length_law()),
    }
    return {name: distance(torch.bincount(kind, minlength=len(probs)), probs) for name, (kind, probs) in kinds.items()}


def _first_mentions(language: StoryLanguage, slot: str) -> list[tuple[int, str] | None]:
    """For each template the position where a slot shows first, and in which form; None where it does not show."""
    found: list[tuple[int, str] | None] = []
    for template in language.grammar.templates:
        parts = map(slot_and_form, template.text.split())
        shown = [(i, part[1]) for i, part in enumerate(parts) if part and part[0] == slot]
        found.append(shown[0] if shown else None)
    return found


def pair_distance(language: StoryLanguage, ids: Tensor, first: str, second: str) -> Distance:
    """Two slots jointly, such as hero and park: frequencies of their pairs of words against the exact joint ones.

    Counted among valid samples (n, L) of templates that show both slots, each by its first mention; there must be one.
    """
    mentions = list(zip(_first_mentions(language, first), _first_mentions(language, second), strict=True))
    exact: dict[tuple[int, int], float] = defaultdict(float)
    slots, word = language.grammar.slots, language.tokenizer.convert_tokens_to_ids
    for (a, b), share in zip(mentions, language.template_probs.tolist(), strict=True):
        if a is None or b is None:
            continue
        for one, p in zip(*slots[first], strict=True):
            for other, q in zip(*slots[second], strict=True):
                exact[word(one[a[1]]), word(other[b[1]])] += share * p * q
    counts = dict.fromkeys(exact, 0)
    for row, plot in zip(ids.tolist(), plots_of(language, ids).tolist(), strict=True):
        a, b = mentions[plot] if plot >= 0 else (None, None)
        if a is not None and b is not None:
            counts[row[a[0]], row[b[0]]] += 1
    probs = torch.tensor(list(exact.values()), dtype=torch.float64)
    return distance(torch.tensor(list(counts.values())), probs / probs.sum())


class Quality(NamedTuple):
    """Samples compared with the language."""

    valid: float  # share of samples that are stories of the language
    low: float  # 95 % interval of that share (Wilson)
    high: float
    log_prob: float  # mean exact log-probability of the valid ones, nats; the truth has -entropy
    plot_kl: float  # KL(plots of the valid samples || plots of the language), nats
    plot_kl_floor: float  # what a perfect sampler of this many samples shows on average


def plots_of(language: Language, ids: Tensor) -> Tensor:
    """The plot, which is the template, that each sample (n, L) follows, (n,) int64; -1 if it is no whole story."""
    return language.parse(ids).where((ids != language.mask_id).all(1), -1)


def quality(language: Language, ids: Tensor) -> Quality:
    """Judge samples (n, L) exactly. The plot is the template a story follows, the ending included.

    A perfect sampler has plot_kl near its floor: counts are noisy.
    """
    log_p, plots = language.log_prob(ids), plots_of(language, ids)
    valid = plots >= 0
    low, high = wilson(int(valid.sum()), len(ids))
    counts = torch.bincount(plots[valid], minlength=len(language.template_probs)).double()
    kl = kl_of_counts(counts, language.template_probs)
    if not valid.any():
        return Quality(0.0, low, high, -math.inf, math.inf, math.inf)
    floor = kl_floor(language.template_probs, int(valid.sum()))
    return Quality(valid.double().mean().item(), low, high, log_p[valid].mean().item(), kl, floor)
