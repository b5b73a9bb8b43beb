"""Muon against torch's own, which iterates in bfloat16, and against a singular value decomposition."""

import pytest
import torch
from toys import generator

from diffkit.training.muon import Muon, orthogonalized


@pytest.mark.parametrize("shape", [(8, 8), (12, 5), (5, 12), (64, 3)])
def test_singular_values_come_out_near_one_and_their_directions_stay(shape):
    gradient = torch.randn(shape, generator=generator())
    U, S, Vh = torch.linalg.svd(gradient, full_matrices=False)
    found = orthogonalized(gradient)
    turned = U.T @ found @ Vh.T  # diagonal, as a polynomial in the matrix keeps its directions
    assert found.shape == shape and (turned - turned.diagonal().diag()).abs().max() < 1e-4
    assert 0.6 < turned.diagonal().min() and turned.diagonal().max() < 1.3 and S.min() < S.max()


@pytest.mark.parametrize("shape", [(8, 24), (24, 8)])
def test_it_steps_like_torch_to_the_precision_of_bfloat16(shape):
    first, start = generator(1), torch.randn(shape, generator=generator())
    ours, theirs = (torch.nn.Parameter(start.clone()) for _ in range(2))
    pair = (
        Muon([ours], lr=0.02, weight_decay=0.1),
        torch.optim.Muon([theirs], lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
    )
    for _ in range(5):
        gradient = torch.randn(shape, generator=first)
        for matrix, optimizer in zip((ours, theirs), pair, strict=True):
            matrix.grad = gradient.clone()
            optimizer.step()
    moved = (ours - start).norm()
    assert (ours - theirs).norm() < 0.02 * moved  # bfloat16 keeps 8 bits
    assert (ours - theirs).norm() > 0


def test_a_zero_gradient_moves_nothing_but_the_decay_and_no_gradient_nothing():
    still, silent = (torch.nn.Parameter(torch.ones(3, 4)) for _ in range(2))
    still.grad = torch.zeros(3, 4)
    Muon([still, silent], lr=0.1, weight_decay=0.5).step()
    torch.testing.assert_close(still.detach(), torch.full((3, 4), 0.95))
    assert torch.equal(silent.detach(), torch.ones(3, 4))


def test_only_matrices_are_trained():
    with pytest.raises(ValueError, match=r"trains matrices only, got a parameter of shape \(3,\)"):
        Muon([torch.nn.Parameter(torch.ones(3))], lr=0.1)
