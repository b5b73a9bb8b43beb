"""Exercises of notebook 09: worked solutions, and likely mistakes with what is said of them."""

import torch

from diffkit.course.exercises.methods import variable_length as ex


def length(ids, eos):
    is_end = ids == eos
    return torch.where(is_end.any(1), is_end.int().argmax(1), ids.shape[1])


def parts(L, block):
    number = torch.arange(L) // block
    return number[:, None] == number, number[:, None] > number


def square(noisy, clean, below, clean_clean):
    return torch.cat([torch.cat([noisy, clean], 1), torch.cat([below, clean_clean], 1)])


def sees(L, block):
    same, later = parts(L, block)
    return square(same, later, torch.zeros_like(same), same | later)


def sees_by_loops(L, block):
    """Lists, one pair at a time."""

    def one(i, j):
        a, b = i % L // block, j % L // block
        return (a == b and j < L or a > b and j >= L) if i < L else (j >= L and a >= b)

    return [[one(i, j) for j in range(2 * L)] for i in range(2 * L)]


def bent_sees(how):
    def bent(L, block):
        same, later = parts(L, block)
        return square(*how(same, later, torch.zeros_like(same)))

    return bent


def nats_of(denoise, x0, xt, mask_id):
    log_p = denoise(torch.cat([xt, x0], 1), torch.zeros(len(x0))).log_softmax(-1)
    return -log_p.gather(-1, x0[..., None])[..., 0], xt == mask_id


def block_bound(denoise, x0, xt, block, mask_id):
    nats, is_masked = nats_of(denoise, x0, xt, mask_id)
    number = torch.arange(x0.shape[1]) // block
    same = (number[:, None] == number).double()
    share = is_masked.double() @ same / same.sum(1)
    return torch.where(is_masked, nats / share, 0.0).sum(1)


def block_bound_by_rows(denoise, x0, xt, block, mask_id):
    nats, is_masked = nats_of(denoise, x0, xt, mask_id)
    rows = []
    for row, hidden in zip(nats, is_masked, strict=True):
        rows.append(sum(len(h) * n[h].mean() for n, h in zip(row.split(block), hidden.split(block), strict=True)))
    return torch.stack(rows)


def bent_bound(how):
    def bent(denoise, x0, xt, block, mask_id):
        nats, is_masked = nats_of(denoise, x0, xt, mask_id)
        return how(block_bound(denoise, x0, xt, block, mask_id), nats, is_masked, x0.shape[1])

    return bent


def long_last_block(denoise, x0, xt, block, mask_id):
    nats, is_masked = nats_of(denoise, x0, xt, mask_id)
    return sum(block * (n * h).sum(1) / h.sum(1) for n, h in zip(nats.split(block, 1), is_masked.split(block, 1),
                                                                 strict=True))  # fmt: skip


SOLUTIONS = {
    ex.check_length: [length, lambda ids, eos: ((ids == eos).cumsum(1) == 0).sum(1)],
    ex.check_two_streams: [sees, sees_by_loops],
    ex.check_block_bound: [
        block_bound,
        block_bound_by_rows,
        ex.block_bound,
        lambda *given: block_bound(*given).float(),
    ],
}


def last_end(ids, eos):
    is_end = ids == eos
    return torch.where(is_end.any(1), ids.shape[1] - 1 - is_end.flip(1).int().argmax(1), ids.shape[1])


WRONG = [
    (ex.check_length, "does not belong", lambda ids, eos: length(ids, eos) + 1),
    (ex.check_length, "argmax", lambda ids, eos: (ids == eos).int().argmax(1)),
    (ex.check_length, "no EOS", lambda ids, eos: (ids != eos).sum(1)),
    (ex.check_length, "last EOS", last_end),
    (ex.check_two_streams, "transposed", lambda L, b: sees(L, b).T),
    (ex.check_two_streams, "the answer", bent_sees(lambda same, later, none: (same, same | later, none, same | later))),
    (ex.check_two_streams, "earlier noisy",
     bent_sees(lambda same, later, none: (same | later, later, none, same | later))),
    (ex.check_two_streams, "own clean block", bent_sees(lambda same, later, none: (same, later, none, later))),
    (ex.check_two_streams, "on the noise", bent_sees(lambda same, later, none: (same, later, same, same | later))),
    (ex.check_two_streams, "later blocks", bent_sees(lambda same, later, none: (same, ~same, none, ~none))),
    (ex.check_two_streams, "does noisy position", lambda L, b: torch.ones(2 * L, 2 * L)),
    (ex.check_block_bound, "plain sum", bent_bound(lambda total, nats, hidden, L: (nats * hidden).sum(1))),
    (ex.check_block_bound, "k of its own",
     bent_bound(lambda total, n, hidden, L: L / hidden.sum(1) * (n * hidden).sum(1))),
    (ex.check_block_bound, "last block is shorter", long_last_block),
    (ex.check_block_bound, "per token", bent_bound(lambda total, nats, hidden, L: total / L)),
    (ex.check_block_bound, "noisy text first",
     lambda d, x0, xt, b, m: block_bound(lambda z, t: d(z.roll(5, 1), t), x0, xt, b, m)),
    (ex.check_block_bound, "reads noisy and clean",
     lambda d, x0, xt, b, m: block_bound(lambda z, t: d(xt, t), x0, xt, b, m)),
    (ex.check_block_bound, "no gradient", lambda *given: block_bound(*given).tolist()),
    (ex.check_block_bound, "times the masks'", bent_bound(lambda total, nats, hidden, L: total + 0.1)),
]  # fmt: skip
