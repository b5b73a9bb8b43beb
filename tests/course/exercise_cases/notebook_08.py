"""Exercises of notebook 08: solutions, right answers written otherwise, and mistakes with what is said of them."""

import torch

from diffkit.course.exercises.foundations import infilling_guidance as ex
from diffkit.languages.story_language import load_language

TALES = load_language("tales")
MASK = TALES.mask_id


def log_p_filling(canvas, filled):
    return TALES.log_prob(filled) - TALES.log_prob(canvas)


def fill(denoise, canvas, rng):
    z = canvas.clone()
    while (z == MASK).any():
        hidden, rows = z == MASK, torch.arange(len(z))
        place = torch.where(hidden, torch.rand(z.shape, generator=rng), 2.0).argmin(1)
        words = torch.multinomial(denoise(z)[rows, place], 1, generator=rng)[:, 0]
        z[rows, place] = torch.where(hidden[rows, place], words, z[rows, place])
    return z


def fill_from_left_to_right(denoise, canvas, rng):
    z = canvas.clone()
    for i in range(z.shape[1]):
        cdf = denoise(z)[:, i].cumsum(-1)
        words = (cdf < torch.rand(len(z), 1, generator=rng, dtype=cdf.dtype) * cdf[:, -1:]).sum(-1)
        z[:, i] = torch.where(canvas[:, i] == MASK, words, canvas[:, i])
    return z.tolist()


def all_at_once(denoise, canvas, rng):
    words = torch.multinomial(denoise(canvas).flatten(0, 1), 1, generator=rng).view(canvas.shape)
    return torch.where(canvas == MASK, words, canvas)


def likeliest(denoise, canvas, rng):
    z = canvas.clone()
    for i in range(z.shape[1]):
        z[:, i] = torch.where(canvas[:, i] == MASK, denoise(z)[:, i].argmax(-1), canvas[:, i])
    return z


def as_many_holes_as_the_second_row(denoise, canvas, rng):
    z = canvas.clone()
    for i in (canvas[1] == MASK).nonzero()[:, 0].tolist():
        words = torch.multinomial(denoise(z)[:, i], 1, generator=rng)[:, 0]
        z[:, i] = torch.where(canvas[:, i] == MASK, words, canvas[:, i])
    return z


def guided(told, untold, w):
    logits = (1 + w) * told - w * untold
    return logits.masked_fill(told == -torch.inf, -torch.inf).softmax(-1)


def guided_by_powers(told, untold, w):
    weights = told.exp() * torch.where(told.isinf(), 0.0, told - untold).exp() ** w
    return (weights / weights.sum(-1, keepdim=True)).numpy()


def label_chance(language, z, label):
    log_p, probs = language.posterior(language.seen(z))
    log_p_y, probs_y = language.posterior(language.seen(z), label)
    prior = language.template_probs[language.template_labels == language.label_id(label)].sum()
    given_z = prior * (log_p_y - log_p).exp()
    return torch.where(probs > 0, given_z[:, None, None] * probs_y / probs, 0.0)


def label_chance_by_the_others(language, z, label):
    """By Bayes' rule over all labels, whose chances add up to one."""
    joint = {}
    for each in language.labels:
        log_p, probs = language.posterior(language.seen(z), each)
        prior = language.template_probs[language.template_labels == language.label_id(each)].sum()
        joint[each] = prior * log_p.exp()[:, None, None] * probs
    return joint[label] / sum(joint.values())


SOLUTIONS = {
    ex.check_filling: [log_p_filling, lambda canvas, filled: log_p_filling(canvas, filled).tolist()],
    ex.check_infill: [fill, fill_from_left_to_right],
    ex.check_guided: [guided, guided_by_powers],
    ex.check_label_chance: [label_chance, label_chance_by_the_others],
}


def part_of(language, z, label):
    return language.posterior(language.seen(z), label)[1]


WRONG = [
    (ex.check_filling, "whole text", lambda c, f: TALES.log_prob(f)),
    (ex.check_filling, "what was given", lambda c, f: TALES.log_prob(c)),
    (ex.check_filling, "sign", lambda c, f: TALES.log_prob(c) - TALES.log_prob(f)),
    (ex.check_filling, "difference of logarithms", lambda c, f: TALES.log_prob(f) / TALES.log_prob(c)),
    (ex.check_filling, "return their logarithm", lambda c, f: log_p_filling(c, f).exp()),
    (ex.check_infill, "drawn from one prediction", all_at_once),
    (ex.check_infill, "given token has changed", lambda denoise, canvas, rng: fill(
        denoise, torch.full_like(canvas, MASK), rng)),
    (ex.check_infill, "no draw", likeliest),
    (ex.check_infill, "masks are left", as_many_holes_as_the_second_row),
    (ex.check_infill, "has probability", lambda denoise, canvas, rng: fill(
        lambda z: denoise(z) ** 2, canvas, rng)),
    (ex.check_guided, "wrong prediction", lambda a, b, w: guided(b, a, w)),
    (ex.check_guided, "counts from one", lambda a, b, w: (w * a + (1 - w) * b).nan_to_num(-torch.inf).softmax(-1)
     if w else b.softmax(-1)),
    (ex.check_guided, "mixes", lambda a, b, w: (a + w * b).nan_to_num(-torch.inf).softmax(-1)),
    (ex.check_guided, "NaN", lambda a, b, w: ((1 + w) * a - w * b).softmax(-1)),
    (ex.check_guided, "normalise again", lambda a, b, w: ((1 + w) * a - w * b).nan_to_num(-torch.inf).exp()),
    (ex.check_guided, "return probabilities", lambda a, b, w: ((1 + w) * a - w * b).nan_to_num(-torch.inf)),
    (ex.check_label_chance, "Bayes' rule will give", part_of),
    (ex.check_label_chance, "divide by p", lambda language, z, label: label_chance(language, z, label)
     * language.posterior(language.seen(z))[1]),
    (ex.check_label_chance, "p(label | z) is missing", lambda language, z, label: (
        part_of(language, z, label) / language.posterior(language.seen(z))[1])),
    (ex.check_label_chance, "p(label) is missing", lambda language, z, label: label_chance(language, z, label)
     / language.template_probs[language.template_labels == language.label_id(label)].sum()),
    (ex.check_label_chance, "has chance", lambda language, z, label: label_chance(language, z, label) ** 2),
]  # fmt: skip
