"""Exercises of notebook 14: worked solutions, and likely mistakes with what is said of them."""

from diffkit.course.exercises.methods import diffusion_lm as ex


def signal(tau):
    return 1 - (tau + 1e-4).sqrt()


def nearest(x, vectors):
    return (vectors - x).square().sum(1).argmin()


def push(x, slope, alpha, sigma, strength):
    return x + strength * sigma**2 / alpha * slope


SOLUTIONS = {
    ex.check_signal: [signal],
    ex.check_nearest: [nearest, lambda x, e: (e @ x - e.square().sum(1) / 2).argmax()],
    ex.check_gradient_step: [push],
}


WRONG = [
    (ex.check_signal, "share of the noise", lambda tau: 1 - signal(tau)),
    (ex.check_signal, "asked is alpha^2", lambda tau: signal(tau).sqrt()),
    (ex.check_signal, "is missing", lambda tau: 1 - tau.sqrt()),
    (ex.check_signal, "under the root", lambda tau: 1 - tau.sqrt() - 1e-4),
    (ex.check_nearest, "half its square", lambda x, e: (e @ x).argmax()),
    (ex.check_nearest, "farthest", lambda x, e: (e - x).square().sum(1).argmax()),
    (ex.check_nearest, "smallest angle", lambda x, e: (e @ x / e.norm(dim=1)).argmax()),
    (ex.check_nearest, "there are words 0 to 6", lambda x, e: nearest(x, e) + 1),
    (ex.check_gradient_step, "uphill", lambda x, g, a, b, w: x - w * b * b / a * g),
    (ex.check_gradient_step, "add it to x", lambda x, g, a, b, w: w * b * b / a * g),
    (ex.check_gradient_step, "divide by alpha", lambda x, g, a, b, w: x + w * b * b * g),
    (ex.check_gradient_step, "sigma squared", lambda x, g, a, b, w: x + w * b / a * g),
    (ex.check_gradient_step, "depends on the noise", lambda x, g, a, b, w: x + w * g),
]
