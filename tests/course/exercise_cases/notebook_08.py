"""Exercises of notebook 08: worked solutions, and likely mistakes with what is said of them."""

from diffkit.course.exercises.foundations import infilling_guidance as exercises
from diffkit.languages.story_language import load_language

TALES = load_language("tales")


def log_p_filling(canvas, filled):
    return TALES.log_prob(filled) - TALES.log_prob(canvas)


def guided(told, untold, w):
    return ((1 + w) * told - w * untold).softmax(0)


def posterior(belief, opinion):
    return belief * opinion / (belief * opinion).sum()


SOLUTIONS = {
    exercises.check_filling: [log_p_filling],
    exercises.check_guided: [guided, lambda told, untold, w: (told + w * (told - untold)).softmax(-1)],
    exercises.check_bayes: [posterior],
}


WRONG = [
    (exercises.check_filling, lambda c, f: TALES.log_prob(f), "whole text"),
    (exercises.check_filling, lambda c, f: TALES.log_prob(c), "what was given"),
    (exercises.check_filling, lambda c, f: TALES.log_prob(c) - TALES.log_prob(f), "sign"),
    (exercises.check_filling, lambda c, f: TALES.log_prob(f) / TALES.log_prob(c), "difference of logarithms"),
    (exercises.check_filling, lambda c, f: log_p_filling(c, f).exp(), "return their logarithm"),
    (exercises.check_filling, lambda c, f: log_p_filling(c, f) / 48, "should be"),
    (exercises.check_filling, lambda c, f: log_p_filling(c, f).sum(), "shape"),
    (exercises.check_guided, lambda a, b, w: guided(b, a, w), "wrong prediction"),
    (exercises.check_guided, lambda a, b, w: (w * a + (1 - w) * b).softmax(0), "counts from one"),
    (exercises.check_guided, lambda a, b, w: (a + w * b).softmax(0), "mixes"),
    (exercises.check_guided, lambda a, b, w: ((1 + w) * a - w * b).exp(), "normalise again"),
    (exercises.check_guided, lambda a, b, w: (1 + w) * a - w * b, "return probabilities"),
    (exercises.check_guided, lambda a, b, w: (a + 2 * w * (a - b)).softmax(0), "should have probability"),
    (exercises.check_bayes, lambda p, q: p * q, "divide by its sum"),
    (exercises.check_bayes, lambda p, q: (p + q) / (p + q).sum(), "multiplied"),
    (exercises.check_bayes, lambda p, q: q / q.sum(), "likelihood alone"),
    (exercises.check_bayes, lambda p, q: (p * q).softmax(0), "softmax of probabilities"),
    (exercises.check_bayes, lambda p, q: posterior(p, q**2), "should get"),
    (exercises.check_bayes, lambda p, q: posterior(p, q)[None], "shape"),
]
