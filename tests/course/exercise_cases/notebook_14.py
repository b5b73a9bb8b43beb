"""Exercises of notebook 14: worked solutions, and likely mistakes with what is said of them."""

import torch

from diffkit.course.exercises.methods import diffusion_lm as ex


def strengths(tau):
    kept = (1 - (tau + 1e-4).sqrt()).clamp(min=1e-4)[:, None, None]
    return kept.sqrt(), (1 - kept).sqrt()


def diffuse(ids, tau, vectors, noise):
    alpha, sigma = strengths(tau)
    return alpha * vectors[ids] + sigma * noise


def diffuse_in_a_loop(ids, tau, vectors, noise):
    rows = []
    for row, each, eps in zip(ids.tolist(), tau.tolist(), noise, strict=True):
        kept = max(1 - (each + 1e-4) ** 0.5, 1e-4)
        rows.append(kept**0.5 * vectors[row] + (1 - kept) ** 0.5 * eps)
    return torch.stack(rows)


def step(x, zt, now, then, fresh, noise):
    old = (zt - now[0] * x) / now[1]
    return then[0] * x + then[1] * ((1 - fresh) ** 0.5 * old + fresh**0.5 * noise)


def step_by_mean(x, zt, now, then, fresh, noise):
    """The mean as a mixture of z_t and x."""
    keep = then[1] / now[1] * (1 - fresh) ** 0.5
    return keep * zt + (then[0] - keep * now[0]) * x + then[1] * fresh**0.5 * noise


def objective(guess, ids, z0, vectors, bias, alpha_T):
    clean = vectors[ids]
    nats = torch.nn.functional.cross_entropy((z0 @ vectors.T + bias).flatten(0, 1), ids.flatten())
    return (guess - clean).square().mean() + nats + (alpha_T * clean).square().mean()


def parts(weigh):
    def bent(guess, ids, z0, vectors, bias, alpha_T):
        clean = vectors[ids]
        nats = -(z0 @ vectors.T + bias).log_softmax(-1).gather(-1, ids[..., None])
        return weigh((guess - clean).square(), nats, (alpha_T * clean).square())

    return bent


def pushed(guess, log_p, zt, alpha, sigma):
    with torch.enable_grad():
        point = zt.detach().clone().requires_grad_()
        log_p(point).sum().backward()
    return guess(zt) + sigma**2 / alpha * point.grad


def pushed_by(bend):
    def bent(guess, log_p, zt, alpha, sigma):
        x = guess(zt)
        return bend(x, pushed(guess, log_p, zt, alpha, sigma) - x, alpha, sigma)

    return bent


def log_known(posterior, evidence, start, mask_id):
    right = torch.nn.functional.one_hot(start, evidence.shape[-1]) > 0
    told = torch.where(right | (start == mask_id)[..., None], evidence, -1e6)
    return posterior(told)[0] - posterior(evidence)[0]


def log_known_hard(posterior, evidence, start, mask_id):
    """With -inf, and position by position: the right number, and no slope."""
    told = evidence.clone()
    for b, row in enumerate(start.tolist()):
        for i, word in enumerate(row):
            if word != mask_id:
                told[b, i] = -torch.inf
                told[b, i, word] = evidence[b, i, word]
    return posterior(told)[0] - posterior(evidence)[0]


def log_known_in_loops(posterior, evidence, start, mask_id):
    far = torch.zeros_like(evidence)
    for b, row in enumerate(start.tolist()):
        for i, word in enumerate(row):
            if word != mask_id:
                far[b, i] = -1e9
                far[b, i, word] = 0.0
    return posterior(evidence + far)[0] - posterior(evidence)[0]


def one_by_one(posterior, evidence, start, mask_id):
    probs = posterior(evidence)[1].gather(-1, start[..., None])[..., 0]
    return torch.where(start == mask_id, 0.0, probs.clamp(min=1e-300).log()).sum(1)


SOLUTIONS = {
    ex.check_diffuse: [diffuse, diffuse_in_a_loop, ex.diffuse],
    ex.check_gaussian_step: [step, step_by_mean, ex.step],
    ex.check_objective: [objective, ex.objective],
    ex.check_push: [pushed, ex.pushed],
    ex.check_log_known: [log_known, log_known_in_loops, ex.log_known],
}


def noised(mix):
    return lambda ids, tau, e, noise: mix(*strengths(tau), e[ids], noise)


WRONG = [
    (ex.check_diffuse, "root once more", noised(lambda a, b, e, n: a**2 * e + b**2 * n)),
    (ex.check_diffuse, "are swapped", noised(lambda a, b, e, n: b * e + a * n)),
    (ex.check_diffuse, "not 1 - alpha", noised(lambda a, b, e, n: a * e + (1 - a) * n)),
    (ex.check_diffuse, "is missing", lambda i, tau, e, n: diffuse(i, (tau - 1e-4), e, n)),
    (ex.check_diffuse, "signal alone", noised(lambda a, b, e, n: a * e)),
    (ex.check_diffuse, "at least 0.0001", lambda i, tau, e, n: diffuse(i, tau.clamp(max=0.9), e, n)),
    (
        ex.check_gaussian_step,
        "under a root",
        lambda x, z, t, s, f, n: s[0] * x + s[1] * ((1 - f) * (z - t[0] * x) / t[1] + f * n),
    ),
    (ex.check_gaussian_step, "are swapped", lambda x, z, t, s, f, n: step(x, z, t, s, 1 - f, n)),
    (
        ex.check_gaussian_step,
        "not divided",
        lambda x, z, t, s, f, n: step(x, t[0] * x + t[1] * (z - t[0] * x), t, s, f, n),
    ),
    (ex.check_gaussian_step, "all of z_t", lambda x, z, t, s, f, n: step(x, t[0] * x + t[1] * z, t, s, f, n)),
    (ex.check_gaussian_step, "at t again", lambda x, z, t, s, f, n: step(x, z, t, t, f, n)),
    (ex.check_gaussian_step, "scaled by alpha_s", lambda x, z, t, s, f, n: step(x, z, t, s, f, n) + (1 - s[0]) * x),
    (ex.check_gaussian_step, "variance one", lambda x, z, t, s, f, n: step(x, z, t, s, f, 0 * n)),
    (ex.check_objective, "collapse", parts(lambda a, b, c: a.mean() + c.mean())),
    (ex.check_objective, "end of the noise is missing", parts(lambda a, b, c: a.mean() + b.mean())),
    (ex.check_objective, "not a sum", parts(lambda a, b, c: a.sum(-1).mean() + b.mean() + c.mean())),
    (ex.check_objective, "not the guess", lambda x, i, z, *rest: objective(x, i, x, *rest)),
    (ex.check_objective, "its sign", parts(lambda a, b, c: a.mean() - b.mean() + c.mean())),
    (
        ex.check_objective,
        "have a bias",
        lambda x, i, z, e, b, a: objective(x, i, z, e, b.clamp(-1e30, -0.0) * (b < -9), a),
    ),
    (ex.check_objective, "make", parts(lambda a, b, c: a.mean() + b.mean() / 2 + c.mean())),
    (ex.check_push, "without a push", lambda x, p, z, a, s: x(z)),
    (ex.check_push, "push alone", pushed_by(lambda x, push, a, s: push)),
    (ex.check_push, "uphill", pushed_by(lambda x, push, a, s: x - push)),
    (ex.check_push, "divide by alpha", pushed_by(lambda x, push, a, s: x + a * push)),
    (ex.check_push, "sigma squared", pushed_by(lambda x, push, a, s: x + push / s)),
    (ex.check_push, "depends on the noise", pushed_by(lambda x, push, a, s: x + push * a / s**2)),
    (ex.check_push, "of the mean", pushed_by(lambda x, push, a, s: x + push / len(x))),
    (ex.check_push, "no guess", lambda x, p, z, a, s: pushed(lambda z: z, p, z, a, s)),
    (ex.check_log_known, "divide by p(z_t)", lambda p, e, s, m: log_known(p, e, s, m) + p(e)[0]),
    (ex.check_log_known, "that is log p(z_t)", lambda p, e, s, m: p(e)[0]),
    (ex.check_log_known, "sign is wrong", lambda p, e, s, m: -log_known(p, e, s, m)),
    (ex.check_log_known, "one by one", one_by_one),
    (ex.check_log_known, "less", lambda p, e, s, m: log_known(p, e, s, m) / 2),
    (ex.check_log_known, "slope is NaN", log_known_hard),
    (ex.check_log_known, "cannot take their slope", lambda p, e, s, m: log_known(p, e, s, m).tolist()),
]
