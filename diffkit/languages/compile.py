"""A grammar as tables of numbers: which cells of a canvas its literal words and the values of its slots fill.

A cell is a position and a word, position * V + word. Exact inference looks up and adds cells.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from itertools import combinations
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from diffkit.languages.tales import Grammar, Slot, slot_and_form

Choice = list[set[int]]  # the cells that each value of a slot fills
Part = str | tuple[str, str]  # of a canvas: a literal token, or (slot, form)
Positions = tuple[tuple[int, str], ...]  # where a slot shows, each a position and a form


class Bucket(NamedTuple):
    """Slot groups of one shape, so that they are computed together. A group is one slot at one set of positions."""

    group: Tensor  # (G,) number of the group
    log_p: Tensor  # (G, U) log-probability of each value
    cells: Tensor  # (G, U, P) where each value shows


class Tables:
    """A grammar of K templates, numbered.

    Attributes:
        buckets: every slot group, by shape; many templates share a group.
        literals: (K, most) cells of the literal words of each template, EOS and PAD included, filled up with L V.
        groups: (K, most) groups of each template, filled up with the number of groups.
        members: (groups + 1, K) float64, 1 where a template has a group.
        script: (K, L) the entry of each position: a token id, or -1 - f for the f-th of `forms`.
        forms: a slot and the ids (U,) that its values show in one of their forms; [UNK] for a value without it.
    Raises: ValueError for a template that does not fit the canvas.
    """

    def __init__(self, grammar: Grammar, tokenizer: PreTrainedTokenizerBase):
        self.grammar, self.V, self._id = grammar, len(tokenizer), tokenizer.convert_tokens_to_ids
        canvases = [self._canvas(template.text) for template in grammar.templates]
        numbers: dict[tuple[str, Positions], int] = {}
        members = [[numbers.setdefault(group, len(numbers)) for group in groups_of(canvas)] for canvas in canvases]
        self.buckets = self._buckets(numbers)
        literals = [
            [i * self.V + self._id(part) for i, part in enumerate(canvas) if isinstance(part, str)]
            for canvas in canvases
        ]
        self.literals = _padded(literals, grammar.length * self.V)
        self.groups = _padded(members, len(numbers))
        self.members = torch.zeros(len(numbers) + 1, len(canvases), dtype=torch.float64)
        self.members[self.groups, torch.arange(len(canvases))[:, None]] = 1
        self.script, self.forms = script_of(canvases, grammar.slots, self._id)

    def _canvas(self, text: str) -> list[Part]:
        """The L parts of a template."""
        parts, L = parts_of(text), self.grammar.length
        if len(parts) >= L:
            raise ValueError(f"StoryLanguage: a story and EOS must fit {L} positions; {text!r} has {len(parts)} words.")
        return [*parts, "[EOS]", *["[PAD]"] * (L - len(parts) - 1)]

    def _buckets(self, numbers: dict[tuple[str, Positions], int]) -> list[Bucket]:
        """All groups, those of one shape stacked."""
        shapes = defaultdict(list)
        for (slot, positions), number in numbers.items():
            at, forms = zip(*positions, strict=True)
            log_p, ids = visible_values(self.grammar.slots[slot], forms, self._id)
            cells = torch.tensor(at) * self.V + ids
            shapes[cells.shape].append((torch.tensor(number), log_p, cells))
        return [Bucket(*map(torch.stack, zip(*same, strict=True))) for same in shapes.values()]

    @cached_property
    def ambiguous(self) -> tuple[int, int] | None:
        """Two templates, each with some probability, that can write the same text; None if there are none."""
        values: dict[int, Choice] = {len(self.members) - 1: [set()]}  # of each group, and of what fills up the table
        for bucket in self.buckets:
            for number, log_p, cells in zip(*bucket, strict=True):
                values[int(number)] = [set(value) for value in cells[log_p > -torch.inf].tolist()]
        L, V = self.grammar.length, self.V
        choices = {
            k: [[set(self.literals[k].tolist()) - {L * V}], *(values[number] for number in self.groups[k].tolist())]
            for k, template in enumerate(self.grammar.templates)
            if template.prob
        }
        words: dict[int, list[set[int]]] = {k: [set() for _ in range(L)] for k in choices}  # at each position
        for k, chosen in choices.items():
            for cell in set().union(*(value for choice in chosen for value in choice)):
                words[k][cell // V].add(cell)
        for k, other in combinations(choices, 2):
            apart = any(map(set.isdisjoint, words[k], words[other]))
            if not apart and can_agree(choices[k] + choices[other], V):
                return k, other
        return None


def parts_of(text: str) -> list[Part]:
    """Literal words and slots in their order."""
    return [slot_and_form(word) or word for word in text.split()]


def visible_values(slot: Slot, forms: Sequence[str], word_id: Callable[[str], int]) -> tuple[Tensor, Tensor]:
    """Values of a slot as these forms show them: equal-looking ones are merged. (U,) log p and (U, P) words."""
    total: dict[tuple[int, ...], float] = defaultdict(float)
    for value, p in zip(*slot, strict=True):
        total[tuple(word_id(value[form]) for form in forms)] += p
    probs = torch.tensor(list(total.values()), dtype=torch.float64)
    return (probs / probs.sum()).log(), torch.tensor(list(total))


def script_of(
    canvases: list[list[Part]], slots: Mapping[str, Slot], word_id: Callable[[str], int]
) -> tuple[Tensor, list[tuple[str, Tensor]]]:
    """What a sampler fills in: `script` and `forms`, see Tables."""
    numbers: dict[tuple[str, str], int] = {}

    def entry(part: Part) -> int:
        return word_id(part) if isinstance(part, str) else -1 - numbers.setdefault(part, len(numbers))

    rows = [[entry(part) for part in canvas] for canvas in canvases]
    forms = [
        (slot, torch.tensor([word_id(value.get(form, "[UNK]")) for value in slots[slot].values]))
        for slot, form in numbers
    ]
    return torch.tensor(rows), forms


def words_of(texts: Iterable[str], slots: Mapping[str, Slot]) -> list[str]:
    """Every word that these templates can show, once, in the order of its first appearance."""
    found: dict[str, None] = {}
    for word in " ".join(texts).split():
        part = slot_and_form(word)
        found |= dict.fromkeys([word] if part is None else [value[part[1]] for value in slots[part[0]].values])
    return [*found]


def can_agree(choices: list[Choice], V: int) -> bool:
    """Whether each choice has a value such that no two of them put different words at a position: by trying them."""
    if not choices:
        return True
    first, *rest = sorted(choices, key=len)

    def fitting(made: set[int], choice: Choice) -> Choice:
        word = {cell // V: cell for cell in made}
        return [value for value in choice if all(word.get(cell // V, cell) == cell for cell in value)]

    return any(can_agree([fitting(made, choice) for choice in rest], V) for made in first)


def groups_of(canvas: list[Part]) -> list[tuple[str, Positions]]:
    """The slots of a canvas in order of appearance, each with its positions."""
    shown: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for i, part in enumerate(canvas):
        if not isinstance(part, str):
            shown[part[0]].append((i, part[1]))
    return [(slot, tuple(positions)) for slot, positions in shown.items()]


def _padded(rows: list[list[int]], filler: int) -> Tensor:
    most = max(map(len, rows))
    return torch.tensor([row + [filler] * (most - len(row)) for row in rows])
