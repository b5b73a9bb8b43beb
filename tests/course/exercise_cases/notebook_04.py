"""Exercises of notebook 04: worked solutions, and likely mistakes with what is said of them."""

import torch
from torch.nn import functional as F

from diffkit.course.exercises.foundations import model as ex


def attention(q, k, v, scale):
    return (scale * q @ k.transpose(-1, -2)).softmax(-1) @ v


def attention_by_einsum(q, k, v, scale):
    scores = torch.einsum("bhik,bhjk->bhij", q, k) * scale
    weights = (scores - scores.amax(-1, keepdim=True)).exp()
    return torch.einsum("bhij,bhjk->bhik", weights / weights.sum(-1, keepdim=True), v)


def adaln(x, time, norm, branch, weight):
    shift, scale, gate = F.linear(F.silu(time), weight)[:, None].chunk(3, -1)
    return x + gate * branch(norm(x) * (1 + scale) + shift)


def adaln_by_hand(x, time, norm, branch, weight):
    D = x.shape[-1]
    told = torch.einsum("bd,ed->be", time * time.sigmoid(), weight).unsqueeze(1).expand(-1, x.shape[1], -1)
    shift, scale, gate = told[..., :D], told[..., D : 2 * D], told[..., 2 * D :]
    normal = norm(x)
    return x + gate * branch(normal + normal * scale + shift)


def modulated(x, time, weight, by):
    """AdaLN with one of its parts bent: `by` is handed x, shift, scale and gate."""
    return by(x, *F.linear(F.silu(time), weight)[:, None].chunk(3, -1))


def per_position(x, time, norm, branch, weight):
    shift, scale, gate = F.linear(F.silu(time), weight).chunk(3, -1)
    return x + gate * branch(norm(x) * (1 + scale) + shift)


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
    ex.check_attention: [
        attention,
        attention_by_einsum,
        lambda q, k, v, s: F.scaled_dot_product_attention(q, k, v, scale=s),
    ],
    ex.check_adaln: [adaln, adaln_by_hand],
    ex.check_turn: [turn, turn_neighbours],
    ex.check_masked_nll: [masked_nll],
}


def shrunk(x, angles):
    return torch.cat([x[:, :4] * angles.cos(), x[:, 4:] * angles.sin()], -1) + x * 0


WRONG = [
    (ex.check_attention, "over the queries", lambda q, k, v, s: (s * q @ k.mT).softmax(-2) @ v),
    (ex.check_attention, "scale is not used", lambda q, k, v, s: (q @ k.mT).softmax(-1) @ v),
    (ex.check_attention, "root of K", lambda q, k, v, s: (s * q @ k.mT / q.shape[-1] ** 0.5).softmax(-1) @ v),
    (ex.check_attention, "after the softmax", lambda q, k, v, s: s * (q @ k.mT).softmax(-1) @ v),
    (ex.check_attention, "softmax is missing", lambda q, k, v, s: s * q @ k.mT @ v),
    (ex.check_attention, "looks both ways",
     lambda q, k, v, s: F.scaled_dot_product_attention(q, k, v, scale=s, is_causal=True)),
    (ex.check_attention, "swapped", lambda q, k, v, s: attention(k, q, v, s)),
    (ex.check_attention, "off by up to", lambda q, k, v, s: attention(q, k, k, s)),
    (ex.check_adaln, "added back",
     lambda x, t, n, f, w: modulated(x, t, w, lambda x, a, b, g: g * f(n(x) * (1 + b) + a))),
    (ex.check_adaln, "gate is missing",
     lambda x, t, n, f, w: modulated(x, t, w, lambda x, a, b, g: x + f(n(x) * (1 + b) + a))),
    (ex.check_adaln, "1 + scale", lambda x, t, n, f, w: modulated(x, t, w, lambda x, a, b, g: x + g * f(n(x) * b + a))),
    (ex.check_adaln, "order of the three",
     lambda x, t, n, f, w: modulated(x, t, w, lambda x, a, b, g: x + g * f(n(x) * (1 + a) + b))),
    (ex.check_adaln, "not normalised",
     lambda x, t, n, f, w: modulated(x, t, w, lambda x, a, b, g: x + g * f(x * (1 + b) + a))),
    (ex.check_adaln, "which undoes",
     lambda x, t, n, f, w: modulated(x, t, w, lambda x, a, b, g: x + g * f(n(x * (1 + b) + a)))),
    (
        ex.check_adaln,
        "through silu",
        lambda x, t, n, f, w: (
            x
            + F.linear(t, w)[:, None].chunk(3, -1)[2]
            * f(n(x) * (1 + F.linear(t, w)[:, None].chunk(3, -1)[1]) + F.linear(t, w)[:, None].chunk(3, -1)[0])
        ),
    ),
    (ex.check_adaln, "differ by position", per_position),
    (ex.check_turn, "Use the angles", lambda x, angles: x),
    (ex.check_turn, "keeps the length", lambda x, angles: x + torch.cat([angles, angles], -1)),
    (ex.check_turn, "position 0", shrunk),
    (ex.check_turn, "minus sign",
     lambda x, a: torch.cat([x[:, :4] * a.cos() + x[:, 4:] * a.sin(), x[:, :4] * a.sin() + x[:, 4:] * a.cos()], -1)),
    (ex.check_turn, "distance only", lambda x, angles: turn(x, angles**2)),
    (ex.check_turn, "should turn by", lambda x, angles: turn(x, 2 * angles)),
    (ex.check_turn, "should turn by", lambda x, angles: turn(x, angles[:, :1].expand_as(angles))),
    (ex.check_turn, "should turn by",
     lambda x, a: turn(x, torch.arange(len(x))[:, None] * torch.tensor([[1.0, 0.1, 0.01, 0.001]]))),
    (ex.check_turn, "never move", lambda x, a: torch.cat([turn(x[:, :4], a[:, :2]), x[:, 4:]], -1)),
    (ex.check_masked_nll, "pass where", all_positions),
    (ex.check_masked_nll, "itself", lambda m, x0, h: F.cross_entropy(m(x0, 0.0, h), x0[h], reduction="none")),
    (ex.check_masked_nll, "minus that", lambda m, x0, h: -masked_nll(m, x0, h)),
    (ex.check_masked_nll, "bits", lambda m, x0, h: masked_nll(m, x0, h) / torch.tensor(2.0).log()),
    (ex.check_masked_nll, "never calls", lambda m, x0, h: torch.zeros(int(h.sum()))),
    (ex.check_masked_nll, "MASK where",
     lambda m, x0, h: F.cross_entropy(m(x0.masked_fill(~h, 0), 0.0, h), x0[h], reduction="none")),
]  # fmt: skip
