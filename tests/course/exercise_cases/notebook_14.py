"""Exercises of notebook 14: worked solutions, and likely mistakes with what is said of them."""

from diffkit.course.exercises.methods import diffusion_lm as exercises


def signal(tau):
    return 1 - (tau + 1e-4).sqrt()


def nearest(x, vectors):
    return (vectors - x).square().sum(1).argmin()


def push(x, slope, alpha, sigma, strength):
    return x + strength * sigma**2 / alpha * slope


SOLUTIONS = {
    exercises.check_signal: [signal],
    exercises.check_nearest: [nearest, lambda x, e: (e @ x - e.square().sum(1) / 2).argmax()],
    exercises.check_gradient_step: [push],
}


WRONG = [
    (exercises.check_signal, lambda tau: 1 - signal(tau), "share of the noise"),
    (exercises.check_signal, lambda tau: signal(tau).sqrt(), "asked is alpha^2"),
    (exercises.check_signal, lambda tau: 1 - tau.sqrt(), "is missing"),
    (exercises.check_signal, lambda tau: 1 - tau.sqrt() - 1e-4, "under the root"),
    (exercises.check_signal, lambda tau: 1 - tau, "should be"),
    (exercises.check_nearest, lambda x, e: (e @ x).argmax(), "half its square"),
    (exercises.check_nearest, lambda x, e: (e - x).square().sum(1).argmax(), "farthest"),
    (exercises.check_nearest, lambda x, e: (e @ x / e.norm(dim=1)).argmax(), "smallest angle"),
    (exercises.check_nearest, lambda x, e: (e - x).abs().sum(1).argmin(), "is nearest"),
    (exercises.check_nearest, lambda x, e: nearest(x, e) + 1, "there are words 0 to 6"),
    (exercises.check_nearest, lambda x, e: 0 * x[0], "is nearest"),
    (exercises.check_nearest, lambda x, e: (e - x).square().sum(1), "shape"),
    (exercises.check_gradient_step, lambda x, g, a, b, w: x - w * b * b / a * g, "uphill"),
    (exercises.check_gradient_step, lambda x, g, a, b, w: w * b * b / a * g, "add it to x"),
    (exercises.check_gradient_step, lambda x, g, a, b, w: x + w * b * b * g, "divide by alpha"),
    (exercises.check_gradient_step, lambda x, g, a, b, w: x + w * b / a * g, "sigma squared"),
    (exercises.check_gradient_step, lambda x, g, a, b, w: x + w * g, "depends on the noise"),
    (exercises.check_gradient_step, lambda x, g, a, b, w: x, "should be"),
]
