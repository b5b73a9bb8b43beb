"""Few steps: laws and prices against every path written out, what SDTT teaches, the frontier's identity."""

import itertools
import math

import pytest
import torch
from toys import ENTROPY, MASK, MICRO, PROBS, TEXTS, L, generator, masked_diffusion

from diffkit.course.experiments.few_steps import (
    best_counts,
    best_price,
    by_count,
    draw_with_nats,
    entropy_at,
    frontier_of_law,
    frontier_of_samples,
    mean_target,
    mixture_nats,
    plan_nats,
    plans,
    price_of_counts,
    profile,
    random_nats,
    total_correlation,
)
from diffkit.course.orders import pattern_nats
from diffkit.course.parallel_cost import sampler_nats, shipped_plans
from diffkit.sampling.logits import filtered
from diffkit.training.distillation import teacher_targets

PROCESS = masked_diffusion()
EXACT = MICRO.denoiser(PROCESS)
NATS = pattern_nats(PROCESS, EXACT, TEXTS)
PRICES = {
    steps: [(plan, float(PROBS @ plan_nats(NATS, plan)) - ENTROPY) for plan in plans(L, steps)] for steps in (1, 2, 3)
}


def test_a_plan_costs_the_conditional_total_correlations():
    """Q8: both sides for every plan; chain rule by entropies, path by predictions."""
    for plan, price in PRICES[1] + PRICES[2] + PRICES[3][::10]:
        seen, want = [], 0.0
        for now in plan:
            alone = sum(entropy_at(TEXTS, PROBS, [*seen, i]) - entropy_at(TEXTS, PROBS, seen) for i in now)
            want += alone - (entropy_at(TEXTS, PROBS, [*seen, *now]) - entropy_at(TEXTS, PROBS, seen))
            seen = [*seen, *now]
        assert price == pytest.approx(want, abs=1e-9)
    assert PRICES[1][0][1] == pytest.approx(total_correlation(TEXTS, PROBS, range(L)), abs=1e-9)


@pytest.mark.parametrize("counts", [(5,), (2, 3), (1, 3, 1), (1, 1, 1, 1, 1)])
def test_a_random_order_is_the_mixture_of_its_plans(counts):
    own = [plan for plan in plans(L, len(counts)) if tuple(map(len, plan)) == counts]
    paths = torch.stack([plan_nats(NATS, plan) for plan in own])
    law = random_nats(NATS, by_count(counts))
    assert torch.allclose(law, math.log(len(own)) - (-paths).logsumexp(0), atol=1e-9)
    mean = float((paths @ PROBS).mean()) - ENTROPY
    assert price_of_counts((PROBS @ profile(NATS)).tolist(), counts) == pytest.approx(mean, abs=1e-9)
    assert float(PROBS @ law) - ENTROPY <= mean + 1e-9


def ancestral(steps):
    """Even steps of the linear schedule: each hidden token is revealed with the chance 1 / (steps left)."""
    return [lambda k, n, rho=1 / left: rho**n * (1 - rho) ** (k - n) for left in range(steps, 0, -1)]


def test_ancestral_steps_weigh_the_counts_by_their_chance():
    parts = [math.log(math.comb(L, n) * 0.5**L) - random_nats(NATS, by_count([n, L - n])) for n in range(L + 1)]
    assert torch.allclose(random_nats(NATS, ancestral(2)), -torch.stack(parts).logsumexp(0), atol=1e-9)


def test_the_best_counts_are_the_best_of_all():
    h = (PROBS @ profile(NATS)).tolist()
    for steps in (1, 2, 3, 4, 5):
        every = [c for c in itertools.product(range(1, L + 1), repeat=steps) if sum(c) == L]
        best = min(price_of_counts(h, counts) for counts in every)
        assert price_of_counts(h, best_counts(h, steps)) == pytest.approx(best, abs=1e-12)


def test_the_floor_is_the_best_plan_where_looking_cannot_help():
    assert best_price(TEXTS, PROBS, list(range(L)), 2) == pytest.approx(min(price for _, price in PRICES[2]), abs=1e-9)
    assert min(price for _, price in PRICES[3]) == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("parts", [1, 2, 4])
def test_a_mixture_keeps_its_bound(parts):
    """KL >= TC - (L - 1) log K; one part is the product of the marginals."""
    floor = total_correlation(TEXTS, PROBS, range(L))
    price = float(PROBS @ mixture_nats(TEXTS, PROBS, parts, seed=0)) - ENTROPY
    assert price >= floor - (L - 1) * math.log(parts) - 1e-9 and price <= floor + 1e-9
    assert parts > 1 or price == pytest.approx(floor, abs=1e-9)


def test_a_perfect_denoiser_is_its_own_student():
    """The tower property: where at most one token is revealed (up to 1e-8), the mean target is the first one."""
    empty = torch.full((1, L), MASK)
    first = PROCESS.log_probs(EXACT(empty, torch.tensor([1000.0])), empty)[0].exp()
    slow = mean_target(PROCESS, EXACT, (1000.0, 999.9, 0.0), L).exp()
    together = mean_target(PROCESS, EXACT, (1000.0, 500.0, 0.0), L).exp()
    assert (slow - first).abs().max() < 1e-6 < 1e-3 < (together - first).abs().max()


def test_what_sdtt_teaches_is_the_predicted_law():
    """The mean of drawn targets, entry by entry, within six standard errors of the listed one."""
    n = 3000
    empty, times = torch.full((n, L), MASK), [torch.full((n,), each) for each in (1000.0, 500.0, 0.0)]
    drawn = teacher_targets(PROCESS, EXACT, empty, times, generator()).exp()
    want = mean_target(PROCESS, EXACT, (1000.0, 500.0, 0.0), L).exp()
    assert ((drawn.mean(0) - want).abs() <= 6 * drawn.std(0) / n**0.5 + 1e-9).all()


@pytest.mark.parametrize("name", ["margin", "left_to_right"])
def test_samples_come_with_their_own_nats(name):
    plan, cooled = shipped_plans()[name], filtered(EXACT, 0.7)
    ids, nats = draw_with_nats(PROCESS, cooled, plan, (64, L), 3, generator())
    legal = MICRO.log_prob(ids) > -torch.inf
    replayed = sampler_nats(PROCESS, cooled, ids[legal], plan, 3)
    assert legal.any() and torch.allclose(nats[legal], replayed, atol=1e-9)


def test_the_frontier_is_an_identity():
    """KL(q || p) = generative NLL - entropy, of the legal part; samples in the law's own proportions agree."""
    q = torch.tensor([3.0, 1, 2, 4, 1, 1, 2, 2, 0, 1, 3, 1, 1, 2, 1, 0]) / 32  # 25 of 32 are legal
    log_q, log_p = q.double().log(), PROBS.log()
    point = frontier_of_law(log_q.clamp(min=-1e3), log_p)
    legal = q.double() / q.sum()
    want = float(torch.special.xlogy(legal, legal / PROBS).sum())
    assert point.kl.mean == pytest.approx(want, abs=1e-9) and point.legal == pytest.approx(25 / 32)
    copies = (q * 32).long()
    drawn = frontier_of_samples(
        torch.cat([log_q.repeat_interleave(copies), torch.full((7,), -2.0)]),
        torch.cat([log_p.repeat_interleave(copies), torch.full((7,), -torch.inf)]),
    )
    for a, b in zip(point[:3], drawn[:3], strict=True):
        assert a.mean == pytest.approx(b.mean, abs=1e-9)


def test_the_error_of_a_frontier_point_is_how_far_draws_scatter():
    """2,000 times 200 samples, 60 % legal: the share scatters, too. Off by chance beyond 8 % below 1e-6."""
    q = torch.cat([0.6 * torch.linspace(1, 3, 16, dtype=torch.float64) / 32, torch.tensor([0.4])])
    log_q, log_p = q.log(), torch.cat([PROBS.log(), torch.tensor([-torch.inf])])
    rows = torch.multinomial(q.expand(2000, -1), 200, replacement=True, generator=torch.Generator().manual_seed(0))
    points = [frontier_of_samples(log_q[row], log_p[row]) for row in rows]
    for name in ("entropy", "nll", "kl"):
        found = torch.tensor([[*getattr(point, name)] for point in points], dtype=torch.float64)
        assert float(found[:, 0].std()) == pytest.approx(float(found[:, 1].mean()), rel=0.08)
