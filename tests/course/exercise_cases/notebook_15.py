"""Exercises of notebook 15: worked solutions, and likely mistakes with what is said of them."""

import torch

from diffkit.course.exercises.methods import plaid as ex


def own(zt, vectors, alpha, sigma):
    return -(zt[..., None, :] - alpha * vectors).square().sum(-1) / (2 * sigma**2)


def word_probs(raw, zt, vectors, alpha, sigma):
    return (raw + own(zt, vectors, alpha, sigma)).softmax(-1)


def by_product(raw, zt, vectors, alpha, sigma):
    """For vectors of one length."""
    weights = (raw + alpha / sigma**2 * zt @ vectors.T).double()
    weights = (weights - weights.max(-1, keepdim=True).values).exp()
    return weights / weights.sum(-1, keepdim=True)


def bent(mix):
    return lambda raw, zt, e, a, b: mix(raw, zt @ e.T, a, b).softmax(-1)


def loss(probs, ids, vectors, g, slope):
    error = (vectors[ids] - probs @ vectors).square().sum(-1)
    return (slope / 2 * (-g).exp())[:, None] * error


def loss_by_einsum(probs, ids, vectors, g, slope):
    apart = torch.nn.functional.one_hot(ids, probs.shape[-1]) - probs
    return torch.einsum("b,blv,vw,blw->bl", slope * torch.exp(-g) / 2, apart, vectors @ vectors.T, apart)


def of_all(probs, ids, e, g, slope):
    return (slope / 2 * (-g).exp())[:, None] * (probs * (e[ids][..., None, :] - e).square().sum(-1)).sum(-1)


def conditioned(network, estimate, zt):
    with torch.no_grad():
        x = estimate(network(torch.cat([zt, 0 * zt], -1)))
    return network(torch.cat([zt, x], -1))


def conditioned_by_detach(network, estimate, zt):
    return network(torch.cat([zt, estimate(network(torch.cat([zt, zt.new_zeros(zt.shape)], -1))).detach()], -1))


def first(network, estimate, zt):
    return estimate(network(torch.cat([zt, 0 * zt], -1)))


def unsquared(probs, ids, e, g, slope):
    weight = (slope / 2 * (-g).exp())[:, None]
    return weight * (loss(probs, ids, e, g, slope) / weight).sqrt()


def z_twice(network, estimate, zt):
    return network(torch.cat([zt, estimate(network(torch.cat([zt, zt], -1))).detach()], -1))


def visits(nats, piece, p):
    height = torch.stack([p[k] * nats[piece == k].square().mean().sqrt() for k in range(len(p))])
    return height / height.sum()


def pieces(height):
    def bent(nats, piece, p):
        found = torch.stack([height(nats[piece == k], p[k]) for k in range(len(p))])
        return found / found.sum()

    return bent


SOLUTIONS = {
    ex.check_word_probs: [word_probs, by_product, ex.word_probs],
    ex.check_diffusion_loss: [loss, loss_by_einsum, ex.diffusion_loss],
    ex.check_self_conditioned: [conditioned, conditioned_by_detach, ex.self_conditioned],
    ex.check_visits: [visits, ex.best_visits],
}


WRONG = [
    (ex.check_word_probs, "network alone", bent(lambda r, p, a, b: r)),
    (ex.check_word_probs, "products alone", bent(lambda r, p, a, b: r + p)),
    (ex.check_word_probs, "sigma squared", bent(lambda r, p, a, b: r + a / b * p)),
    (ex.check_word_probs, "alpha is missing", bent(lambda r, p, a, b: r + p / b**2)),
    (ex.check_word_probs, "the sign", bent(lambda r, p, a, b: r - a / b**2 * p)),
    (ex.check_word_probs, "cancels", bent(lambda r, p, a, b: r + 2 * a / b**2 * p)),
    (ex.check_word_probs, "log-probabilities", lambda *given: word_probs(*given).log()),
    (ex.check_word_probs, "softmax of raw", lambda r, z, e, a, b: word_probs(r, z, e, a, b).square()),
    (ex.check_diffusion_loss, "half is missing", lambda *given: 2 * loss(*given)),
    (ex.check_diffusion_loss, "sign is wrong", lambda *given: -loss(*given)),
    (ex.check_diffusion_loss, "not exp(g)", lambda p, i, e, g, k: loss(p, i, e, -g, k)),
    (ex.check_diffusion_loss, "slope of g", lambda p, i, e, g, k: loss(p, i, e, g, 0 * k + 1)),
    (ex.check_diffusion_loss, "slope of log SNR", lambda p, i, e, g, k: loss(p, i, e, 0 * g, k)),
    (ex.check_diffusion_loss, "mean word", of_all),
    (ex.check_diffusion_loss, "yours is a mean", lambda *given: loss(*given) / given[2].shape[-1]),
    (ex.check_diffusion_loss, "has to be squared", unsquared),
    (ex.check_self_conditioned, "first call", lambda f, x, z: f(torch.cat([z, 0 * z], -1))),
    (ex.check_self_conditioned, "z_t comes first", lambda f, x, z: f(torch.cat([first(f, x, z).detach(), z], -1))),
    (ex.check_self_conditioned, "given twice", lambda f, x, z: f(torch.cat([first(f, x, z).detach()] * 2, -1))),
    (ex.check_self_conditioned, "reads zeros", z_twice),
    (ex.check_self_conditioned, "side by side", lambda f, x, z: f(z)),
    (ex.check_self_conditioned, "gradient flows", lambda f, x, z: f(torch.cat([z, first(f, x, z)], -1))),
    (ex.check_visits, "multiply by visits", pieces(lambda n, p: n.square().mean().sqrt())),
    (ex.check_visits, "to be rooted", pieces(lambda n, p: p**2 * n.square().mean())),
    (ex.check_visits, "took the mean", pieces(lambda n, p: p * n.mean())),
    (ex.check_visits, "once more", pieces(lambda n, p: p**2 * n.square().mean().sqrt())),
    (ex.check_visits, "fixed point", pieces(lambda n, p: p * n.square().mean())),
    (ex.check_visits, "add up to 1", lambda n, i, p: visits(n, i, p) * 2),
]  # fmt: skip
