"""Exercises of notebook 06_sampling."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Generator, Tensor

from diffkit.course.exercises.checks import Wrong, exercise, far_from, not_these, number_of, tensor_of
from diffkit.languages.story_language import load_language
from diffkit.processes.masked import MaskedDiffusion


@exercise
def check_reverse_step(step: Callable[..., Any]) -> str:
    """step(logits, zt, t, s, rng) -> z_s of masked diffusion with the linear schedule; any draws of the right law."""
    micro, n = load_language("micro"), 4000
    process = MaskedDiffusion(micro.vocab_size, micro.mask_id, "linear")
    zt = micro.sample(1, Generator().manual_seed(3)).expand(n, -1).clone()
    zt[:, [1, 2, 4]] = micro.mask_id
    hidden = zt[0] == micro.mask_id
    for t, s in ((800.0, 200.0), (800.0, 600.0), (200.0, 0.0)):
        times, stay = (torch.full((n,), at, dtype=torch.float64) for at in (t, s)), s / t
        logits = micro.denoiser(process)(zt, torch.tensor(t)).clamp(min=-60)
        zs = tensor_of(
            step, logits, zt, *times, Generator().manual_seed(int(t + s)), shape=(n, micro.length), called="z_s"
        )
        if ((zs != zs.round()) | (zs < 0) | (zs >= micro.vocab_size)).any():
            raise Wrong(f"z_s holds ids, whole numbers from 0 to {micro.vocab_size - 1}; yours holds others.")
        if (zs != zt)[:, ~hidden].any():
            raise Wrong("a visible token has changed; what is visible stays.")
        is_masked = (zs == micro.mask_id)[:, hidden]
        _check_coins(is_masked, stay)
        probs = process.log_probs(logits, zt).exp()[0, hidden]
        for i in range(int(hidden.sum())):
            _check_words(zs[~is_masked[:, i]][:, hidden][:, i].long(), probs[i])
    return "A coin for every position, a word from its own prediction, and at s = 0 nothing is left."


def _check_coins(is_masked: Tensor, stay: float) -> None:
    """Raise Wrong unless each of (n, k) positions is still masked with probability `stay`, each by its own coin."""
    share, n = float(is_masked.double().mean()), len(is_masked)
    if stay == 0 and is_masked.any():
        raise Wrong("at s = 0 some positions are still masked. There gamma(s) / gamma(t) = 0: everything is revealed.")
    if far_from(share, 1 - stay, n) is False and abs(1 - 2 * stay) > 0.1:
        raise Wrong(f"a token stays masked with probability gamma(s) / gamma(t) = {stay:.2f}; you reveal it with that.")
    if 0 < stay and is_masked.all(1).double().mean() > 0.8 * stay:
        raise Wrong("all positions of a text stay masked, or are revealed, together: each needs a coin of its own.")
    if far_from(share, stay, n):
        raise Wrong(f"from t to s a token stays masked with probability {stay:.2f}; of yours {share:.3f} do.")


def _check_words(words: Tensor, probs: Tensor) -> None:
    """Raise Wrong unless the revealed words (m,) are drawn from (V,) probabilities, one draw for each row."""
    share = torch.bincount(words, minlength=len(probs)).double() / len(words)
    if share.max() == 1 and probs.max() < 0.99:
        likeliest = int(words[0]) == int(probs.argmax())
        raise Wrong("that is always the likeliest word; draw one from the prediction." if likeliest else
                    "all rows of the batch show the same word: each row needs a draw of its own.")  # fmt: skip
    for word, p in enumerate(probs.tolist()):
        if far_from(float(share[word]), p, len(words)):
            raise Wrong(f"a word of predicted probability {p:.3f} is revealed with frequency {share[word]:.3f}.")


@exercise
def check_order(score: Callable[[Tensor, Generator], Any]) -> str:
    """score(probs, rng) -> (B, L), highest where the entropy is lowest; only the ranking counts."""
    for seed in range(3):
        rng = Generator().manual_seed(seed)
        probs = (4 * torch.randn(6, 5, 7, generator=rng, dtype=torch.float64)).softmax(-1)
        probs = probs * (torch.rand(6, 5, 7, generator=rng) < 0.7)  # some words are impossible
        probs[..., 1] += 0.01
        probs = probs / probs.sum(-1, keepdim=True)
        mine = tensor_of(score, probs, rng, shape=(6, 5), called="the scores").double()
        if torch.isinf(mine).any():
            raise Wrong("a score is infinite.")
        entropy = torch.special.entr(probs).sum(-1)
        rank, best = mine.argsort(dim=1, stable=True), probs.sort(-1).values
        if torch.equal(rank, entropy.argsort(1)):
            raise Wrong("the sign is turned round: the highest score is revealed first, and it should be the surest.")
        for other, name in ((best[..., -1], "confidence"), (best[..., -1] - best[..., -2], "margin")):
            if torch.equal(rank, other.argsort(1)):
                raise Wrong(f"that is the order by {name}. The entropy looks at all words, not at the best ones.")
        if not torch.equal(rank, (-entropy).argsort(1)):
            row = int((rank != (-entropy).argsort(1)).any(1).nonzero()[0])
            raise Wrong(
                f"for entropies {[round(float(h), 3) for h in entropy[row]]} you reveal position "
                f"{int(mine[row].argmax())} first; {int(entropy[row].argmin())} has the lowest."
            )
    return "The position that has least left to decide comes first; bits or nats, the ranking is the same."


@exercise
def check_nucleus(nucleus: Callable[[Tensor, float], Any]) -> str:
    """nucleus(probs, p) -> top-p of every row: (N, V) to (N, V), tokens in their old order."""
    for seed, p in ((3, 0.75), (5, 0.3), (8, 1.0), (11, 0.9)):
        probs = (1.5 * torch.randn(6, 8, generator=Generator().manual_seed(seed), dtype=torch.float64)).softmax(-1)
        mine = tensor_of(nucleus, probs, p, shape=(6, 8), called="the nucleus").double()
        ranked, order = probs.sort(-1, descending=True)
        before = ranked.cumsum(-1) - ranked
        want, short = (torch.zeros_like(probs).scatter(-1, order, ranked * kept) for kept in (
            before < p, (ranked.cumsum(-1) <= p) | (before == 0)))  # fmt: skip
        want, tall = want / want.sum(-1, keepdim=True), probs * (probs >= p)
        slips = {
            "the right tokens are kept, but they do not add up to 1": torch.where(want > 0, probs, 0.0),
            "you return the tokens sorted; put each back at its own index (scatter, or compare with the last kept "
            "probability)": want.sort(-1, descending=True).values,
            "the token that crosses the line is missing. Keep it: the kept mass must reach p": short
            / short.sum(-1, keepdim=True),
            "that keeps tokens whose own probability reaches p; it is their running sum that counts": tall
            / tall.sum(-1, keepdim=True).clamp(min=1e-9),
        }
        not_these(mine, {why: slip for why, slip in slips.items() if not torch.allclose(slip, want, atol=1e-5)})
        if (mine - want).abs().max() > 1e-6:
            row = int((mine - want).abs().amax(-1).argmax())
            raise Wrong(
                f"from {[round(float(q), 3) for q in probs[row]]} and p = {p}, {int((want[row] > 0).sum())} tokens are "
                f"kept; you keep {int((mine[row] > 0).sum())}, with a sum of {float(mine[row].sum()):.3f}."
            )
    return "The smallest set that reaches p, the token that crosses the line included."


def first_reveal_error(texts: Tensor, probs: Tensor, positions: Sequence[int]) -> float:
    """KL from the tokens at `positions` to independent draws of each, nats: their total correlation.

    Args: texts: (K, L) ids, all different; probs: (K,), which sum to 1; positions: those revealed together.
    """
    joint = _entropy_at(texts, probs, positions)
    return sum(_entropy_at(texts, probs, [position]) for position in positions) - joint


def _entropy_at(texts: Tensor, probs: Tensor, positions: Sequence[int]) -> float:
    _, kind = texts[:, list(positions)].unique(dim=0, return_inverse=True)
    return torch.special.entr(torch.zeros(len(texts), dtype=probs.dtype).index_add(0, kind, probs)).sum().item()


@exercise
def check_first_reveal(error: Callable[[Tensor, Tensor, list[int]], Any]) -> str:
    """error(texts, probs, positions) -> nats lost when these positions are drawn at once from an empty canvas."""
    micro = load_language("micro")
    texts = micro.sample(500, Generator().manual_seed(1)).unique(dim=0)
    probs = micro.log_prob(texts).exp()
    for positions in ([0, 2], [1, 3], [0, 1, 2], [0, 1, 2, 3, 4], [3], [2, 4]):
        mine = number_of(error, texts, probs, positions, called="the error")
        want = first_reveal_error(texts, probs, positions)
        alone, whole = [_entropy_at(texts, probs, [i]) for i in positions], float(torch.special.entr(probs).sum())
        pairs = sum(first_reveal_error(texts, probs, [i, j]) for i in positions for j in positions if i < j)
        slips = {
            "that is the sum of the entropies alone; subtract the entropy of the positions together": sum(alone),
            "that is the entropy of the positions together; compare it with the sum of their own": sum(alone) - want,
            "the sign is wrong: independent draws cannot be better than the truth": -want,
            "that is in bits; nats use the natural logarithm": want / 0.6931471805599453,
            "that compares with the entropy of whole texts: texts that agree at these positions count as one outcome, "
            "so add their probabilities first": sum(alone) - whole,
            "that adds up pairs; three positions that agree are not three pairs": pairs,
        }
        not_these(torch.tensor(mine), {
            why: torch.tensor(slip) for why, slip in slips.items() if abs(slip - want) > 1e-4})  # fmt: skip
        if abs(mine - want) > 1e-6:
            raise Wrong(f"for positions {positions} it should be {want:.6f} nats, yours is {mine:.6f}.")
    return "The sum of the entropies minus the entropy of all: the total correlation, and no network can lower it."
