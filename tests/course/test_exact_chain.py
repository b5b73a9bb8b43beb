"""Bounds and chains with nothing sampled, and training before one's eyes."""

import itertools

import pytest
import torch
from torch import Generator

from diffkit.course.exercises.methods.d3pm import posterior, step_nats
from diffkit.course.exercises.methods.sedd import concrete_score, staggered_step
from diffkit.course.experiments.exact_chain import (
    all_answers,
    all_states,
    chain_probs,
    forward_probs,
    matrix,
    path_nats,
    step_costs,
)
from diffkit.course.experiments.live import CanvasNetwork, descend
from diffkit.languages.story_language import load_language
from diffkit.processes.d3pm import D3PM
from diffkit.processes.schedules import get_schedule
from diffkit.processes.sedd import SEDD

V, L, MASK, T = 4, 3, 1, 3


@pytest.fixture
def chain():
    """A chain of three steps with an arbitrary denoiser: (process, states, answers)."""
    process = D3PM(V, MASK, "uniform", get_schedule("cosine", T))
    own, mix = torch.randn(2, V, V, generator=Generator().manual_seed(0), dtype=torch.float64)
    states = all_states(process, L)
    answers = all_answers(process, lambda zt, t: own[zt] + mix[zt].mean(1, keepdim=True) * t[:, None, None], states)
    return process, states, answers


def test_a_chain_adds_up_all_its_paths(chain):
    """Beside a loop over all pairs of states, step by step."""
    process, states, answers = chain
    chance = dict.fromkeys(range(len(states)), 1 / len(states))
    for t in range(T, 0, -1):
        p = posterior(answers[t], states, matrix(process, 0, t - 1), matrix(process, t - 1, t))
        chance = {b: sum(chance[a] * float(torch.stack([p[a, i, states[b, i]] for i in range(L)]).prod())
                         for a in chance) for b in chance}  # fmt: skip
    found = chain_probs(process, answers, states, posterior)
    assert found.sum().item() == pytest.approx(1) and found.tolist() == pytest.approx(list(chance.values()))


def test_both_forms_of_the_bound_agree_and_lie_above_the_chain(chain):
    process, states, answers = chain
    truth = -chain_probs(process, answers, states, posterior).log()
    for row in (0, 7, 20):
        text = states[row]
        bound = process.prior_loss(text[None]).sum() + sum(step_costs(process, answers, text, states, step_nats))
        paths = path_nats(process, answers, text, states, posterior)
        assert paths == pytest.approx(float(bound)) and paths > truth[row]


def test_states_are_reached_with_the_chances_of_their_tokens(chain):
    process, states, _ = chain
    q = forward_probs(process, torch.tensor([0, 2, 3]), states, 2)
    rows = [matrix(process, 0, 2)[v, [0, 2, 3]].tolist() for v in (0, 2, 3)]
    assert q.tolist() == pytest.approx([a * b * c for a, b, c in itertools.product(*rows)])


def test_score_entropy_is_the_kl_of_a_short_step_and_tweedie_the_step_itself():
    """What notebook 13 derives, on the exact denoiser."""
    language = load_language("micro")
    process = SEDD(language.vocab_size, language.mask_id, "uniform", "linear")
    x0 = language.sample(20, Generator().manual_seed(1))
    zt, _ = process.corrupt(x0, 400.0, Generator().manual_seed(2))
    t = torch.full((20,), 400.0, dtype=torch.float64)
    raw = language.denoiser(process)(zt, t)
    f = language.denoiser(D3PM(language.vocab_size, language.mask_id, "uniform", "linear"))(zt, t).softmax(-1)
    short = step_nats(f, x0, zt, matrix(process, 0, 400 - 1e-3), matrix(process, 400 - 1e-3, 400)) / 1e-3
    torch.testing.assert_close(process.score_entropy(raw, x0, zt, t), short, rtol=1e-3, atol=1e-7)
    s, Q_st = process.log_score(raw, zt, t).exp(), matrix(process, 100, 400)
    torch.testing.assert_close(s, concrete_score(f @ matrix(process, 0, 400), zt))
    torch.testing.assert_close(staggered_step(s, zt, Q_st), posterior(f, zt, matrix(process, 0, 100), Q_st))


def test_a_network_that_reads_the_canvas_learns_a_table():
    """Two texts, told apart by their first token."""
    network, texts = CanvasNetwork(3, 2, T=10), torch.tensor([[0, 2], [2, 0]])

    def loss():
        logits = network(texts * torch.tensor([1, 0]), torch.full((2,), 5.0))[:, 1]
        return torch.nn.functional.cross_entropy(logits, texts[:, 1])

    losses = [*descend(network, loss, steps=60)]
    assert losses[0] == pytest.approx(1.0986, abs=1e-4) and losses[-1] < 0.05
