"""Exercises of notebook 00b_one_page."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from diffkit.course.exercises.checks import Wrong, counterexample, exercise, must_teach, not_these, tensor_of


def hidden_loss(logits: Tensor, x0: Tensor, xt: Tensor, mask_id: int) -> Tensor:
    """The mean over rows of the mean -log p of a row's hidden tokens, nats: (B, L, V), (B, L) twice to a number."""
    is_masked = xt == mask_id
    nats = F.cross_entropy(logits.transpose(1, 2), x0, reduction="none") * is_masked  # (B, L)
    return (nats.sum(1) / is_masked.sum(1)).mean()


@exercise
def check_hidden_loss(mine: Callable[[Tensor, Tensor, Tensor, int], Tensor]) -> str:
    """hidden_loss(logits, x0, xt, mask_id) -> nats, one number: means over hidden tokens, then over rows."""
    rng = Generator().manual_seed(20)
    for mask_id, B, L, V in ((0, 4, 6, 5), (3, 6, 9, 8)):
        x0 = (mask_id + 1 + torch.randint(0, V - 1, (B, L), generator=rng)) % V
        logits = torch.randn(B, L, V, generator=rng, dtype=torch.float64)
        is_masked = torch.rand(B, L, generator=rng) < torch.linspace(0.1, 0.9, B)[:, None]
        is_masked[:, 0] = True  # at least one in each row
        xt = x0.masked_fill(is_masked, mask_id)
        answer = tensor_of(mine, logits, x0, xt, mask_id, shape=(), called="the loss").double()
        nats = F.cross_entropy(logits.transpose(1, 2), x0, reduction="none")
        hidden = nats * is_masked
        want = (hidden.sum(1) / is_masked.sum(1)).mean()
        not_these(
            answer,
            {
                "the sign: the loss is minus the log-probability": -want,
                "you average over all hidden tokens at once: rows with many masks count more, and that is no bound. "
                "First the mean of each row, then the mean over rows": hidden.sum() / is_masked.sum(),
                "visible tokens are counted; they are known and cost nothing": nats.mean(),
                "you divide by L; each row is divided by the number of its own masks": hidden.sum(1).mean() / L,
                "you take the loss at the visible tokens; the hidden ones are to be predicted": (
                    (nats * ~is_masked).sum(1) / (~is_masked).sum(1)
                ).mean(),
                "that is in bits; nats take the natural logarithm": want / math.log(2),
            },
        )
        counterexample(answer[None], want[None], [f"a batch with mask_id = {mask_id}"], "the loss")
    must_teach(mine(logits.requires_grad_(), x0, xt, mask_id))
    return (
        "The mean over a row's hidden tokens, then over rows: with a uniform number of masks, a bound in nats a token."
    )


def shift(x: Tensor, start: int) -> Tensor:
    """What a left-to-right model reads to predict x: every token one position later, `start` in front."""
    return torch.cat([torch.full_like(x[:, :1], start), x[:, :-1]], 1)


@exercise
def check_shift(mine: Callable[[Tensor, int], Tensor]) -> str:
    """shift(x, start) -> the input of a left-to-right model, (B, L) to (B, L)."""
    rng = Generator().manual_seed(21)
    for start, L in ((0, 5), (7, 8)):
        x = torch.randint(10, 30, (3, L), generator=rng)
        answer = tensor_of(mine, x, start, shape=(3, L), called="the input")
        front = torch.full((3, 1), start)
        not_these(
            answer,
            {
                "position i would read the token that it must predict; move all tokens one position later": x,
                "you move the tokens one position earlier; position i may read what stands before i": torch.cat(
                    [x[:, 1:], front], 1
                ),
                "the last token comes round to the front; put `start` there": x.roll(1, 1),
                "that moves rows, not positions": x.roll(1, 0),
            },
        )
        counterexample(answer.flatten(), shift(x, start).flatten(), [
            f"{row} with start = {start}, position {i}:" for row in x.tolist() for i in range(L)], "the input"
        )  # fmt: skip
    return "Position i reads tokens 0 to i - 1, the first one nothing."


def step_back(x: Tensor, probs: Tensor, t: float, s: float, mask_id: int, rng: Generator) -> Tensor:
    """Reveal each MASK with probability 1 - s / t by a draw from probs: (B, L), (B, L, V) to (B, L)."""
    drawn = torch.multinomial(probs.flatten(0, 1), 1, generator=rng).view(x.shape)
    reveal = (x == mask_id) & (torch.rand(x.shape, generator=rng) >= s / t)
    return torch.where(reveal, drawn, x)


@exercise
def check_step_back(mine: Callable[[Tensor, Tensor, float, float, int, Generator], Tensor]) -> str:
    """step_back(x, probs, t, s, mask_id, rng) -> the state at s, right in law: (B, L) ids, (B, L, V) to (B, L)."""
    B, L, mask_id = 2000, 5, 1
    x = torch.tensor([0, 2, mask_id, mask_id, mask_id]).repeat(B, 1)
    probs = torch.tensor([0.25, 0.0, 0.75, 0.0]).repeat(B, L, 1)
    probs[:, 4] = torch.tensor([0.0, 0.0, 0.0, 1.0])

    def state(t: float, s: float, seed: int = 0) -> Tensor:
        return tensor_of(mine, x, probs, t, s, mask_id, Generator().manual_seed(seed), shape=(B, L), called="the state")

    for t, s in ((0.8, 0.2), (0.5, 0.4), (0.3, 0.0)):
        answer = state(t, s)
        if not torch.equal(answer[:, :2].long(), x[:, :2]) or (answer != answer.long()).any():
            raise Wrong("visible tokens changed. A token that has been revealed stays.")
        if not torch.equal(answer, state(t, s)):
            raise Wrong("the same seed gives two different states. Hand rng on to every draw: generator=rng.")
        still = (answer[:, 2:] == mask_id).double()
        if s == 0 and still.any():
            raise Wrong("at s = 0 some positions are still masked; s / t is 0 there, so that all are revealed.")
        share, want = float(still.mean()), s / t
        near = 0.05  # eight standard errors
        if abs(share - want) > near and abs(share - (1 - want)) < near:
            raise Wrong(f"from t = {t} to s = {s} the share s / t = {want:.2f} stays masked; yours reveals that share.")
        if abs(share - want) > near:
            raise Wrong(
                f"from t = {t} to s = {s} the share s / t = {want:.2f} of the masks stays; yours keeps {share:.2f}."
            )
        together = ((still.mean(1) == 0) | (still.mean(1) == 1)).double().mean()
        if abs(float(together) - want**3 - (1 - want) ** 3) > 0.08:
            raise Wrong("the masks of a row are not revealed independently. Each position has a draw of its own.")
        shown = answer[:, 2:4][answer[:, 2:4] != mask_id]
        if (
            not torch.isin(shown, torch.tensor([0, 2])).all()
            or not torch.isin(answer[:, 4], torch.tensor([mask_id, 3])).all()
        ):
            raise Wrong("a revealed token has probability 0. Draw each position from its own row of probs.")
        if abs(float((shown == 2).double().mean()) - 0.75) > 0.08:
            raise Wrong("tokens do not come as often as probs says. Draw them; do not take the likeliest.")
    return "Whether, then what: two draws for each mask, and the rest stays."
