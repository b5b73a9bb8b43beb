"""Exercises of notebook 04_model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Generator, Tensor

from diffkit.course.exercises.checks import Wrong, exercise, tensor_of
from diffkit.network.attention import Block
from diffkit.network.transformer import SIZES, Denoiser, DenoiserConfig, parameter_count


@exercise
def check_block_parameters(count: Callable[[int, int, int], int]) -> str:
    """count(D, heads, inner) -> number of trained numbers in one block without time."""
    for D, heads, inner in ((8, 2, 20), (16, 4, 64), (128, 4, 512), (512, 8, 2048)):
        K = D // heads
        config = DenoiserConfig(hidden_size=D, num_heads=heads, intermediate_size=inner)
        with torch.device("meta"):
            want = parameter_count(Block(config))
        mine = int(tensor_of(count, D, heads, inner, shape=(), called="the count"))
        slips = {
            inner + D: "the two biases of the network are missing: inner + D.",
            2 * D: "the scales of the two layer norms before attention and network are missing: D each.",
            2 * K: "the norms of queries and keys are missing: each has one scale per channel of a head.",
            2 * D + 2 * K: "the layer norms are missing: two of width D, and two of width D / heads.",
            2 * D + 2 * K + inner + D: "the biases of the network and the scales of the norms are missing.",
            D * D: "one D x D matrix of attention is missing: query, key, value and out make four.",
            -4 * D: "the four matrices of attention have no bias.",
            2 * K - 2 * D: "the norms of queries and keys are shared by all heads: their width is D / heads, not D.",
        }
        if mine != want:
            hint = slips.get(want - mine, "go through print(Block(...)) line by line.")
            raise Wrong(f"for D={D}, heads={heads}, inner={inner} the block has {want}, you count {mine}; {hint}")
    return f"With inner = 4 D that is 12 D squared and a little; nano has {SIZES['nano']['num_layers']} of them."


@exercise
def check_turn(turn: Callable[[Tensor, Tensor], Tensor]) -> str:
    """turn(x, angles) -> x with each pair of channels turned, (L, K) and (L, K / 2) to (L, K)."""
    rng = Generator().manual_seed(4)
    L, K = 9, 8
    angles = torch.arange(L, dtype=torch.float64)[:, None] * torch.tensor([1.0, 0.5, 0.2, 0.1], dtype=torch.float64)
    query, key = (torch.randn(K, generator=rng, dtype=torch.float64).expand(L, K) for _ in range(2))
    q, k = (tensor_of(turn, x, angles, shape=(L, K), called="turn").double() for x in (query, key))
    if not torch.allclose(q[0], query[0], atol=1e-6) or not torch.allclose(k[0], key[0], atol=1e-6):
        raise Wrong("at position 0 every angle is 0, so nothing may change there, but your vector does.")
    if torch.allclose(q, query, atol=1e-6):
        raise Wrong("your function returns what it was given, at every position. Use the angles.")
    if not torch.allclose(q.norm(dim=-1), query.norm(dim=-1), atol=1e-6):
        i = int((q.norm(dim=-1) - query.norm(dim=-1)).abs().argmax())
        raise Wrong(
            f"a turn keeps the length of a vector; at position {i} yours goes from {query[i].norm():.3f} to "
            f"{q[i].norm():.3f}. Is there one minus sign among the two sines?"
        )
    scores = q @ k.T
    for i, j in ((5, 2), (8, 5), (2, 6)):
        if not torch.isclose(scores[i, j], scores[i - 2, j - 2], atol=1e-6):
            raise Wrong(
                f"the score of a query at {i} and a key at {j} is {scores[i, j]:.3f}, but the same pair two "
                f"positions to the left scores {scores[i - 2, j - 2]:.3f}. It should depend on the distance only."
            )
    still = [i for i in range(K) if torch.allclose(q[:, i], query[:, i], atol=1e-6)]
    if still:
        raise Wrong(f"channels {still} never move. All K channels belong to a pair, and every pair turns.")
    return "Lengths stay, and the score of a query and a key depends on their distance only."


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
