"""Exercises of notebook 00: worked solutions, and likely mistakes with what is said of them."""

import math

import torch

from diffkit.course.exercises.foundations import start_here as ex


def hidden(tokens, mask_id):
    return (tokens == mask_id).sum(1)


def length(ids, eos_id):
    return ((ids == eos_id).cumsum(1) == 0).sum(1)


def length_by_loop(ids, eos_id):
    return [row.index(eos_id) if eos_id in row else len(row) for row in ids.tolist()]


def in_order(positions, choose):
    """A solution of check_unmask that visits positions as given, and takes a token by `choose`."""

    def write(predict, length, mask_id, rng):
        x = torch.full((length,), mask_id)
        for i in positions(length, rng):
            x[i] = choose(predict(x)[i], rng)
        return x

    return write


def drawn(probs, rng):
    return torch.multinomial(probs, 1, generator=rng)


def by_inverse(probs, rng):
    return int((torch.rand((), generator=rng, dtype=torch.float64) > probs.cumsum(0)).sum())


def shuffled(length, rng):
    return torch.randperm(length, generator=rng).tolist()


def from_left(length, rng):
    return range(length)


def most_certain_first(predict, length, mask_id, rng):
    x = torch.full((length,), mask_id)
    while (hidden := (x == mask_id).nonzero()[:, 0]).numel():
        probs = predict(x)
        i = hidden[probs[hidden].amax(1).argmax()]
        x[i] = drawn(probs[i], rng)
    return x.tolist()


def all_at_once(predict, length, mask_id, rng):
    return torch.multinomial(predict(torch.full((length,), mask_id)), 1, generator=rng)[:, 0]


def in_two_steps(predict, length, mask_id, rng):
    x = torch.full((length,), mask_id)
    for some in shuffled(length, rng)[:2], slice(None):
        x[some] = torch.where(x[some] == mask_id, torch.multinomial(predict(x), 1, generator=rng)[some, 0], x[some])
    return x


def with_the_wrong_row(predict, length, mask_id, rng):
    x = torch.full((length,), mask_id)
    for i in shuffled(length, rng):
        x[i] = drawn(predict(x)[(i + 1) % length], rng)
    return x


def one_left(predict, length, mask_id, rng):
    x = in_order(shuffled, drawn)(predict, length, mask_id, rng)
    x[0] = mask_id
    return x


def cost(places, words):
    return places * math.log(words)


SOLUTIONS = {
    ex.check_hidden_tokens: [hidden, lambda tokens, mask_id: [row.count(mask_id) for row in tokens.tolist()]],
    ex.check_story_length: [length, length_by_loop],
    ex.check_guess_cost: [cost, lambda places, words: -math.log((1 / words) ** places)],
    ex.check_unmask: [
        in_order(shuffled, drawn),
        ex.unmask,
        in_order(from_left, by_inverse),
        most_certain_first,  # any order is right as long as one token comes at a time
    ],
}
WRONG = [
    (ex.check_hidden_tokens, "that show", lambda tokens, m: (tokens != m).sum(1)),
    (ex.check_hidden_tokens, ".sum(1)", lambda tokens, m: (tokens == m).sum()),
    (ex.check_hidden_tokens, "use mask_id", lambda tokens, m: (tokens == 1).sum(1)),
    (ex.check_hidden_tokens, "share", lambda tokens, m: (tokens == m).double().mean(1)),
    (ex.check_story_length, "one too many", lambda ids, eos: length(ids, eos) + 1),
    (ex.check_story_length, "one too many", lambda ids, eos: (ids != 0).sum(1)),  # counts EOS
    (ex.check_story_length, "after the story", lambda ids, eos: (ids == 0).sum(1)),
    (ex.check_story_length, "whole canvas", lambda ids, eos: torch.full((5,), ids.shape[1])),
    (ex.check_story_length, "no EOS yet", lambda ids, eos: (ids == eos).int().argmax(1)),
    (ex.check_story_length, "at most one EOS", lambda ids, eos: (ids == eos).sum(1)),
    (ex.check_guess_cost, "bits", lambda places, words: places * math.log2(words)),
    (ex.check_guess_cost, "never negative", lambda places, words: -cost(places, words)),
    (ex.check_guess_cost, "add up", lambda places, words: math.log(words)),
    (ex.check_guess_cost, "number of texts", lambda places, words: float(words) ** places),
    (ex.check_guess_cost, "to the power", lambda places, words: math.log(places * words)),
    (ex.check_unmask, "cannot say", all_at_once),
    (ex.check_unmask, "ask predict again", in_two_steps),
    (ex.check_unmask, "still hidden", one_left),
    (ex.check_unmask, "do not take the likeliest", in_order(from_left, lambda probs, rng: probs.argmax())),
    (ex.check_unmask, "at its own row", with_the_wrong_row),
    (ex.check_unmask, "generator=rng", in_order(from_left, lambda probs, rng: torch.multinomial(probs, 1))),
    (ex.check_unmask, "as they are", in_order(from_left, lambda probs, rng: drawn((probs > 0).double(), rng))),
    (ex.check_unmask, "as they are", in_order(from_left, lambda probs, rng: drawn(probs**2, rng))),
]
