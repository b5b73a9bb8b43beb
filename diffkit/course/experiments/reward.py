"""Reward, exactly: the known optimum, tilted languages, and where policy gradients with surrogates end."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from diffkit.course.experiments.few_steps import by_count, random_nats
from diffkit.course.orders import mask_patterns
from diffkit.evaluation.samples import distance, plots_of, until_end
from diffkit.evaluation.statistics import wilson
from diffkit.languages.story_language import StoryLanguage
from diffkit.paths import RESULTS
from diffkit.processes.masked import MaskedDiffusion


class Outcome(NamedTuple):
    """A policy judged exactly: J = reward - beta kl, and J* - J = beta KL(q || optimum)."""

    reward: float  # E_q r
    kl: float  # KL(q || p_ref), nats a text
    value: float  # J


def judge(log_q: Tensor, log_ref: Tensor, rewards: Tensor, beta: float) -> Outcome:
    """Judge a law on listed texts, (N,) each; the mass that q has elsewhere is left out, and q normalised."""
    log_q = log_q - log_q.logsumexp(0)
    kl = float((log_q.exp() * (log_q - log_ref)).sum())
    reward = float(log_q.exp() @ rewards)
    return Outcome(reward, kl, reward - beta * kl)


def optimum(log_ref: Tensor, rewards: Tensor, beta: float) -> Tensor:
    """log of the law that maximises E r - beta KL(q || p_ref): log p_ref + r / beta - log Z, (N,)."""
    return (log_ref + rewards / beta).log_softmax(0)


def optimum_of_share(v: float, beta: float) -> Outcome:
    """The optimum for a reward of 0 or 1 that the reference earns with probability v."""
    boost = math.exp(1 / beta)
    Z = 1 + v * (boost - 1)
    reward = v * boost / Z
    return Outcome(reward, reward / beta - math.log(Z), beta * math.log(Z))


def tilted(language: StoryLanguage, rewards: Mapping[str, float], beta: float) -> StoryLanguage:
    """The optimum for a reward by label, as a language: the same plots, each with its probability times exp(r / beta).

    So its samples, entropy and denoiser are exact. A label that is not named earns 0.
    """
    found = copy.copy(language)
    earned = torch.tensor([rewards.get(label, 0.0) for label in language.labels], dtype=torch.float64)
    weight = language.template_probs * (earned[language.template_labels] / beta).exp()
    found.template_probs = weight / weight.sum()
    return found


# ---------------------------------------------------- surrogates with every mask, from `pattern_nats` (N, 2^L, L)


def exact_log_p(nats: Tensor) -> Tensor:
    """log p of the sampler that reveals one random token a step, (N,)."""
    return -random_nats(nats, by_count([1] * nats.shape[2]))


def mean_one_step(nats: Tensor) -> Tensor:
    """`one_step` of training/reward.py, (N,)."""
    return -nats[:, -1].sum(1)


def mean_exact_count(nats: Tensor) -> Tensor:
    """`exact_count`, averaged over its masks, (N,): minus the bound."""
    L, k = nats.shape[2], mask_patterns(nats.shape[2]).sum(1)
    weight = torch.tensor([1 / (n * math.comb(L, n)) if n else 0.0 for n in k.tolist()], dtype=nats.dtype)
    return -nats.sum(2) @ weight


def mean_coupled(nats: Tensor, points: int = 200) -> Tensor:
    """`coupled`, averaged over its masks, (N,); the rate by the midpoint rule."""
    L, k = nats.shape[2], mask_patterns(nats.shape[2]).sum(1)
    rate = 0.2 + 0.6 * (torch.arange(points, dtype=nats.dtype)[:, None] + 0.5) / points
    weight = torch.where(k > 0, rate ** (k - 1) * (1 - rate) ** (L - k), 0.0).mean(0)
    return (mean_one_step(nats) - 2 * nats.sum(2) @ weight) / 2


class TablePolicy(nn.Module):
    """Free logits for every state that a true text can pass: a policy that no network limits.

    It starts as the exact denoiser of the listed texts (N, L) and never leaves their support. A call returns
    `pattern_nats` of the texts.
    """

    def __init__(self, process: MaskedDiffusion, denoise: Callable[[Tensor, Tensor], Tensor], texts: Tensor):
        super().__init__()
        self.hidden = mask_patterns(texts.shape[1])  # (2^L, L)
        self.texts = texts[:, None, :, None].expand(-1, len(self.hidden), -1, 1)
        states = torch.where(self.hidden, process.mask_id, texts[:, None]).flatten(0, 1)
        states, self.state = states.unique(dim=0, return_inverse=True)
        with torch.no_grad():
            start = process.log_probs(denoise(states, torch.full((len(states),), process.T / 2)).double(), states)
        self.support = start > -torch.inf
        self.logits = nn.Parameter(start.clamp(min=-100.0))

    def forward(self) -> Tensor:
        log_probs = self.logits.masked_fill(~self.support, -torch.inf).log_softmax(-1)[self.state]
        own = log_probs.view(*self.texts.shape[:3], -1).gather(-1, self.texts)[..., 0]
        return -torch.where(self.hidden, own, 0.0)


Mean = Callable[[Tensor], Tensor]  # pattern nats (N, 2^L, L) -> a surrogate of log p, (N,)


def ascend(
    policy: TablePolicy, rewards: Tensor, *, beta: float, surrogate: Mean, divide: bool = False, steps: int = 400,
    lr: float = 0.05,
) -> Iterator[Tensor]:  # fmt: skip
    """The policy gradient without noise, all texts and all masks: yields log q (N,) after every step.

    The surrogate stands for log p in the gradient and in the penalty, as it does in practice.

    Args: divide: advantages by their standard deviation, as GRPO does.
    """
    reference = surrogate(policy()).detach()

    def loss(nats: Tensor, q: Tensor) -> Tensor:
        own, value = surrogate(nats), rewards - q @ rewards
        value = value / (q @ value**2).sqrt() if divide else value
        value = value - beta * (own.detach() - reference)
        return -(q * (value - q @ value) * own).sum()

    return _descend(policy, loss, steps, lr)


def _descend(policy: TablePolicy, loss: Callable[[Tensor, Tensor], Tensor], steps: int, lr: float) -> Iterator[Tensor]:
    """Steps down a loss of the pattern nats (N, 2^L, L) and the law q (N,); yields log q after each."""
    optimizer = torch.optim.Adam(policy.parameters(), lr=lr)
    for _ in range(steps):
        nats = policy()
        optimizer.zero_grad()
        loss(nats, exact_log_p(nats.detach()).exp()).backward()
        optimizer.step()
        yield exact_log_p(policy().detach())


def ascend_by_one_draw(
    policy: TablePolicy, rewards: Tensor, *, beta: float, steps: int = 400, lr: float = 0.05
) -> Iterator[Tensor]:
    """As `ascend` by the exact count, but the mask that gives a text's slope also gives its log-ratio.

    Both are averaged over masks as a product, so a variance comes in where the product of two averages should stand.
    """
    k, L = policy.hidden.sum(1), policy.hidden.shape[1]
    chance = torch.tensor([1 / (L * math.comb(L, n)) if n else 0.0 for n in k.tolist()], dtype=torch.float64)

    def draws(nats: Tensor) -> Tensor:  # (N, 2^L): the exact count by each mask
        return -nats.sum(2) * L / k.clamp(min=1)

    reference = draws(policy()).detach()

    def loss(nats: Tensor, q: Tensor) -> Tensor:
        own = draws(nats)
        value = rewards[:, None] - beta * (own.detach() - reference)
        return -(q @ ((value - q @ value @ chance) * own) @ chance)

    return _descend(policy, loss, steps, lr)


# ------------------------------------------------------------------ a network of tales, taught by benchmarks/reward.py

STORED = RESULTS / "reward.json"


def stored() -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """The setting of benchmarks/reward.py, and its rows by name."""
    found = json.loads(STORED.read_text(encoding="utf-8"))
    return found["setting"], {row["name"]: row for row in found["rows"]}


def least_kl(share: float, v: float) -> float:
    """The least KL(q || p_ref), nats, at which q earns `share` where the reference earns v, both in (0, 1)."""
    return share * math.log(share / v) + (1 - share) * math.log((1 - share) / (1 - v))


def table(rows: dict[str, dict[str, Any]], beta: float) -> str:
    """A line for each row: what it earns, J and log q - log p_ref by bounds, the least KL for that reward, and more."""
    lines = [" " * 28 + "earns     J  log q/p_ref (least)  nearer by     valid (95 %)      -log p  plots (floor)"]
    for name, row in rows.items():
        key = "labelled" if name.startswith("lost") else "valid"
        earned, start = row[key], rows[f"{name.split(',')[0]}, before"][key]
        lines.append(
            f"{name:28s}{earned:5.2f}{earned - beta * row['ratio']:6.2f}{row['ratio']:7.2f} ± {row['ratio_se']:.2f}"
            f" ({least_kl(earned, start):.2f}){row['gain']:7.2f} ± {row['gain_se']:.2f}"
            f"{row['valid']:7.2f} ({row['low']:.2f} to {row['high']:.2f}){row['nats_of_valid']:7.1f}"
            f"{row['plot_kl']:7.2f} ({row['plot_floor']:.2f})"
        )
    return "\n".join(lines)


def judged_stories(language: StoryLanguage, goal: StoryLanguage, x0: Tensor, label: str) -> dict[str, float]:
    """Judge stories x0 (n, L) that a policy wrote; `goal` is the language with the weights that its plots should have.

    Returns: the share that is valid, with its 95 % interval; the share that ends in `label`; -log p of the valid ones
             in the language, nats; how many valid ones differ; and as far as they are valid KL(written || goal), nats,
             of the lengths, of the first word, and of the plots among those with that label, each with its floor: what
             perfect samples of this number show.
    """
    plots, first = plots_of(language, x0), goal.posterior(torch.zeros(1, goal.length, goal.vocab_size))[1][0, 0]
    is_valid, is_labelled = plots >= 0, language.template_labels == language.label_id(label)
    valid, low_high = x0[is_valid], wilson(int(is_valid.sum()), len(x0))
    lengths = torch.tensor([len(row) for row in until_end(valid, language.eos_id)])
    right = plots[is_valid][is_labelled[plots[is_valid]]]
    counted = {
        "length": (lengths, goal.length_law()), "first_word": (valid[:, 0], first),
        "plot": (right, goal.template_probs * is_labelled / goal.template_probs[is_labelled].sum()),
    }  # fmt: skip
    found = {
        "stories": len(x0), "valid": len(valid) / len(x0), "low": low_high[0], "high": low_high[1],
        "labelled": len(right) / len(x0), "nats_of_valid": float(-language.log_prob(valid).mean()),
        "different": len(valid.unique(dim=0)),
    }  # fmt: skip
    for name, (outcomes, probs) in counted.items():
        away = distance(torch.bincount(outcomes, minlength=len(probs)), probs)
        found |= {f"{name}_kl": away.kl, f"{name}_floor": away.kl_floor}
    return found
