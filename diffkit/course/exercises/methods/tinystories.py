"""Exercises of notebook 17_tinystories."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from diffkit.course.exercises.checks import Wrong, counterexample, exercise, not_these, number_of, tensor_of, worst
from diffkit.course.rewriting import Predict, Scores, predict_with, token_scores
from diffkit.languages.story_language import load_language
from diffkit.processes.masked import MaskedDiffusion

Hides = Callable[[Tensor, Tensor], Tensor]  # groups (L,) and the one that is asked for -> which tokens are hidden


def _numbers(values: list[Any]) -> torch.Tensor:
    return torch.tensor([float(value) for value in values], dtype=torch.float64)


@exercise
def check_bits(bits: Callable[[float, int, int], Any]) -> str:
    """bits(nats, tokens, characters) -> bits a character of a text, given its nats a token and both lengths."""
    rng = torch.Generator().manual_seed(0)
    cases = [
        (round(2 + torch.rand((), generator=rng).item(), 3), *torch.randint(50, 900, (2,), generator=rng).tolist())
        for _ in range(6)
    ]
    mine = _numbers([number_of(bits, *case, called="bits a character") for case in cases])
    want = _numbers([nats * tokens / characters / math.log(2) for nats, tokens, characters in cases])
    not_these(
        mine,
        {
            "those are bits a token; a reader of another tokenizer needs them per character": _numbers(
                [nats / math.log(2) for nats, _, _ in cases]
            ),
            "that is still in nats; a bit is log 2 nats": _numbers([n * t / c for n, t, c in cases]),
            "a nat is more than a bit: divide by log 2, do not multiply": _numbers(
                [n * t / c * math.log(2) for n, t, c in cases]
            ),
            "the text is upside down: all its nats are nats a token times its tokens": _numbers(
                [n * c / t / math.log(2) for n, t, c in cases]
            ),
            "those are the bits of the whole text": _numbers([n * t / math.log(2) for n, t, _ in cases]),
        },
    )
    counterexample(mine, want, [f"{n} nats, {t} tokens, {c} characters" for n, t, c in cases], "bits a character")
    return "Now texts cut in different ways can be compared, as long as the text itself is the same."


def _windows(text: list[int], n: int) -> list[tuple[int, ...]]:
    return [tuple(text[i : i + n]) for i in range(len(text) - n + 1)]


@exercise
def check_copied(copied: Callable[[list[int], list[int], int], Any]) -> str:
    """copied(text, training, n) -> share of the n-token windows of a text that occur in the training text."""
    rng = torch.Generator().manual_seed(1)
    cases = []
    for n in (1, 2, 3, 2, 3):
        training = torch.randint(0, 4, (14,), generator=rng).tolist()
        cases.append((torch.randint(0, 4, (11,), generator=rng).tolist(), training, n))
    cases.append(([0, 1, 0, 1, 0, 1, 2], [0, 1, 2, 2], 2))  # one window, three times
    cases.append(([2, 1, 0, 3], [0, 1, 2, 3], 2))  # the same words in another order
    mine = _numbers([number_of(copied, text, training, n, called="the share") for text, training, n in cases])

    def shares(windows: Callable[[list[int], int], Any], per: Callable[[list[int], int], float]) -> torch.Tensor:
        found = []
        for text, training, n in cases:
            known = set(_windows(training, n))
            found.append(sum(w in known for w in windows(text, n)) / per(text, n))
        return _numbers(found)

    want = shares(_windows, lambda text, n: len(text) - n + 1)
    not_these(
        mine,
        {
            "there are len(text) - n + 1 windows, not len(text)": shares(_windows, lambda text, n: len(text)),
            "a window that comes three times counts three times": shares(
                lambda text, n: set(_windows(text, n)), lambda text, n: len(set(_windows(text, n)))
            ),
            "windows overlap: there is one at every position, not one every n": shares(
                lambda text, n: _windows(text, n)[::n], lambda text, n: len(_windows(text, n)[::n])
            ),
            "that is the share of *new* windows": 1 - want,
            "single tokens that were seen are no copy: all n must occur there in a row": _numbers(
                [
                    sum(set(w) <= set(training) for w in _windows(text, n)) / len(_windows(text, n))
                    for text, training, n in cases
                ]
            ),
        },
    )
    counterexample(mine, want, [f"{text} after {training}, n = {n}" for text, training, n in cases], "the share")
    return "Hold it against the same share for real stories that nobody trained on: people repeat each other too."


@exercise
def check_own_loss(own_loss: Callable[[float, int, float], Any]) -> str:
    """own_loss(total, count, mean_count) -> what a process returns so that the mean over all is the batch's mean."""
    rng = torch.Generator().manual_seed(2)
    for processes in (2, 3, 4):
        totals = (10 * torch.rand(processes, generator=rng, dtype=torch.float64)).tolist()
        counts = torch.randint(1, 40, (processes,), generator=rng).tolist()
        mean_count = sum(counts) / processes
        given = [(total, count, mean_count) for total, count in zip(totals, counts, strict=True)]
        mine = _numbers([number_of(own_loss, *each, called="the loss") for each in given])
        want = sum(totals) / sum(counts)
        not_these(
            mine.mean()[None],
            {
                "a process with few hidden tokens then counts as much as one with many: the mean of ratios is not the "
                "ratio of the sums": _numbers([sum(t / c for t, c, _ in given) / processes]),
                "those are sums; the mean over processes is then nats of a process, not of a token": _numbers(
                    [sum(totals) / processes]
                ),
                "the mean count is that of one process; dividing by the number of processes again makes it too small": (
                    _numbers([want / processes])
                ),
                "upside down: nats over tokens": _numbers([sum(m / t for t, _, m in given) / processes]),
            },
        )
        shown = ", ".join(f"{t:.2f} nats of {c}" for t, c, _ in given)
        counterexample(mine.mean()[None], _numbers([want]), [f"processes with {shown}"], "the mean of what they return")
    return "Gradients are linear, so their mean over the processes is right as well: `losses.pooled` does this."


@exercise
def check_token_scores(scores: Scores) -> str:
    """scores(predict, x0, mask_id, groups) -> log p of each token given those not hidden with it."""
    micro, rng = load_language("micro"), torch.Generator().manual_seed(3)
    process = MaskedDiffusion(micro.vocab_size, micro.mask_id)
    predict, x0, mask_id = predict_with(process, micro.denoiser(process)), micro.sample(8, rng), micro.mask_id
    B, L = x0.shape
    for groups in (2, L, 3):
        answer = tensor_of(scores, predict, x0, mask_id, groups, shape=(B, L), called="the scores")
        if not answer.is_floating_point():
            raise Wrong("the scores are whole numbers; torch.zeros_like(x0) makes integers, and they round.")
        mine = answer.double()
        want = token_scores(predict, x0, mask_id, groups)
        slips = {
            "a token that the network sees is certain, log p = 0: hide it before you ask": torch.zeros_like(want),
            "the sign is wrong: a logarithm of a probability is at most 0": -want,
            "those are probabilities; return their logarithms, as `predict` does": want.exp(),
            "you hide neighbours together, where they say most about each other: take every `groups`-th position": (
                _scores(predict, x0, mask_id, torch.arange(L) // -(-L // groups))
            ),
            "you hide all of the text at once": _scores(predict, x0, mask_id, torch.zeros(L)),
            "what an earlier group hid must be shown again": _scores(
                predict, x0, mask_id, torch.arange(L) % groups, torch.le
            ),
        }
        not_these(mine, {why: slip for why, slip in slips.items() if not torch.allclose(slip, want, atol=1e-4)})
        worst(mine, want, f"with {groups} groups", "the score", "Ask once for each group, and keep what is hidden.")
    return "The model reads its own text as an editor does: each word is judged by all the others."


def _scores(predict: Predict, x0: Tensor, mask_id: int, group: Tensor, hides: Hides = torch.eq) -> Tensor:
    """log p of each token; hidden with it are those with its number in `group` (L,), or as `hides` compares them."""
    numbers = group.unique()
    log_probs = [predict(torch.where(hides(group, g), mask_id, x0)).gather(-1, x0[..., None])[..., 0] for g in numbers]
    return torch.stack([found * (group == g) for g, found in zip(numbers, log_probs, strict=True)]).double().sum(0)
