"""Few steps, exactly: the law of a sampler on texts that can be listed, the price of every plan, the frontier."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations, product
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor

from diffkit.course.orders import mask_patterns
from diffkit.course.parallel_cost import Plan
from diffkit.evaluation.statistics import Estimate, mean_of
from diffkit.paths import RESULTS
from diffkit.processes.base import Denoise
from diffkit.processes.masked import MaskedDiffusion
from diffkit.random import inverse_cdf, uniform_like
from diffkit.sampling.sampler import evaluating
from diffkit.training.distillation import NEVER

STORED = RESULTS / "distillation.json"  # of benchmarks/distillation.py
STUDENTS = {
    "exact": "perfect denoiser", "teacher": "teacher, tales-mdlm", "control": "control, more bound",
    "forward": "student, forward KL", "backward": "student, backward KL",
}  # fmt: skip
FAR = -1e9  # the log of 0 in a sum that needs gradients

# `nats` is always `pattern_nats` of N texts: (N, 2^L, L), -log p of the hidden tokens under every mask pattern.


def total_correlation(texts: Tensor, probs: Tensor, positions: Sequence[int]) -> float:
    """What the tokens at some positions know of each other: the sum of their entropies minus the joint one, nats.

    Args: texts: (N, L) ids; probs: (N,), their probabilities.
    """
    singles = sum(entropy_at(texts, probs, [i]) for i in positions)
    return singles - entropy_at(texts, probs, positions)


def entropy_at(texts: Tensor, probs: Tensor, positions: Sequence[int]) -> float:
    """Entropy of what stands at some positions, nats."""
    share: dict[tuple[int, ...], float] = {}
    for row, p in zip(texts.tolist(), probs.tolist(), strict=True):
        seen = tuple(row[i] for i in positions)
        share[seen] = share.get(seen, 0.0) + p
    return -sum(p * math.log(p) for p in share.values() if p > 0)


def plans(L: int, steps: int) -> Iterator[list[list[int]]]:
    """Every way to reveal L positions in so many steps, each with at least one: lists of positions, in order."""
    for when in product(range(steps), repeat=L):
        if len({*when}) == steps:
            yield [[i for i in range(L) if when[i] == step] for step in range(steps)]


def plan_nats(nats: Tensor, plan: Sequence[Sequence[int]]) -> Tensor:
    """-log q of each text under the sampler that follows a fixed plan, (N,)."""
    hidden, total = 2 ** nats.shape[2] - 1, torch.zeros(len(nats), dtype=nats.dtype)
    for now in plan:
        total = total + nats[:, hidden, list(now)].sum(1)
        hidden -= sum(2**i for i in now)
    return total


# One step of a random order: (hidden tokens, tokens to reveal) -> the chance of each set of so many.
RandomStep = Callable[[int, int], float]


def by_count(counts: Sequence[int]) -> list[RandomStep]:
    """Steps that reveal counts[j] positions, all sets equally likely."""
    return [lambda k, n, wanted=each: 1 / math.comb(k, n) if n == wanted else 0.0 for each in counts]  # type: ignore[misc]


def random_nats(nats: Tensor, steps: Sequence[RandomStep]) -> Tensor:
    """-log q of each text under a sampler that reveals random positions, (N,).

    All its paths to the text are added up: q is a mixture over them, and better than its parts are on average.
    """
    L, hidden = nats.shape[2], mask_patterns(nats.shape[2])  # (S, L), the sets of hidden positions
    now = hidden[:, None] & ~hidden  # (S, S, L): what is revealed on the way from one set to another
    gain = -torch.where(now, nats[:, :, None], 0.0).sum(-1)
    gain = gain.masked_fill((hidden & ~hidden[:, None]).any(-1), FAR)  # no token is hidden again
    count = hidden.sum(1)
    log_q = torch.full((len(nats), len(hidden)), FAR, dtype=nats.dtype)
    log_q[:, -1] = 0.0
    for step in steps:
        table = [[step(k, k - left) if left <= k else 0.0 for left in range(L + 1)] for k in range(L + 1)]
        chance = torch.tensor(table, dtype=nats.dtype)
        log_q = (log_q[..., None] + gain + chance.log().clamp(min=FAR)[count[:, None], count]).logsumexp(1)
    return -log_q[:, 0]


def profile(nats: Tensor) -> Tensor:
    """h(k), mean loss of a hidden token when k random tokens are visible, k = 0..L-1: (N, L) nats."""
    L = nats.shape[2]
    hidden = mask_patterns(L).sum(1)
    return torch.stack([nats[:, hidden == L - k].sum(-1).mean(1) / (L - k) for k in range(L)], 1)


def price_of_counts(h: Sequence[float], counts: Sequence[int]) -> float:
    """Mean KL(p || q) over the plans of a random order: sum of n_j h(k_j), minus the entropy, which is sum of h(k).

    Args:   h: (L,), of the exact denoiser; counts: how many to reveal at each step.
    Source: arXiv:2510.25544 and arXiv:2511.04647.
    """
    known = [sum(counts[:j]) for j in range(len(counts))]
    return sum(n * float(h[k]) for n, k in zip(counts, known, strict=True)) - float(sum(h))


def best_counts(h: Sequence[float], steps: int) -> list[int]:
    """The counts with the lowest `price_of_counts` for so many steps, by dynamic programming."""
    L = len(h)
    best: dict[int, tuple[float, list[int]]] = {L: (0.0, [])}  # by how many are known: the cost from there on
    for _ in range(steps):
        best = {
            k: min(
                (n * float(h[k]) + best[k + n][0], [n, *best[k + n][1]]) for n in range(1, L - k + 1) if k + n in best
            )
            for k in range(L)
            if any(k + n in best for n in range(1, L - k + 1))
        }
    return best[0][1]


def best_price(texts: Tensor, probs: Tensor, hidden: Sequence[int], steps: int) -> float:
    """The lowest KL(p || q) of any plan that may choose by what it has seen: the floor of factorised steps, nats.

    Args: texts: (N, L) ids; probs: (N,), adding up to 1; hidden: the positions that are still to be revealed.
    """
    if steps == 1 or len(hidden) <= 1:
        return total_correlation(texts, probs, hidden)
    return min(
        total_correlation(texts, probs, now) + _rest(texts, probs, now, [i for i in hidden if i not in now], steps - 1)
        for n in range(1, len(hidden) + 1)
        for now in combinations(hidden, n)
    )


def _rest(texts: Tensor, probs: Tensor, now: Sequence[int], hidden: Sequence[int], steps: int) -> float:
    """Mean of `best_price` once the positions `now` are seen."""
    if not hidden:
        return 0.0
    _, which = texts[:, list(now)].unique(dim=0, return_inverse=True)
    parts = [which == value for value in range(int(which.max()) + 1)]
    return sum(
        float(probs[part].sum()) * best_price(texts[part], probs[part] / probs[part].sum(), hidden, steps)
        for part in parts
    )


def mixture_nats(texts: Tensor, probs: Tensor, parts: int, seed: int, rounds: int = 300) -> Tensor:
    """-log q of each text (N,) for the best mixture of so many products that EM finds: one step with a shared draw.

    Source: arXiv:2410.08709 (Di4C), whose student is such a mixture.
    """
    one_hot = torch.nn.functional.one_hot(texts).double()  # (N, L, V)
    share = torch.rand(len(texts), parts, generator=Generator().manual_seed(seed), dtype=torch.float64)
    for _ in range(rounds):
        weight = probs[:, None] * share / share.sum(1, keepdim=True)  # (N, parts)
        tables = torch.einsum("np,nlv->plv", weight, one_hot) / weight.sum(0)[:, None, None]
        joint = (one_hot[:, None] * tables).sum(-1).log().sum(-1) + weight.sum(0).log()  # (N, parts)
        share = joint.softmax(1)
    return -joint.logsumexp(1)


class Point(NamedTuple):
    """A sampler on the generative frontier, judged by its legal texts; KL(q || p) = nll - entropy."""

    entropy: Estimate  # H(q), nats a text
    nll: Estimate  # generative negative log-likelihood: mean of -log p over samples of q
    kl: Estimate  # KL(legal q || p), with the error of the paired difference
    legal: float  # share of q inside the language


def frontier_of_law(log_q: Tensor, log_p: Tensor) -> Point:
    """The frontier point of a law that is known on all texts of the language, (N,) each: nothing is estimated."""
    legal = log_q.exp().sum()
    q = log_q.exp() / legal
    entropy, nll = torch.special.entr(q).sum(), -torch.special.xlogy(q, log_p.exp()).sum()
    H, cross, kl = (Estimate(float(value), 0.0) for value in (entropy, nll, nll - entropy))
    return Point(H, cross, kl, float(legal))


def frontier_of_samples(log_q: Tensor, log_p: Tensor) -> Point:
    """The same from samples of q, (n,) each, log q their own nats and log p -inf outside the language.

    Of the legal ones KL(legal q || p) = E log(q / p) - log(legal share). At least two samples must be legal. The errors
    of entropy and KL count that of the share, too: to first order it is independent of that of the mean.
    Source: arXiv:2604.02718 for the identity.
    """
    legal = log_p > -torch.inf
    share = float(legal.double().mean())
    own, true = log_q[legal] - math.log(share), log_p[legal]
    of_share = math.sqrt((1 - share) / (share * len(legal)))  # of log(share)

    def with_share(of_mean: Estimate) -> Estimate:
        return Estimate(of_mean.mean, math.hypot(of_mean.standard_error, of_share))

    return Point(with_share(mean_of(-own)), mean_of(-true), with_share(mean_of(own - true)), share)


@torch.no_grad()
def draw_with_nats(
    process: MaskedDiffusion, denoise: Denoise, plan: Plan, shape: tuple[int, int], steps: int, rng: Generator
) -> tuple[Tensor, Tensor]:
    """Samples (B, L) of a sampler that follows a plan without chance, and their own -log q (B,), in one pass."""
    zt, nats = torch.full(shape, process.mask_id), torch.zeros(shape[0], dtype=torch.float64)
    with evaluating(denoise):
        for left in range(steps, 0, -1):
            is_masked, t = zt == process.mask_id, torch.full((shape[0],), process.T * left / steps)
            log_probs = process.log_probs(denoise(zt, t).double(), zt)
            reveal = plan(log_probs.exp(), is_masked, left) if left > 1 else is_masked
            drawn = inverse_cdf(log_probs.exp(), uniform_like(zt, rng))
            nats -= torch.where(reveal, log_probs.gather(-1, drawn[..., None])[..., 0], 0.0).sum(1)
            zt = torch.where(reveal, drawn, zt)
    return zt, nats


def mean_target(
    process: MaskedDiffusion, teacher: Callable[[Tensor, Tensor], Tensor], times: tuple[float, float, float],
    L: int, geometric: bool = False,
) -> Tensor:  # fmt: skip
    """What SDTT teaches about the empty canvas, (L, V): the mean of the teacher's targets on two steps through `times`.

    The mean is the optimum of forward KL; the geometric mean, normalised, that of backward KL. All states after the
    first step are listed, so L and the vocabulary must be small.
    """
    t, middle, _ = (torch.tensor([each], dtype=torch.float64) for each in times)
    start = torch.full((1, L), process.mask_id)
    first = process.log_probs(teacher(start, t).double(), start)[0]  # (L, V)
    stay = process.stay_masked(t, middle).item()
    outcome = (1 - stay) * first.exp()
    outcome[:, process.mask_id] = stay
    states = torch.cartesian_prod(*(row.nonzero()[:, 0] for row in outcome))
    weight = outcome[torch.arange(L), states].prod(1)
    later = process.log_probs(teacher(states, middle.expand(len(states))).double(), states)
    target = torch.where((states == process.mask_id)[..., None], later, first)  # (states, L, V)
    if geometric:
        return torch.einsum("s,slv->lv", weight, target.clamp(min=NEVER)).log_softmax(-1)
    return torch.einsum("s,slv->lv", weight, target.exp()).log()


def distilled() -> tuple[dict[str, Estimate], dict[tuple[str, str, int], dict[str, Any]]]:
    """The stored models' gap to the entropy, nats a story, and a row for each (model, order, steps)."""
    stored = json.loads(STORED.read_text(encoding="utf-8"))
    rows = {(row["model"], row["order"], row["steps"]): row for row in stored["rows"]}
    return {name: Estimate(**stored["gaps"][name]) for name in STUDENTS}, rows


def distilled_table(order: str, steps: Sequence[int] = (4, 8, 16)) -> str:
    """Every model in an order: price on true stories, and the share of valid ones it writes, with 95 % intervals."""
    gaps, rows = distilled()
    lines = [f"{order:22}" + "".join(f"{f'{n} steps: price':>17}   valid, %     " for n in steps)]
    for name in gaps:
        cells = [rows[name, order, n] for n in steps]
        lines.append(f"{STUDENTS[name]:22}" + "".join(
            f"{row['price']['mean']:11.1f} ± {1.96 * row['price']['standard_error']:3.1f}"
            f"{100 * row['valid']:5.0f} ({100 * row['low']:2.0f} to {100 * row['high']:2.0f})" for row in cells
        ))  # fmt: skip
    return "\n".join(lines)


def distilled_frontier(steps: int, order: str = "one open question") -> str:
    """The gap of every model; NLL, entropy and KL(q || p) of the valid stories it writes, nats a story."""
    gaps, rows = distilled()
    lines = [f"{f'{order}, {steps} steps':27}{'gap':>11}   of the valid: gen. NLL   entropy    KL(q || p)"]
    for name, gap in gaps.items():
        row = rows[name, order, steps]
        nll, entropy, kl = (Estimate(**row[key]) for key in ("nll", "entropy", "kl"))
        lines.append(
            f"{STUDENTS[name]:27}{gap.mean:6.1f} ± {1.96 * gap.standard_error:.1f}{nll.mean:25.1f}{entropy.mean:10.1f}"
            f"{kl.mean:8.1f} ± {1.96 * kl.standard_error:.1f}"
        )
    return "\n".join(lines)
