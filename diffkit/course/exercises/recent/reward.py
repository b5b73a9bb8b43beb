"""Exercises of notebook 22_reward."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Generator, Tensor

from diffkit.course.exercises.checks import Wrong, exercise, not_these, number_of, tensor_of


def law(seed: int, n: int) -> tuple[Tensor, Tensor]:
    """log p_ref and rewards of n texts, (n,) float64 each."""
    rng = Generator().manual_seed(seed)
    log_ref = torch.randn(n, generator=rng, dtype=torch.float64).log_softmax(0)
    return log_ref, torch.rand(n, generator=rng, dtype=torch.float64).round(decimals=2)


@exercise
def check_best_value(best_value: Callable[[Tensor, Tensor, float], Any]) -> str:
    """best_value(log_ref, rewards, beta) -> J*, the highest E r - beta KL(q || p_ref) of any law on these texts."""
    for (log_ref, rewards), beta in ((law(0, 6), 0.5), (law(1, 4), 2.0), (law(2, 8), 0.1), (law(3, 5), 0.001)):
        mine = number_of(best_value, log_ref, rewards, beta, called="J*")
        log_z = (log_ref + rewards / beta).logsumexp(0)
        best = (log_ref + rewards / beta - log_z).exp()
        want = float(beta * log_z)
        slips = {
            "that is log Z; multiply by beta": log_z,
            "that is E r at the optimum; the KL to p_ref costs beta for every nat": best @ rewards,
            "that is the largest reward; a law that always earns it is too far from p_ref": rewards.max(),
            "that is what p_ref itself earns": log_ref.exp() @ rewards,
            "the reward is divided by beta in the exponent, not multiplied": beta
            * (log_ref + beta * rewards).logsumexp(0),
        }
        if math.isnan(mine) or math.isinf(mine):
            raise Wrong(f"beta = {beta}: that is {mine}. exp(r / beta) is too large for a float; use logsumexp.")
        if abs(mine - want) > 1e-6:
            not_these(torch.tensor(mine).double(), {w: s for w, s in slips.items() if abs(float(s) - want) > 1e-4})
            raise Wrong(f"beta = {beta}, {len(rewards)} texts: J* is {want:.5f}, yours is {mine:.5f}.")
    return "J* = beta log Z: known before anything is trained."


@exercise
def check_coupled(coupled: Callable[[Callable[[Tensor], Tensor], Tensor, Tensor, float, int], Any]) -> str:
    """coupled(log_prob, x0, is_masked, rate, mask_id) -> the surrogate of log p(x0): a mask and its complement."""
    L, V = 5, 4
    for seed, rate in ((0, 0.3), (1, 0.5), (2, 0.7)):
        rng = Generator().manual_seed(seed)
        table = torch.randn((L, V + 1, V), generator=rng, dtype=torch.float64)
        x0 = torch.randint(V, (L,), generator=rng)
        is_masked = torch.tensor([True, False, True, False, False]).roll(seed)

        def log_prob(xt: Tensor, table: Tensor = table) -> Tensor:
            return (table + table[torch.arange(L), xt].mean(0)).log_softmax(-1)[:, V]

        tables = {}
        for name, hidden in (("all", torch.ones(L, dtype=torch.bool)), ("mask", is_masked), ("rest", ~is_masked)):
            own = log_prob(torch.where(hidden, V, x0))
            tables[name] = torch.where(hidden, own[torch.arange(L), x0], 0.0).sum()
        want = (tables["all"] + tables["mask"] / rate + tables["rest"] / (1 - rate)) / 2
        slips = {
            "each mask is divided by its own rate: the complement by 1 - rate": (
                tables["all"] + (tables["mask"] + tables["rest"]) / rate
            )
            / 2,
            "without its rates a mask counts as if all tokens were hidden in it": (
                tables["all"] + tables["mask"] + tables["rest"]
            )
            / 2,
            "divide by 2: two looks at every token are averaged": 2 * want,
            "the empty canvas is missing": (tables["mask"] / rate + tables["rest"] / (1 - rate)) / 2,
            "the complement is missing: every token should be hidden once": (tables["all"] + tables["mask"] / rate) / 2,
        }
        mine = tensor_of(coupled, log_prob, x0, is_masked, rate, V, shape=(), called="the surrogate").double()
        if abs(float(mine - want)) > 1e-6:
            not_these(mine, slips)
            raise Wrong(f"rate {rate}: the surrogate is {float(want):.4f}, yours is {float(mine):.4f}.")
    return "Every token is hidden in exactly one of the two masks, and once on the empty canvas."


@exercise
def check_group(group: Callable[[float, float, int], Any]) -> str:
    """group(v, beta, G) -> mean total weight of r = 1 in softmax(r / beta) over G samples that earn 1 with chance v."""
    for v, beta, G in ((0.4, 0.5, 2), (0.166, 0.5, 8), (0.3, 1.0, 5), (0.5, 0.25, 1), (0.2, 0.5, 64)):
        boost = math.exp(1 / beta)
        chance = [math.comb(G, k) * v**k * (1 - v) ** (G - k) for k in range(G + 1)]
        want = sum(p * k * boost / (k * boost + G - k) for k, p in enumerate(chance))
        mine = torch.tensor(number_of(group, v, beta, G, called="the weight")).double()
        slips = {
            "that is the optimum, the limit of a large group; in a small one the normaliser is noisy": (
                v * boost / (1 + v * (boost - 1))
            ),
            "that is their share without any reward": v,
            "one of them alone; k samples that earn 1 share k such weights": sum(
                p * min(k, 1) * boost / (k * boost + G - k) for k, p in enumerate(chance)
            ),
            "the number k of ones follows a binomial law; its mean G v is not enough": (
                G * v * boost / (G * v * boost + G * (1 - v))
            ),
        }
        if abs(float(mine) - want) > 1e-6:
            apart = {why: torch.tensor(slip).double() for why, slip in slips.items() if abs(slip - want) > 1e-4}
            not_these(mine, apart)
            raise Wrong(f"v = {v}, beta = {beta}, groups of {G}: {want:.4f}, yours is {float(mine):.4f}.")
    return "Small groups act as a larger beta: the error is of order 1 / G."


@exercise
def check_gradient(gradient: Callable[[Tensor, Tensor, Tensor, float], Any]) -> str:
    """gradient(theta, log_ref, rewards, beta) -> dJ / dtheta, (N,), of q = softmax(theta) over N listed texts."""
    for seed, n, beta in ((0, 5, 0.5), (1, 7, 1.0), (2, 4, 0.2)):
        log_ref, rewards = law(seed, n)
        theta = torch.randn(n, generator=Generator().manual_seed(seed + 9), dtype=torch.float64)
        moving = theta.clone().requires_grad_()
        log_q = moving.log_softmax(0)
        value = log_q.exp() @ rewards - beta * (log_q.exp() * (log_q - log_ref)).sum()
        (want,) = torch.autograd.grad(value, moving)
        q, log_q = log_q.detach().exp(), log_q.detach()
        worth = rewards - beta * (log_q - log_ref)
        slips = {
            "that is the gradient with respect to q; theta moves all of q, as its sum stays 1: subtract the mean": q
            * worth,
            "the penalty is missing": q * (rewards - q @ rewards),
            "the penalty enters with the other sign": q * (2 * rewards - worth - q @ (2 * rewards - worth)),
            "that is the advantage; each text counts as often as q writes it": worth - q @ worth,
            "the mean is over q, not over the listed texts alike": q * (worth - worth.mean()),
            "that is the gradient of -J": -want,
        }
        mine = tensor_of(gradient, theta, log_ref, rewards, beta, shape=(n,), called="the gradient").double()
        if (mine - want).abs().max() > 1e-6:
            not_these(mine, slips)
            i = int((mine - want).abs().argmax())
            raise Wrong(f"beta = {beta}: entry {i} is {float(want[i]):.5f}, yours is {float(mine[i]):.5f}.")
    return "q times (worth minus its mean): a text gains if its reward pays for its distance."
