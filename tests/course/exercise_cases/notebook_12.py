"""Exercises of notebook 12: worked solutions, and likely mistakes with what is said of them."""

import torch
from torch.nn import functional as F

from diffkit.course.exercises.methods import d3pm as ex


def corrupt_by_multinomial(x0, alpha, vocab_size, mask_id, rng):
    """Another draw of the same law: rows of the matrix."""
    limit = torch.ones(vocab_size).index_fill(0, torch.tensor(mask_id), 0.0) / (vocab_size - 1)
    rows = alpha * F.one_hot(x0.flatten(), vocab_size) + (1 - alpha) * limit
    return torch.multinomial(rows, 1, generator=rng).view(x0.shape)


def bent_corrupt(keep=lambda x0, rng: torch.rand(x0.shape, generator=rng), mask=False, always=False, swap=False):
    def bent(x0, alpha, vocab_size, mask_id, rng):
        word = torch.randint(0, vocab_size - (not mask), x0.shape, generator=rng)
        word = word if mask else word + (word >= mask_id)
        if always:
            word = torch.where(word == x0, (word + 1) % vocab_size, word)
            word = torch.where(word == mask_id, (mask_id + 1) % vocab_size, word)
        kept = keep(x0, rng) < (1 - alpha if swap else alpha)
        return torch.where(kept, x0, word)

    return bent


def another_word(x0, alpha, vocab_size, mask_id, rng):
    rank = x0 - (x0 > mask_id).long()
    word = (rank + torch.randint(1, vocab_size - 1, x0.shape, generator=rng)) % (vocab_size - 1)
    return torch.where(torch.rand(x0.shape, generator=rng) < alpha, x0, word + (word >= mask_id))


def one_new_word(x0, alpha, vocab_size, mask_id, rng):
    """Kept as often as it should be, but a token that changes is one of two words."""
    rank = x0 - (x0 > mask_id).long()
    word = torch.where(rank < 2, 3, 0)
    word = word + (word >= mask_id)
    kept = torch.rand(x0.shape, generator=rng) < alpha + (1 - alpha) / (vocab_size - 1)
    return torch.where(kept, x0, word)


def posterior(weights, zt, Q_0s, Q_st):
    joint = (weights @ Q_0s) * Q_st.T[zt]
    return joint / joint.sum(-1, keepdim=True)


def posterior_by_loops(weights, zt, Q_0s, Q_st):
    rows = []
    for w, z in zip(weights, zt, strict=True):
        joint = torch.stack([(w[i] @ Q_0s) * Q_st[:, z[i]] for i in range(len(z))])
        rows.append(joint / joint.sum(1, keepdim=True))
    return torch.stack(rows)


def posterior_of(joint):
    return lambda w, z, q, r: joint(w, z, q, r) / joint(w, z, q, r).sum(-1, keepdim=True)


def others_by_logs(probs, zt, Q_0t):
    return (probs.log() - Q_0t.T[zt].log()).softmax(-1)


def pair(f, x0, zt, Q_0s, Q_st):
    return posterior(F.one_hot(x0, f.shape[-1]).double(), zt, Q_0s, Q_st), posterior(f, zt, Q_0s, Q_st)


def step(f, x0, zt, Q_0s, Q_st):
    q, p = pair(f, x0, zt, Q_0s, Q_st)
    return (torch.special.xlogy(q, q) - q * p.clamp(min=1e-30).log()).sum(-1)


def step_without_slope(f, x0, zt, Q_0s, Q_st):
    """The right numbers, and 0 / 0 in the branch that is not taken."""
    q, p = pair(f, x0, zt, Q_0s, Q_st)
    return torch.where(q > 0, q * (q / p).log(), 0.0).sum(-1)


def step_by_distributions(*given):
    q, p = (torch.distributions.Categorical(probs) for probs in pair(*given))
    return torch.distributions.kl_divergence(q, p)


def step_by_library(f, x0, zt, Q_0s, Q_st):
    q, p = pair(f, x0, zt, Q_0s, Q_st)
    return F.kl_div(p.clamp(min=1e-300).log(), q, reduction="none").sum(-1)


def mixture(f, x0, zt, Q_0s, Q_st):
    q, _ = pair(f, x0, zt, Q_0s, Q_st)
    V = f.shape[-1]
    each = [posterior(F.one_hot(torch.full_like(x0, a), V).double(), zt, Q_0s, Q_st).nan_to_num(0) for a in range(V)]
    p = sum(f[..., a, None] * one for a, one in enumerate(each))
    return torch.where(q > 0, q * (q / p).log(), 0.0).sum(-1)


def no_entropy(*given):
    q, p = pair(*given)
    return -torch.special.xlogy(q, p).sum(-1)


def turned(*given):
    q, p = pair(*given)
    return torch.where(p > 0, p * (p / q).log(), 0.0).sum(-1)


def step_with_a_little_more(little):
    def bent(*given):
        q, p = pair(*given)
        return (q * ((q + little).log() - (p + little).log())).sum(-1)

    return bent


def log_of_zero(*given):
    q, p = pair(*given)
    return (q * (q / p).log()).sum(-1)


SOLUTIONS = {
    ex.check_uniform_noise: [corrupt_by_multinomial, ex.corrupt],
    ex.check_posterior: [posterior, posterior_by_loops],
    ex.check_others: [others_by_logs, ex.others],
    ex.check_step_nats: [step, step_by_library, step_by_distributions, step_with_a_little_more(1e-12), ex.step_nats],
}
WRONG = [
    (ex.check_uniform_noise, "draws MASK", bent_corrupt(mask=True)),
    (ex.check_uniform_noise, "always another one", another_word),
    (ex.check_uniform_noise, "not to be drawn anew", bent_corrupt(swap=True)),
    (ex.check_uniform_noise, "rows are kept", bent_corrupt(keep=lambda x0, rng: torch.rand(len(x0), 1, generator=rng))),
    (ex.check_uniform_noise, "are alike", one_new_word),
    (ex.check_posterior, "divide them", lambda w, z, q, r: (w @ q) * r.T[z]),
    (ex.check_posterior, "its column", posterior_of(lambda w, z, q, r: (w @ q) * r[z])),
    (ex.check_posterior, "not used z_t", lambda w, z, q, r: w @ q),
    (ex.check_posterior, "by itself", posterior_of(lambda w, z, q, r: r.T[z])),
    (ex.check_posterior, "is its row", posterior_of(lambda w, z, q, r: (w @ q.T) * r.T[z])),
    (ex.check_posterior, "of its own", lambda w, z, q, r: (w @ q) * r.T[z] / ((w @ q) * r.T[z]).sum()),
    (ex.check_posterior, "over its sum", lambda w, z, q, r: torch.ones_like(w) / w.shape[-1]),
    (ex.check_others, "come out", lambda p, z, q: p * q.T[z] / (p * q.T[z]).sum(-1, keepdim=True)),
    (ex.check_others, "sum to one", lambda p, z, q: p / q.T[z]),
    (ex.check_others, "take the column", lambda p, z, q: p / q[z] / (p / q[z]).sum(-1, keepdim=True)),
    (ex.check_others, "still the prediction", lambda p, z, q: p),
    (ex.check_others, "divide that out", lambda p, z, q: torch.ones_like(p) / p.shape[-1]),
    (ex.check_step_nats, "minus the KL", lambda *given: -step(*given)),
    (ex.check_step_nats, "T times", lambda *given: 10 * step(*given)),
    (ex.check_step_nats, "swap the two", turned),
    (ex.check_step_nats, "take off the entropy", no_entropy),
    (ex.check_step_nats, "mixture form", mixture),
    (ex.check_step_nats, "auxiliary loss", lambda f, x0, z, q, r: -f.gather(-1, x0[..., None])[..., 0].log()),
    (ex.check_step_nats, "NaN", log_of_zero),
    (ex.check_step_nats, "slope is NaN", step_without_slope),
    (ex.check_step_nats, "cannot take their slope", lambda *given: step(*given).tolist()),
    (ex.check_step_nats, "1e-12 will do", step_with_a_little_more(1e-8)),
    (ex.check_step_nats, "q log(q / p)", lambda *given: step(*given) + 0.1),
]
