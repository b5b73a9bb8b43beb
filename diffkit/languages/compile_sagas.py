"""A grammar of sagas as tables of numbers: what each chapter shows, what may follow it, and where it can start."""

from __future__ import annotations

from itertools import combinations, product
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from diffkit.languages.compile import Choice, Part, can_agree, groups_of, parts_of, script_of, visible_values
from diffkit.languages.sagas import SagaGrammar


class Shown(NamedTuple):
    """Words that a chapter shows: each of U values of a slot shows P words, at these distances from its start."""

    log_p: Tensor  # (U,), of a slot of the chapter's own
    ids: Tensor  # (U, P)
    offsets: Tensor  # (P,)


class ChapterTable(NamedTuple):
    """A chapter: its literal words (one value, EOS included if it closes a saga), its own slots, the shared ones."""

    length: int  # words
    literals: Shown
    own: list[Shown]
    shared: dict[int, Shown]


class SagaTables:
    """A grammar of K chapters on a canvas of L positions, of which S can be the start of a chapter.

    Attributes:
        chapters: K tables; closing: (K,) bool.
        log_first, log_next: (K,) and (K, K) log-probabilities of the chain, before it is conditioned on the canvas.
        starts: (S,) positions; fits: (K, S) whether a chapter can stand there and, if it closes, EOS behind it.
        after, before: (K, S) number of the start behind a chapter that starts at s, and of the start of one that ends
            at s; S where there is none.
        blocks: slices of the starts, no longer than the shortest chapter: none depends on another of its block.
        values: (G, J) the value of each shared slot in each of their G combinations; log_p: (G,) of these.
        script, forms: what a sampler fills in, as in Tables; a closing chapter ends with EOS and PAD.
    Raises: ValueError if no saga fits the canvas.
    """

    def __init__(self, grammar: SagaGrammar, tokenizer: PreTrainedTokenizerBase, L: int):
        self.grammar, self.L, self.V, self._id = grammar, L, len(tokenizer), tokenizer.convert_tokens_to_ids
        self.names = list(grammar.chapters)
        self.closing = torch.tensor([not chapter.next for chapter in grammar.chapters.values()])
        self.log_first = self._row(grammar.first).log()
        self.log_next = torch.stack([self._row(chapter.next) for chapter in grammar.chapters.values()]).log()
        self.values = torch.tensor([*product(*(range(len(slot.values)) for slot in grammar.shared.values()))])
        probs = [torch.tensor(slot.probs, dtype=torch.float64) for slot in grammar.shared.values()]
        self.log_p = torch.stack([p[column] for p, column in zip(probs, self.values.T, strict=True)]).log().sum(0)
        canvases = [parts_of(one.text) + ([] if one.next else ["[EOS]"]) for one in grammar.chapters.values()]
        self.chapters = [self._chapter(canvas) for canvas in canvases]
        longest = max(map(len, canvases))
        filled = [canvas + ["[PAD]"] * (longest - len(canvas)) for canvas in canvases]
        self.script, self.forms = script_of(filled, {**grammar.shared, **grammar.slots}, self._id)
        self._places()

    def _row(self, chain: dict[str, float]) -> Tensor:
        return torch.tensor([chain.get(name, 0.0) for name in self.names], dtype=torch.float64)

    def _chapter(self, canvas: list[Part]) -> ChapterTable:
        literals = [(self._id(part), i) for i, part in enumerate(canvas) if isinstance(part, str)]
        ids, offsets = torch.tensor(literals, dtype=torch.int64).reshape(-1, 2).T
        table = ChapterTable(len(canvas) - canvas.count("[EOS]"), Shown(torch.empty(0), ids[None], offsets), [], {})
        for name, positions in groups_of(canvas):
            at, forms = zip(*positions, strict=True)
            if name in self.grammar.shared:
                number, slot = [*self.grammar.shared].index(name), self.grammar.shared[name]
                words = torch.tensor([[self._id(value[form]) for form in forms] for value in slot.values])
                table.shared[number] = Shown(torch.empty(0), words, torch.tensor(at))
            else:
                table.own.append(Shown(*visible_values(self.grammar.slots[name], forms, self._id), torch.tensor(at)))
        return table

    def _places(self) -> None:
        """Where chapters can start: `starts`, `fits`, `after`, `before`, `blocks`."""
        lengths = [table.length for table in self.chapters]
        needs = torch.tensor(lengths) + torch.where(self.closing, 0.0, torch.inf)  # words until the saga can be over
        for _ in lengths:
            onward = torch.where(self.log_next > -torch.inf, needs, torch.inf).amin(1)
            needs = torch.where(self.closing, needs, torch.tensor(lengths) + onward)
        reached, todo = set[tuple[int, int]](), [(k, 0) for k in self.log_first.exp().nonzero().flatten().tolist()]
        while todo:
            k, start = todo.pop()
            if (k, start) not in reached and start + needs[k] < self.L:
                reached.add((k, start))
                todo += [(after, start + lengths[k]) for after in self.log_next[k].exp().nonzero().flatten().tolist()]
        starts = sorted({start for _, start in reached})
        if not starts:
            raise ValueError(f"SagaLanguage: no saga fits a canvas of {self.L} tokens. Choose a longer one.")
        number, S = {start: s for s, start in enumerate(starts)}, len(starts)
        self.starts = torch.tensor(starts)
        self.fits = torch.tensor([[(k, start) in reached for start in starts] for k in range(len(lengths))])
        goes_on = [0 if closes else n for n, closes in zip(lengths, self.closing.tolist(), strict=True)]
        self.after = torch.tensor([[number.get(start + n, S) if n else S for start in starts] for n in goes_on])
        self.before = torch.tensor([[number.get(start - n, S) if n else S for start in starts] for n in goes_on])
        shortest, self.blocks = min(n for n in goes_on if n), list[slice]()
        first = 0
        for s in range(1, S + 1):
            if s == S or starts[s] - starts[first] >= shortest:
                self.blocks.append(slice(first, s))
                first = s

    def check_one_derivation(self) -> None:
        """Raise ValueError unless a text tells its chapters and its shared slots.

        It does if of two chapters that can stand in one place neither can be how the other begins, EOS included, and
        if every first chapter shows what each shared slot is.
        """
        chains = [("the start", self.grammar.first), *((n, one.next) for n, one in self.grammar.chapters.items())]
        for before, chain in chains:
            for one, other in combinations((name for name, p in chain.items() if p), 2):
                if self._alike(self.names.index(one), self.names.index(other)):
                    raise ValueError(f"entropy: {one!r} and {other!r}, after {before}, can begin alike. Change one.")
        for name, (number, slot) in product(self.grammar.first, enumerate(self.grammar.shared)):
            shown = self.chapters[self.names.index(name)].shared.get(number)
            if shown is None or len(shown.ids.unique(dim=0)) < len(shown.ids):
                raise ValueError(f"entropy: the first chapter {name!r} must tell what {slot!r} is. Let it show a name.")

    def _alike(self, k: int, other: int) -> bool:
        """Whether two chapters can show the same words as far as the shorter one goes."""
        tables, V = (self.chapters[k], self.chapters[other]), self.V
        common = min(table.length + int(self.closing[j]) for table, j in zip(tables, (k, other), strict=True))

        def choices(table: ChapterTable) -> list[Choice]:
            everything = [table.literals, *table.own, *table.shared.values()]
            cells = [(shown.offsets * V + shown.ids).tolist() for shown in everything]
            return [[{cell for cell in value if cell < common * V} for value in values] for values in cells]

        return can_agree(choices(tables[0]) + choices(tables[1]), V)
