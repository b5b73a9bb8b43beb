"""Exercises of notebook 06: solutions, right answers written otherwise, and mistakes with what is said of them."""

import math
import random

import torch

from diffkit.course.exercises.foundations import sampling as ex
from diffkit.languages.story_language import load_language

MASK = load_language("tales").mask_id


def reverse_step(logits, zt, t, s, rng):
    probs, stay = logits.softmax(-1), (s / t)[:, None]
    reveal = (zt == MASK) & (torch.rand(zt.shape, generator=rng) >= stay)
    words = torch.multinomial(probs.flatten(0, 1), 1, generator=rng).view(zt.shape)
    return torch.where(reveal, words, zt)


def one_draw_of_all(logits, zt, t, s, rng):
    """One draw over V + 1 outcomes, position by position, with Python's own generator and numpy."""
    dice, answer = random.Random(int(rng.initial_seed())), zt.tolist()
    for table, row, stay in zip(logits.softmax(-1).numpy(), answer, (s / t).tolist(), strict=True):
        for i, token in enumerate(row):
            if token == MASK:
                weights = [*((1 - stay) * table[i]), stay]
                choice = dice.choices(range(len(weights)), weights)[0]
                row[i] = MASK if choice == len(weights) - 1 else choice
    return answer


def with_words(words_of):
    """A reverse step that draws its words otherwise."""

    def step(logits, zt, t, s, rng):
        reveal = (zt == MASK) & (torch.rand(zt.shape, generator=rng) >= (s / t)[:, None])
        return torch.where(reveal, words_of(logits, rng), zt)

    return step


def same_words_in_all_rows(logits, rng):
    return torch.multinomial(logits[0].softmax(-1), 1, generator=rng)[:, 0].expand(logits.shape[:2])


def one_coin_a_text(logits, zt, t, s, rng):
    words = torch.multinomial(logits.softmax(-1).flatten(0, 1), 1, generator=rng).view(zt.shape)
    return torch.where((zt == MASK) & (torch.rand(len(zt), 1, generator=rng) >= (s / t)[:, None]), words, zt)


def order(probs, rng):
    return -torch.special.entr(probs).sum(-1)


def order_in_a_loop(probs, rng):
    return [[sum(p * math.log2(p) for p in row if p > 0) for row in text] for text in probs.tolist()]


def nucleus(probs, p):
    ranked, order = probs.sort(-1, descending=True)
    ranked[ranked.cumsum(-1) - ranked >= p] = 0
    return torch.zeros_like(probs).scatter(-1, order, ranked / ranked.sum(-1, keepdim=True))


def nucleus_in_a_loop(probs, p):
    rows = []
    for row in probs.tolist():
        kept, mass = {}, 0.0
        for i in sorted(range(len(row)), key=row.__getitem__, reverse=True):
            kept[i] = row[i]
            mass += row[i]
            if mass >= p:
                break
        rows.append([kept.get(i, 0.0) / mass for i in range(len(row))])
    return rows


def entropy_at(texts, probs, positions):
    mass = {}
    for text, p in zip(texts.tolist(), probs.tolist(), strict=True):
        key = tuple(text[i] for i in positions)
        mass[key] = mass.get(key, 0.0) + p
    return -sum(p * math.log(p) for p in mass.values())


def first_reveal(texts, probs, positions):
    return sum(entropy_at(texts, probs, [i]) for i in positions) - entropy_at(texts, probs, positions)


SOLUTIONS = {
    ex.check_reverse_step: [reverse_step, one_draw_of_all],
    ex.check_order: [order, order_in_a_loop, lambda probs, rng: (-torch.special.entr(probs).sum(-1)).exp()],
    ex.check_nucleus: [nucleus, nucleus_in_a_loop],
    ex.check_first_reveal: [first_reveal, ex.first_reveal_error],
}


def cut(probs, p, keep):
    ranked, order = probs.sort(-1, descending=True)
    kept = torch.zeros_like(probs).scatter(-1, order, ranked * keep(ranked, p))
    return kept / kept.sum(-1, keepdim=True).clamp(min=1e-9)


def at_least_one(ranked, p):
    return (ranked.cumsum(-1) <= p) | (ranked == ranked[:, :1])


def marginals(texts, probs, positions):
    return sum(entropy_at(texts, probs, [i]) for i in positions)


WRONG = [
    (ex.check_reverse_step, "visible token has changed", lambda raw, zt, t, s, rng: with_words(
        lambda raw, rng: raw.argmax(-1))(raw, torch.full_like(zt, MASK), t, s, rng)),
    (ex.check_reverse_step, "you reveal it with that", lambda raw, zt, t, s, rng: reverse_step(
        raw, zt, t, t - s, rng) if (s > 0).all() else reverse_step(raw, zt, t, s, rng)),
    (ex.check_reverse_step, "together", one_coin_a_text),
    (ex.check_reverse_step, "likeliest word", with_words(lambda raw, rng: raw.argmax(-1))),
    (ex.check_reverse_step, "draw of its own", with_words(same_words_in_all_rows)),
    (ex.check_reverse_step, "still masked", lambda raw, zt, t, s, rng: reverse_step(raw, zt, t, s.clamp(min=20), rng)),
    (ex.check_reverse_step, "predicted probability", with_words(lambda raw, rng: torch.multinomial(
        (2 * raw).softmax(-1).flatten(0, 1), 1, generator=rng).view(raw.shape[:2]))),
    (ex.check_reverse_step, "stays masked with probability", lambda raw, zt, t, s, rng: reverse_step(
        raw, zt, t, s**2 / t, rng)),
    (ex.check_order, "sign", lambda probs, rng: torch.special.entr(probs).sum(-1)),
    (ex.check_order, "confidence", lambda probs, rng: probs.amax(-1)),
    (ex.check_order, "margin", lambda probs, rng: probs.topk(2).values[..., 0] - probs.topk(2).values[..., 1]),
    (ex.check_order, "NaN", lambda probs, rng: (probs * probs.log()).sum(-1)),
    (ex.check_order, "you reveal position", lambda probs, rng: torch.rand(probs.shape[:2], generator=rng)),
    (ex.check_nucleus, "crosses the line", lambda p, cap: cut(p, cap, at_least_one)),
    (ex.check_nucleus, "running sum", lambda p, cap: cut(p, cap, lambda ranked, cap: ranked >= cap)),
    (ex.check_nucleus, "add up to 1", lambda p, cap: torch.where(nucleus(p, cap) > 0, p, 0.0)),
    (ex.check_nucleus, "sorted", lambda p, cap: nucleus(p, cap).sort(-1, descending=True).values),
    (ex.check_nucleus, "tokens are kept", lambda p, cap: cut(p, cap, lambda ranked, cap: ranked > 0)),
    (ex.check_first_reveal, "entropies alone", marginals),
    (ex.check_first_reveal, "positions together", entropy_at),
    (ex.check_first_reveal, "sign", lambda *given: -first_reveal(*given)),
    (ex.check_first_reveal, "bits", lambda *given: first_reveal(*given) / math.log(2)),
    (ex.check_first_reveal, "whole texts", lambda texts, probs, positions: marginals(texts, probs, positions)
     + (probs * probs.log()).sum()),
    (ex.check_first_reveal, "pairs", lambda texts, probs, positions: sum(
        first_reveal(texts, probs, [i, j]) for i in positions for j in positions if i < j)),
]  # fmt: skip
