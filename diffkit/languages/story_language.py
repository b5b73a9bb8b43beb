"""A story language with exact answers: probability, entropy, posterior, optimal denoiser.

A story is a template whose positions are literal words or slots (tales.py). Given the template the slots are
independent, so whatever is observed about a story, position by position, becomes an exact posterior by sums.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal, NamedTuple, overload

import torch
from torch import Generator, Tensor

from diffkit.checks import check_whole
from diffkit.data.tokenizer import word_level_tokenizer
from diffkit.languages import exact
from diffkit.languages.compile import Tables, words_of
from diffkit.languages.saga_language import SagaLanguage
from diffkit.languages.sagas import SAGA_GRAMMARS
from diffkit.languages.tales import GRAMMARS, Grammar
from diffkit.random import categorical

STORIES_AT_ONCE = 256  # keeps the memory of exact inference under a gigabyte
LANGUAGES = sorted({**GRAMMARS, **SAGA_GRAMMARS})


class Forward(NamedTuple):
    """Log-likelihoods on the way from evidence to posterior; the last axis is the batch."""

    evidence: Tensor  # (L * V + 1, B); the last row is zero, the target of padding
    slots: list[Tensor]  # per bucket: (G, U, B)
    groups: Tensor  # (all groups + 1, B), values summed out; the last row is zero
    templates: Tensor  # (K, B), all slots summed out


class StoryLanguage:
    """The distribution over canvases (story, EOS, then PAD) that a grammar defines, with exact inference.

    Attributes: length (L); labels, the ways a story can end; tokenizer; mask_id, pad_id, eos_id; template_probs (K,).
    """

    def __init__(self, grammar: Grammar):
        self.grammar, self.length = grammar, grammar.length
        self.labels = list(dict.fromkeys(template.label for template in grammar.templates))
        self.tokenizer = word_level_tokenizer(
            words_of((template.text for template in grammar.templates), grammar.slots)
        )
        self.vocab_size = len(self.tokenizer)
        self.mask_id, self.pad_id, self.eos_id = (
            self.tokenizer.convert_tokens_to_ids(token) for token in ("[MASK]", "[PAD]", "[EOS]")
        )
        probs = torch.tensor([template.prob for template in grammar.templates], dtype=torch.float64)
        self.template_probs = probs / probs.sum()
        self.template_labels = torch.tensor([self.labels.index(template.label) for template in grammar.templates])
        self.tables = Tables(grammar, self.tokenizer)

    # --------------------------------------------------------------------------------------------------------- sampling

    def sample(self, n: int, rng: Generator, label: str | None = None) -> Tensor:
        """Draw n stories.

        Args:    label: one of `labels` to draw only stories that end that way, None for any.
        Returns: (n, L) int64 canvases: the story, EOS, then PAD.
        Raises:  ValueError for an unknown label.
        """
        check_whole(n, "n", "StoryLanguage", 0)
        script = self.tables.script[categorical(self._template_prior(label).exp().expand(n, -1), rng)]  # (n, L)
        values = {
            name: categorical(torch.tensor(slot.probs).expand(n, -1), rng) for name, slot in self.grammar.slots.items()
        }
        words = torch.stack([ids[values[slot]] for slot, ids in self.tables.forms], 1)  # (n, forms)
        return torch.where(script >= 0, script, words.gather(1, (-1 - script).clamp(min=0)))

    def _template_prior(self, label: str | None) -> Tensor:
        """(K,) log p(template | label)."""
        if label is None:
            return self.template_probs.log()
        kept = self.template_probs * (self.template_labels == self.label_id(label))
        return (kept / kept.sum()).log()

    def label_id(self, label: str) -> int:
        """The index of a label in `labels`. Raises ValueError for an unknown one."""
        return exact.number_of_label(label, self)

    # -------------------------------------------------------------------------------------------------- exact inference

    def _forward(self, log_evidence: Tensor, label: str | None) -> Forward:
        """Sum the slots out, group by group, then the templates' parts."""
        B = len(log_evidence)
        evidence = torch.cat([log_evidence.double().flatten(1).T, torch.zeros(1, B, dtype=torch.float64)])
        groups = torch.zeros(len(self.tables.members), B, dtype=torch.float64)
        slots = []
        for bucket in self.tables.buckets:
            slots.append(bucket.log_p[..., None] + sum(evidence[cells] for cells in bucket.cells.unbind(-1)))
            groups[bucket.group] = slots[-1].logsumexp(1)
        templates = self._template_prior(label)[:, None] + sum(groups[column] for column in self.tables.groups.T)
        templates = templates + sum(evidence[column] for column in self.tables.literals.T)
        return Forward(evidence, slots, groups, templates)

    def posterior(self, log_evidence: Tensor, label: str | None = None) -> tuple[Tensor, Tensor]:
        """Exact posterior of every token, given independent evidence about each position.

        Args:    log_evidence: (B, L, V), entry [b, i, v] the log-likelihood of what was observed at position i of
                     story b if its clean token were v. Hidden: all 0. Seen to be w: 0 at w, -inf elsewhere. Noisy:
                     anything between.
                 label: condition on the way the story ends.
        Returns: log_p (B,) float64, log-likelihood in nats of all the evidence, and
                 probs (B, L, V) float64, p(x_0[i] = v | evidence); all zero where log_p is -inf.
        Raises:  ValueError for a wrong shape, NaN or +inf.
        """
        exact.check_evidence(log_evidence, self)
        parts = [self._posterior(rows, label) for rows in log_evidence.split(STORIES_AT_ONCE)]
        log_p, probs = (torch.cat(part) for part in zip(*parts, strict=True))
        return log_p.to(log_evidence.device), probs.to(log_evidence.device)

    def _posterior(self, log_evidence: Tensor, label: str | None) -> tuple[Tensor, Tensor]:
        forward = self._forward(log_evidence.cpu(), label)
        log_p, templates = exact.normalise(forward.templates, 0)  # (B,), (K, B)
        group_weight = self.tables.members @ templates  # (groups + 1, B)
        cells, weights = [self.tables.literals.T.flatten()], [templates.repeat(self.tables.literals.shape[1], 1)]
        for bucket, slots in zip(self.tables.buckets, forward.slots, strict=True):
            weight = exact.normalise(slots, 1)[1] * group_weight[bucket.group][:, None]  # (G, U, B)
            for column in bucket.cells.unbind(-1):
                cells.append(column.flatten())
                weights.append(weight.flatten(0, 1))
        probs = torch.zeros_like(forward.evidence)
        for cell, weight in zip(cells, weights, strict=True):
            probs.index_add_(0, cell, weight)
        return log_p, probs[:-1].T.reshape(log_evidence.shape)

    def seen(self, ids: Tensor) -> Tensor:
        """Evidence of looking at tokens, (B, L) ids to (B, L, V): 0 at what is seen, -inf elsewhere; all 0 at MASK."""
        return exact.evidence_of_tokens(ids, self)

    def _templates_of(self, ids: Tensor) -> Tensor:
        """log p(visible tokens, template), (n, K)."""
        parts = [self._forward(self.seen(rows), None).templates.T for rows in ids.cpu().split(STORIES_AT_ONCE)]
        return torch.cat(parts)

    def log_prob(self, ids: Tensor) -> Tensor:
        """Exact log-probability of canvases, (n, L) ids to (n,) float64 nats; -inf outside the language.

        PAD and EOS count. A MASK is summed over: a canvas with masks gets the log-probability of its visible tokens.
        """
        return self._templates_of(ids).logsumexp(1)

    def parse(self, ids: Tensor) -> Tensor:
        """Which template each canvas was made from, (n,) int64; -1 outside the language."""
        templates = self._templates_of(ids)
        return templates.argmax(1).where(templates.amax(1) > -torch.inf, -1)

    def length_law(self) -> Tensor:
        """Probability of each number of words, EOS and PAD not counted, (L,) float64."""
        lengths = torch.tensor([len(template.text.split()) for template in self.grammar.templates])
        return torch.zeros(self.length, dtype=torch.float64).index_add_(0, lengths, self.template_probs)

    def entropy(self) -> float:
        """Entropy of a story in nats: H(template) + expected H(visible slots), as each text has one derivation.

        Raises: ValueError if two templates can write the same text.
        """
        if pair := self.tables.ambiguous:
            raise ValueError(f"entropy: templates {pair[0]} and {pair[1]} can write the same text. Change one of them.")
        per_group = torch.zeros(len(self.tables.members), dtype=torch.float64)
        for bucket in self.tables.buckets:
            per_group[bucket.group] = torch.special.entr(bucket.log_p.exp()).sum(-1)
        templates = torch.special.entr(self.template_probs).sum()
        return float(templates + self.template_probs @ per_group[self.tables.groups].sum(1))

    # ---------------------------------------------------------------------------------------------------- as a denoiser

    def denoiser(self, process: exact.HasLikelihood, label: str | None = None) -> exact.ExactDenoiser:
        """The optimal denoiser of this language: call it like a model, (z_t, t) -> what the process expects."""
        return exact.ExactDenoiser(self, process, label)

    def decode(self, ids: Tensor) -> list[str]:
        """Canvases to texts: (n, L) ids to n strings, cut at EOS or PAD; a MASK shows as [MASK]."""
        return exact.text_of_canvases(ids, self)


@overload
def load_language(name: Literal["tales", "micro"]) -> StoryLanguage: ...
@overload
def load_language(name: str) -> exact.Language: ...
@lru_cache
def load_language(name: str) -> exact.Language:
    """A language by its name, made once and kept.

    "tales" are small stories, the default corpus, and "micro" is 16 texts, to enumerate everything. "sagas" are chains
    of chapters on a canvas of 256 tokens, and "micro-sagas" some hundred texts of that kind.
    Raises: ValueError for any other name.

    >>> micro = load_language("micro")
    >>> text = micro.tokenizer("Mia ran Tom ran")["input_ids"]
    >>> f"{micro.log_prob(torch.tensor([[*text, micro.eos_id]])).item():.3f} nats of {micro.entropy():.3f} on average"
    '-1.784 nats of 2.564 on average'
    """
    if name not in LANGUAGES:
        raise ValueError(f"load_language: the languages are {LANGUAGES}, got {name!r}.")
    return StoryLanguage(GRAMMARS[name]) if name in GRAMMARS else SagaLanguage(SAGA_GRAMMARS[name])


def endings(language: exact.Language, ids: Tensor) -> Tensor:
    """How each canvas (n, L) ends, (n,) int64: its index in `language.labels`, -1 outside the language."""
    templates = language.parse(ids)
    return torch.where(templates >= 0, language.template_labels[templates], -1)
