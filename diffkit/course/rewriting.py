"""A masked model reads its own draft: which tokens does it doubt, and what would it write there instead?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Generator, Tensor

from diffkit.processes.base import Denoise
from diffkit.processes.masked import MaskedDiffusion
from diffkit.random import highest
from diffkit.sampling.sampler import Frame, denoise_frames
from diffkit.sampling.unmasking import rounded

Predict = Callable[[Tensor], Tensor]  # (B, L) ids with masks -> log-probabilities (B, L, V)
Scores = Callable[[Predict, Tensor, int, int], Tensor]


def predict_with(process: MaskedDiffusion, denoise: Denoise) -> Predict:
    """The log-probabilities of a denoiser without time conditioning."""

    @torch.no_grad()
    def predict(zt: Tensor) -> Tensor:
        return process.log_probs(denoise(zt, torch.ones(len(zt), device=zt.device)), zt)

    return predict


def token_scores(predict: Predict, x0: Tensor, mask_id: int, groups: int) -> Tensor:
    """log p of each token given those that are not hidden with it, in nats: (B, L) ids -> (B, L), one call a group.

    Position i is hidden with i + groups, i + 2 groups and so on, so that neighbours see each other. With as many groups
    as positions, one token hidden at a time, the sum is the pseudo-log-likelihood (arXiv:1910.14659).
    """
    scores = torch.zeros(x0.shape, dtype=torch.float64, device=x0.device)
    for first in range(groups):
        hidden = torch.arange(x0.shape[1], device=x0.device) % groups == first  # (L,)
        log_probs = predict(torch.where(hidden, mask_id, x0))
        scores[:, hidden] = log_probs.gather(-1, x0[..., None])[:, hidden, 0].double()
    return scores


def rewrite_frames(
    process: MaskedDiffusion, denoise: Denoise, draft: Tensor, *, rounds: int, count: int, rng: Generator,
    groups: int = 8, frozen: Tensor | None = None, scores: Scores = token_scores, **how: Any
) -> Iterator[Frame]:  # fmt: skip
    """Hide the `count` least likely tokens of a draft (B, L), fill them in anew, and so on: a frame for each step.

    No sampler of the model's distribution: choosing what is unlikely moves a text towards what is likely.

    Args:   frozen: (B, L) bool, tokens that stay; how: as in `denoise_frames`, for each round.
    Source: after Mask-Predict, arXiv:1904.09324, which keeps the probability from when a token was predicted, takes the
            likeliest, and hides fewer each round.
    """
    predict = predict_with(process, denoise)
    free = torch.ones_like(draft, dtype=torch.bool) if frozen is None else ~frozen
    frame = Frame(0, 0.0, draft, draft, None)
    yield frame
    for _ in range(rounds):
        found = torch.as_tensor(scores(predict, draft, process.mask_id, groups), device=draft.device)
        hidden = highest(rounded(-found.double()), free, torch.full((len(draft),), count, device=draft.device))
        canvas = torch.where(hidden, process.mask_id, draft)
        before = frame.step + 1
        for filling in denoise_frames(process, denoise, start=canvas, rng=rng, **how):
            frame = filling._replace(step=before + filling.step)
            yield frame
        draft = frame.tokens
