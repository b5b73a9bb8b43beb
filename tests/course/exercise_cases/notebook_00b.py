"""Exercises of notebook 00b: worked solutions, and likely mistakes with what is said of them."""

import torch
from torch.nn import functional as F

from diffkit.course.exercises.foundations import one_page as ex


def by_loop(logits, x0, xt, mask_id):
    log_probs, rows = logits.log_softmax(-1), []
    for b in range(len(x0)):
        hidden = [i for i in range(x0.shape[1]) if xt[b, i] == mask_id]
        rows.append(-sum(log_probs[b, i, x0[b, i]] for i in hidden) / len(hidden))
    return sum(rows) / len(rows)


def nats(logits, x0):
    return F.cross_entropy(logits.transpose(1, 2), x0, reduction="none")


def step(reveal, draw=None):
    """An answer to check_step_back from who is revealed, reveal(x, t, s, mask_id, rng), and what is drawn."""

    def answer(x, probs, t, s, mask_id, rng):
        drawn = draw(probs) if draw else torch.multinomial(probs.flatten(0, 1), 1, generator=rng).view(x.shape)
        return torch.where(reveal(x, t, s, mask_id, rng), drawn, x)

    return answer


def rand(x, rng):
    return torch.rand(x.shape, generator=rng)


def first_what(x, probs, t, s, mask_id, rng):
    """Right, in another order of draws and by cumulative sums."""
    reveal = (x == mask_id) & (rand(x, rng) < 1 - s / t)
    drawn = (rand(x, rng)[..., None] > probs.cumsum(-1)).sum(-1)
    return torch.where(reveal, drawn, x).tolist()


SOLUTIONS = {
    ex.check_hidden_loss: [ex.hidden_loss, by_loop],
    ex.check_shift: [ex.shift, lambda x, start: [[start, *row[:-1]] for row in x.tolist()]],
    ex.check_step_back: [ex.step_back, first_what],
}
WRONG = [
    (ex.check_hidden_loss, "no bound", lambda z, x0, xt, m: nats(z, x0)[xt == m].mean()),
    (ex.check_hidden_loss, "visible tokens are counted", lambda z, x0, xt, m: nats(z, x0).mean()),
    (ex.check_hidden_loss, "divide by L", lambda z, x0, xt, m: (nats(z, x0) * (xt == m)).mean()),
    (ex.check_hidden_loss, "the sign", lambda *given: -ex.hidden_loss(*given)),
    (ex.check_hidden_loss, "at the visible", lambda z, x0, xt, m: ex.hidden_loss(z, x0, (xt != m).long(), 1)),
    (ex.check_hidden_loss, "no gradient", lambda *given: by_loop(*given).item()),
    (ex.check_shift, "must predict", lambda x, start: x),
    (ex.check_shift, "earlier", lambda x, start: torch.cat([x[:, 1:], torch.full_like(x[:, :1], start)], 1)),
    (ex.check_shift, "comes round", lambda x, start: x.roll(1, 1)),
    (ex.check_step_back, "visible tokens changed", step(lambda x, t, s, m, rng: rand(x, rng) >= s / t)),
    (ex.check_step_back, "reveals that share", step(lambda x, t, s, m, rng: (x == m) & (rand(x, rng) < s / t))),
    (ex.check_step_back, "still masked",
     step(lambda x, t, s, m, rng: (x == m) & (rand(x, rng) < 0.7 * (1 - s / t) + (0.3 if s else 0) * (1 - s / t)))),
    (ex.check_step_back, "of the masks stays", step(lambda x, t, s, m, rng: (x == m) & (rand(x, rng) < t - s))),
    (ex.check_step_back, "independently",
     step(lambda x, t, s, m, rng: (x == m) & (torch.rand(len(x), 1, generator=rng) >= s / t))),
    (ex.check_step_back, "likeliest",
     step(lambda x, t, s, m, rng: (x == m) & (rand(x, rng) >= s / t), lambda probs: probs.argmax(-1))),
    (ex.check_step_back, "generator=rng", step(lambda x, t, s, m, rng: (x == m) & (torch.rand(x.shape) >= s / t))),
]  # fmt: skip
