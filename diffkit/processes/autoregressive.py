"""The autoregressive baseline: the same backbone with causal attention, as one more process."""

from __future__ import annotations

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from diffkit.processes.base import Denoise, FromLeftToRight, LossTerms, Network, Time, as_rows, not_counted, one_hot
from diffkit.random import uniform_numbers


class Autoregressive(FromLeftToRight):
    """Generation from left to right as a process: time masks the end of a text, a reverse step adds the next tokens.

    The denoiser reads the text shifted right by one position, MASK in front, and its row i predicts token i. With
    causal attention one call holds every factor of p(x) = prod p(x_i | x_<i): the bound is exact.

    Args: vocab_size: V, special tokens included; mask_id: id of MASK, which starts every text; T: length of the time
          axis, at t the last share t / T of the text is masked.
    """

    name = "autoregressive"
    bound_varies = False  # one draw of the bound is the bound

    def __init__(self, vocab_size: int, mask_id: int, T: int = 1000):
        super().__init__(vocab_size, mask_id, T, Network(vocab_size, causal=True))

    def corrupt(self, x0: Tensor, t: Time, rng: Generator) -> tuple[Tensor, Tensor]:
        (x0, t), L = as_rows(x0, t), x0.shape[1]
        hidden = (t.double() / self.T * L).ceil().to(x0.device)  # tokens
        is_masked = torch.arange(L, device=x0.device) >= (L - hidden)[:, None]
        return torch.where(is_masked, self.mask_id, x0), is_masked

    def shifted(self, x: Tensor) -> Tensor:
        """What the network reads to predict x: (B, L) ids one position to the right, MASK in front."""
        return torch.cat([torch.full_like(x[:, :1], self.mask_id), x[:, :-1]], 1)

    def log_probs(self, denoise: Denoise, x: Tensor, t: Time) -> Tensor:
        """log p(x_i = v | x_<i) for every position i and token v, MASK excluded, (B, L, V)."""
        logits = denoise(self.shifted(x), t)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return self.token_logits(logits, x).log_softmax(-1)

    def bound(self, denoise: Denoise, x0: Tensor, u: Tensor, rng: Generator, frozen: Tensor | None = None) -> Tensor:
        """-log p(x_i | x_<i), (B, L) nats: exact, so nothing is drawn and `u` is not used."""
        log_p = self.log_probs(denoise, x0, torch.zeros(len(x0), device=x0.device))
        nats = F.nll_loss(log_p.flatten(0, 1), x0.flatten().long(), reduction="none").view(x0.shape)
        return not_counted(nats, frozen)

    def loss(self, denoise: Denoise, x0: Tensor, t: Time, rng: Generator, frozen: Tensor | None = None) -> LossTerms:
        """The exact negative log-likelihood, whatever t."""
        nats = self.bound(denoise, x0, torch.zeros(len(x0)), rng, frozen)
        return LossTerms(nats, torch.zeros_like(nats), torch.zeros_like(nats))

    def read(self, zs: Tensor) -> Tensor:
        return self.shifted(zs)

    def chosen(self, candidates: Tensor, due: Tensor, rng: Generator) -> tuple[Tensor, Tensor]:
        """One token a row, and one number for each row, due or not."""
        u = uniform_numbers((len(candidates),), rng).to(candidates.device)
        return candidates, u[:, None].expand(candidates.shape)

    def log_likelihood(self, zt: Tensor, t: Time) -> Tensor:
        """Evidence that each position has, of the ones before it: shifted text (B, L) to L tables for each text.

        The exact posterior of table i, at position i, is then the exact p(x_i | x_<i).
        """
        B, L = zt.shape
        text = torch.cat([zt[:, 1:], torch.full_like(zt[:, :1], self.mask_id)], 1)  # shifted back; the last is unseen
        is_earlier = torch.ones(L, L, dtype=torch.bool, device=zt.device).tril(-1)
        unseen = ~is_earlier | (text == self.mask_id)[:, None]  # (B, L tables, L positions)
        seen = one_hot(text, self.vocab_size).log()[:, None].expand(B, L, L, -1)
        return seen.masked_fill(unseen[..., None], 0.0).flatten(0, 1)

    def ideal_output(self, log_posterior: Tensor, zt: Tensor, t: Time) -> Tensor:
        """Of table i the row at position i: (B L, L, V) to (B, L, V)."""
        B, L = zt.shape
        return log_posterior.view(B, L, L, -1).diagonal(dim1=1, dim2=2).transpose(1, 2)
