"""Exercises of notebook 17: worked solutions, and likely mistakes with what is said of them."""

import math

from diffkit.course.exercises.methods import tinystories as ex


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


SOLUTIONS = {ex.check_bits: [bits], ex.check_copied: [copied], ex.check_own_loss: [own_loss]}


WRONG = [
    (ex.check_bits, "bits a token", lambda nats, tokens, characters: nats / math.log(2)),
    (ex.check_bits, "still in nats", lambda nats, tokens, characters: nats * tokens / characters),
    (ex.check_bits, "do not multiply", lambda nats, tokens, characters: nats * tokens / characters * math.log(2)),
    (ex.check_bits, "upside down", lambda nats, tokens, characters: bits(nats, characters, tokens)),
    (ex.check_bits, "the whole text", lambda nats, tokens, characters: bits(nats, tokens, 1)),
    (ex.check_bits, "bits a character", lambda nats, tokens, characters: 2 * bits(nats, tokens, characters)),
    (ex.check_copied, "n + 1", lambda text, training, n: copied(text, training, n) * (1 - (n - 1) / len(text))),
    (ex.check_copied, "counts three times", each_once),
    (ex.check_copied, "*new*", lambda text, training, n: 1 - copied(text, training, n)),
    (ex.check_copied, "changes its argument", spoils),
    (ex.check_own_loss, "mean of ratios", lambda total, count, mean_count: total / count),
    (ex.check_own_loss, "those are sums", lambda total, count, mean_count: total),
    (ex.check_own_loss, "upside down", lambda total, count, mean_count: mean_count / total),
    (ex.check_own_loss, "the mean of what they return", lambda total, count, mean_count: total / mean_count**2),
]
