"""SDTT: whose prediction becomes the target, and that a student with the mean target has no gradient left."""

import pytest
import torch
from toys import MASK, MICRO, TEXTS, L, V, generator, masked_diffusion

from diffkit.training.distillation import distillation, divergence, teacher_targets

PROCESS = masked_diffusion()
EXACT = MICRO.denoiser(PROCESS)


def test_a_token_keeps_the_prediction_of_the_step_that_reveals_it():
    """A teacher that predicts the number of its call as a token tells which call a target comes from."""
    calls, words = [], [v for v in range(V) if v != MASK]

    def teacher(zt, t):
        calls.append(zt.clone())
        return torch.nn.functional.one_hot(torch.full_like(zt, words[len(calls)]), V).double().log()

    xt = torch.full((200, L), MASK)
    xt[:, 0] = words[5]
    times = [torch.full((200,), each) for each in (900.0, 600.0, 300.0, 0.0)]
    target = teacher_targets(PROCESS, teacher, xt, times, generator()).exp().argmax(-1)
    states = torch.stack(calls)
    hidden_in = (states == MASK).sum(0)  # calls that still found it hidden; the last of them gives the target
    assert (target[:, 0] == words[5]).all() and torch.equal(target[:, 1:], torch.tensor(words)[hidden_in[:, 1:]])


@pytest.mark.parametrize("backward", [False, True])
def test_the_optimum_is_a_mean_of_the_targets(backward):
    """Arithmetic for forward KL, geometric for backward: there the gradient vanishes, and not for the other."""
    targets = torch.randn(6, 1, 4, generator=generator(), dtype=torch.float64).log_softmax(-1)
    means = {False: targets.exp().mean(0).log(), True: targets.mean(0).log_softmax(-1)}
    for kind, start in means.items():
        logits = start.clone().requires_grad_()
        divergence(targets, logits.log_softmax(-1).expand(6, 1, 4), backward).mean().backward()
        assert (logits.grad.abs().max() < 1e-12) == (kind == backward)


def test_the_loss_counts_hidden_tokens_only_and_reaches_the_student():
    logits = torch.zeros(L, V, requires_grad=True)
    t = torch.full((len(TEXTS),), 500.0)
    how = {"teacher": EXACT, "step": 500.0}
    loss = distillation(PROCESS, lambda zt, t: logits.expand(len(zt), L, V), TEXTS, t, generator(), **how)
    loss.backward()
    perfect = distillation(PROCESS, EXACT, TEXTS, t, generator(), teacher=EXACT, step=1.0, small_steps=1)
    assert loss > 0 and torch.isfinite(logits.grad).all() and logits.grad.any() and abs(perfect) < 1e-9
