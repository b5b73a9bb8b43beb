"""Exercises of notebook 04: worked solutions, and likely mistakes with what is said of them."""

import torch
from torch.nn import functional as F

from diffkit.course.exercises.foundations import model as exercises


def block_parameters(D, heads, inner):
    K = D // heads
    return 4 * D * D + 2 * K + 2 * D + (D * inner + inner) + (inner * D + D)


def turn(x, angles):
    a, b = x.chunk(2, -1)
    return torch.cat([a * angles.cos() - b * angles.sin(), a * angles.sin() + b * angles.cos()], -1)


def turn_neighbours(x, angles):
    """Pairs of neighbouring channels and the other direction: just as good."""
    a, b = x[:, 0::2], x[:, 1::2]
    return torch.stack([a * angles.cos() + b * angles.sin(), b * angles.cos() - a * angles.sin()], -1).flatten(1)


def masked_nll(model, x0, is_masked):
    xt = x0.masked_fill(is_masked, model.config.mask_token_id)
    return F.cross_entropy(model(xt, 0.0, is_masked), x0[is_masked], reduction="none")


def all_positions(model, x0, is_masked):
    xt = x0.masked_fill(is_masked, model.config.mask_token_id)
    return F.cross_entropy(model(xt, 0.0)[is_masked], x0[is_masked], reduction="none")


SOLUTIONS = {
    exercises.check_block_parameters: [block_parameters],
    exercises.check_turn: [turn, turn_neighbours],
    exercises.check_masked_nll: [masked_nll],
}


def shrunk(x, angles):
    return torch.cat([x[:, :4] * angles.cos(), x[:, 4:] * angles.sin()], -1) + x * 0


WRONG = [
    (exercises.check_block_parameters, lambda D, H, inner: block_parameters(D, H, inner) - D * D, "four"),
    (exercises.check_block_parameters, lambda D, H, inner: block_parameters(D, H, inner) + 4 * D, "no bias"),
    (exercises.check_block_parameters, lambda D, H, inner: block_parameters(D, H, inner) - inner - D, "biases"),
    (exercises.check_block_parameters, lambda D, H, inner: 4 * D * D + 2 * D * inner, "scales of the norms"),
    (exercises.check_block_parameters, lambda D, H, inner: block_parameters(D, 1, inner), "shared by all heads"),
    (exercises.check_block_parameters, lambda D, H, inner: 7, "line by line"),
    (exercises.check_turn, lambda x, angles: x, "Use the angles"),
    (exercises.check_turn, lambda x, angles: x + torch.cat([angles, angles], -1), "keeps the length"),
    (exercises.check_turn, shrunk, "position 0"),
    (
        exercises.check_turn,
        lambda x, a: torch.cat([x[:, :4] * a.cos() + x[:, 4:] * a.sin(), x[:, :4] * a.sin() + x[:, 4:] * a.cos()], -1),
        "minus sign",
    ),
    (exercises.check_turn, lambda x, angles: turn(x, angles**2), "distance only"),
    (exercises.check_turn, lambda x, a: torch.cat([turn(x[:, :4], a[:, :2]), x[:, 4:]], -1), "never move"),
    (exercises.check_turn, lambda x, angles: turn(x, angles)[0], "shape"),
    (exercises.check_masked_nll, all_positions, "pass where"),
    (exercises.check_masked_nll, lambda m, x0, h: F.cross_entropy(m(x0, 0.0, h), x0[h], reduction="none"), "itself"),
    (exercises.check_masked_nll, lambda m, x0, h: masked_nll(m, x0, h).mean(), "shape"),
    (exercises.check_masked_nll, lambda m, x0, h: -masked_nll(m, x0, h), "minus that"),
    (exercises.check_masked_nll, lambda m, x0, h: masked_nll(m, x0, h) / torch.tensor(2.0).log(), "bits"),
    (exercises.check_masked_nll, lambda m, x0, h: masked_nll(m, x0, h) * 1.1, "should be"),
    (exercises.check_masked_nll, lambda m, x0, h: torch.zeros(int(h.sum())), "never calls"),
    (
        exercises.check_masked_nll,
        lambda m, x0, h: F.cross_entropy(m(x0.masked_fill(~h, 0), 0.0, h), x0[h], reduction="none"),
        "MASK where",
    ),
]
