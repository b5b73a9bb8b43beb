"""Rewards: surrogates against the sum over all masks, the policy gradient against autograd, the known optimum."""

import math

import pytest
import torch
from toys import LABELS, MICRO, PROBS, TALES, TEXTS, L, V, generator, masked_diffusion

from diffkit.course.experiments.reward import (
    TablePolicy,
    ascend,
    ascend_by_one_draw,
    exact_log_p,
    judge,
    judged_stories,
    least_kl,
    mean_coupled,
    mean_exact_count,
    mean_one_step,
    optimum,
    optimum_of_share,
    stored,
    table,
    tilted,
)
from diffkit.course.orders import pattern_nats
from diffkit.evaluation.statistics import wilson
from diffkit.model import fingerprint
from diffkit.sampling.logits import filtered
from diffkit.training.reward import SURROGATES, policy_gradient, reward_weights, weighted_bound

PROCESS = masked_diffusion()
EXACT = MICRO.denoiser(PROCESS)
REWARDS = torch.tensor([float(label == "short") for label in LABELS], dtype=torch.float64)
LOG_REF, BETA = PROBS.log(), 0.5
MEANS = {"one_step": mean_one_step, "exact_count": mean_exact_count, "coupled": mean_coupled}


def no_idea(zt, t):
    return torch.zeros(*zt.shape, V, dtype=torch.float64)


@pytest.mark.parametrize(("name", "share"), [("one_step", 1.0), ("exact_count", 1.0), ("coupled", 1.5)])
def test_a_uniform_model_shows_the_scale(name, share):
    """L ln V from every likelihood: 3/2 of it from the coupled one; all masks, and draws of them."""
    scale = -L * math.log(V - 1)
    assert torch.allclose(MEANS[name](pattern_nats(PROCESS, no_idea, TEXTS)) / scale, torch.tensor(share).double())
    drawn = SURROGATES[name](PROCESS, no_idea, TEXTS[:1].expand(2000, -1), generator()) / scale
    assert abs(drawn.mean() - share) <= 6 * drawn.std() / 2000**0.5 + 1e-9


@pytest.mark.parametrize("name", SURROGATES)
def test_a_surrogate_averages_to_the_sum_over_all_masks(name):
    warm = filtered(EXACT, 1.5)  # no longer consistent, so that masks disagree
    want = MEANS[name](pattern_nats(PROCESS, warm, TEXTS[3:4]))
    drawn = SURROGATES[name](PROCESS, warm, TEXTS[3:4].expand(2000, -1), generator(1)).double()
    assert abs(drawn.mean() - want) <= 6 * drawn.std() / 2000**0.5 + 1e-9


def test_the_policy_gradient_is_that_of_J():
    """Averaged over all pairs of samples it is the gradient of -J by autograd: the baseline adds no bias."""
    policy = TablePolicy(PROCESS, EXACT, TEXTS)
    with torch.no_grad():
        policy.logits += 0.5 * torch.randn(policy.logits.shape, generator=generator(), dtype=torch.float64)
    log_q = exact_log_p(policy())
    J = log_q.exp() @ (REWARDS - BETA * (log_q - LOG_REF))
    (want,) = torch.autograd.grad(-J, policy.logits, retain_graph=True)
    q, ratio = log_q.exp().detach(), log_q.detach() - LOG_REF
    pairs = [
        q[i] * q[j] * policy_gradient(log_q[[i, j]], REWARDS[[i, j]], ratio[[i, j]], BETA)
        for i in range(len(q))
        for j in range(len(q))
    ]
    (found,) = torch.autograd.grad(torch.stack(pairs).sum(), policy.logits)
    assert q.sum() == pytest.approx(1.0, abs=1e-9) and torch.allclose(found, want, atol=1e-9)


def test_what_a_policy_lacks_is_its_distance_from_the_optimum():
    best = optimum(LOG_REF, REWARDS, BETA)
    at_best = judge(best, LOG_REF, REWARDS, BETA)
    log_q = torch.randn(16, generator=generator(), dtype=torch.float64).log_softmax(0)
    found = judge(log_q, LOG_REF, REWARDS, BETA)
    distance = float(log_q.exp() @ (log_q - best))
    assert at_best.value - found.value == pytest.approx(BETA * distance, abs=1e-12)
    assert tuple(at_best) == pytest.approx(tuple(optimum_of_share(float(PROBS @ REWARDS), BETA)), abs=1e-9)


def test_a_tilted_language_is_the_optimum():
    """Its probabilities, its denoiser under every mask, and the label's share on `tales` in closed form."""
    short = tilted(MICRO, {"short": 1.0}, BETA)
    best = optimum(LOG_REF, REWARDS, BETA)
    assert torch.allclose(short.log_prob(TEXTS), best, atol=1e-9)
    nats = pattern_nats(PROCESS, short.denoiser(PROCESS), TEXTS)
    assert torch.allclose(mean_exact_count(nats), best, atol=1e-9)
    lost, is_lost = tilted(TALES, {"lost": 1.0}, BETA), TALES.template_labels == TALES.label_id("lost")
    before, after = (float(each.template_probs[is_lost].sum()) for each in (TALES, lost))
    assert after == pytest.approx(optimum_of_share(before, BETA).reward, abs=1e-12)


def test_weighted_samples_of_the_reference_bound_the_optimum():
    """With the exact denoiser of the optimum the weighted bound is its entropy, on the average over masks."""
    short, n = tilted(MICRO, {"short": 1.0}, BETA), 4000
    x0 = MICRO.sample(n, generator(2))
    earned = (x0[:, 2:4] == MICRO.eos_id).any(1).double()
    weights = reward_weights(earned, BETA)
    found = float(weighted_bound(PROCESS, short.denoiser(PROCESS), x0, weights, generator(3)))
    assert weights.sum() == pytest.approx(1.0) and found == pytest.approx(short.entropy(), abs=0.25)


@pytest.mark.parametrize(("surrogate", "low", "high"), [(exact_log_p, 0.0, 0.01), (mean_one_step, 0.1, 0.2)])
def test_where_the_policy_gradient_ends(surrogate, low, high):
    """With log p itself at the optimum; one step hardly moves (B5.2)."""
    policy = TablePolicy(PROCESS, EXACT, TEXTS)
    assert torch.allclose(policy(), pattern_nats(PROCESS, EXACT, TEXTS), atol=1e-9)
    *_, log_q = ascend(policy, REWARDS, beta=BETA, surrogate=surrogate, steps=60)
    lack = (
        judge(optimum(LOG_REF, REWARDS, BETA), LOG_REF, REWARDS, BETA).value
        - judge(log_q, LOG_REF, REWARDS, BETA).value
    )
    assert low - 1e-9 <= lack <= high


def test_one_draw_for_slope_and_worth_shortens_the_leash():
    """Without a leash nothing is multiplied and both ways are one; with it the policy stays near the reference."""
    free, long, short = (
        list(way(TablePolicy(PROCESS, EXACT, TEXTS), REWARDS, steps=60, **how))[-1]
        for way, how in (
            (ascend_by_one_draw, {"beta": 0.0}),
            (ascend, {"beta": BETA, "surrogate": mean_exact_count}),
            (ascend_by_one_draw, {"beta": BETA}),
        )
    )
    *_, want = ascend(TablePolicy(PROCESS, EXACT, TEXTS), REWARDS, beta=0.0, surrogate=mean_exact_count, steps=60)
    assert torch.allclose(free, want, atol=1e-6)
    kl_long, kl_short = (judge(each, LOG_REF, REWARDS, BETA).kl for each in (long, short))
    assert kl_long == pytest.approx(0.4, abs=0.05) and kl_short < 0.1


def test_stories_judged_show_what_was_dropped():
    """Samples of the optimum are at their floors; those of one 'lost' plot earn more and are far from it."""
    lost, label = tilted(TALES, {"lost": 1.0}, BETA), TALES.label_id("lost")
    honest, one = lost.sample(600, generator(4)), TALES.sample(600, generator(5), "lost")
    plots = TALES.parse(one)
    one = one[plots == plots[0]].repeat(2, 1)  # each of them twice
    one[0, 0] = TALES.eos_id  # and one is no story
    found, hacked = (judged_stories(TALES, lost, x0, "lost") for x0 in (honest, one))
    share = optimum_of_share(float(TALES.template_probs[TALES.template_labels == label].sum()), BETA).reward
    assert abs(found["labelled"] - share) < 6 * (share * (1 - share) / 600) ** 0.5 and found["valid"] == 1.0
    for name in ("length", "first_word", "plot"):
        assert found[f"{name}_kl"] < 3 * found[f"{name}_floor"] and found["different"] > 590
    assert hacked["labelled"] == hacked["valid"] == 1 - 1 / len(one) and hacked["different"] <= len(one) / 2
    p = lost.template_probs * (lost.template_labels == label)
    assert hacked["plot_kl"] == pytest.approx(float(-(p[plots[0]] / p.sum()).log()), abs=1e-9)


def test_no_policy_earns_its_reward_for_less():
    """The optimum for any leash pays exactly the least KL."""
    best = optimum_of_share(0.4, BETA)
    assert least_kl(best.reward, 0.4) == pytest.approx(best.kl, abs=1e-12)


def test_the_stored_rows_are_of_the_shipped_model():
    """Their intervals fit their shares, and both stories before any training are the same ones."""
    setting, rows = stored()
    assert setting["sha256"] == fingerprint("tales-mdlm") and len(table(rows, BETA).splitlines()) == 1 + len(rows)
    for row in rows.values():
        low, high = wilson(round(row["valid"] * row["stories"]), row["stories"])
        assert (row["low"], row["high"]) == pytest.approx((low, high), abs=1e-6)
        assert row["labelled"] <= row["valid"] and row["plot_kl"] > 0
    assert rows["lost, before"]["valid"] == rows["valid, before"]["valid"]
    assert rows["lost, before"]["gap"] > rows["valid, before"]["gap"]
