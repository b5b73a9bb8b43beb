"""Exercises of notebook 09_variable_length."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Generator, Tensor

from diffkit.course.exercises.checks import Wrong, counterexample, exercise, must_teach, not_these, tensor_of
from diffkit.languages.story_language import load_language
from diffkit.network.attention import two_stream_mask
from diffkit.processes.base import Denoise
from diffkit.processes.block import BlockDiffusion


def block_bound(denoise: Denoise, x0: Tensor, xt: Tensor, block: int, mask_id: int) -> Tensor:
    """What `BlockDiffusion.bound` computes once tokens are masked, summed over each row: (B,) nats."""
    logits = denoise(torch.cat([xt, x0], 1), torch.zeros(len(x0)))
    nats = -logits.log_softmax(-1).gather(-1, x0[..., None])[..., 0]
    is_masked, total = xt == mask_id, torch.zeros(len(x0), dtype=nats.dtype)
    for own in torch.arange(x0.shape[1]).split(block):
        count = is_masked[:, own].sum(1)
        total = total + len(own) / count * torch.where(is_masked[:, own], nats[:, own], 0.0).sum(1)
    return total


@exercise
def check_length(length: Callable[[Tensor, int], Any]) -> str:
    """length(ids, eos) -> tokens before the first EOS of each row, (n, L) to (n,); L where there is none."""
    for seed in (1, 2, 3):
        ids = torch.randint(0, 6, (7, 9), generator=Generator().manual_seed(seed))
        ids[0], ids[1, 0], ids[2] = 1, 5, torch.tensor([1, 2, 5, 5, 5, 3, 1, 1, 1])
        mine = tensor_of(length, ids, 5, shape=(7,), called="the lengths").double()
        rows = [row.index(5) if 5 in row else 9 for row in ids.tolist()]
        want = torch.tensor(rows).double()
        slips = {
            "EOS itself does not belong to the text": want + 1,
            "that is the last EOS of a row; the first one ends the text": torch.tensor(
                [8 - row[::-1].index(5) if 5 in row else 9 for row in ids.tolist()]
            ).double(),
            "a row without an EOS is a whole canvas long; `argmax` of all zeros is 0": torch.where(
                want == 9, 0.0, want
            ),
            "that counts the tokens that are no EOS, those behind it too": (ids != 5).sum(1).double(),
        }
        not_these(mine, {why: slip for why, slip in slips.items() if not torch.equal(slip, want)})
        counterexample(mine, want, ids.tolist(), "the length")
    return "Up to the first EOS, and not counting it."


@exercise
def check_two_streams(sees: Callable[[int, int], Any]) -> str:
    """sees(L, block) -> (2 L, 2 L) bool, row i sees column j; L noisy positions, then L clean ones."""
    for L, block in ((6, 2), (7, 3), (4, 1), (5, 5)):
        mine = tensor_of(sees, L, block, shape=(2 * L, 2 * L), called="the mask").bool()
        want, number = two_stream_mask(L, block), torch.arange(L) // block
        same, later = number[:, None] == number, number[:, None] > number
        none = torch.zeros_like(same)

        def square(noisy: Tensor, clean: Tensor, below: Tensor, clean_clean: Tensor) -> Tensor:
            return torch.cat([torch.cat([noisy, clean], 1), torch.cat([below, clean_clean], 1)])

        slips = {
            "that is transposed: the row looks, the column is seen": want.T,
            "noisy positions see the clean text of their own block, which is the answer": square(
                same, same | later, none, same | later
            ),
            "noisy positions see earlier noisy blocks; when their turn comes, those are clean": square(
                same | later, later, none, same | later
            ),
            "clean positions must see their own clean block as well": square(same, later, none, later),
            "clean positions see noisy ones; what they compute must not depend on the noise": square(
                same, later, same, same | later
            ),
            "no position may see later blocks": square(same, ~same, none, torch.ones_like(same)),
        }
        not_these(mine, {why: slip for why, slip in slips.items() if not torch.equal(slip, want)})
        if not torch.equal(mine, want):
            i, j = (mine != want).nonzero()[0].tolist()
            names = [f"{'noisy' if n < L else 'clean'} position {n % L}" for n in (i, j)]
            raise Wrong(f"with L = {L} and blocks of {block}, does {names[0]} see {names[1]}? {bool(want[i, j])}. "
                        "Noisy: its own noisy block, clean ones before. Clean: its own and those before.")  # fmt: skip
    return "One pass over 2 L tokens trains every block on what will be there when its turn comes."


@exercise
def check_block_bound(bound: Callable[[Any, Tensor, Tensor, int, int], Any]) -> str:
    """bound(denoise, x0, xt, block, mask_id) -> (B,) nats, each row's bound from the tokens that are masked in xt."""
    language, rng = load_language("micro"), Generator().manual_seed(9)
    L, V, mask_id = language.length, language.vocab_size, language.mask_id
    own, clean = torch.randn(2, V, V, generator=rng, dtype=torch.float64)
    shown: list[Tensor] = []

    def denoise(both: Tensor, t: object = None) -> Tensor:
        if both.shape != (40, 2 * L):
            raise Wrong(f"the denoiser reads noisy and clean text, (40, {2 * L}) ids; yours {tuple(both.shape)}.")
        shown.append(both)
        logits = own[both[:, :L]] + clean[both[:, L:]].mean(1, keepdim=True)
        return logits.index_fill(-1, torch.tensor(mask_id), -torch.inf)

    for block in (2, 3):
        process = BlockDiffusion(V, mask_id, block)
        shown.clear()
        x0, u = language.sample(40, rng), torch.rand(40, generator=rng)
        xt, share = process.hide(x0, u, Generator().manual_seed(block))
        mine = tensor_of(bound, denoise, x0, xt, block, mask_id, shape=(40,), called="the bound").double()
        if not shown:
            raise Wrong("your function never calls the denoiser.")
        if not torch.equal(shown[-1], torch.cat([xt, x0], 1)):
            raise Wrong("the denoiser reads the noisy text first and the clean text behind it.")
        want = process.bound(denoise, x0, u, Generator().manual_seed(block)).sum(1).double()
        hidden = xt == mask_id
        nats = -denoise(torch.cat([xt, x0], 1)).log_softmax(-1).gather(-1, x0[..., None])[..., 0]
        plain = (nats * hidden).sum(1)
        slips = {
            "that is the plain sum; scale each block by its tokens over its masked tokens": plain,
            "you scale the whole text by L / k; each block has a k of its own": L / hidden.sum(1) * plain,
            "you charge for visible tokens, too": (nats / share).sum(1),
            "the last block is shorter: its tokens, not `block`, over its masks": (
                nats * hidden / share * block / torch.arange(L).div(block, rounding_mode="floor").bincount()[
                    torch.arange(L) // block]).sum(1),
            "your factor is upside down": (nats * hidden * share).sum(1),
            "that is per token; sum over the tokens of a row": want / L,
        }  # fmt: skip
        not_these(
            mine, {why: slip for why, slip in slips.items() if not torch.allclose(slip.double(), want, atol=1e-5)}
        )
        off = (mine - want).abs() / want.clamp(min=1.0)
        if off.max() > 2e-6:  # float32 will do
            b = int(off.argmax())
            raise Wrong(f"blocks of {block}, row {b} masked as {hidden[b].int().tolist()}: {want[b]:.5f} nats, yours "
                        f"{mine[b]:.5f}. In each block: tokens over masks, times the masks' -log p.")  # fmt: skip
    own.requires_grad_()
    must_teach(bound(denoise, x0, xt, block, mask_id))
    return "The same as `BlockDiffusion.bound` to 2e-6 on micro."
