"""Exercises of notebook 08: worked solutions, and likely mistakes with what is said of them."""

from diffkit.course.exercises.foundations import infilling_guidance as ex
from diffkit.languages.story_language import load_language

TALES = load_language("tales")


def log_p_filling(canvas, filled):
    return TALES.log_prob(filled) - TALES.log_prob(canvas)


def guided(told, untold, w):
    return ((1 + w) * told - w * untold).softmax(0)


def posterior(belief, opinion):
    return belief * opinion / (belief * opinion).sum()


SOLUTIONS = {
    ex.check_filling: [log_p_filling],
    ex.check_guided: [guided, lambda told, untold, w: (told + w * (told - untold)).softmax(-1)],
    ex.check_bayes: [posterior],
}


WRONG = [
    (ex.check_filling, "whole text", lambda c, f: TALES.log_prob(f)),
    (ex.check_filling, "what was given", lambda c, f: TALES.log_prob(c)),
    (ex.check_filling, "sign", lambda c, f: TALES.log_prob(c) - TALES.log_prob(f)),
    (ex.check_filling, "difference of logarithms", lambda c, f: TALES.log_prob(f) / TALES.log_prob(c)),
    (ex.check_filling, "return their logarithm", lambda c, f: log_p_filling(c, f).exp()),
    (ex.check_guided, "wrong prediction", lambda a, b, w: guided(b, a, w)),
    (ex.check_guided, "counts from one", lambda a, b, w: (w * a + (1 - w) * b).softmax(0)),
    (ex.check_guided, "mixes", lambda a, b, w: (a + w * b).softmax(0)),
    (ex.check_guided, "normalise again", lambda a, b, w: ((1 + w) * a - w * b).exp()),
    (ex.check_guided, "return probabilities", lambda a, b, w: (1 + w) * a - w * b),
    (ex.check_bayes, "divide by its sum", lambda p, q: p * q),
    (ex.check_bayes, "multiplied", lambda p, q: (p + q) / (p + q).sum()),
    (ex.check_bayes, "likelihood alone", lambda p, q: q / q.sum()),
    (ex.check_bayes, "softmax of probabilities", lambda p, q: (p * q).softmax(0)),
    (ex.check_bayes, "should get", lambda p, q: posterior(p, q**2)),
]
