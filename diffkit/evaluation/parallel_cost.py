"""What it costs to reveal several places at once: the exact KL from a language to the sampler that a rule makes.

Places are chosen from the beliefs before any token is drawn, and tokens drawn together do not see each other. So a text
x has one way through the sampler: show it, at every step, what x says at the places chosen so far. Its probability q(x)
is the product of the beliefs in its own tokens on that way, and KL(p || q) is the mean of log p(x) - log q(x) over true
texts: no samples, no floor, a small error. It is the total correlation of what is revealed together, summed over steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from diffkit.checks import check_whole
from diffkit.evaluation.statistics import Estimate, mean_of
from diffkit.languages.story_language import StoryLanguage
from diffkit.processes.base import Denoise, on_device_of
from diffkit.processes.masked import MaskedDiffusion
from diffkit.random import highest
from diffkit.sampling.sampler import evaluating
from diffkit.sampling.unmasking import UNMASKING_ORDERS, Score

# probs (B, L, V), is_masked (B, L) bool, steps left (this one counted) -> (B, L) bool: the places to reveal now
Plan = Callable[[Tensor, Tensor, int], Tensor]


class InvalidOrder(ValueError):
    """A rule or plan that does not answer the question it is asked; the message says how."""


def evenly(score: Score, seed: int = 0) -> Plan:
    """The plan of `sample.Unmasking` with linear counts: equally many places at every step, the highest scores first.

    Args:   score: (probs, rng) -> (B, L); seed: of the rng it is given, another one at each step.
    Raises: InvalidOrder, when used, if a score has the wrong shape, or is NaN or -inf.
    """

    def plan(probs: Tensor, is_masked: Tensor, steps_left: int) -> Tensor:
        value, B, L = score(probs, Generator().manual_seed(1000 * seed + steps_left)), *is_masked.shape
        if not isinstance(value, Tensor) or value.shape != (B, L):
            shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise InvalidOrder(f"the score needs one number for every place, a tensor ({B}, {L}); yours is {shape}.")
        if torch.isnan(value[is_masked]).any():
            raise InvalidOrder(
                "the score of a hidden place is NaN. Beware of 0 x log 0: torch.special.entr knows it is 0."
            )
        if (value[is_masked] == -torch.inf).any():
            raise InvalidOrder(
                "the score of a hidden place is -inf: it would never be revealed. Give it a finite number."
            )
        hidden = is_masked.sum(1)
        left = (hidden * ((steps_left - 1) / steps_left) + 1e-9).floor()  # masks to keep
        return highest(value.double(), is_masked, hidden - left)

    return plan


def shipped_folder(seed: int = 0) -> dict[str, Plan]:
    """The rules of `sample.UNMASKING_ORDERS` as plans, by name."""
    return {name: evenly(score, seed) for name, score in UNMASKING_ORDERS.items()}


def checked(reveal: Tensor, is_masked: Tensor) -> Tensor:
    """What a plan answered. Raises InvalidOrder unless it is (B, L) bool and true at hidden places only."""
    if not isinstance(reveal, Tensor) or reveal.shape != is_masked.shape:
        shape = tuple(reveal.shape) if isinstance(reveal, Tensor) else type(reveal).__name__
        raise InvalidOrder(
            f"the plan needs a yes or no for every place, {tuple(is_masked.shape)} bool; yours is {shape}."
        )
    if reveal.dtype != torch.bool:
        raise InvalidOrder(f"the plan says yes or no: a bool tensor, not {reveal.dtype}. Compare, or use .bool().")
    twice = (reveal & ~is_masked).nonzero()
    if len(twice):
        raise InvalidOrder(
            f"place {int(twice[0, 1])} is revealed already and cannot be revealed twice: add `& is_masked`."
        )
    return reveal


class RevealStep(NamedTuple):
    """One step of the sampler along true texts."""

    zt: Tensor  # (N, L) ids before it
    reveal: Tensor  # (N, L) bool, the places shown in it
    nats: Tensor  # (N,) float64, what drawing them from their beliefs costs


@torch.no_grad()  # as a decorator, see `sample.denoise_frames`
def reveal_steps(
    process: MaskedDiffusion, denoise: Denoise, x0: Tensor, plan: Plan, steps: int
) -> Iterator[RevealStep]:
    """Yield the steps of the sampler that asks `plan` what to reveal, on its way to the texts (N, L).

    Whatever is hidden at the last step is revealed there, whether the plan says so or not.

    Raises: InvalidOrder if the plan's answer is no (N, L) bool or names a visible place; ValueError for steps below 1.
    """
    check_whole(steps, "steps", "reveal_steps")
    x0 = on_device_of(denoise, x0)
    zt = torch.full_like(x0, process.mask_id)
    with evaluating(denoise):
        for left in range(steps, 0, -1):
            t = torch.full((len(x0),), process.T * left / steps, dtype=torch.float64)
            log_probs, is_masked = process.log_probs(denoise(zt, t).double(), zt), zt == process.mask_id
            reveal = checked(plan(log_probs.exp(), is_masked.clone(), left), is_masked)
            reveal = is_masked if left == 1 else reveal
            own = log_probs.gather(-1, x0[..., None])[..., 0]
            yield RevealStep(zt, reveal, -torch.where(reveal, own, 0.0).sum(1).cpu())
            zt = torch.where(reveal, x0, zt)


def sampler_nats(process: MaskedDiffusion, denoise: Denoise, x0: Tensor, plan: Plan, steps: int) -> Tensor:
    """-log q(x) of texts (N, L) under the sampler that a plan makes, (N,) float64 nats.

    For a plan that draws (a random order) this is the law given what it drew, and its mean bounds the sampler's own
    -log q from above (Jensen). Raises what `reveal_steps` raises.
    """
    return torch.stack([step.nats for step in reveal_steps(process, denoise, x0, plan, steps)]).sum(0)


def true_stories(language: StoryLanguage, n: int, seed: int) -> Tensor:
    """The n stories (n, L) that plans are judged on; the same for all of them."""
    return language.sample(n, Generator().manual_seed(seed))


def excess_nats(
    plan: Plan, language: StoryLanguage, *, steps: int, n: int = 64, seed: int = 0, model: Denoise | None = None
) -> Tensor:
    """log p(x) - log q(x) of n true stories, (n,) nats: their mean is KL(p || q), and plans can be compared in pairs.

    Args: model: a trained `DiffusionModel` in place of the exact denoiser; its own errors are then counted in.
    """
    process = MaskedDiffusion(len(language.tokenizer), language.mask_id) if model is None else model.process  # type: ignore[attr-defined]
    denoise = language.denoiser(process) if model is None else model
    x0 = true_stories(language, n, seed)
    return language.log_prob(x0) + sampler_nats(process, denoise, x0, plan, steps)


def score_order(
    plan: Plan | str,
    language: StoryLanguage,
    *,
    steps: int = 16,
    n: int = 64,
    seed: int = 0,
    model: Denoise | None = None,
) -> Estimate:
    """KL(stories || sampler) of a plan, or of a shipped rule by name, in nats a story: 0 is perfect.

    Raises: ValueError for an unknown name; InvalidOrder as in `reveal_steps`.
    """
    if isinstance(plan, str) and plan not in UNMASKING_ORDERS:
        raise ValueError(f"score_order: the shipped rules are {sorted(UNMASKING_ORDERS)}, got {plan!r}.")
    plan = evenly(UNMASKING_ORDERS[plan]) if isinstance(plan, str) else plan
    return mean_of(excess_nats(plan, language, steps=steps, n=n, seed=seed, model=model))


class OrderBoard(NamedTuple):
    """Plans by their KL in nats a story, the best at the largest number of steps first; prints as a table."""

    steps: tuple[int, ...]
    rows: dict[str, tuple[Estimate, ...]]  # one for each number of steps

    def __repr__(self) -> str:
        wide = max(map(len, self.rows))
        lines = ["nats a story".ljust(wide + 4) + "".join(f"{f'{n} steps':>14s}" for n in self.steps)]
        for place, (name, row) in enumerate(self.rows.items(), 1):
            cells = [f"{round(each.mean, 2) + 0.0:.2f} ± {each.standard_error:.2f}" for each in row]  # + 0.0: no -0.00
            lines.append(f"{place:2d}. {name:{wide}s}" + "".join(f"{cell:>14s}" for cell in cells))
        return "\n".join(lines)


def order_board(
    plans: Mapping[str, Plan],
    language: StoryLanguage,
    *,
    steps: Sequence[int] = (4, 8, 16),
    n: int = 64,
    seed: int = 0,
    model: Denoise | None = None,
) -> OrderBoard:
    """Score the shipped rules and your own plans, by name, on the same stories."""
    if not steps:
        raise ValueError("order_board: needs at least one number of steps, got ().")
    everyone = {**shipped_folder(), **plans}
    rows = {
        name: tuple(score_order(plan, language, steps=count, n=n, seed=seed, model=model) for count in steps)
        for name, plan in everyone.items()
    }
    return OrderBoard(tuple(steps), dict(sorted(rows.items(), key=lambda row: row[1][-1].mean)))
