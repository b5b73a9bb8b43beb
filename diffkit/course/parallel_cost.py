"""The cost of revealing several positions at once: the exact KL from a language to the sampler that an order makes.

Positions are chosen from the predictions before any token is drawn, and tokens drawn together are independent. So a
text x has one path through the sampler: reveal, at every step, the tokens of x at the positions chosen so far. Its
probability q(x) is the product of the predicted probabilities of its own tokens along the path, and KL(p || q) is the
mean of log p(x) - log q(x) over true texts: no samples, no floor, a small error. It is the total correlation of what is
revealed together, summed over steps.
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

# probs (B, L, V), is_masked (B, L) bool, steps left (this one counted) -> (B, L) bool: the positions to reveal now
Plan = Callable[[Tensor, Tensor, int], Tensor]


class InvalidOrder(ValueError):
    """A score or plan of a user returned something else than asked for; the message says what."""


def checked(answer: Tensor, is_masked: Tensor, wanted: str = "yes or no") -> Tensor:
    """The answer of a score ("one number") or a plan ("yes or no") at every position of is_masked (B, L).

    Raises: InvalidOrder unless it is a tensor of that shape; for a plan bool, and true at masked positions only; for a
            score neither NaN nor -inf at a masked position.
    """
    if not isinstance(answer, Tensor) or answer.shape != is_masked.shape:
        found = tuple(answer.shape) if isinstance(answer, Tensor) else type(answer).__name__
        raise InvalidOrder(f"{wanted} for every position is needed, {tuple(is_masked.shape)}; yours is {found}.")
    if wanted == "one number":
        if torch.isnan(answer[is_masked]).any():
            raise InvalidOrder("the score of a masked position is NaN. 0 x log 0? torch.special.entr knows it is 0.")
        if (answer[is_masked] == -torch.inf).any():
            raise InvalidOrder("the score of a masked position is -inf: it would never be revealed.")
    elif answer.dtype != torch.bool:
        raise InvalidOrder(f"the plan needs a bool tensor, not {answer.dtype}. Compare, or use .bool().")
    elif len(twice := (answer & ~is_masked).nonzero()):
        raise InvalidOrder(f"position {int(twice[0, 1])} would be revealed twice: add `& is_masked`.")
    return answer


def evenly(score: Score, seed: int = 0) -> Plan:
    """The plan of `Unmasking` with linear counts: equally many positions at every step, the highest scores first.

    Args:   score: (probs, rng) -> (B, L); seed: of its rng, which differs between steps.
    Raises: InvalidOrder, when used, see `checked`.
    """

    def plan(probs: Tensor, is_masked: Tensor, steps_left: int) -> Tensor:
        value = checked(score(probs, Generator().manual_seed(1000 * seed + steps_left)), is_masked, "one number")
        masks = is_masked.sum(1)
        left = (masks * ((steps_left - 1) / steps_left) + 1e-9).floor()  # masks to keep
        return highest(value.double(), is_masked, masks - left)

    return plan


def shipped_plans(seed: int = 0) -> dict[str, Plan]:
    """UNMASKING_ORDERS as plans, by name."""
    return {name: evenly(score, seed) for name, score in UNMASKING_ORDERS.items()}


class RevealStep(NamedTuple):
    """One step of the sampler along true texts."""

    zt: Tensor  # (N, L) ids before it
    reveal: Tensor  # (N, L) bool, the positions revealed in it
    nats: Tensor  # (N,) float64, -log of the predicted probability of their tokens


@torch.no_grad()  # as a decorator, see `denoise_frames`
def reveal_steps(
    process: MaskedDiffusion, denoise: Denoise, x0: Tensor, plan: Plan, steps: int
) -> Iterator[RevealStep]:
    """Yield the steps of the sampler that asks `plan` what to reveal, along the texts (N, L).

    Whatever is masked at the last step is revealed there, whether the plan says so or not.

    Raises: InvalidOrder for an invalid answer of the plan; ValueError for steps below 1.
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
    """-log q(x) of texts (N, L) under the sampler that a plan makes, (N,) float64 nats; raises as `reveal_steps`.

    For a plan that draws (a random order) this is conditional on what it drew, and its mean bounds the sampler's own
    -log q from above (Jensen).
    """
    return torch.stack([step.nats for step in reveal_steps(process, denoise, x0, plan, steps)]).sum(0)


def excess_nats(
    plan: Plan, language: StoryLanguage, *, steps: int, n: int = 64, seed: int = 0, model: Denoise | None = None
) -> Tensor:
    """log p(x) - log q(x) of n true stories, (n,) nats: their mean is KL(p || q), and plans can be compared in pairs.

    Args: seed: of the stories; model: a `DiffusionModel` in place of the exact denoiser; its own errors then count too.
    """
    process = MaskedDiffusion(len(language.tokenizer), language.mask_id) if model is None else model.process  # type: ignore[attr-defined]
    denoise = language.denoiser(process) if model is None else model
    x0 = language.sample(n, Generator().manual_seed(seed))
    return language.log_prob(x0) + sampler_nats(process, denoise, x0, plan, steps)


def score_order(plan: Plan | str, language: StoryLanguage, *, steps: int = 16, **how: object) -> Estimate:
    """KL(stories || sampler) of a plan, or of an unmasking order by name, in nats per story: 0 is perfect.

    Args:   how: n, seed and model as in `excess_nats`.
    Raises: ValueError for an unknown name; InvalidOrder as in `reveal_steps`.
    """
    if isinstance(plan, str) and plan not in UNMASKING_ORDERS:
        raise ValueError(f"score_order: the orders are {sorted(UNMASKING_ORDERS)}, got {plan!r}.")
    plan = evenly(UNMASKING_ORDERS[plan]) if isinstance(plan, str) else plan
    return mean_of(excess_nats(plan, language, steps=steps, **how))  # type: ignore[arg-type]


class OrderBoard(NamedTuple):
    """Plans by their KL in nats per story, the best at the largest number of steps first; prints as a table."""

    steps: tuple[int, ...]
    rows: dict[str, tuple[Estimate, ...]]  # one for each number of steps

    def __repr__(self) -> str:
        wide = max(map(len, self.rows))
        lines = ["nats a story".ljust(wide + 4) + "".join(f"{f'{n} steps':>14s}" for n in self.steps)]
        for rank, (name, row) in enumerate(self.rows.items(), 1):
            cells = [f"{round(each.mean, 2) + 0.0:.2f} ± {each.standard_error:.2f}" for each in row]  # + 0.0: no -0.00
            lines.append(f"{rank:2d}. {name:{wide}s}" + "".join(f"{cell:>14s}" for cell in cells))
        return "\n".join(lines)


def order_board(
    plans: Mapping[str, Plan], language: StoryLanguage, *, steps: Sequence[int] = (4, 8, 16), **how: object
) -> OrderBoard:
    """Score the unmasking orders and your own plans, by name, on the same stories."""
    everyone = {**shipped_plans(), **plans}
    rows = {
        name: tuple(score_order(plan, language, steps=count, **how) for count in steps)
        for name, plan in everyone.items()
    }
    return OrderBoard(tuple(steps), dict(sorted(rows.items(), key=lambda row: row[1][-1].mean)))
