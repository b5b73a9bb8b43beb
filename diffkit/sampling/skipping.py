"""Speed: ask the network less often, and for less, without changing what is written or with a known change."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any, Protocol

import torch
from torch import Generator, Tensor, nn

from diffkit.checks import check_whole
from diffkit.processes.base import Denoise, as_denoiser, on_device_of, without_mask
from diffkit.processes.masked import MaskedDiffusion
from diffkit.processes.schedules import Schedule
from diffkit.random import highest, inverse_cdf, uniform_like, uniform_numbers
from diffkit.sampling.sampler import Frame, check_canvas, evaluating


class Sampler(Protocol):
    """A way to write text, with all its settings: what `fast_frames` plays."""

    process: MaskedDiffusion

    def moves(self, denoise: Denoise, z: Tensor, rng: Generator) -> Iterator[tuple[float, Tensor]]:
        """Fill the MASKs of (B, L) ids; after every move yield the time that is left (the latest row's) and the ids."""
        ...


@torch.no_grad()
def fast_frames(
    sampler: Sampler,
    denoise: Denoise,
    *,
    shape: tuple[int, int] | None = None,
    start: Tensor | None = None,
    rng: Generator,
) -> Iterator[Frame]:
    """Yield the start and then every state on the way to text, as `denoise_frames` does; the sampler decides how many.

    Frames carry no table of beliefs: not to make one for every place is half of the speed.

    Args:   shape: (B, L) to start from masks alone; or start: (B, L) ids, MASK marks what to fill, the rest is kept.
    Raises: ValueError unless exactly one of shape and start is given.
    """
    process = sampler.process
    check_canvas(process, shape, start, "fast_frames")
    z = on_device_of(denoise, process.prior(*shape, rng) if shape else start)  # type: ignore[arg-type]
    yield Frame(0, float(process.T), z, z, None)
    with evaluating(denoise):
        for step, (left, ids) in enumerate(sampler.moves(denoise, z, rng), 1):
            yield Frame(step, left, ids, ids, None)


# ------------------------------------------------------------------------------------------------------- shared pieces


def even_times(T: int, steps: int) -> Tensor:
    """The grid of `denoise_frames`: steps + 1 times from T down to 0, (steps + 1,) float64."""
    check_whole(steps, "steps", "even_times", most=T)
    return torch.linspace(T, 0, steps + 1, dtype=torch.float64)


def check_times(times: Tensor, T: int, who: str, loop_only: bool = False) -> Tensor:
    """Times (N + 1,) as float64; ValueError unless they fall from T to 0, and never stand still if not `loop_only`."""
    times = torch.as_tensor(times, dtype=torch.float64)
    falls = times.diff() <= 0 if loop_only else times.diff() < 0
    if times.ndim != 1 or len(times) < 2 or times[0] != T or times[-1] != 0 or not falls.all():
        raise ValueError(
            f"{who}: times must fall from {T} to 0, both included, got {times.flatten().tolist()[:6]}... "
            f"Use even_times({T}, steps)."
        )
    return times


def probs_at(process: MaskedDiffusion, denoise: Denoise, z: Tensor, t: Tensor, where: Tensor) -> Tensor:
    """What the denoiser believes at chosen masked places, (B, L) bool to (N, V) float64; it reads only their rows."""
    return token_probs(process, logits_of_rows(denoise, z, t, where))


def logits_of_rows(denoise: Denoise, z: Tensor, t: Tensor, where: Tensor) -> Tensor:
    """Logits (N, V) at chosen places, (B, L) bool; rows without such a place are not read."""
    rows = where.any(1)
    return as_denoiser(denoise)(z[rows], t.to(z.device)[rows], where[rows])


def token_probs(process: MaskedDiffusion, logits: Tensor) -> Tensor:
    """Logits (N, V) to probabilities of words, never of MASK, (N, V) float64."""
    return without_mask(logits.double(), process.mask_id).softmax(-1)


def revealed(
    process: MaskedDiffusion, denoise: Denoise, z: Tensor, t: Tensor, where: Tensor, u: Tensor
) -> tuple[Tensor, Tensor]:
    """Draw the tokens at `where` with the noise u (B, L): the ids, and the probability of each new one, 0 elsewhere.

    Without a place to reveal the denoiser is not called.
    """
    chance = torch.zeros_like(u)
    if not where.any():
        return z, chance
    probs, z = probs_at(process, denoise, z, t, where), z.clone()
    z[where] = inverse_cdf(probs, u[where])
    chance[where] = probs.gather(1, z[where][:, None])[:, 0]
    return z, chance


# ------------------------------------------------------------------------------ exact: less work, the same distribution


class SkipIdle:
    """Ancestral sampling that asks only about tokens that are being revealed, and not at all where there are none.

    Which tokens are revealed does not depend on beliefs, so it is drawn first. Under the same random stream this writes
    the same tokens as the process's own step, which computes a whole table at every step. Nothing is remembered, so the
    network may know the time.

    Args:   times: (N + 1,) from T down to 0; any of them may be left out (step skipping), the last step reveals all.
    Source: arXiv:2406.07524 and arXiv:2406.03736 reuse beliefs while nothing changes, to the same effect.
    """

    def __init__(self, process: MaskedDiffusion, times: Tensor):
        self.process, self.times = process, check_times(times, process.T, "Lazy")

    def moves(self, denoise: Denoise, z: Tensor, rng: Generator) -> Iterator[tuple[float, Tensor]]:
        for t, s in pairwise(self.times):
            whether, what = uniform_like(z, rng), uniform_like(z, rng)
            stay = float(self.process.stay_masked(t, s))
            reveal = (z == self.process.mask_id) & (whether >= stay)
            z, _ = revealed(self.process, denoise, z, t.expand(len(z)), reveal, what)
            yield float(s), z


class FirstHitting:
    """Jump from one reveal to the next: ancestral sampling with infinitely many steps, in one call a hidden token.

    Of n hidden tokens the next one shows at the time t' where gamma(t') = gamma(t) u^(1/n), u uniform; all of them are
    equally likely to be the one.
    Source: arXiv:2409.02908, first-hitting sampler.
    """

    def __init__(self, process: MaskedDiffusion):
        self.process = process

    def moves(self, denoise: Denoise, z: Tensor, rng: Generator) -> Iterator[tuple[float, Tensor]]:
        schedule, t = self.process.schedule, torch.full((len(z),), float(self.process.T), dtype=torch.float64)
        while (is_masked := z == self.process.mask_id).any():
            n, u = is_masked.sum(1).cpu(), 1 - uniform_numbers((len(z),), rng).cpu()
            t = schedule.time_of(schedule.gamma(t) * u ** (1 / n.clamp(min=1)))
            reveal = highest(uniform_like(z, rng), is_masked, is_masked.sum(1).clamp(max=1))
            z, _ = revealed(self.process, denoise, z, t.to(z.device), reveal, uniform_like(z, rng))
            yield float(t[n > 1].max()) if (n > 1).any() else 0.0, z


def expected_calls(schedule: Schedule, times: Tensor, L: int) -> float:
    """Mean number of steps that reveal at least one of L masked tokens: the calls of `SkipIdle` for one text.

    A token is revealed in the step from t to s with chance gamma(t) - gamma(s). With N steps of equal chance this is
    N (1 - (1 - 1/N)^L): never more than N, nor than L.
    """
    chance = -schedule.gamma(times).diff()
    return float((1 - (1 - chance) ** L).sum())


def takes_time(denoise: Denoise) -> bool:
    """Does this network answer differently at another time? Of a plain function nobody knows, and False is said."""
    network = denoise
    for name in ("module", "model", "denoise", "denoiser"):
        network = getattr(network, name, network)
    return getattr(getattr(network, "config", None), "time", "none") != "none"


class NoChangeCache:
    """The no-change cache: a denoiser that reads again only the rows that changed since it last saw them.

    A wrapper around any denoiser that ignores time, for any sampler; exact, row by row.

    Raises: ValueError if the network takes the time: its old answer is then wrong although no token changed.
    Source: arXiv:2406.07524, section on caching; by rows as in arXiv:2406.03736.
    """

    def __init__(self, denoise: Denoise):
        if takes_time(denoise):
            raise ValueError(
                "Remembered: this network takes the time, so its beliefs change even where no token does. Use a model "
                "built with time='none', or the sampler Lazy, which needs no memory."
            )
        self.denoise = denoise
        self.seen: Tensor | None = None
        self.answers = torch.empty(0)

    def __call__(self, zt: Tensor, t: Tensor) -> Tensor:
        if self.seen is None or self.seen.shape != zt.shape:
            self.answers = self.denoise(zt, t)
        elif not torch.equal(self.seen, zt):  # ids are compared exactly: to allclose, 150,000 and 150,001 are the same
            changed = (self.seen != zt).any(1)
            fresh = self.denoise(zt[changed], torch.as_tensor(t, device=zt.device).expand(len(zt))[changed])
            self.answers = self.answers.index_put((changed,), fresh)
        self.seen = zt.clone()
        return self.answers


# ------------------------------------------------------------------------------------------------------ counting calls


class CallCounter:
    """A denoiser that keeps count: `calls`, `rows` read in them, and `heads`, places at which logits were computed."""

    selects_positions = True

    def __init__(self, denoise: Denoise | nn.Module):
        self.denoise = denoise
        self.calls = self.rows = self.heads = 0

    def __call__(self, zt: Tensor, t: Tensor, where: Tensor | None = None, **more: Any) -> Tensor:
        self.calls += 1
        self.rows += len(zt)
        self.heads += zt.numel() if where is None else int(where.sum())
        if more:  # a cache: only networks take one
            return self.denoise(zt, t, where, **more)  # type: ignore[call-arg]
        return self.denoise(zt, t) if where is None else as_denoiser(self.denoise)(zt, t, where)
