"""Exercises of notebook 07: solutions, right answers written otherwise, and mistakes with what is said of them."""

import math
import statistics
from collections import Counter

import torch

from diffkit.course.exercises.foundations import evaluation as ex
from diffkit.languages.story_language import load_language

TALES = load_language("tales")
MASK = TALES.mask_id


def hidden_loss(denoise, x0, k, rng):
    """Loss of each text with k (n,) of its tokens hidden, summed over them."""
    is_masked = torch.rand(x0.shape, generator=rng).argsort(1).argsort(1) < k[:, None]
    log_p = denoise(torch.where(is_masked, MASK, x0)).gather(-1, x0[..., None])[..., 0]
    return -torch.where(is_masked, log_p, 0.0).sum(1)


def of_texts(values):
    return values.mean(), values.std() / math.sqrt(len(values))


def bound_by(weight, lowest=1, spread=of_texts):
    """A bound with another weight (of k and L), smallest k, or error."""

    def bound(denoise, x0, rng):
        n, L = x0.shape
        k = torch.randint(lowest, L + 1, (n,), generator=rng)
        return spread(weight(k, L) * hidden_loss(denoise, x0, k, rng))

    return bound


bound = bound_by(lambda k, L: L / k)


def bound_in_a_loop(denoise, x0, rng):
    values, L = [], x0.shape[1]
    for row in x0:
        k = 1 + int(torch.randint(L, (), generator=rng))
        places = torch.randperm(L, generator=rng)[:k]
        xt = row.clone()
        xt[places] = MASK
        values.append(-L / k * float(denoise(xt[None])[0, places, row[places]].sum()))
    return [statistics.fmean(values), statistics.stdev(values) / len(values) ** 0.5]


def masked_at_a_rate(denoise, x0, rng):
    rate = torch.rand(len(x0), 1, generator=rng)
    is_masked = torch.rand(x0.shape, generator=rng) < rate
    log_p = denoise(torch.where(is_masked, MASK, x0)).gather(-1, x0[..., None])[..., 0]
    return of_texts(-torch.where(is_masked, log_p, 0.0).sum(1) / rate[:, 0])


def first_k(denoise, x0, rng):
    n, L = x0.shape
    k = torch.randint(1, L + 1, (n, 1), generator=rng)
    is_masked = torch.arange(L) < k
    log_p = denoise(torch.where(is_masked, MASK, x0)).gather(-1, x0[..., None])[..., 0]
    return of_texts(-torch.where(is_masked, log_p, 0.0).sum(1) * L / k[:, 0])


def paired(a, b):
    d = a - b
    return d.mean(), d.std() / math.sqrt(len(d))


def paired_in_a_loop(a, b):
    d = [one - other for one, other in zip(a.tolist(), b.tolist(), strict=True)]
    return statistics.fmean(d), statistics.stdev(d) / len(d) ** 0.5


def grams_of(texts, n):
    return [tuple(text[i : i + n]) for text in texts for i in range(len(text) - n + 1)]


def distinct(texts, n, size):
    counts, N = Counter(grams_of(texts, n)).values(), len(grams_of(texts, n))
    return sum(1 - math.comb(N - c, size) / math.comb(N, size) for c in counts) / size


def distinct_by_products(texts, n, size):
    """The chance to miss an n-gram, factor by factor."""
    counts, N = Counter(grams_of(texts, n)).values(), len(grams_of(texts, n))
    missed = (math.prod((N - c - i) / (N - i) for i in range(size)) for c in counts)
    return (len(counts) - sum(missed)) / size


def each_text_alone(texts, n, size):
    shares = [len(set(grams_of([text], n))) / len(grams_of([text], n)) for text in texts if len(text) >= n]
    return sum(shares) / len(shares)


def fool(stories, nats, n):
    return stories[nats(stories).argsort()[:n]]


def fool_in_a_loop(stories, nats, n):
    return sorted(stories.tolist(), key=lambda story: float(nats(torch.tensor([story]))[0]))[:n]


SOLUTIONS = {
    ex.check_bound: [bound, bound_in_a_loop],
    ex.check_paired: [paired, paired_in_a_loop, lambda a, b: torch.stack(paired(a, b))],
    ex.check_distinct: [distinct, distinct_by_products, ex.expected_distinct],
    ex.check_fool: [fool, fool_in_a_loop, ex.most_liked],
}


WRONG = [
    (ex.check_bound, "two numbers", lambda *given: bound(*given)[0]),
    (ex.check_bound, "per token", bound_by(lambda k, L: 1 / k)),
    (ex.check_bound, "weight L / k is missing", bound_by(lambda k, L: 1)),
    (ex.check_bound, "L / 0", bound_by(lambda k, L: L / k, lowest=0)),
    (ex.check_bound, "equally likely", bound_by(lambda k, L: L / k, lowest=3)),
    (ex.check_bound, "equally likely", first_k),
    (ex.check_bound, "standard error is", lambda *given: bound(*given)[:1] + (torch.tensor(0.1),)),
    (ex.check_bound, "right on average", masked_at_a_rate),
    (ex.check_bound, "spread of single texts", bound_by(lambda k, L: L / k, spread=lambda v: (v.mean(), v.std()))),
    (ex.check_bound, "tokens were independent", bound_by(
        lambda k, L: L / k, spread=lambda v: (v.mean(), v.std() / math.sqrt(5 * len(v))))),
    (ex.check_paired, "two numbers", lambda a, b: (a - b).mean()),
    (ex.check_paired, "mean of a - b", lambda a, b: (b.mean() - a.mean(), paired(a, b)[1])),
    (ex.check_paired, "spread of single stories", lambda a, b: ((a - b).mean(), (a - b).std())),
    (ex.check_paired, "different stories", lambda a, b: ((a - b).mean(), ((a.var() + b.var()) / len(a)).sqrt())),
    (ex.check_distinct, "Pool first", each_text_alone),
    (ex.check_distinct, "reach from the end", lambda texts, n, size: distinct([sum(texts, [])], n, size)),
    (ex.check_distinct, "number of different", lambda texts, n, size: size * distinct(texts, n, size)),
    (ex.check_distinct, "falls as samples are added", lambda texts, n, size: distinct(
        texts, n, len(grams_of(texts, n)))),
    (ex.check_distinct, "with replacement", lambda texts, n, size: sum(
        1 - (1 - c / len(grams_of(texts, n))) ** size for c in Counter(grams_of(texts, n)).values()) / size),
    (ex.check_fool, "different", lambda stories, nats, n: fool(stories, nats, 1).expand(n, -1)),
    (ex.check_fool, "costs", lambda stories, nats, n: stories[nats(stories).argsort(descending=True)[:n]]),
    (ex.check_fool, "in reach", lambda stories, nats, n: stories[:n]),
    (ex.check_fool, "are stories of the language", lambda stories, nats, n: fool(stories, nats, n).flip(1)),
    (ex.check_fool, "shape", lambda stories, nats, n: nats(stories).argsort()[:n]),
]  # fmt: skip
