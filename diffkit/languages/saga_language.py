"""Sagas with exact answers: probability, entropy, posterior, optimal denoiser, on a canvas of any length.

Given its shared slots a saga is a semi-Markov chain: chapters of different lengths, each with slots of its own. A
backward and a forward pass over the positions where chapters can start sum out every way to cut a canvas into chapters;
Bayes' rule over the shared slots comes last. The probabilities are those of the chain, given that the saga and EOS fit.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Generator, Tensor

from diffkit.checks import check_whole
from diffkit.languages.compile import words_of
from diffkit.languages.compile_sagas import SagaTables, Shown
from diffkit.languages.exact import Language, normalise
from diffkit.languages.sagas import SagaGrammar
from diffkit.random import categorical

CELLS_AT_ONCE = 2**22  # numbers in a table over chapters, starts, shared slots and texts: 32 MB
FAINT = 1e-200  # share of the largest summand below which a sum is taken anew, in logarithms
NEGLIGIBLE = 1e-20  # posterior probability of shared slots that no float64 sum would notice


class Law(NamedTuple):
    """The chain of chapters given that the saga fits the canvas (and ends as a label says): no longer homogeneous."""

    log_next: Tensor  # (K, K), not yet conditioned
    log_total: Tensor  # () log-probability of the condition
    first: Tensor  # (K,) probability of each first chapter
    next: Tensor  # (K, S, K) of the chapter after chapter k that starts at s; a closing one stays


class Segments(NamedTuple):
    """Log-evidence of whole chapters, from the words that they show; the last axis is the batch B."""

    words: Tensor  # (V, L + longest, B)
    own: list[list[Tensor]]  # per chapter and own slot: (U, S, B), joint with the value
    chapters: Tensor  # (K, S, B), own slots summed out; -inf where a chapter does not fit
    shared: list[Tensor]  # per shared slot: (K, S, U, B)


class Past(NamedTuple):
    """The backward pass for N columns, each a text and a combination of shared slots that may be its own."""

    text: Tensor  # (N,)
    combination: Tensor  # (N,)
    given: Tensor  # (K, S, N) log-evidence of chapters
    beta: Tensor  # (K, S, N), less the total of the column
    log_p: Tensor  # (B,) log-likelihood of all evidence
    weight: Tensor  # (N,) posterior probability of the combination


class SagaLanguage(Language):
    """The language of the sagas of a grammar that fit a canvas; a plot is a number of chapters and a closing chapter.

    Args:       length: the canvas in tokens; None for the grammar's.
    Attributes: plots, each (number of chapters, closing one); share_that_fits, the probability of the sagas of the
                chain that are no longer than the canvas; the others as of any Language.
    Raises:     ValueError if no saga fits the canvas.
    """

    def __init__(self, grammar: SagaGrammar, length: int | None = None):
        L = grammar.length if length is None else length
        check_whole(L, "length", "SagaLanguage")
        texts = (chapter.text for chapter in grammar.chapters.values())
        super().__init__(grammar, L, words_of(texts, {**grammar.shared, **grammar.slots}))
        self.tables = tables = SagaTables(grammar, self.tokenizer, L)
        self._at_once = max(1, CELLS_AT_ONCE // (tables.fits.numel() * len(tables.values)))
        ends = {name: grammar.chapters[name].label for name in tables.names if not grammar.chapters[name].next}
        can_be = [
            grammar.chapters[name].label for name, fits in zip(tables.names, tables.fits, strict=True) if fits.any()
        ]
        self.labels = [label for label in dict.fromkeys(can_be) if label]
        self._laws = {label: self._conditioned(label) for label in (None, *self.labels)}
        self.share_that_fits = self._laws[None].log_total.exp().item()
        self.visits, ended = self._walk(self._laws[None])
        self.plots = [(n + 1, [*ends][c]) for n, c in (ended > 0).nonzero().tolist()]
        self.template_probs = ended[ended > 0]
        self.template_labels = torch.tensor([self.labels.index(ends[name]) for _, name in self.plots])

    def _conditioned(self, label: str | None) -> Law:
        tables = self.tables
        others = [label not in (None, chapter.label or label) for chapter in self.grammar.chapters.values()]
        log_next = tables.log_next.masked_fill(torch.tensor(others), -torch.inf)
        beta = self._backward(torch.where(tables.fits, 0.0, -torch.inf)[..., None].double(), log_next)
        log_total, first = normalise(tables.log_first + beta[:, 0, 0], 0)
        padded = torch.cat([beta[..., 0], torch.full((len(beta), 1), -torch.inf)], 1)
        follow = normalise(log_next[:, None] + padded.T[tables.after], -1)[1]
        stay = tables.closing[:, None, None] * torch.eye(len(beta), dtype=torch.float64)[:, None]
        return Law(log_next, log_total, first, follow + stay)

    def _walk(self, law: Law) -> tuple[Tensor, Tensor]:
        """Probability that chapter k starts at s, (K, S), and that the n-th chapter is each closing one, (most, C)."""
        K, S = self.tables.fits.shape
        here, visits, ended = torch.zeros(K, S, dtype=torch.float64), torch.zeros(K, S, dtype=torch.float64), []
        here[:, 0] = law.first
        while here.any():
            visits += here
            ended.append(here[self.tables.closing].sum(1))
            there = torch.zeros(S + 1, K, dtype=torch.float64)
            for k in range(K):
                there.index_add_(0, self.tables.after[k], here[k, :, None] * law.next[k])
            here = there[:S].T
        return visits, torch.stack(ended)

    # --------------------------------------------------------------------------------------------------------- sampling

    def sample(self, n: int, rng: Generator, label: str | None = None) -> Tensor:
        check_whole(n, "n", "SagaLanguage", 0)
        law, tables, most = self._law(label), self.tables, self.plots[-1][0]
        values = {name: _draw(slot.probs, (n, 1), rng).expand(n, most) for name, slot in self.grammar.shared.items()}
        values |= {name: _draw(slot.probs, (n, most), rng) for name, slot in self.grammar.slots.items()}
        words = torch.stack([ids[values[slot]] for slot, ids in tables.forms], -1)  # (n, most, forms)
        span = torch.arange(tables.script.shape[1])
        canvas = torch.full((n, self.length + len(span)), self.pad_id)
        chapter, start = categorical(law.first.expand(n, -1), rng), torch.zeros(n, dtype=torch.int64)
        for i in range(most):  # the last chapter is written again and again
            script = tables.script[chapter]
            shown = torch.where(script >= 0, script, words[:, i].gather(1, (-1 - script).clamp(min=0)))
            canvas.scatter_(1, tables.starts[start][:, None] + span, shown)
            follow, after = law.next[chapter, start], tables.after[chapter, start]
            start = torch.where(tables.closing[chapter], start, after)
            chapter = categorical(follow, rng)
        return canvas[:, : self.length]

    def _law(self, label: str | None) -> Law:
        return self._laws[None if label is None else self.labels[self.label_id(label)]]

    # -------------------------------------------------------------------------------------------------- exact inference

    def _backward(self, segments: Tensor, log_next: Tensor) -> Tensor:
        """log p(evidence from s on | chapter k starts at s), (K, S, N), from that of chapter k's own words there."""
        K, S, N = segments.shape
        beta, onward = torch.empty_like(segments), segments.new_full((K, S + 1, N), -torch.inf)
        onward[self.tables.closing, S] = 0.0  # log p(evidence from s on | chapter k ended there)
        each = torch.arange(K)[:, None]
        for block in reversed(self.tables.blocks):
            beta[:, block] = segments[:, block] + onward[each, self.tables.after[:, block]]
            onward[:, block] = _log_matmul(log_next, beta[:, block])
        return beta

    def _forward(self, segments: Tensor, log_next: Tensor) -> Tensor:
        """log p(evidence before s, chapter k starts at s), (K, S, N)."""
        K, S, N = segments.shape
        alpha, done = torch.empty_like(segments), segments.new_full((K, S + 1, N), -torch.inf)
        alpha[:, 0] = self.tables.log_first[:, None]
        each = torch.arange(K)[:, None]
        for block in self.tables.blocks:
            if block.start:
                alpha[:, block] = _log_matmul(log_next.T, done[each, self.tables.before[:, block]])
            done[:, block] = alpha[:, block] + segments[:, block]
        return alpha

    def _segments(self, log_evidence: Tensor) -> Segments:
        """Sum own slots out, chapter by chapter, wherever it can start."""
        tables, B, L = self.tables, len(log_evidence), self.length
        words = torch.zeros(self.vocab_size, L + tables.script.shape[1], B, dtype=torch.float64)
        words[:, :L] = log_evidence.permute(2, 1, 0)
        pads = words[self.pad_id].flip(0).cumsum(0).flip(0)  # of PAD at every position from here on
        own = [
            [shown.log_p[:, None, None] + self._of(words, shown) for shown in table.own] for table in tables.chapters
        ]
        chapters = torch.where(tables.fits, 0.0, -torch.inf)[..., None].double().repeat(1, 1, B)
        shared = [chapters.new_zeros(*tables.fits.shape, len(s.values), B) for s in self.grammar.shared.values()]
        for k, table in enumerate(tables.chapters):
            chapters[k] += self._of(words, table.literals)[0] + sum(slot.logsumexp(0) for slot in own[k])
            if tables.closing[k]:
                chapters[k] += pads[tables.starts + table.length + 1]
            for j, shown in table.shared.items():
                shared[j][k] = self._of(words, shown).transpose(0, 1)
        return Segments(words, own, chapters, shared)

    def _of(self, words: Tensor, shown: Shown) -> Tensor:
        """Log-evidence of what the values of a slot show, for every start of the chapter, (U, S, B)."""
        return words[shown.ids[:, :, None], self.tables.starts + shown.offsets[:, None]].sum(1)

    def _columns(self, segments: Segments) -> tuple[Tensor, Tensor]:
        """Texts (N,) and combinations of shared slots (N,) that the words of the first chapter do not exclude."""
        total = (self.tables.log_first[:, None] + segments.chapters[:, 0])[:, None]  # (K, 1, B)
        for shared, value in zip(segments.shared, self.tables.values.T, strict=True):
            total = total + shared[:, 0, value]  # (K, G, B)
        combination, text = (total.amax(0) > -torch.inf).nonzero(as_tuple=True)
        return text, combination

    def _past(self, segments: Segments, label: str | None) -> Past:
        """The backward pass, and Bayes over the shared slots."""
        law, B, (text, combination) = self._law(label), segments.chapters.shape[-1], self._columns(segments)
        given = segments.chapters[..., text]
        for value, shared in zip(self.tables.values.T, segments.shared, strict=True):
            given += shared.flatten(2)[..., value[combination] * B + text]
        beta = self._backward(given, law.log_next)
        total = (self.tables.log_first[:, None] + beta[:, 0]).logsumexp(0)  # (N,)
        joint = given.new_full((B, len(self.tables.values)), -torch.inf)
        joint[text, combination] = self.tables.log_p[combination] + total
        log_p, weight = normalise(joint, 1)
        return Past(text, combination, given, beta - total, log_p - law.log_total, weight[text, combination])

    def _chapters(self, past: Past, label: str | None) -> tuple[Tensor, list[Tensor]]:
        """The forward pass: p(chapter k at start s | evidence), (K, S, B), and jointly with each shared slot."""
        (K, S, _), B = past.given.shape, len(past.log_p)
        likely = past.weight > NEGLIGIBLE
        kept: Tensor | slice = slice(None) if likely.all() else likely  # a view is cheaper than a copy
        given, beta = past.given[..., kept], past.beta[..., kept]
        alpha = self._forward(given, self._laws[label].log_next)
        weight = ((alpha + beta).exp() * past.weight[kept]).flatten(0, 1).T.contiguous()  # (N, K S)
        text, values = past.text[kept], self.tables.values[past.combination[kept]]
        found = [weight.new_zeros(B, K * S).index_add_(0, text, weight).T.unflatten(0, (K, S))]
        for value, slot in zip(values.T, self.grammar.shared.values(), strict=True):
            U = len(slot.values)
            cells = weight.new_zeros(U * B, K * S).index_add_(0, value * B + text, weight)
            found.append(cells.unflatten(0, (U, B)).movedim(1, -1).unflatten(1, (K, S)))
        return found[0], found[1:]

    def _posterior(self, log_evidence: Tensor, label: str | None) -> tuple[Tensor, Tensor]:
        segments, tables = self._segments(log_evidence), self.tables
        past = self._past(segments, label)
        chapters, shared = self._chapters(past, label)
        probs, pads = torch.zeros_like(segments.words), torch.zeros_like(segments.words[0])
        for k, table in enumerate(tables.chapters):
            weights = [normalise(slot, 0)[1] * chapters[k] for slot in segments.own[k]]
            weights += [chapters[k][None], *(shared[j][:, k] for j in table.shared)]
            for shown, weight in zip([*table.own, table.literals, *table.shared.values()], weights, strict=True):
                at = (shown.ids[:, :, None], tables.starts + shown.offsets[:, None])
                probs.index_put_(at, weight[:, None].expand(*shown.ids.shape, -1, -1), accumulate=True)
            if tables.closing[k]:
                pads[tables.starts + table.length + 1] += chapters[k]
        probs[self.pad_id] += pads.cumsum(0)
        return past.log_p, probs[:, : self.length].permute(2, 1, 0)

    def log_prob(self, ids: Tensor) -> Tensor:
        parts = ids.cpu().split(self._at_once)
        return torch.cat([self._past(self._segments(self.seen(rows)), None).log_p for rows in parts])

    def parse(self, ids: Tensor) -> Tensor:
        """As of any language; -1 for any MASK, too."""
        return torch.cat([self._plots_of(rows) for rows in ids.cpu().split(self._at_once)])

    def _plots_of(self, ids: Tensor) -> Tensor:
        past = self._past(self._segments(self.seen(ids)), None)
        often = self._chapters(past, None)[0].sum(1)  # (K, B) how often each chapter comes, on average
        counts = often.sum(0).round().long().tolist()
        number = {plot: i for i, plot in enumerate(self.plots)}
        closing = (often * self.tables.closing[:, None]).argmax(0).tolist()
        found = [number.get((n, self.tables.names[k]), -1) for n, k in zip(counts, closing, strict=True)]
        return torch.tensor(found).where((past.log_p > -torch.inf) & (ids != self.mask_id).all(1), -1)

    def length_law(self) -> Tensor:
        law, tables = torch.zeros(self.length, dtype=torch.float64), self.tables
        for k in tables.closing.nonzero().flatten().tolist():
            here = tables.fits[k]
            law.index_add_(0, tables.starts[here] + tables.chapters[k].length, self.visits[k, here])
        return law

    def entropy(self) -> float:
        """Entropy of a saga in nats: H(shared slots) + H(first chapter) + H(own slots, next chapter) for each chapter.

        Raises: ValueError unless a text tells its chapters and its shared slots: then nothing is hidden.
        """
        self.tables.check_one_derivation()
        law, entr = self._laws[None], torch.special.entr
        total = entr(self.tables.log_p.exp()).sum() + entr(law.first).sum()
        for often, follow, table in zip(self.visits, law.next, self.tables.chapters, strict=True):
            own = sum(entr(shown.log_p.exp()).sum() for shown in table.own)
            total = total + (often * (entr(follow).sum(-1) + own)).sum()
        return float(total)


def _log_matmul(log_matrix: Tensor, log_rows: Tensor) -> Tensor:
    """logsumexp over k of log_matrix[j, k] + log_rows[k], (J, K) and (K, S, N) to (J, S, N)."""
    largest = log_rows.amax(0).clamp(min=torch.finfo(log_rows.dtype).min)
    sums = torch.tensordot(log_matrix.exp(), (log_rows - largest).exp(), 1)
    found = sums.log() + largest
    possible = torch.tensordot((log_matrix > -torch.inf).float(), (log_rows > -torch.inf).float(), 1) > 0
    j, s, n = (possible & (sums < FAINT)).nonzero(as_tuple=True)  # where the largest row is not among those of j
    found[j, s, n] = (log_matrix[j].T + log_rows[:, s, n]).logsumexp(0)
    return found


def _draw(probs: list[float], shape: tuple[int, int], rng: Generator) -> Tensor:
    return categorical(torch.tensor(probs).expand(*shape, -1), rng)
