"""Exercises of notebook 04_model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from diffkit.course.exercises.checks import Wrong, exercise, not_these, tensor_of
from diffkit.network.transformer import Denoiser, DenoiserConfig


@exercise
def check_attention(attention: Callable[[Tensor, Tensor, Tensor, float], Tensor]) -> str:
    """attention(q, k, v, scale) -> the values, averaged by each query's match with the keys, (B, H, L, K)."""
    rng = Generator().manual_seed(1)
    for B, H, L, K, scale in ((1, 1, 3, 2, 1.0), (2, 3, 5, 5, 0.7)):  # L = K: a wrong axis does not fail by its shape
        q, k, v = (torch.randn(B, H, L, K, generator=rng, dtype=torch.float64) for _ in range(3))
        mine = tensor_of(attention, q, k, v, scale, shape=(B, H, L, K), called="attention").double()
        scores = q @ k.transpose(-1, -2)
        want = F.scaled_dot_product_attention(q, k, v, scale=scale)
        slips = {
            "the softmax runs over the queries; each query spreads a weight of 1 over the keys, the last axis": (
                (scale * scores).softmax(-2) @ v),
            "scale is not used: the scores are multiplied by it before the softmax": scores.softmax(-1) @ v,
            "scale is all there is: do not divide by the root of K as well": (scale / K**0.5 * scores).softmax(-1) @ v,
            "you scale after the softmax; the scores are multiplied before it": scale * scores.softmax(-1) @ v,
            "the softmax is missing": scale * scores @ v,
            "a position sees only what is left of it: that is a language model; a denoiser looks both ways": (
                F.scaled_dot_product_attention(q, k, v, scale=scale, is_causal=True)),
            "queries and keys are swapped": (scale * scores.transpose(-1, -2)).softmax(-1) @ v,
        }  # fmt: skip
        not_these(mine, {why: slip for why, slip in slips.items() if not torch.allclose(slip, want, atol=1e-4)})
        if not torch.allclose(mine, want, atol=1e-6):
            raise Wrong(
                f"B = {B}, H = {H}, L = {L}, K = {K}: yours is off by up to {(mine - want).abs().max():.4f}. Scores, "
                "times scale; each query's softmax over all keys; the values, weighted by it."
            )
    return "Equal to PyTorch's fused attention to six digits."


def _turn_of(turn: Callable[[Tensor, Tensor], Tensor], angles: Tensor) -> Tensor:
    """The matrix by which each position turns a vector, (L, K, K)."""
    L, K = len(angles), 2 * angles.shape[1]
    columns = [tensor_of(turn, unit.expand(L, K), angles, shape=(L, K), called="turn").double()
               for unit in torch.eye(K, dtype=torch.float64)]  # fmt: skip
    return torch.stack(columns, -1)


@exercise
def check_turn(turn: Callable[[Tensor, Tensor], Tensor]) -> str:
    """turn(x, angles) -> x with each pair of channels turned, (L, K) and (L, K / 2) to (L, K)."""
    L, K = 9, 8
    for waves in ((1.0, 0.5, 0.2, 0.1), (0.3, 0.04, 0.9, 0.6)):
        angles = torch.arange(L, dtype=torch.float64)[:, None] * torch.tensor(waves, dtype=torch.float64)
        turns, unit = _turn_of(turn, angles), torch.eye(K, dtype=torch.float64)
        if not torch.allclose(turns[0], unit, atol=1e-6):
            raise Wrong("at position 0 every angle is 0, so nothing may change there, but your vector does.")
        if torch.allclose(turns, unit.expand_as(turns), atol=1e-6):
            raise Wrong("your function returns what it was given, at every position. Use the angles.")
        if not torch.allclose(turns @ turns.transpose(-1, -2), unit.expand_as(turns), atol=1e-6):
            raise Wrong("a turn keeps the length of a vector, and yours does not. Is there one minus sign among the "
                        "two sines of a pair?")  # fmt: skip
        still = [i for i in range(K) if torch.allclose(turns[:, :, i], unit[:, i].expand(L, K), atol=1e-6)]
        if still:
            raise Wrong(f"channels {still} never move. All K channels belong to a pair, and every pair turns.")
        for i, j in ((5, 2), (8, 5), (2, 6)):
            if not torch.allclose(turns[i].T @ turns[j], turns[i - 2].T @ turns[j - 2], atol=1e-6):
                raise Wrong(f"the score of a query at {i} and a key at {j} is not that of the same pair two positions "
                            "to the left. It should depend on the distance only.")  # fmt: skip
        by = torch.linalg.eigvals(turns[1]).angle().abs().sort().values  # each angle twice
        want = torch.tensor(waves, dtype=torch.float64).repeat(2).sort().values
        if not torch.allclose(by, want, atol=1e-6):
            raise Wrong(f"at position 1 the pairs should turn by {[*waves]}; yours turn by "
                        f"{[round(angle, 3) for angle in by[::2].tolist()]}.")  # fmt: skip
    return "Lengths stay, each pair turns by its own angle, and a score depends on the distance only."


def adaln_half(
    x: Tensor, time: Tensor, norm: Callable[[Tensor], Tensor], branch: Callable[[Tensor], Tensor], weight: Tensor
) -> Tensor:
    """Half of an AdaLN-zero block: time sets shift, scale and gate. (B, L, D), (B, D) to (B, L, D)."""
    shift, scale, gate = F.linear(F.silu(time), weight)[:, None].chunk(3, -1)
    return x + gate * branch(norm(x) * (1 + scale) + shift)


@exercise
def check_adaln(half: Callable[[Tensor, Tensor, Any, Any, Tensor], Tensor]) -> str:
    """half(x, time, norm, branch, weight) -> one half of an AdaLN-zero block: (B, L, D) and (B, D) to (B, L, D)."""
    rng = Generator().manual_seed(2)
    for B, L, D in ((3, 3, 4), (2, 5, 6)):  # B = L: a scale per position in place of per row does not fail by its shape
        x, time, weight = (
            torch.randn(shape, generator=rng, dtype=torch.float64) for shape in ((B, L, D), (B, D), (3 * D, D))
        )
        mixed = torch.randn(L, L, generator=rng, dtype=torch.float64)

        def norm(x: Tensor) -> Tensor:
            return F.layer_norm(x, x.shape[-1:])

        def branch(x: Tensor, mixed: Tensor = mixed) -> Tensor:
            return mixed @ x.tanh()

        def adaln(given: Tensor, order: tuple[int, int, int] = (0, 1, 2), one: float = 1.0) -> tuple[Tensor, Tensor]:
            parts = F.linear(given, weight)[:, None].chunk(3, -1)  # noqa: B023
            shift, scale, gate = (parts[i] for i in order)
            return gate, gate * branch(norm(x) * (one + scale) + shift)  # noqa: B023

        mine = tensor_of(half, x, time, norm, branch, weight, shape=(B, L, D), called="half a block").double()
        _, change = adaln(F.silu(time))
        parts = F.linear(F.silu(time), weight)[:, None].chunk(3, -1)
        slips = {
            "what came in is not added back": change,
            "the gate is missing: what the branch returns is multiplied by it": (
                x + branch(norm(x) * (1 + parts[1]) + parts[0])),
            "you multiply by scale; by 1 + scale, or a fresh layer (scale 0) erases its input": (
                x + adaln(F.silu(time), one=0.0)[1]),
            "time goes through silu before the matrix": x + adaln(time)[1],
            "the order of the three parts is shift, scale, gate": x + adaln(F.silu(time), (1, 0, 2))[1],
            "x is not normalised before it is scaled and shifted": x + parts[2] * branch(x * (1 + parts[1]) + parts[0]),
            "you normalise after the scale and shift, which undoes them": (
                x + parts[2] * branch(norm(x * (1 + parts[1]) + parts[0]))),
        }  # fmt: skip
        if B == L:
            condition = F.linear(F.silu(time), weight).chunk(3, -1)  # (B, D), taken for (L, D)
            slips["your shift, scale and gate differ by position; they belong to a row: give them a length axis"] = (
                x + condition[2] * branch(norm(x) * (1 + condition[1]) + condition[0]))  # fmt: skip
        not_these(mine, slips)
        if not torch.allclose(mine, x + change, atol=1e-6):
            raise Wrong(
                f"B = {B}, L = {L}, D = {D}: yours is off by up to {(mine - x - change).abs().max():.4f}. In order: "
                "norm, scale and shift, branch, gate, and x added back."
            )
    return "x + gate * branch(norm(x) * (1 + scale) + shift): with a weight of zeros, nothing but x."


class _Watched:
    """A denoiser that records its inputs."""

    def __init__(self, model: Denoiser):
        self.model, self.config, self.calls = model, model.config, []  # type: ignore[var-annotated]

    def __call__(self, xt: Tensor, t: Tensor | float = 0.0, where: Tensor | None = None) -> Tensor:
        self.calls.append((xt.clone(), where))
        return self.model(xt, t, where)


@exercise
def check_masked_nll(masked_nll: Callable[[Any, Tensor, Tensor], Tensor]) -> str:
    """masked_nll(model, x0, is_masked) -> (N,) nats, the loss of each hidden token, with the head run there only."""
    rng = Generator().manual_seed(7)
    for B, L, V in ((1, 5, 6), (3, 8, 11)):
        mask_id = V - 1
        model = Denoiser(DenoiserConfig(V, mask_id, hidden_size=8, num_layers=1, num_heads=2, max_length=L)).eval()
        model.requires_grad_(False)
        for weight in model.parameters():  # large enough that different canvases give different numbers
            weight.normal_(generator=rng)
        x0 = torch.randint(0, mask_id, (B, L), generator=rng)
        is_masked = torch.rand(B, L, generator=rng) < 0.5
        is_masked[:, 0], is_masked[:, 1] = True, False
        xt, N, watched = x0.masked_fill(is_masked, mask_id), int(is_masked.sum()), _Watched(model)
        want = -model(xt, 0.0).log_softmax(-1).gather(-1, x0[..., None])[..., 0][is_masked]
        mine = tensor_of(masked_nll, watched, x0, is_masked, shape=(N,), called="the losses").float()
        if not watched.calls:
            raise Wrong("your function never calls the model.")
        shown, where = watched.calls[-1]
        if torch.equal(shown, x0):
            raise Wrong("the model was given x0 itself, the answers included. Hide the tokens first.")
        if not torch.equal(shown, xt):
            raise Wrong("the model should see MASK where is_masked is True, and the true token elsewhere.")
        if torch.allclose(mine, -want, atol=1e-4):
            raise Wrong("these are log-probabilities, which are negative; the loss is minus that.")
        if torch.allclose(mine, want / torch.tensor(2.0).log(), atol=1e-4):
            raise Wrong("these are bits; use the natural logarithm, which gives nats.")
        if not torch.allclose(mine, want, atol=1e-4):
            i = int((mine - want).abs().argmax())
            raise Wrong(f"the loss of hidden token {i} should be {want[i]:.4f} nats, yours is {mine[i]:.4f}.")
        if where is None:
            raise Wrong(
                f"the numbers are right, but the head ran at {B * L} positions for the sake of {N}: pass where."
            )
    return "Same numbers as with all positions, and no work for the others."
