"""Exercises of notebook 21_few_steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Generator, Tensor

from diffkit.course.exercises.checks import Wrong, exercise, number_of, tensor_of
from diffkit.course.experiments.few_steps import best_price, entropy_at, frontier_of_samples, total_correlation
from diffkit.languages.story_language import load_language


def told_apart(mine: float, want: float, slips: dict[str, float], case: str) -> None:
    """Raise Wrong unless the answer is the wanted one, with the explanation of a slip where it is a known one."""
    if abs(mine - want) > 1e-6:
        for why, slip in slips.items():
            if abs(mine - slip) < 1e-6:
                raise Wrong(f"{why}.")
        raise Wrong(f"{case}: {want:.5f} nats, yours is {mine:.5f}.")


def joint_table(seed: int, shape: tuple[int, ...]) -> Tensor:
    """Random probabilities with some zeros, as text has them."""
    rng = Generator().manual_seed(seed)
    weight = torch.rand(shape, generator=rng, dtype=torch.float64) ** 2
    weight[torch.rand(shape, generator=rng) < 0.3] = 0.0
    return weight / weight.sum()


def entropies(joint: Tensor) -> tuple[list[float], float]:
    """Of each token alone, and of all together."""
    singles = [joint.sum([a for a in range(joint.ndim) if a != axis]) for axis in range(joint.ndim)]
    return [float(torch.special.entr(p).sum()) for p in singles], float(torch.special.entr(joint).sum())


@exercise
def check_total_correlation(total_correlation: Callable[[Tensor], Any]) -> str:
    """total_correlation(joint) -> nats; joint has one axis per token and holds the probability of every text."""
    for seed, shape in ((0, (3, 3)), (1, (2, 4, 3)), (2, (3, 3, 2, 2))):
        joint = joint_table(seed, shape)
        mine = number_of(total_correlation, joint, called="the total correlation")
        alone, together = entropies(joint)
        if math.isnan(mine):
            raise Wrong("that is NaN: texts of probability 0 count 0 log 0 = 0. torch.special.entr knows.")
        slips = {
            "that is the joint entropy; how much larger is the sum of the single ones?": together,
            "that is the sum of the single entropies; subtract the joint one": sum(alone),
            "the sign is wrong: independent draws are never cheaper than the truth": together - sum(alone),
            "those are bits; nats use the natural logarithm": (sum(alone) - together) / math.log(2),
        }
        told_apart(mine, sum(alone) - together, slips, f"a table of shape {shape}")
    return "The product of the marginals is the best product there is, and this is what it costs."


@exercise
def check_plan_price(price: Callable[[Callable[[Sequence[int]], float], list[list[int]]], Any]) -> str:
    """price(entropy, plan) -> KL(p || q); entropy(positions) is H of what stands there; plan: positions by step."""
    micro = load_language("micro")
    texts = micro.sample(400, Generator().manual_seed(0)).unique(dim=0)
    probs = micro.log_prob(texts).exp()

    def entropy(positions: Sequence[int]) -> float:
        return entropy_at(texts, probs, list(positions))

    for plan in ([[0, 1, 2, 3, 4]], [[1], [0, 2], [3, 4]], [[2, 0], [4, 1, 3]], [[3], [1, 0, 4, 2]]):
        mine = number_of(price, entropy, plan, called="the price")
        before = [sum(plan[:j], []) for j in range(len(plan))]
        known = [entropy([*seen, i]) - entropy(seen) for seen, now in zip(before, plan, strict=True) for i in now]
        want = sum(known) - entropy(range(5))
        slips = {
            "each step is priced as if nothing had been seen before it; condition on earlier steps": sum(
                total_correlation(texts, probs, now) for now in plan
            ),
            "that is the whole mean -log q(x); the price is what it has too much, over the entropy": sum(known),
            "positions of one step cannot see each other; yours see those before them in the list": 0.0,
        }
        told_apart(mine, want, {why: slip for why, slip in slips.items() if abs(slip - want) > 1e-6}, f"plan {plan}")
    return "A step costs the total correlation of what it reveals, given what it has seen."


@exercise
def check_targets(targets: Callable[[Tensor, Tensor, int], Any]) -> str:
    """targets(states, predictions, mask_id) -> (L, V): what SDTT teaches, from the teacher's path of n small steps."""
    for seed, n, L, V in ((0, 2, 5, 4), (1, 4, 6, 3), (2, 1, 4, 4)):
        rng = Generator().manual_seed(seed)
        when = torch.randint(n + 1, (L,), generator=rng)  # the step that reveals a position; n: none
        when[0], when[1] = 0, n
        mask_id = V
        word = torch.randint(V, (L,), generator=rng)
        states = torch.stack([torch.where(when < j, word, mask_id) for j in range(n + 1)])
        predictions = torch.rand((n, L, V), generator=rng, dtype=torch.float64).log_softmax(-1)
        step = when.clamp(max=n - 1)
        want = predictions[step, torch.arange(L)]
        mine = tensor_of(targets, states, predictions, mask_id, shape=(L, V), called="the targets").double()
        slips = {
            "that is the first prediction everywhere: the teacher would teach nothing": predictions[0],
            "that is the last prediction everywhere; if a token is revealed earlier, take the step that reveals it": (
                predictions[-1]
            ),
            "that is the mean over the steps; one prediction counts for each token": predictions.mean(0),
        }
        if (mine - want).abs().max() > 1e-6:
            for why, slip in slips.items():
                if (want - slip).abs().max() > 1e-6 and (mine - slip).abs().max() < 1e-6:
                    raise Wrong(f"{why}.")
            i = int((mine - want).abs().amax(1).argmax())
            raise Wrong(
                f"position {i} is revealed by step {int(when[i])} of {n}; its target should be that prediction."
            )
    return "The student must say at once what the teacher says when it comes to it."


def toy() -> tuple[Tensor, Tensor]:
    """A switch says which two of the other three tokens are equal: after it, another second step is best each time."""
    tied = {0: lambda a, c: (a, a, c), 1: lambda a, c: (c, a, a), 2: lambda a, c: (a, c, a)}
    texts = [[switch, *show(a, c)] for switch, show in tied.items() for a in (0, 1) for c in (0, 1)]
    weight = torch.tensor([1.0, 3, 2, 4, 2, 3, 1, 2, 4, 1, 3, 2], dtype=torch.float64)
    return torch.tensor(texts), weight / weight.sum()


@exercise
def check_best_price(best: Callable[[Tensor, Tensor, list[int], int], Any]) -> str:
    """best(texts, probs, hidden, steps) -> the lowest KL of any plan, in nats; plans may choose by what they saw."""
    micro = load_language("micro")
    listed = micro.sample(400, Generator().manual_seed(0)).unique(dim=0)
    small = (listed[:, :4], micro.log_prob(listed).exp())
    for (texts, probs), hidden, steps in (
        (toy(), [0, 1, 2, 3], 1), (toy(), [0, 1, 2, 3], 2), (toy(), [0, 1, 2, 3], 3), (small, [0, 1, 2, 3], 2),
        (small, [1, 3], 3), (toy(), [1, 2, 3], 2),
    ):  # fmt: skip
        mine = number_of(best, texts, probs, hidden, steps, called="the price")
        want = best_price(texts, probs, hidden, steps)
        slips = {
            "that is the price of one step; the second one sees what the first revealed": total_correlation(
                texts, probs, hidden
            ),
            "that is the best *fixed* plan; after each outcome of the first step another second step may be best": (
                fixed_price(texts, probs, hidden, steps)
            ),
        }
        case = f"{len(texts)} texts, positions {hidden}, {steps} steps"
        told_apart(mine, want, {why: slip for why, slip in slips.items() if abs(slip - want) > 1e-6}, case)
    return "No sampler that keeps to one plan does better in so many steps. One that draws its plan at random may."


def fixed_price(texts: Tensor, probs: Tensor, hidden: Sequence[int], steps: int) -> float:
    """The lowest price of a plan that is fixed beforehand."""
    best = math.inf
    for code in range(steps ** len(hidden)):
        when = [code // steps**i % steps for i in range(len(hidden))]
        plan = [[i for i, w in zip(hidden, when, strict=True) if w == step] for step in range(steps)]
        seen: list[int] = []
        price = -entropy_at(texts, probs, hidden)
        for now in plan:
            price += sum(entropy_at(texts, probs, [*seen, i]) - entropy_at(texts, probs, seen) for i in now)
            seen += now
        best = min(best, price)
    return best


@exercise
def check_legal_kl(kl: Callable[[Tensor, Tensor], Any]) -> str:
    """kl(log_q, log_p) -> KL of the legal part of q from p, from samples of q (n,); log p is -inf if illegal."""
    for seed, n, share in ((0, 50, 0.8), (1, 200, 0.3), (2, 80, 1.0)):
        rng = Generator().manual_seed(seed)
        log_q = -3 - torch.rand(n, generator=rng, dtype=torch.float64)
        legal = torch.rand(n, generator=rng) < share
        legal[:2] = True
        log_p = torch.where(legal, log_q - torch.rand(n, generator=rng, dtype=torch.float64), -torch.inf)
        mine = number_of(kl, log_q, log_p, called="the KL")
        own, true = log_q[legal], log_p[legal]
        want = frontier_of_samples(log_q, log_p).kl.mean
        if math.isinf(mine):
            raise Wrong("one illegal sample makes that infinite. Take the legal ones, and say what share they are.")
        slips = {
            "q of the legal texts adds up to less than 1: divide by their share, or the KL comes out too low": float(
                (own - true).mean()
            ),
            "the sign is wrong: samples of q, so log q - log p": float((true - own).mean()),
            "that is the generative NLL alone; subtract the entropy of q, the mean of -log q": float(-true.mean()),
            "the share of legal texts enters with the other sign: q(x | legal) = q(x) / share is larger than q(x)": (
                2 * float((own - true).mean()) - want
            ),
        }
        told_apart(mine, want, {why: slip for why, slip in slips.items() if abs(slip - want) > 1e-6}, f"{n} samples")
    return "Generative NLL minus entropy, of what is legal. Report the share beside it."
