"""Exercises of notebook 08_infilling_guidance."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Generator, Tensor

from diffkit.course.exercises.checks import Wrong, counterexample, exercise, far_from, not_these, read, tensor_of
from diffkit.course.orders import mask_patterns
from diffkit.languages.story_language import StoryLanguage, load_language
from diffkit.processes.masked import MaskedDiffusion
from diffkit.sampling.guidance import exact_classifier


@exercise
def check_filling(log_p_filling: Callable[[Tensor, Tensor], Any]) -> str:
    """log_p_filling(canvas, filled) -> exact log p(missing | given) of each filling, (n, L) and (n, L) to (n,)."""
    tales, rng = load_language("tales"), Generator().manual_seed(3)
    filled = tales.sample(5, rng)
    canvas = torch.where(torch.rand(filled.shape, generator=rng) < 0.4, tales.mask_id, filled)
    mine = tensor_of(log_p_filling, canvas, filled, shape=(5,), called="the log-probabilities").double()
    given, whole = tales.log_prob(canvas), tales.log_prob(filled)
    slips = {
        "that is the log-probability of the whole text; subtract that of what was given": whole,
        "the sign is wrong: a probability of at most 1 has a logarithm of at most 0": given - whole,
        "that is the log-probability of what was given; what is asked is the rest": given,
        "a ratio of probabilities is a difference of logarithms": whole / given,
        "those are probabilities; return their logarithm": (whole - given).exp(),
    }
    not_these(mine, slips)
    counterexample(mine, whole - given, tales.decode(canvas), "log p(missing | given)")
    return "p(missing | given) = p(all) / p(given), and the language knows both."


@exercise
def check_infill(fill: Callable[..., Any]) -> str:
    """fill(denoise, canvas, rng) -> (B, L) ids, the given ones kept; denoise: (B, L) ids -> (B, L, V) probabilities."""
    micro, n = load_language("micro"), 2000
    process, mask = MaskedDiffusion(micro.vocab_size, micro.mask_id, "linear"), micro.mask_id
    story = micro.sample(1, Generator().manual_seed(3)).expand(3, -1).clone()
    story[1, [1, 3, 4]] = mask  # rows with no hole, with three and with five
    story[2] = mask
    canvas = story.repeat(n, 1)

    def denoise(zt: Tensor) -> Tensor:
        return process.log_probs(micro.denoiser(process)(zt, torch.tensor(0.0)), zt).exp()

    filled = tensor_of(
        fill, denoise, canvas, Generator().manual_seed(8), shape=canvas.shape, called="the filled canvas"
    )
    if ((filled != filled.round()) | (filled < 0) | (filled >= micro.vocab_size)).any():
        raise Wrong(f"ids are whole numbers from 0 to {micro.vocab_size - 1}; yours holds others.")
    filled, given = filled.long(), canvas != mask
    if (filled != canvas)[given].any():
        raise Wrong("a given token has changed. Freeze them: draw only where the canvas shows MASK.")
    if (filled == mask).any():
        raise Wrong("some masks are left. Rows need not have equally many holes: go on until no row has one.")
    for kind in (1, 2):
        _check_law(micro, story[kind : kind + 1], filled[kind::3])
    return "What is given stays given, and the rest follows p(missing | given), exactly."


def _check_law(language: StoryLanguage, canvas: Tensor, filled: Tensor) -> None:
    """Raise Wrong unless the fillings (n, L) of one canvas (1, L) are draws from the exact conditional."""
    holes, n = int((canvas == language.mask_id).sum()), len(filled)
    wrong = (~language.log_prob(filled).isfinite()).double().mean()
    if wrong > 0:
        raise Wrong(
            f"{wrong:.0%} of the fillings of {holes} holes are no text of the language. Are several drawn from one "
            "prediction? Fill one hole of a row, then ask again."
        )
    texts, counts = filled.unique(dim=0, return_counts=True)
    if len(texts) == 1:
        raise Wrong(
            f"all fillings of {holes} holes are the same. Draw from the prediction; the likeliest word is no draw."
        )
    probs = (language.log_prob(texts) - language.log_prob(canvas)).exp()
    for text, count, p in zip(texts, counts.tolist(), probs.tolist(), strict=True):
        if far_from(count / n, p, n):
            raise Wrong(
                f"the filling {language.decode(text[None])[0]!r} has probability {p:.3f}, and yours is that in "
                f"{count / n:.3f} of {n} rows."
            )


@exercise
def check_guided(guided: Callable[[Tensor, Tensor, float], Any]) -> str:
    """guided(conditional, unconditional, w) -> guided probabilities, all (B, L, V), from log-probabilities."""
    for seed, w in ((1, 1.0), (2, 0.5), (3, 3.0), (4, 0.0)):
        rng = Generator().manual_seed(seed)
        with_label, without = torch.randn(2, 2, 3, 6, generator=rng, dtype=torch.float64).log_softmax(-1)
        push, mix, counted = (
            (1 + w) * with_label - w * without,
            with_label + w * without,
            w * with_label + (1 - w) * without,
        )
        back = (1 + w) * without - w * with_label
        excluded = torch.zeros(2, 3, 6, dtype=torch.bool)
        excluded[..., 1], excluded[0, 0, 3] = True, True  # MASK, and a word that cannot stand there
        with_label, without = (part.masked_fill(excluded, -torch.inf) for part in (with_label, without))
        want = push.masked_fill(excluded, -torch.inf).softmax(-1)
        mine = read(guided(with_label, without, w), "the guided distribution").double()
        if mine.isnan().any():
            raise Wrong("a word that both predictions exclude has become NaN: -inf minus -inf. It has probability 0.")
        mine = tensor_of(lambda answer=mine: answer, shape=(2, 3, 6), called="the guided distribution")
        slips = {
            "w multiplies the wrong prediction: that pushes away from the label": back,
            "that mixes the two predictions; guidance extrapolates beyond the conditional one": mix,
            "that counts from one: at w = 0 the label would be ignored. Here w = 0 follows the label as it was "
            "learned": counted,
        }
        slips = {why: slip.masked_fill(excluded, -torch.inf).softmax(-1) for why, slip in slips.items()}
        slips["the powers are right, but they do not add up to 1; normalise again"] = push.exp().masked_fill(
            excluded, 0
        )
        not_these(mine, {why: slip for why, slip in slips.items() if not torch.allclose(slip, want, atol=1e-5)})
        if (mine < 0).any():
            raise Wrong("those are logits; return probabilities.")
        if (mine - want).abs().max() > 1e-6:
            i = int((mine - want).abs().argmax())
            raise Wrong(f"at w = {w} a word should have {want.flatten()[i]:.4f}, yours has {mine.flatten()[i]:.4f}.")
    return "Conditional to the power 1 + w, over unconditional to the power w, normalised again."


@exercise
def check_label_chance(chance: Callable[..., Any]) -> str:
    """chance(language, z, label) -> (B, L, V), p(label | z and x_i = v), 0 for words that cannot stand there."""
    micro = load_language("micro")
    process = MaskedDiffusion(micro.vocab_size, micro.mask_id, "linear")
    texts = micro.sample(200, Generator().manual_seed(1)).unique(dim=0)
    states = torch.where(mask_patterns(micro.length), micro.mask_id, texts[:, None]).flatten(0, 1).unique(dim=0)
    for label in micro.labels:
        log_p, probs = micro.posterior(micro.seen(states))
        log_p_y, with_label = micro.posterior(micro.seen(states), label)
        classify = exact_classifier(micro, process, label)
        want = torch.where(probs > 0, classify(states, torch.tensor(0.0)).exp(), 0.0)
        answer = read(chance(micro, states, label), "the chance of the label").double()
        table = answer.nan_to_num(0.0)
        mine = tensor_of(lambda table=table: table, shape=tuple(want.shape), called="the table")
        if answer.isnan()[probs > 0].any():  # where nothing can stand 0 / 0 will do
            raise Wrong("the table holds NaN for words that can stand there. A log of 0, or -inf minus -inf?")
        prior = micro.template_probs[micro.template_labels == micro.label_id(label)].sum()
        given_z = (prior.log() + log_p_y - log_p).exp()[:, None, None]
        ratio = torch.where(probs > 0, with_label / probs, 0.0)
        slips = {
            "that is p(word | z, label), what Bayes' rule will give; the chance of the label is asked": with_label,
            "that is p(word, label | z): divide by p(word | z)": given_z * with_label,
            "p(label | z) is missing: how likely the label is before the word is known": ratio,
            "p(label) is missing: `posterior(..., label)` returns p(z | label), not p(z, label)": ratio
            * given_z
            / prior,
            "that is p(label | z) for every word; a word can change it": (probs > 0) * given_z,
        }
        not_these(mine, slips)
        off = (mine - want).abs()
        if off.max() > 1e-6:
            state, position, word = (int(i) for i in (off == off.max()).nonzero()[0])
            raise Wrong(
                f"in {micro.decode(states[state : state + 1])[0]!r}, with "
                f"{micro.tokenizer.convert_ids_to_tokens(word)!r} at position {position}, {label!r} has chance "
                f"{want[state, position, word]:.4f}, yours is {mine[state, position, word]:.4f}."
            )
    return "Bayes' rule, backwards: two posteriors give the opinion of a perfect classifier about every word."
