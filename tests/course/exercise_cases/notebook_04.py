"""Exercises of notebook 04: worked solutions, and likely mistakes with what is said of them."""

import torch
from torch.nn import functional as F

from diffkit.course.exercises.foundations import model as ex


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
    ex.check_block_parameters: [block_parameters],
    ex.check_turn: [turn, turn_neighbours],
    ex.check_masked_nll: [masked_nll],
}


def shrunk(x, angles):
    return torch.cat([x[:, :4] * angles.cos(), x[:, 4:] * angles.sin()], -1) + x * 0


WRONG = [
    (ex.check_block_parameters, "four", lambda D, H, inner: block_parameters(D, H, inner) - D * D),
    (ex.check_block_parameters, "no bias", lambda D, H, inner: block_parameters(D, H, inner) + 4 * D),
    (ex.check_block_parameters, "biases", lambda D, H, inner: block_parameters(D, H, inner) - inner - D),
    (ex.check_block_parameters, "scales of the norms", lambda D, H, inner: 4 * D * D + 2 * D * inner),
    (ex.check_block_parameters, "shared by all heads", lambda D, H, inner: block_parameters(D, 1, inner)),
    (ex.check_block_parameters, "line by line", lambda D, H, inner: 7),
    (ex.check_turn, "Use the angles", lambda x, angles: x),
    (ex.check_turn, "keeps the length", lambda x, angles: x + torch.cat([angles, angles], -1)),
    (ex.check_turn, "position 0", shrunk),
    (
        ex.check_turn,
        "minus sign",
        lambda x, a: torch.cat([x[:, :4] * a.cos() + x[:, 4:] * a.sin(), x[:, :4] * a.sin() + x[:, 4:] * a.cos()], -1),
    ),
    (ex.check_turn, "distance only", lambda x, angles: turn(x, angles**2)),
    (ex.check_turn, "never move", lambda x, a: torch.cat([turn(x[:, :4], a[:, :2]), x[:, 4:]], -1)),
    (ex.check_masked_nll, "pass where", all_positions),
    (ex.check_masked_nll, "itself", lambda m, x0, h: F.cross_entropy(m(x0, 0.0, h), x0[h], reduction="none")),
    (ex.check_masked_nll, "minus that", lambda m, x0, h: -masked_nll(m, x0, h)),
    (ex.check_masked_nll, "bits", lambda m, x0, h: masked_nll(m, x0, h) / torch.tensor(2.0).log()),
    (ex.check_masked_nll, "never calls", lambda m, x0, h: torch.zeros(int(h.sum()))),
    (
        ex.check_masked_nll,
        "MASK where",
        lambda m, x0, h: F.cross_entropy(m(x0.masked_fill(~h, 0), 0.0, h), x0[h], reduction="none"),
    ),
]
