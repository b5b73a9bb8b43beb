"""Where a model goes wrong: its loss beside the exact one, by the number of masked tokens."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Generator

from diffkit.checks import check_whole
from diffkit.evaluation.statistics import Estimate, mean_of
from diffkit.languages.exact import Language
from diffkit.processes.base import Denoise, on_device_of
from diffkit.processes.masked import MaskedDiffusion, corrupt_count


class CountError(NamedTuple):
    """Loss per masked token, in nats, when `count` tokens are masked."""

    count: int  # type: ignore[assignment]  # tuple.count is not missed
    model: float
    exact: float
    gap: Estimate  # model minus exact, paired


@torch.no_grad()
def error_by_count(
    process: MaskedDiffusion,
    denoise: Denoise,
    language: Language,
    *,
    counts: Iterable[int],
    n: int,
    rng: Generator,
) -> list[CountError]:
    """Where a model goes wrong: its loss per masked token and the exact one, by how many tokens are masked.

    Few masked: does it copy from a distant sentence? All masked: does it know how texts start?
    """
    x0, exact, rows = on_device_of(denoise, language.sample(n, rng)), language.denoiser(process), []
    for count in counts:
        check_whole(count, "count", "error_by_count", most=language.length)
        xt, _ = corrupt_count(x0, count, mask_id=process.mask_id, rng=rng)
        t = process.schedule.time_of(count / x0.shape[1]).expand(n)
        nats = [process.token_loss(who, x0, xt, t).double().sum(1).cpu() / count for who in (denoise, exact)]
        rows.append(CountError(count, nats[0].mean().item(), nats[1].mean().item(), mean_of(nats[0] - nats[1])))
    return rows
