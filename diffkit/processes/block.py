"""Block diffusion: text from left to right in blocks, and masked diffusion within each of them."""

from __future__ import annotations

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from diffkit.processes.base import Denoise, FromLeftToRight, LossTerms, Network, Time, as_denoiser, as_rows, one_hot
from diffkit.processes.masked import masked_nll, subs_log_probs
from diffkit.random import highest, uniform_like


class BlockDiffusion(FromLeftToRight):
    """p(x) = prod p(x_b | x_<b): blocks in reading order, each factor a masked diffusion of the block.

    The denoiser reads two texts, concatenated, [x_t ; x_0], (B, 2 L) ids. Its row i predicts token i from
    the noisy block around it and the clean blocks before: so one call serves all blocks at once, each at its own number
    of masked tokens. Blocks of one token are the autoregressive baseline, a single block is MDLM.

    Args:    vocab_size: V, special tokens included; mask_id: id of MASK; block: tokens of a block (the last of a text
             may be shorter); T: length of the time axis, at t the last share t / T of the text is masked.
    Source:  arXiv:2503.09573 (BD3-LM), section 3.
    """

    name = "block"

    def __init__(self, vocab_size: int, mask_id: int, block: int = 8, T: int = 1000):
        super().__init__(vocab_size, mask_id, T, Network(vocab_size, block=block))
        if block < 1:
            raise ValueError(f"BlockDiffusion: a block has at least one token, got block={block}.")
        self.block, self.bound_varies = block, block > 1

    # -------------------------------------------------------------------------------------------------------- the bound

    def hide(self, x0: Tensor, u: Tensor, rng: Generator, frozen: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Mask tokens of every block, as many as the quantile u of 1..block (of its tokens that are free).

        Args:    u: (B,) in [0, 1). Block b of N takes the quantile (u + b / N) mod 1, so that a row holds blocks with
                 few and with many masked tokens. Each quantile is uniform if u is.
        Returns: xt (B, L), and (B, L) the share of masked tokens in the block of each position.
        """
        B, L = x0.shape
        N = -(-L // self.block)
        behind = torch.arange(N * self.block, device=x0.device) >= L  # positions behind the text
        given = behind.expand(B, -1).clone()
        given[:, :L] |= torch.zeros_like(x0, dtype=torch.bool) if frozen is None else frozen
        free = (~given).view(B, N, self.block).sum(2)
        quantile = (u.to(x0.device).double()[:, None] + torch.arange(N, device=x0.device).double() / N) % 1  # (B, N)
        count = (quantile * free).long().clamp(max=free - 1) + 1
        order = F.pad(uniform_like(x0, rng, torch.float32), (0, N * self.block - L)).masked_fill(given, 2.0)
        is_first = order.view(B, N, self.block).argsort(2).argsort(2) < count[..., None]
        share = (count.double() / free).nan_to_num(1.0)  # no token is free: 0 / 0
        is_masked = is_first.view(B, N * self.block)[:, :L]
        return torch.where(is_masked, self.mask_id, x0), share[:, self.blocks(L, x0.device)]

    def bound(self, denoise: Denoise, x0: Tensor, u: Tensor, rng: Generator, frozen: Tensor | None = None) -> Tensor:
        """The exact-count bound of every block, given the clean blocks before it, (B, L) nats; exact for blocks of one.

        In each block as many tokens are masked as `hide` says; their loss is weighted by 1 / share.
        The bound is that of arXiv:2503.09573, section 3; the estimator that of arXiv:2406.03736.
        """
        x0 = x0.long()
        xt, share = self.hide(x0, u, rng, frozen)
        is_masked = xt == self.mask_id
        t = torch.zeros(len(x0), device=x0.device)  # the network has no time: each block is at its own
        raw = self.columns(as_denoiser(denoise)(torch.cat([xt, x0], 1), t, is_masked))
        nats = masked_nll(raw, x0, is_masked, self.mask_id)
        return nats / share.to(nats)

    def loss(self, denoise: Denoise, x0: Tensor, t: Time, rng: Generator, frozen: Tensor | None = None) -> LossTerms:
        """`bound` at a random moment of the step that ends at t, whole in 1..T: unbiased for t uniform on 1..T."""
        x0, t = as_rows(x0, t)
        late = uniform_like(t, rng)
        nats = self.bound(denoise, x0, (t - 1 + late) / self.T, rng, frozen)
        return LossTerms(nats, torch.zeros_like(nats), torch.zeros_like(nats))

    # ------------------------------------------------------------------------------------------------- corrupt and step

    def corrupt(self, x0: Tensor, t: Time, rng: Generator) -> tuple[Tensor, Tensor]:
        """Mask the last share t / T of each text: whole blocks from the right, and random tokens of the one before."""
        (x0, t), L = as_rows(x0, t), x0.shape[1]
        hidden = (t.double() / self.T * L).ceil().to(x0.device)  # tokens
        order = self.blocks(L, x0.device) + uniform_like(x0, rng, torch.float32) * 0.99
        order = order.masked_fill(x0 == self.mask_id, torch.inf)  # a text with noise keeps its masks
        is_masked = highest(order, torch.ones_like(x0, dtype=torch.bool), hidden)
        return torch.where(is_masked, self.mask_id, x0), is_masked

    def log_probs(self, logits: Tensor, zt: Tensor) -> Tensor:
        """Log-probabilities of the clean tokens, see `subs_log_probs`: (B, L, V) -> (B, L, V)."""
        return subs_log_probs(logits, zt, self.mask_id)

    def read(self, zs: Tensor) -> Tensor:
        return torch.cat([zs, zs], 1)

    def chosen(self, candidates: Tensor, due: Tensor, rng: Generator) -> tuple[Tensor, Tensor]:
        """Any of them, drawn all at once: one token in a step is exact, a whole block in a step is fast."""
        return highest(-uniform_like(candidates, rng), candidates, due), uniform_like(candidates, rng)

    # --------------------------------------------------------------------------------------------- for exact posteriors

    def log_likelihood(self, zt: Tensor, t: Time) -> Tensor:
        """Evidence that each block has, of the clean blocks before it and of its own noisy tokens.

        (B, 2 L) ids, [x_t ; x_0], to one table for each of N blocks, (B N, L, V).
        """
        xt, x0 = zt.chunk(2, 1)
        B, L = xt.shape
        number = self.blocks(L, zt.device)
        row = number.unique()[:, None]  # (N, 1)
        text = torch.where(number < row, x0[:, None], xt[:, None])  # (B, N, L)
        unseen = (number > row) | (text == self.mask_id)
        seen = one_hot(text, self.vocab_size).log()
        return seen.masked_fill(unseen[..., None], 0.0).flatten(0, 1)

    def ideal_output(self, log_posterior: Tensor, zt: Tensor, t: Time) -> Tensor:
        """Of the table of each block the rows of its own tokens: (B N, L, V) to (B, L, V)."""
        B, L = len(zt), zt.shape[1] // 2
        number = self.blocks(L, zt.device)
        return log_posterior.view(B, -1, L, log_posterior.shape[-1])[:, number, torch.arange(L, device=zt.device)]
