"""The autoregressive twin: the same backbone, looking left only, as one more process."""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from diffkit.network.attention import KeyValueCache
from diffkit.processes.base import Denoise, LossTerms, Process, Step, on_device_of, without_mask
from diffkit.random import categorical


class Autoregressive(Process):
    """Writing from left to right, told as a process: time hides the end of a text, a step back writes the next token.

    The denoiser is given the text shifted right by one place, MASK in front, and its row i is the belief about token i.
    If it looks left only (`causal`), one call holds every factor of p(x) = prod p(x_i | x_<i): the bound is exact.

    Args: vocab_size: V, special tokens included; mask_id: id of MASK, which starts every text; T: length of the time
          axis, at t the last share t / T of the text is hidden.
    """

    name = "autoregressive"
    causal = True
    bound_varies = False  # one draw of the bound is the bound

    def corrupt(self, x0: Tensor, t: Tensor, rng: Generator) -> tuple[Tensor, Tensor]:
        L = x0.shape[1]
        hidden = (t.double() / self.T * L).ceil().to(x0.device)  # tokens
        is_masked = torch.arange(L, device=x0.device) >= (L - hidden.expand(len(x0)))[:, None]
        return torch.where(is_masked, self.mask_id, x0), is_masked

    def shifted(self, x: Tensor) -> Tensor:
        """What the network reads to predict x: (B, L) ids one place to the right, MASK in front."""
        return torch.cat([torch.full_like(x[:, :1], self.mask_id), x[:, :-1]], 1)

    def log_probs(self, denoise: Denoise, x: Tensor, t: Tensor) -> Tensor:
        """log p(x_i = v | x_<i) for every place i and word v, MASK excluded, (B, L, V)."""
        logits = denoise(self.shifted(x), t)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return without_mask(logits, self.mask_id).log_softmax(-1)

    def bound(self, denoise: Denoise, x0: Tensor, u: Tensor, rng: Generator) -> Tensor:
        """-log p(x_i | x_<i), (B, L) nats: exact, so that there is nothing to draw and `u` is not used."""
        log_p = self.log_probs(denoise, x0, torch.zeros(len(x0), device=x0.device))
        return F.nll_loss(log_p.flatten(0, 1), x0.flatten(), reduction="none").view(x0.shape)

    def loss(self, denoise: Denoise, x0: Tensor, t: Tensor, rng: Generator) -> LossTerms:
        """The exact negative log-likelihood, whatever t."""
        nats = self.bound(denoise, x0, t, rng)
        return LossTerms(nats, torch.zeros_like(nats), torch.zeros_like(nats))

    def step(self, denoise: Denoise, zt: Tensor, t: Tensor, s: Tensor, rng: Generator) -> Step:
        """Write the first hidden tokens of each row, one after the other, until the share s / t of them is left.

        Words further right are kept, and not seen. Beliefs: certain where a token stands, zeros where none is written.
        """
        is_masked = zt == self.mask_id
        left = (is_masked.sum(1) * (s / t).to(zt.device) + 1e-9).floor()
        zs, probs = zt.clone(), F.one_hot(zt, self.vocab_size).double() * ~is_masked[..., None]
        while (due := (zs == self.mask_id).sum(1) > left).any():
            row, place = torch.arange(len(zs), device=zs.device), (zs == self.mask_id).int().argmax(1)
            belief = self.log_probs(denoise, zs, t)[row, place].double().exp()  # (B, V)
            token = categorical(belief, rng)
            zs[row[due], place[due]], probs[row[due], place[due]] = token[due], belief[due]
        return Step(zs, probs)

    @torch.no_grad()
    def write(self, network: nn.Module, start: Tensor, rng: Generator) -> Tensor:
        """Fill the MASKs of (B, L) ids from left to right; the same draws as one-token steps, in less time.

        Keys and values of earlier places are kept, so that each of the L calls reads a single token.
        """
        x, cache = on_device_of(network, start).clone(), KeyValueCache()
        for i in range(x.shape[1]):
            logits = network(self.shifted(x)[:, i : i + 1], 0.0, cache=cache)[:, 0].double()  # (B, V)
            hidden = x[:, i] == self.mask_id
            if hidden.any():
                words = categorical(without_mask(logits, self.mask_id).softmax(-1), rng)
                x[:, i] = torch.where(hidden, words, x[:, i])
        return x

    def log_likelihood(self, zt: Tensor, t: Tensor) -> Tensor:
        """What each place knows of the places before it: shifted text (B, L) to L rows of evidence for each text.

        The exact posterior of row i, at place i, is then the exact p(x_i | x_<i).
        """
        B, L = zt.shape
        text = torch.cat([zt[:, 1:], torch.full_like(zt[:, :1], self.mask_id)], 1)  # back in place; the last is unseen
        is_earlier = torch.ones(L, L, dtype=torch.bool, device=zt.device).tril(-1)
        unseen = ~is_earlier | (text == self.mask_id)[:, None]  # (B, L rows, L places)
        seen = F.one_hot(text, self.vocab_size).double().log()[:, None].expand(B, L, L, -1)
        return seen.masked_fill(unseen[..., None], 0.0).flatten(0, 1)

    def ideal_output(self, log_posterior: Tensor, zt: Tensor, t: Tensor) -> Tensor:
        """Of row i the belief at place i: (B L, L, V) to (B, L, V)."""
        B, L = zt.shape
        return log_posterior.view(B, L, L, -1).diagonal(dim1=1, dim2=2).transpose(1, 2)
