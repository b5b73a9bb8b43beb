"""Exercises of notebook 17: worked solutions, and likely mistakes with what is said of them."""

import math

from diffkit.course.exercises.methods import tinystories as exercises


def bits(nats, tokens, characters):
    return nats * tokens / characters / math.log(2)


def windows(text, n):
    return [tuple(text[i : i + n]) for i in range(len(text) - n + 1)]


def copied(text, training, n):
    known = set(windows(training, n))
    return sum(window in known for window in windows(text, n)) / len(windows(text, n))


def own_loss(total, count, mean_count):
    return total / mean_count


def each_once(text, training, n):
    mine = set(windows(text, n))
    return len(mine & set(windows(training, n))) / len(mine)


def spoils(text, training, n):
    share = copied(text, training, n)
    text.sort()
    return share


SOLUTIONS = {exercises.check_bits: [bits], exercises.check_copied: [copied], exercises.check_own_loss: [own_loss]}


WRONG = [
    (exercises.check_bits, lambda nats, tokens, characters: nats / math.log(2), "bits a token"),
    (exercises.check_bits, lambda nats, tokens, characters: nats * tokens / characters, "still in nats"),
    (
        exercises.check_bits,
        lambda nats, tokens, characters: nats * tokens / characters * math.log(2),
        "do not multiply",
    ),
    (exercises.check_bits, lambda nats, tokens, characters: bits(nats, characters, tokens), "upside down"),
    (exercises.check_bits, lambda nats, tokens, characters: bits(nats, tokens, 1), "the whole text"),
    (exercises.check_bits, lambda nats, tokens, characters: 2 * bits(nats, tokens, characters), "bits a character"),
    (exercises.check_copied, lambda text, training, n: copied(text, training, n) * (1 - (n - 1) / len(text)), "n + 1"),
    (exercises.check_copied, each_once, "counts three times"),
    (exercises.check_copied, lambda text, training, n: 1 - copied(text, training, n), "*new*"),
    (exercises.check_copied, lambda text, training, n: copied(text, [*training, *training], n), "the share"),
    (exercises.check_copied, spoils, "changes its argument"),
    (exercises.check_own_loss, lambda total, count, mean_count: total / count, "mean of ratios"),
    (exercises.check_own_loss, lambda total, count, mean_count: total, "those are sums"),
    (exercises.check_own_loss, lambda total, count, mean_count: mean_count / total, "upside down"),
    (exercises.check_own_loss, lambda total, count, mean_count: total / mean_count**2, "the mean of what they return"),
]
