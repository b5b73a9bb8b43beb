"""Exercises of notebook 18: worked solutions, right answers written otherwise, and likely mistakes."""

import torch

from diffkit.course.exercises.recent import uniform_blocks as ex


def corrupt(x0, alpha, share, vocab_size, mask_id, rng):
    words = torch.tensor([v for v in range(vocab_size) if v != mask_id])
    word = words[torch.randint(len(words), x0.shape, generator=rng)]
    hit = torch.where(torch.rand(x0.shape, generator=rng) < share, word, mask_id)
    return torch.where(torch.rand(x0.shape, generator=rng) < alpha, x0, hit)


def corrupt_in_loops(x0, alpha, share, vocab_size, mask_id, rng):
    u = torch.rand(x0.shape, generator=rng, dtype=torch.float64)
    words = [v for v in range(vocab_size) if v != mask_id]

    def fate(token, u):
        if u < alpha:
            return token
        u = (u - alpha) / (1 - alpha)
        return words[int(u / share * len(words))] if u < share else mask_id

    return [[fate(token, x) for token, x in zip(*rows, strict=True)]
            for rows in zip(x0.tolist(), u.tolist(), strict=True)]  # fmt: skip


def with_mask_among_words(x0, alpha, share, vocab_size, mask_id, rng):
    word = torch.randint(vocab_size, x0.shape, generator=rng)
    hit = torch.where(torch.rand(x0.shape, generator=rng) < share, word, mask_id)
    return torch.where(torch.rand(x0.shape, generator=rng) < alpha, x0, hit)


def one_fate_a_row(x0, alpha, share, vocab_size, mask_id, rng):
    kept = torch.rand(len(x0), 1, generator=rng) < alpha
    return torch.where(kept, x0, corrupt(x0, 0.0, share, vocab_size, mask_id, rng))


def one_coin_a_row(x0, alpha, share, vocab_size, mask_id, rng):
    kept = torch.rand(x0.shape, generator=rng) < alpha
    word = corrupt(x0, 0.0, 1.0, vocab_size, mask_id, rng)
    return torch.where(kept, x0, torch.where(torch.rand(len(x0), 1, generator=rng) < share, word, mask_id))


def one_word_a_row(x0, alpha, share, vocab_size, mask_id, rng):
    kept, is_word = torch.rand(2, *x0.shape, generator=rng) < torch.tensor([alpha, share])[:, None, None]
    return torch.where(kept, x0, torch.where(is_word, corrupt(x0, 0.0, 1.0, vocab_size, mask_id, rng)[:, :1], mask_id))


def leave_one_out(log_f, zt, alpha, noise):
    d = torch.log1p(alpha / noise[zt])
    own = torch.nn.functional.one_hot(zt, log_f.shape[-1])
    return (log_f - d[..., None] * own).log_softmax(-1)


def divided_by_bayes(log_f, zt, alpha, noise):
    likelihood = noise[zt][..., None].expand_as(log_f).clone()
    likelihood.scatter_add_(-1, zt[..., None], torch.full_like(likelihood[..., :1], alpha))
    r = log_f.exp() / likelihood
    return (r / r.sum(-1, keepdim=True)).log()


def shifted(by, normalise=True):
    def answer(log_f, zt, alpha, noise):
        own = torch.nn.functional.one_hot(zt, log_f.shape[-1]).double()
        log_r = log_f + by(alpha, noise[zt])[..., None] * own
        return log_r.log_softmax(-1) if normalise else log_r

    return answer


def accept(entropies, bound):
    ranked, order = entropies.sort(1)
    fits = ranked.cumsum(1) - ranked <= bound
    return torch.zeros_like(fits).scatter(1, order, fits)


def accept_in_loops(entropies, bound):
    rows = []
    for row in entropies.tolist():
        kept, total = [False] * len(row), 0.0
        for i in sorted(range(len(row)), key=row.__getitem__):
            if total > bound:
                break
            kept[i], total = True, total + row[i]
        rows.append(kept)
    return rows


def rates(alpha, noise, t):
    t = torch.tensor(t, dtype=torch.float64)
    da, db = (torch.autograd.functional.jacobian(curve, t) for curve in (alpha, noise))
    return db - da / alpha(t) * noise(t)


def by_differences(alpha, noise, t, h=1e-5):
    now, before, after = (torch.tensor(x, dtype=torch.float64) for x in (t, t - h, t + h))
    return (noise(after) - noise(before) - (alpha(after) - alpha(before)) / alpha(now) * noise(now)) / (2 * h)


def by_forward_differences(alpha, noise, t, h=1e-5):
    now, after = (torch.tensor(x, dtype=torch.float64) for x in (t, t + h))
    return (noise(after) - noise(now) - (alpha(after) - alpha(now)) / alpha(now) * noise(now)) / h


def wrong_rates(mix):
    def answer(alpha, noise, t):
        t = torch.tensor(t, dtype=torch.float64)
        da, db = (torch.autograd.functional.jacobian(curve, t) for curve in (alpha, noise))
        return mix(alpha(t), da, noise(t), db)

    return answer


SOLUTIONS = {
    ex.check_hybrid_corrupt: [corrupt, corrupt_in_loops, ex.hybrid_corrupt],
    ex.check_leave_one_out: [leave_one_out, divided_by_bayes],
    ex.check_accept: [accept, accept_in_loops],
    ex.check_jump_rates: [rates, by_differences, by_forward_differences],
}
WRONG = [
    (ex.check_hybrid_corrupt, "never MASK", with_mask_among_words),
    (ex.check_hybrid_corrupt, "kept or hit together", one_fate_a_row),
    (ex.check_hybrid_corrupt, "MASK or a word together", one_coin_a_row),
    (ex.check_hybrid_corrupt, "the same word together", one_word_a_row),
    (ex.check_hybrid_corrupt, "is MASK", lambda x0, alpha, share, *rest: corrupt(x0, alpha, 1 - share, *rest)),
    (ex.check_hybrid_corrupt, "still the clean token", lambda x0, *rest: corrupt(x0, *rest) + 1),
    (ex.check_leave_one_out, "not normalised", shifted(lambda a, b: -torch.log1p(a / b), normalise=False)),
    (ex.check_leave_one_out, "wrong way", shifted(lambda a, b: torch.log1p(a / b))),
    (ex.check_leave_one_out, "changes nothing", lambda log_f, zt, a, b: log_f.log_softmax(-1)),
    (ex.check_leave_one_out, "not alpha over noise", shifted(lambda a, b: -torch.log(a / b))),
    (ex.check_accept, "does not count", lambda h, bound: torch.zeros(h.shape, dtype=torch.bool).scatter(
        1, h.argsort(1), h.sort(1).values.cumsum(1) <= bound)),
    (ex.check_accept, "to refill", lambda h, bound: ~accept(h, bound)),
    (ex.check_accept, "their sum", lambda h, bound: h <= bound),
    (ex.check_accept, "sort by entropy", lambda h, bound: h.cumsum(1) - h <= bound),
    (ex.check_jump_rates, "hit again", wrong_rates(lambda a, da, b, db: db)),
    (ex.check_jump_rates, "the sign", wrong_rates(lambda a, da, b, db: db + da / a * b)),
    (ex.check_jump_rates, "divide by alpha", wrong_rates(lambda a, da, b, db: db - da * b)),
    (ex.check_jump_rates, "the rate should be", wrong_rates(lambda a, da, b, db: 1.01 * (db - da / a * b))),
]  # fmt: skip
