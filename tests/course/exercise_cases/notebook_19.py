"""Exercises of notebook 19: worked solutions, and likely mistakes with what is said of them."""

import itertools
import math

import torch

from diffkit.course.exercises.recent import adaptation as ex


def shift(network, xt, start):
    front = torch.full_like(xt[:, :1], start)
    return network(torch.cat([front, xt], 1))[:, :-1]


def shift_by_padding(network, xt, start):
    return network(torch.nn.functional.pad(xt, (1, 0), value=start)).narrow(1, 0, xt.shape[1]).float()


def bare(network, xt, start):
    return network(xt)


def published(network, xt, start):
    logits = network(xt)
    return torch.cat([logits[:, :1], logits[:, :-1]], 1)


def as_autoregressive(network, xt, start):
    return network(torch.cat([torch.full_like(xt[:, :1], start), xt[:, :-1]], 1))


def annealed(L, share, rng):
    future = torch.ones(L, L, dtype=torch.bool).triu(1)
    return ~future | (torch.rand(L, L, generator=rng) < share)


def annealed_by_loops(L, share, rng):
    coins = torch.rand(L, L, generator=rng).tolist()
    return [[int(j <= i or coins[i][j] < share) for j in range(L)] for i in range(L)]


def one_coin_a_column(L, share, rng):
    return torch.ones(L, L, dtype=torch.bool).tril() | (torch.rand(L, generator=rng) < share)


def one_coin_a_row(L, share, rng):
    return torch.ones(L, L, dtype=torch.bool).tril() | (torch.rand(L, 1, generator=rng) < share)


def reach(network, ids, V):
    rows = ids.repeat(len(ids), 1)
    rows.fill_diagonal_(0)
    rows += torch.diag((ids + 1) % V)
    return ((network(rows) - network(ids[None])).abs() > 1e-6).any(-1).T


def reach_by_loops(network, ids, V):
    table, before = [], network(ids[None])[0]
    for j in range(len(ids)):
        other = ids.clone()
        other[j] = (ids[j] + 2) % V
        table.append((network(other[None])[0] - before).abs().sum(-1) > 1e-9)
    return [[bool(table[j][i]) for j in range(len(ids))] for i in range(len(ids))]


def without_itself(network, ids, V):
    return reach(network, ids, V) & ~torch.eye(len(ids), dtype=torch.bool)


def bound(texts, probs, sees):
    return ex.best_bound(texts, probs, sees)


def bound_by_dictionaries(texts, probs, sees):
    L, total = texts.shape[1], 0.0
    rows = [tuple(row) for row in texts.tolist()]
    for hidden in itertools.product([False, True], repeat=L):
        k = sum(hidden)
        for i in (i for i in range(L) if hidden[i]):
            known, both = {}, {}
            keys = [tuple(row[j] for j in range(L) if not hidden[j] and sees[i, j]) for row in rows]
            for key, row, p in zip(keys, rows, probs.tolist(), strict=True):
                known[key] = known.get(key, 0.0) + p
                both[key, row[i]] = both.get((key, row[i]), 0.0) + p
            nats = sum(-p * math.log(p / known[key]) for (key, _), p in both.items() if p)
            total += nats / (k * math.comb(L, k))
    return total


def blind_to_sees(texts, probs, sees):
    return ex.entropy_of(texts, probs)


SOLUTIONS = {
    ex.check_logit_shift: [shift, shift_by_padding],
    ex.check_annealed: [annealed, annealed_by_loops],
    ex.check_reach: [reach, reach_by_loops],
    ex.check_best_bound: [bound, bound_by_dictionaries],
}

WRONG = [
    (ex.check_logit_shift, "own row i", bare),
    (ex.check_logit_shift, "rows 0 and 1 are equal", published),
    (ex.check_logit_shift, "last token is not read", as_autoregressive),
    (ex.check_logit_shift, "drop the first row",
     lambda network, xt, start: network(torch.nn.functional.pad(xt, (1, 0), value=start))[:, 1:]),
    (ex.check_annealed, "turned round", lambda L, share, rng: annealed(L, share, rng).T),
    (ex.check_annealed, "1 - share", lambda L, share, rng: annealed(L, 1 - share, rng)),
    (ex.check_annealed, "no longer sees all of its past",
     lambda L, share, rng: torch.rand(L, L, generator=rng) < share),
    (ex.check_annealed, "in a column", one_coin_a_column),
    (ex.check_annealed, "in a row", one_coin_a_row),
    (ex.check_reach, "turned round", lambda network, ids, V: reach(network, ids, V).T),
    (ex.check_reach, "own token too", without_itself),
    (ex.check_reach, "true everywhere", lambda network, ids, V: torch.ones(len(ids), len(ids)).bool()),
    (ex.check_best_bound, "per token", lambda texts, probs, sees: bound(texts, probs, sees) / texts.shape[1]),
    (ex.check_best_bound, "in bits", lambda texts, probs, sees: bound(texts, probs, sees) / math.log(2)),
    (ex.check_best_bound, "sees everything", blind_to_sees),
    (ex.check_best_bound, "counts the same", lambda texts, probs, sees: ex._unweighted(texts, probs, sees)),
]  # fmt: skip
