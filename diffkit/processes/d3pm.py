"""D3PM: diffusion over tokens with any transition matrices, its bound in all its terms, and its reverse step."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from diffkit.processes.base import Denoise, LossTerms, Time, as_rows, keep_given, not_counted
from diffkit.processes.schedules import Schedule
from diffkit.processes.transitions import (
    TransitionProcess,
    divergence,
    get_transitions,
    leave_one_out,
    uniform_over_tokens,
)
from diffkit.random import categorical

FLOOR = 1e-280  # least weight of a token in the denoiser's output: the reverse step stays a distribution


class Reverse(NamedTuple):
    """What the denoiser's output f, a distribution over clean tokens at each position, stands for.

    In both forms p(z_s | z_t) ~ q(z_t | z_s) sum over x of w(x) q(z_s | x), with other weights w.
    """

    weights: Callable[[Tensor, Tensor, float], Tensor]  # (f, q(z_t | x), least) -> w, all (B, L, V)
    ideal_output: Callable[[Tensor, Tensor], Tensor]  # (log posterior, log q(z_t | x)) -> log of the best f there is


# joint: f predicts from the other positions, and z_t[i] is weighed in here (Eq. 4 of the paper, and all its code).
# mixture: f predicts from all of z_t; p(z_s | z_t) = sum over x of f(x) q(z_s | z_t, x).
# They coincide for a masked token under absorbing noise, where z_t[i] carries no information.
REVERSES = {
    "joint": Reverse(lambda f, likelihood, least: f, leave_one_out),
    "mixture": Reverse(
        lambda f, likelihood, least: torch.where(likelihood > 0, f / likelihood.clamp(min=least), 0.0),
        lambda log_posterior, log_likelihood: log_posterior,
    ),
}


class D3PM(TransitionProcess):
    """Structured denoising diffusion: tokens change by transition matrices in T steps; the denoiser predicts x_0.

    Args:    vocab_size: V, special tokens included; mask_id: id of MASK, which clean text never holds;
             noise: how tokens change: "uniform", "absorbing" or "gaussian", with its noise_parameters; schedule: a
             Schedule or its name; reverse: what the denoiser predicts, "joint" or "mixture", see REVERSES;
             auxiliary: weight of the cross-entropy that the objective `hybrid` adds to the bound;
             dtype: of tables, see TransitionProcess.
    Source:  arXiv:2107.03006, sections 3 and 4.
    """

    name = "d3pm"
    objectives = ("bound", "hybrid")

    def __init__(
        self, vocab_size: int, mask_id: int, noise: str = "absorbing", schedule: Schedule | str = "linear", *,
        reverse: str = "joint", auxiliary: float = 1.0, dtype: torch.dtype = torch.float64, **noise_parameters: float,
    ):  # fmt: skip
        if reverse not in REVERSES:
            raise ValueError(f"D3PM: reverse must be one of {sorted(REVERSES)}, got {reverse!r}.")
        super().__init__(get_transitions(noise, vocab_size, mask_id, schedule, **noise_parameters), dtype)
        self.reverse, self.auxiliary, self.floor = reverse, auxiliary, max(FLOOR, torch.finfo(dtype).tiny)

    # -------------------------------------------------------------------------------------------------- forward process

    def prior(self, B: int, L: int, rng: Generator) -> Tensor:
        return categorical(self.transitions.limit().expand(B, L, -1), rng)

    def corrupt(self, x0: Tensor, t: Time, rng: Generator) -> tuple[Tensor, Tensor]:
        zt = self.add_noise(x0, 0, t, rng)
        return zt, zt != x0

    def posterior(self, weights: Tensor, zt: Tensor, t: Time, s: Time) -> Tensor:
        """q(z_s | z_t, x_0) for clean tokens of these weights: (B, L, V) weights to (B, L, V) probabilities.

        Source: arXiv:2107.03006, Eq. 3 for a weight of one at x_0.
        """
        weights = weights + self.floor * uniform_over_tokens(self.vocab_size, self.mask_id).to(weights)
        joint = self.transitions.likelihood(self.one_hot(zt), s, t) * self.transitions.marginal(weights, 0, s)
        return joint / joint.sum(-1, keepdim=True)

    # -------------------------------------------------------------------------------------------------- reverse process

    def log_probs(self, logits: Tensor) -> Tensor:
        """The denoiser's output as log f; clean text holds no MASK."""
        return self.token_logits(logits.to(self.table_dtype), logits).log_softmax(-1)

    def reverse_probs(self, logits: Tensor, zt: Tensor, t: Time, s: Time) -> Tensor:
        """p(z_s | z_t) for any s < t, (B, L, V); at s = 0 the prediction of the clean tokens.

        Eq. 4 of the paper holds at s = 0 too. Its code takes f itself there, so that one network must predict from the
        other positions at all times but the last.
        """
        likelihood = self.transitions.likelihood(self.one_hot(zt), 0, t)
        weights = REVERSES[self.reverse].weights(self.log_probs(logits).exp(), likelihood, self.floor)
        return self.posterior(weights, zt, t, s)

    def reverse_step(self, raw: Tensor, zt: Tensor, t: Time, s: Time, rng: Generator) -> Tensor:
        """Draw from p(z_s | z_t), at the last step too (the paper's code takes the most likely token there)."""
        return categorical(self.reverse_probs(raw, zt, self.before_end(t), self.before_end(s)), rng)

    def token_probs(self, raw: Tensor, zt: Tensor, t: Time) -> Tensor:
        return self.reverse_probs(raw, zt, self.before_end(t), 0.0)

    # -------------------------------------------------------------------------------------------------------- the bound

    def terms(self, logits: Tensor, x0: Tensor, zt: Tensor, t: Time) -> LossTerms:
        """T times the term of step t, whole in 1..T, and the prior's: averaged over t, the bound of the T-step chain.

        Step t > 1 costs KL(q(z_s | z_t, x_0) || p(z_s | z_t)) with s = t - 1; step 1 is the reconstruction,
        -log p(x_0 | z_1), which is the same divergence, as q is certain then.
        """
        _, t = as_rows(zt, t)
        truth = self.posterior(self.one_hot(x0), zt, t, t - 1)
        nats = self.T * divergence(truth, self.reverse_probs(logits, zt, t, t - 1))  # (B, L)
        is_first = (t == 1).to(nats.device)[:, None]
        return LossTerms(nats.masked_fill(is_first, 0.0), nats.masked_fill(~is_first, 0.0), self.prior_loss(x0))

    def prior_loss(self, x0: Tensor) -> Tensor:
        """KL(q(z_T | x_0) || limit), (B, L) nats: what the last step leaves; 0 where the schedule ends at 1."""
        marginal = self.transitions.marginal(self.one_hot(x0), 0, self.T)
        return divergence(marginal, self.transitions.limit().to(marginal))

    def cross_entropy(self, logits: Tensor, x0: Tensor, zt: Tensor, t: Time) -> Tensor:
        """-log p(x_0 | z_t), (B, L) nats: the auxiliary loss, Eq. 5 of the paper.

        The paper takes f for p. In the joint form this pulls f away from where the bound wants it, as f must not depend
        on z_t[i]; with the prediction that f leads to, both have the same best f.
        """
        return divergence(self.one_hot(x0), self.reverse_probs(logits, zt, t, 0.0))

    def loss(self, denoise: Denoise, x0: Tensor, t: Time, rng: Generator, frozen: Tensor | None = None) -> LossTerms:
        x0, t = as_rows(x0, t)
        zt, _ = self.corrupt(x0, t, rng)
        terms = self.terms(denoise(keep_given(zt, x0, frozen), t), x0, zt, t)
        return LossTerms(*(not_counted(part, frozen) for part in terms))

    def log_likelihood(self, zt: Tensor, t: Time) -> Tensor:
        return self.transitions.likelihood(self.one_hot(zt), 0, self.before_end(t)).log()

    def ideal_output(self, log_posterior: Tensor, zt: Tensor, t: Time) -> Tensor:
        return REVERSES[self.reverse].ideal_output(log_posterior, self.log_likelihood(zt, t))
