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
from diffkit.languages.compile import Tables, words_of
from diffkit.languages.exact import Language, normalise
from diffkit.languages.saga_language import SagaLanguage
from diffkit.languages.sagas import SAGA_GRAMMARS
from diffkit.languages.tales import GRAMMARS, Grammar
from diffkit.random import categorical

LANGUAGES = sorted({**GRAMMARS, **SAGA_GRAMMARS})


class Forward(NamedTuple):
    """Log-likelihoods on the way from evidence to posterior; the last axis is the batch."""

    evidence: Tensor  # (L * V + 1, B); the last row is zero, the target of padding
    slots: list[Tensor]  # per bucket: (G, U, B)
    groups: Tensor  # (all groups + 1, B), values summed out; the last row is zero
    templates: Tensor  # (K, B), all slots summed out


class StoryLanguage(Language):
    """The language of the stories that a grammar of K templates can write; a plot is a template."""

    _at_once = 256  # keeps the memory of exact inference under a gigabyte

    def __init__(self, grammar: Grammar):
        texts = (template.text for template in grammar.templates)
        super().__init__(grammar, grammar.length, words_of(texts, grammar.slots))
        self.labels = list(dict.fromkeys(template.label for template in grammar.templates))
        probs = torch.tensor([template.prob for template in grammar.templates], dtype=torch.float64)
        self.template_probs = probs / probs.sum()
        self.template_labels = torch.tensor([self.labels.index(template.label) for template in grammar.templates])
        self.tables = Tables(grammar, self.tokenizer)

    # --------------------------------------------------------------------------------------------------------- sampling

    def sample(self, n: int, rng: Generator, label: str | None = None) -> Tensor:
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

    def _posterior(self, log_evidence: Tensor, label: str | None) -> tuple[Tensor, Tensor]:
        forward = self._forward(log_evidence, label)
        log_p, templates = normalise(forward.templates, 0)  # (B,), (K, B)
        group_weight = self.tables.members @ templates  # (groups + 1, B)
        cells, weights = [self.tables.literals.T.flatten()], [templates.repeat(self.tables.literals.shape[1], 1)]
        for bucket, slots in zip(self.tables.buckets, forward.slots, strict=True):
            weight = normalise(slots, 1)[1] * group_weight[bucket.group][:, None]  # (G, U, B)
            for column in bucket.cells.unbind(-1):
                cells.append(column.flatten())
                weights.append(weight.flatten(0, 1))
        probs = torch.zeros_like(forward.evidence)
        for cell, weight in zip(cells, weights, strict=True):
            probs.index_add_(0, cell, weight)
        return log_p, probs[:-1].T.reshape(log_evidence.shape)

    def _templates_of(self, ids: Tensor) -> Tensor:
        """log p(visible tokens, template), (n, K)."""
        parts = [self._forward(self.seen(rows), None).templates.T for rows in ids.cpu().split(self._at_once)]
        return torch.cat(parts)

    def log_prob(self, ids: Tensor) -> Tensor:
        return self._templates_of(ids).logsumexp(1)

    def parse(self, ids: Tensor) -> Tensor:
        templates = self._templates_of(ids)
        return templates.argmax(1).where(templates.amax(1) > -torch.inf, -1)

    def length_law(self) -> Tensor:
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


@overload
def load_language(name: Literal["tales", "micro"]) -> StoryLanguage: ...
@overload
def load_language(name: str) -> Language: ...
@lru_cache
def load_language(name: str) -> Language:
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


def endings(language: Language, ids: Tensor) -> Tensor:
    """How each canvas (n, L) ends, (n,) int64: its index in `language.labels`, -1 outside the language."""
    templates = language.parse(ids)
    return torch.where(templates >= 0, language.template_labels[templates], -1)
