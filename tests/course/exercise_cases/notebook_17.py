"""Exercises of notebook 17: worked solutions, and likely mistakes with what is said of them."""

import math

import torch

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


def scores(predict, x0, mask_id, groups):
    found = torch.zeros(x0.shape, dtype=torch.float64)
    for first in range(groups):
        hidden = torch.arange(x0.shape[1]) % groups == first
        own = predict(torch.where(hidden, mask_id, x0)).gather(-1, x0[..., None])[..., 0]
        found = torch.where(hidden, own.double(), found)
    return found


def scores_in_slices(predict, x0, mask_id, groups):
    """Slices instead of masks; lists instead of a tensor."""
    found = [[0.0] * x0.shape[1] for _ in x0]
    for first in range(groups):
        zt = x0.clone()
        zt[:, first::groups] = mask_id
        log_probs = predict(zt)
        for b in range(len(x0)):
            for i in range(first, x0.shape[1], groups):
                found[b][i] = float(log_probs[b, i, x0[b, i]])
    return found


def in_blocks(predict, x0, mask_id, groups):
    size = -(-x0.shape[1] // groups)
    found = torch.zeros(x0.shape, dtype=torch.float64)
    for first in range(0, x0.shape[1], size):
        zt = x0.clone()
        zt[:, first : first + size] = mask_id
        found[:, first : first + size] = predict(zt).gather(-1, x0[..., None])[:, first : first + size, 0].double()
    return found


def at_sight(predict, x0, mask_id, groups):
    return predict(x0).gather(-1, x0[..., None])[..., 0]


def without_showing_again(predict, x0, mask_id, groups):
    found, zt = torch.zeros(x0.shape), x0.clone()
    for first in range(groups):
        zt[:, first::groups] = mask_id
        found[:, first::groups] = predict(zt).gather(-1, x0[..., None])[:, first::groups, 0].float()
    return found


def whole_numbers(predict, x0, mask_id, groups):
    return scores(predict, x0, mask_id, groups).long()


SOLUTIONS = {
    ex.check_bits: [bits],
    ex.check_copied: [copied],
    ex.check_own_loss: [own_loss],
    ex.check_token_scores: [scores, scores_in_slices],
}


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
    (ex.check_token_scores, "hide it before you ask", at_sight),
    (ex.check_token_scores, "shown again", without_showing_again),
    (ex.check_token_scores, "whole numbers", whole_numbers),
    (ex.check_token_scores, "the sign is wrong", lambda *given: -scores(*given)),
    (ex.check_token_scores, "return their logarithms", lambda *given: scores(*given).exp()),
    (ex.check_token_scores, "neighbours together", in_blocks),
    (ex.check_token_scores, "all of the text at once", lambda p, x0, mask_id, groups: scores(p, x0, mask_id, 1)),
    (ex.check_token_scores, "the score should be", lambda p, x0, mask_id, groups: 2 * scores(p, x0, mask_id, groups)),
]
