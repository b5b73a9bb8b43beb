"""What a reveal rule costs: held against the law of the sampler, written out word by word on `micro`."""

import itertools

import pytest
import torch
from exercise_cases.notebook_11 import one_open_question
from exercise_cases.notebook_16 import strangers, sure_and, two_far_apart
from toys import MASK, MICRO, PROBS, TALES, TEXTS, L, V, generator, masked_diffusion

from diffkit import load_model
from diffkit.course.orders import order_bounds
from diffkit.course.parallel_cost import (
    InvalidOrder,
    OrderBoard,
    evenly,
    excess_nats,
    order_board,
    sampler_nats,
    score_order,
    shipped_plans,
)
from diffkit.evaluation.statistics import Estimate
from diffkit.sampling.sampler import denoise_frames, sample
from diffkit.sampling.unmasking import UNMASKING_ORDERS, random_order

PROCESS = masked_diffusion()
EXACT = MICRO.denoiser(PROCESS)
FIXED = [name for name in UNMASKING_ORDERS if name != "random"]  # these draw nothing


def law(plan, steps, denoise=EXACT):
    """q of every text that the sampler can end in, {ids: probability}: all draws of all steps, one after the other."""
    states = {(MASK,) * L: 1.0}
    for left in range(steps, 0, -1):
        after = {}
        for state, chance in states.items():
            zt = torch.tensor([state])
            is_masked = zt == MASK
            probs = PROCESS.log_probs(denoise(zt, torch.tensor([500.0])).double(), zt).exp()
            reveal = is_masked if left == 1 else plan(probs, is_masked, left)
            places = reveal[0].nonzero()[:, 0].tolist()
            choices = [[(v, probs[0, i, v].item()) for v in range(V) if probs[0, i, v] > 0] for i in places]
            for drawn in itertools.product(*choices):
                new, p = list(state), chance
                for i, (v, share) in zip(places, drawn, strict=True):
                    new[i], p = v, p * share
                after[tuple(new)] = after.get(tuple(new), 0.0) + p
        states = after
    return states


def one_open_place(probs, is_masked, steps_left):
    """A plan that counts for itself: whatever is certain, and the most uncertain place."""
    doubt = torch.special.entr(probs).sum(-1).masked_fill(~is_masked, -1)
    return is_masked & ((doubt < 1e-6) | (doubt == doubt.amax(1, keepdim=True)))


@pytest.mark.parametrize("name", [*FIXED, "own"])
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_the_kl_is_that_of_the_samplers_whole_law(name, steps):
    plan = one_open_place if name == "own" else shipped_plans()[name]
    q = law(plan, steps)
    assert abs(sum(q.values()) - 1) < 1e-9
    of_texts = torch.tensor([q.get(tuple(text), 0.0) for text in TEXTS.tolist()], dtype=torch.float64)
    nats = sampler_nats(PROCESS, EXACT, TEXTS, plan, steps)
    torch.testing.assert_close(nats, -of_texts.log())
    kl = (PROBS * (PROBS.log() - of_texts.log())).sum()
    torch.testing.assert_close((PROBS * (PROBS.log() + nats)).sum(), kl)
    assert kl > -1e-12


@pytest.mark.parametrize("name", UNMASKING_ORDERS)
def test_one_place_a_step_costs_nothing_and_one_step_costs_the_same_for_all(name):
    plan = shipped_plans(seed=3)[name]
    torch.testing.assert_close(sampler_nats(PROCESS, EXACT, TEXTS, plan, L), -PROBS.log())
    alone = EXACT(torch.full((1, L), MASK), torch.tensor([1000.0]))[0].log_softmax(-1)
    together = -alone[torch.arange(L), TEXTS].sum(1)
    torch.testing.assert_close(sampler_nats(PROCESS, EXACT, TEXTS, plan, 1), together)


def test_a_drawn_order_bounds_the_law_of_the_random_sampler():
    """Two steps: the sampler draws one of all halves; -log of the mean chance is at most the mean of -log (Jensen)."""
    halves = [
        torch.zeros(1, L).index_fill(1, torch.tensor(half), 1.0)
        for half in itertools.combinations(range(L), L - L // 2)
    ]
    nats = [sampler_nats(PROCESS, EXACT, TEXTS, evenly(lambda p, _, h=h: h.expand(p.shape[:2])), 2) for h in halves]
    drawn = torch.stack(nats)  # (halves, 16)
    mixture = -(-drawn).exp().mean(0).log()
    assert (mixture <= drawn.mean(0) + 1e-12).all() and (mixture < drawn.mean(0) - 0.01).any()
    ours = torch.stack([sampler_nats(PROCESS, EXACT, TEXTS, evenly(random_order, seed), 2) for seed in range(400)])
    error = ours.std(0) / 20
    assert ((ours.mean(0) - drawn.mean(0)).abs() < 5 * error + 1e-9).all()


@pytest.mark.parametrize("name", UNMASKING_ORDERS)
@pytest.mark.parametrize("steps", [2, 3, 4])
def test_an_even_plan_reveals_where_the_sampler_reveals(name, steps):
    plan, rng = evenly(UNMASKING_ORDERS[name], seed=2), generator()
    frames, zt = denoise_frames(PROCESS, EXACT, shape=(40, L), steps=steps, rng=rng, order=name, keep_probs=True), None
    for frame in frames:
        if zt is not None:
            left = steps + 1 - frame.step
            assert torch.equal(plan(frame.probs, zt == MASK, left), (zt == MASK) & (frame.z != MASK))
        zt = frame.z
        rng.manual_seed(2000 + steps - frame.step)


def test_one_place_a_step_is_the_any_order_model_also_when_it_is_wrong():
    table = torch.randn(L, V, generator=generator(5)).double()

    def crude(zt, t):  # a denoiser that contradicts itself
        return table + (zt == MASK).sum(1)[:, None, None] * table.flip(1) / 10

    order = torch.randperm(L, generator=generator(6))
    rank = -order.argsort().double()
    plan = evenly(lambda probs, rng: rank.expand(probs.shape[:2]))
    nats = sampler_nats(PROCESS, crude, TEXTS, plan, L)
    torch.testing.assert_close(nats, order_bounds(PROCESS, crude, TEXTS, order.expand(len(TEXTS), L)))


@pytest.mark.parametrize(
    ("plan", "says"),
    [
        (evenly(lambda probs, rng: probs.amax(-1)[0]), "one number for every position"),
        (evenly(lambda probs, rng: 3.0), "yours is float"),
        (evenly(lambda probs, rng: (probs * probs.log()).sum(-1)), "NaN"),
        (evenly(lambda probs, rng: probs.log().sum(-1)), "-inf"),
        (lambda probs, is_masked, left: is_masked[0], "yes or no for every position"),
        (lambda probs, is_masked, left: None, "yours is NoneType"),
        (lambda probs, is_masked, left: is_masked.long(), "not torch.int64"),
        (lambda probs, is_masked, left: torch.ones_like(is_masked), "& is_masked"),
    ],
)
def test_answers_that_are_none_are_named(plan, says):
    with pytest.raises(InvalidOrder, match=says):
        sampler_nats(PROCESS, EXACT, TEXTS, plan, 3)


def test_a_plan_may_scribble_on_what_it_is_given():
    def scribbler(probs, is_masked, steps_left):
        reveal = one_open_place(probs.clone(), is_masked.clone(), steps_left)
        probs.zero_(), is_masked.zero_()
        return reveal

    nats = [sampler_nats(PROCESS, EXACT, TEXTS, plan, 3) for plan in (one_open_place, scribbler)]
    assert torch.equal(*nats)


def test_steps_and_names_are_checked():
    with pytest.raises(ValueError, match="of at least 1, got 0"):
        sampler_nats(PROCESS, EXACT, TEXTS, one_open_place, 0)
    with pytest.raises(ValueError, match="left_to_right.*got 'best'"):
        score_order("best", MICRO)


def test_scores_are_means_of_the_same_stories():
    nats = excess_nats(shipped_plans()["margin"], TALES, steps=4, n=8, seed=5)
    score = score_order("margin", TALES, steps=4, n=8, seed=5)
    assert score.mean == pytest.approx(nats.mean().item()) and score.standard_error > 0


def test_the_board_is_sorted_and_prints_as_a_table():
    board = order_board({"mine": one_open_place}, MICRO, steps=(2, 3), n=8)
    assert set(board.rows) == {*UNMASKING_ORDERS, "mine"} and board.steps == (2, 3)
    last = [row[-1].mean for row in board.rows.values()]
    assert last == sorted(last)
    shown = repr(
        OrderBoard(
            (4, 16), {"a": (Estimate(1.5, 0.1), Estimate(-1e-9, 0.0)), "longer": (Estimate(12, 1), Estimate(2, 1))}
        )
    )
    assert shown.splitlines() == [
        "nats a story       4 steps      16 steps",
        " 1. a        1.50 ± 0.10   0.00 ± 0.00",
        " 2. longer  12.00 ± 1.00   2.00 ± 1.00",
    ]


def test_a_trained_model_is_judged_too():
    """Its price is that of its own errors and of the rule together; one place a step leaves the first alone."""

    class Model(torch.nn.Module):
        process = masked_diffusion()

        def forward(self, zt, t):
            return EXACT(zt, t)

    given = [score_order("margin", MICRO, steps=2, n=16, model=model) for model in (None, Model())]
    assert given[0] == given[1]


# ------------------------------------------------------------------------------- what notebooks 11 and 16 say of rules


@pytest.mark.slow
def test_what_the_notebooks_say_of_rules():
    costs = {name: score_order(name, TALES, steps=16).mean for name in ("random", "margin", "confidence")}
    assert 1.8 < min(costs.values()) < 2.6
    assert costs["confidence"] > 2.5 * costs["random"]
    assert score_order(evenly(one_open_question), TALES, steps=16).mean < 0.2
    assert score_order(sure_and(1), TALES, steps=14, n=256).mean < 1e-6 < score_order(sure_and(1), TALES, steps=12).mean
    eight = {"one": evenly(one_open_question), "two": two_far_apart, "known and one": sure_and(1)}
    eight = {name: score_order(plan, TALES, steps=8).mean for name, plan in eight.items()}
    assert eight["two"] < 1.3 < 2 < eight["one"] < 4.5 < eight["known and one"]
    assert score_order(strangers, TALES, steps=6).mean < 0.9


@pytest.mark.slow
def test_the_capstones_rule_pays_with_a_trained_network():
    model = load_model("tales-mdlm")
    costs = {
        name: score_order(plan, TALES, steps=16, n=32, model=model).mean
        for name, plan in {"random": shipped_plans()["random"], "one": evenly(one_open_question)}.items()
    }
    assert costs["one"] < 0.6 < 1.5 < costs["random"]
    texts = sample(model.process, model, shape=(64, 48), steps=16, rng=generator(0), order=one_open_question)
    assert (TALES.log_prob(texts) > -torch.inf).double().mean() > 0.8
