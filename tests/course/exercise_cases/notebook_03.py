"""Exercises of notebook 03: worked solutions, and likely mistakes with what is said of them."""

import math

import torch
from torch.nn import functional as F

from diffkit.course.exercises.foundations import objective as ex


def kl(probs, word, gamma_t, gamma_s):
    stay = gamma_s / gamma_t
    q = [stay] + [(1 - stay) * (v == word) for v in range(len(probs))]
    p = [stay] + [(1 - stay) * float(probs[v]) for v in range(len(probs))]
    return sum(a * math.log(a / b) for a, b in zip(q, p, strict=True) if a > 0)


def kl_in_closed_form(probs, word, gamma_t, gamma_s):
    return (gamma_s - gamma_t) / gamma_t * probs[word].log()


def kl_with_nan(probs, word, gamma_t, gamma_s):
    stay = torch.tensor([gamma_s / gamma_t])
    q = torch.cat([stay, (1 - stay) * F.one_hot(torch.tensor(word), len(probs))])
    return (q * (q / torch.cat([stay, (1 - stay) * probs])).log()).sum()


def hidden_nats(denoise, x0, is_masked, mask_id):
    xt = torch.where(is_masked, mask_id, x0)
    nats = -denoise(xt, 0.0).log_softmax(-1).gather(-1, x0[..., None])[..., 0]
    return torch.where(is_masked, nats, 0.0)


def chosen(x0, count, rng):
    return torch.rand(x0.shape, generator=rng).argsort(1).argsort(1) < count[:, None]


def loss_by_bernoulli(denoise, x0, t, schedule, mask_id, rng):
    """Another draw of the same law, and the head where it is asked."""
    gamma = schedule.gamma(t)
    is_masked = torch.bernoulli(gamma[:, None].expand(x0.shape), generator=rng).bool()
    logits = denoise(x0.masked_fill(is_masked, mask_id), t, is_masked)
    nats = torch.zeros(x0.shape, dtype=torch.float64)
    nats[is_masked] = F.cross_entropy(logits, x0[is_masked], reduction="none")
    return [schedule.T * float(1 - schedule.gamma(t[i] - 1) / gamma[i]) * float(nats[i].sum()) for i in range(len(x0))]


def loss_in_float32(denoise, x0, t, schedule, mask_id, rng):
    """One row after the other, into a tensor of torch's own kind of number."""
    is_masked = torch.rand(x0.shape, generator=rng) < schedule.gamma(t)[:, None]
    nats, loss = hidden_nats(denoise, x0, is_masked, mask_id).sum(1), torch.zeros(len(x0))
    for i in range(len(x0)):
        loss[i] = weight(schedule, t[i]) * nats[i]
    return loss


def bent(factor):
    """The loss with another weight, a function of (schedule, t, is_masked)."""

    def bent_loss(denoise, x0, t, schedule, mask_id, rng):
        is_masked = torch.rand(x0.shape, generator=rng) < schedule.gamma(t)[:, None]
        return factor(schedule, t, is_masked) * hidden_nats(denoise, x0, is_masked, mask_id).sum(1)

    return bent_loss


def weight(schedule, t):
    return schedule.T * (schedule.gamma(t) - schedule.gamma(t - 1)) / schedule.gamma(t)


def charged_everywhere(denoise, x0, t, schedule, mask_id, rng):
    is_masked = torch.rand(x0.shape, generator=rng) < schedule.gamma(t)[:, None]
    xt = torch.where(is_masked, mask_id, x0)
    return weight(schedule, t) * -denoise(xt, t).log_softmax(-1).gather(-1, x0[..., None])[..., 0].sum(1)


def masked_elsewhere(rate):
    """The loss at other masking rates."""

    def other(denoise, x0, t, schedule, mask_id, rng):
        is_masked = torch.rand(x0.shape, generator=rng) < rate(schedule, t)
        return weight(schedule, t) * hidden_nats(denoise, x0, is_masked, mask_id).sum(1)

    return other


def one_row_for_all(denoise, x0, t, schedule, mask_id, rng):
    is_masked = torch.rand(x0.shape[1], generator=rng) < schedule.gamma(t)[:, None]
    return weight(schedule, t) * hidden_nats(denoise, x0, is_masked, mask_id).sum(1)


def count_loss_by_loop(denoise, x0, count, mask_id, rng):
    is_masked = torch.zeros(x0.shape, dtype=torch.bool)
    for i in range(len(x0)):
        is_masked[i, torch.randperm(x0.shape[1], generator=rng)[: count[i]]] = True
    return (hidden_nats(denoise, x0, is_masked, mask_id).sum(1) * x0.shape[1] / count).tolist()


def count_bent(factor):
    def bent_loss(denoise, x0, count, mask_id, rng):
        nats = hidden_nats(denoise, x0, chosen(x0, count, rng), mask_id)
        return factor(nats.sum(1), count, x0.shape[1])

    return bent_loss


def L(x0):
    return x0.shape[1]


def counted_elsewhere(choose):
    def other(denoise, x0, count, mask_id, rng):
        is_masked = choose(x0, count, rng)
        return x0.shape[1] / count * hidden_nats(denoise, x0, is_masked, mask_id).sum(1)

    return other


def report(nats, tokens):
    rate = nats.sum() / tokens.sum()
    return rate.exp().item(), rate.item() / math.log(2)


def bits_of(nats, tokens):
    return report(nats, tokens)[1]


SOLUTIONS = {
    ex.check_step_kl: [kl, kl_in_closed_form, ex.step_kl],
    ex.check_masked_loss: [ex.masked_loss, loss_by_bernoulli, loss_in_float32],
    ex.check_count_loss: [count_loss_by_loop, ex.count_loss, lambda *given: ex.count_loss(*given).float()],
    ex.check_report: [report, lambda nats, tokens: torch.tensor(report(nats, tokens))],
}
WRONG = [
    (ex.check_step_kl, "cross-entropy alone", lambda p, w, t, s: -p[w].log()),
    (ex.check_step_kl, "stays masked costs nothing", lambda p, w, t, s: -s / t * p[w].log()),
    (ex.check_step_kl, "minus the KL", lambda p, w, t, s: (t - s) / t * p[w].log()),
    (ex.check_step_kl, "divide by gamma_t", lambda p, w, t, s: -(t - s) * p[w].log()),
    (ex.check_step_kl, "0 log 0", kl_with_nan),
    (ex.check_step_kl, "the KL should be", lambda p, w, t, s: -(t - s) / t * p[w].log2()),
    (ex.check_masked_loss, "without its weight", bent(lambda schedule, t, m: 1.0)),
    (ex.check_masked_loss, "multiply by T", bent(lambda schedule, t, m: weight(schedule, t) / schedule.T)),
    (ex.check_masked_loss, "as well as weighing", bent(lambda s, t, m: weight(s, t) / m.sum(1).clamp(min=1))),
    (ex.check_masked_loss, "sum over the tokens", bent(lambda schedule, t, m: weight(schedule, t) / m.shape[1])),
    (ex.check_masked_loss, "linear schedule only", bent(lambda schedule, t, m: 1 / schedule.gamma(t))),
    (ex.check_masked_loss, "visible tokens", charged_everywhere),
    (ex.check_masked_loss, "should be hidden", masked_elsewhere(lambda schedule, t: 0.5)),
    (ex.check_masked_loss, "should be hidden", masked_elsewhere(lambda schedule, t: 1 - schedule.gamma(t)[:, None])),
    (ex.check_masked_loss, "hide the same positions", one_row_for_all),
    (ex.check_masked_loss, "answers included", lambda f, x0, t, s, m, rng: hidden_nats(f, x0, x0 < 0, m).sum(1)),
    (ex.check_masked_loss, "never calls", lambda f, x0, t, s, m, rng: torch.ones(len(x0))),
    (ex.check_count_loss, "plain sum", count_bent(lambda nats, k, L: nats)),
    (ex.check_count_loss, "per hidden token", count_bent(lambda nats, k, L: nats / k)),
    (ex.check_count_loss, "you divide by L", count_bent(lambda nats, k, L: nats / L)),
    (ex.check_count_loss, "upside down", count_bent(lambda nats, k, L: nats * k / L)),
    (ex.check_count_loss, "own k", count_bent(lambda nats, k, L: L * nats / k.double().mean())),
    (ex.check_count_loss, "L / k times", count_bent(lambda nats, k, L: 2 * L * nats / k)),
    (ex.check_count_loss, "exactly", counted_elsewhere(
        lambda x0, k, rng: torch.rand(x0.shape, generator=rng) < k[:, None] / x0.shape[1])),
    (ex.check_count_loss, "equally often", counted_elsewhere(lambda x0, k, rng: torch.arange(L(x0)) < k[:, None])),
    (ex.check_count_loss, "share their hidden", counted_elsewhere(
        lambda x0, k, rng: (torch.arange(L(x0)) + torch.arange(len(x0))[:, None] // L(x0)) % L(x0) < k[:, None])),
]  # fmt: skip
WRONG += [
    (ex.check_report, "average perplex", lambda nats, tokens: ((nats / tokens).exp().mean(), bits_of(nats, tokens))),
    (ex.check_report, "short text", lambda nats, tokens: ((nats / tokens).mean().exp(), bits_of(nats, tokens))),
    (ex.check_report, "whole text", lambda nats, tokens: (nats.mean().exp(), bits_of(nats, tokens))),
    (ex.check_report, "still in nats", lambda nats, tokens: (report(nats, tokens)[0], nats.sum() / tokens.sum())),
    (ex.check_report, "bits per token", lambda nats, tokens: (report(nats, tokens)[0], bits_of(nats, tokens) / 3)),
    (ex.check_report, "return two numbers", lambda nats, tokens: report(nats, tokens)[0]),
]
