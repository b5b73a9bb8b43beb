"""Exercises of notebook 19_adaptation."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from diffkit.course.exercises.checks import Wrong, exercise, far_from, not_these, number_of, tensor_of
from diffkit.course.orders import mask_patterns
from diffkit.languages.story_language import load_language

Network = Callable[[Tensor], Tensor]  # (B, n) ids to (B, n, V) logits


def linear_network(sees: Tensor, V: int, seed: int) -> Network:
    """A network whose row i adds up random vectors of the tokens that `sees` (n, n) lets it read."""
    rng = Generator().manual_seed(seed)
    table = torch.randn(len(sees), V, V, generator=rng, dtype=torch.float64)  # by position and token

    def network(ids: Tensor) -> Tensor:
        n = ids.shape[1]
        read_at = table[torch.arange(n), ids]  # (B, n, V)
        return torch.einsum("ij,bjv->biv", sees[:n, :n].double(), read_at)

    return network


@exercise
def check_logit_shift(denoise: Callable[..., Any]) -> str:
    """denoise(network, xt, start) -> (B, L, V), row i predicting token i; the network's row j predicts token j + 1."""
    V, start = 5, 4
    for seed, L in ((0, 4), (1, 6)):
        rng = Generator().manual_seed(seed)
        network = linear_network(torch.rand(L + 1, L + 1, generator=rng) + 0.1, V, seed)  # every row reads all tokens
        xt = torch.randint(V - 1, (3, L), generator=rng)
        mine = tensor_of(denoise, network, xt, start, shape=(3, L, V), called="the logits").double()
        front = torch.full((3, 1), start)
        whole, bare = network(torch.cat([front, xt], 1)), network(xt)
        not_these(mine, {
            "row i of these is the network's own row i, which predicts token i + 1. Shift them": bare,
            "you drop the first row. It is the last one that predicts a token behind the end": whole[:, 1:],
            "without a start token nothing predicts token 0: rows 0 and 1 are equal. Put it in front of the text":
                torch.cat([bare[:, :1], bare[:, :-1]], 1),
            "the last token is not read, as in a left-to-right model. But a denoiser's other rows need it":
                network(torch.cat([front, xt[:, :-1]], 1)),
        })  # fmt: skip
        if not torch.allclose(mine, whole[:, :-1], atol=1e-6):
            raise Wrong("the logits are not those of the network that has read start, x_0, ..., x_{L-1}, row by row.")
    return "L + 1 tokens in, the last row out: what a row has learned to predict, it goes on predicting."


@exercise
def check_annealed(mask: Callable[..., Any]) -> str:
    """mask(L, share, rng) -> (L, L) bool: row i may look at column j; of the future a random share."""
    for L, share in ((40, 0.0), (60, 0.3), (50, 1.0), (60, 0.7)):
        mine = tensor_of(mask, L, share, Generator().manual_seed(L), shape=(L, L), called="the mask")
        if mine.dtype != torch.bool and not ((mine == 0) | (mine == 1)).all():
            raise Wrong("the mask says yes or no for every pair; yours holds other numbers.")
        mine, future = mine.bool(), torch.ones(L, L, dtype=torch.bool).triu(1)
        if not mine[~future].all():
            turned = mine.T[~future].all() and share < 1
            raise Wrong(
                "that is turned round: row i looks at column j, and j <= i is the past." if turned else
                "a row no longer sees all of its past and itself: only the future is drawn by chance."
            )  # fmt: skip
        if 0 < share < 1:
            for side, parts in (("column", mine.T), ("row", mine.flip(0, 1))):  # the future stands left of the diagonal
                alike = sum(len(set(parts[i, :i].tolist())) == 1 for i in range(10, L))
                if alike > 3:
                    raise Wrong(f"all of the future in a {side} is seen, or none: every pair needs a coin of its own.")
        seen, n = float(mine[future].double().mean()), L * (L - 1) // 2
        if far_from(seen, share, n):
            if abs(2 * share - 1) > 0.1 and not far_from(seen, 1 - share, n):
                raise Wrong(f"you show 1 - share of the future. At share = {share:g} the share {share:g} is seen.")
            raise Wrong(f"at share = {share:g} a row should see that part of its future, yours sees {seen:.2f} of it.")
    return "Share 0 is the causal mask, share 1 none at all, and what was learned about the past is never cut off."


@exercise
def check_reach(reach: Callable[..., Any]) -> str:
    """reach(network, ids, V) -> (L, L) bool, [i, j]: does the network's row i depend on token j of ids (L,)?"""
    V = 6
    shapes = {
        "causal": torch.ones(5, 5).tril(), "full": torch.ones(4, 4), "shifted causal": torch.ones(5, 5).tril(-1),
        "blocks of two": torch.ones(6, 6).tril() + torch.block_diag(*[torch.ones(2, 2)] * 3),
    }  # fmt: skip
    for seed, (name, sees) in enumerate(shapes.items()):
        rng, want = Generator().manual_seed(seed), sees > 0
        ids = torch.randint(V, (len(sees),), generator=rng)
        mine = tensor_of(reach, linear_network(want, V, seed), ids, V, shape=tuple(want.shape), called="the table")
        mine = mine.bool()
        not_these(mine, {
            f"for the {name} network that is turned round: [i, j] is row i and token j": want.T,
            "a row may depend on its own token too, and the table says whether it does": want & ~torch.eye(
                len(want), dtype=torch.bool),
            "that is true everywhere: compare the logits row by row": torch.ones_like(want) | want,
        } if not torch.equal(mine, want) else {})  # fmt: skip
        if bad := (mine != want).nonzero().tolist():
            i, j = bad[0]
            says = "does" if want[i, j] else "does not"
            raise Wrong(f"in the {name} network row {i} {says} depend on token {j}; your table says otherwise.")
    return "With this table nobody has to trust a flag in a config file."


def entropy_of(columns: Tensor, probs: Tensor) -> float:
    """Entropy of some columns (K, n) of the texts of a language, nats; 0 for none."""
    _, kind = F.pad(columns, (1, 0)).unique(dim=0, return_inverse=True)
    mass = torch.zeros(len(columns), dtype=probs.dtype).index_add(0, kind, probs)
    return float(torch.special.entr(mass).sum())


def best_bound(texts: Tensor, probs: Tensor, sees: Tensor) -> float:
    """The lowest bound of any denoiser whose row i reads only the tokens that `sees` (L, L) allows, nats a text.

    Args: texts: (K, L), all different, with probabilities probs (K,).
    """
    L, total = texts.shape[1], 0.0
    for hidden in mask_patterns(L)[1:]:
        k = int(hidden.sum())
        for i in hidden.nonzero()[:, 0].tolist():
            known = texts[:, ~hidden & sees[i]]
            loss = entropy_of(torch.cat([known, texts[:, i : i + 1]], 1), probs) - entropy_of(known, probs)
            total += loss / (k * math.comb(L, k))
    return total


@exercise
def check_best_bound(bound: Callable[..., Any]) -> str:
    """bound(texts, probs, sees) -> nats: the least bound of a denoiser whose row i reads what sees[i] allows."""
    micro = load_language("micro")
    texts = micro.sample(500, Generator().manual_seed(1)).unique(dim=0)
    rng = Generator().manual_seed(0)
    small = torch.cartesian_prod(*[torch.arange(2)] * 3)
    chance = torch.rand(8, generator=rng, dtype=torch.float64) ** 3
    toy = [torch.ones(3, 3), torch.ones(3, 3).tril(-1), torch.zeros(3, 3)]
    cases = [(small, chance / chance.sum(), sees) for sees in toy]
    cases += [(texts, micro.log_prob(texts).exp(), torch.ones(5, 5).tril(-1))]
    for texts, probs, sees in cases:
        L, open_ = texts.shape[1], sees > 0
        mine, want = number_of(bound, texts, probs, open_, called="the bound"), best_bound(texts, probs, open_)
        for why, slip in {
            "that is the bound per token; leave it per text": want / L,
            "that is in bits; the entropies are natural logarithms": want / math.log(2),
            "that is the entropy of the language, which only a denoiser reaches that sees everything":
                entropy_of(texts, probs),
            "every pattern counts the same in yours: its weight is 1 / (k comb(L, k))":
                _unweighted(texts, probs, open_),
        }.items():  # fmt: skip
            if abs(mine - slip) < 1e-6 < abs(want - slip):
                raise Wrong(f"{why}.")
        if abs(mine - want) > 1e-6:
            raise Wrong(f"for {len(texts)} texts of {L} tokens and sees = {sees.int().tolist()} the least bound is "
                        f"{want:.5f} nats, yours {mine:.5f}.")  # fmt: skip
    return "No training lowers it: what a row may not read, it has to average over."


def _unweighted(texts: Tensor, probs: Tensor, sees: Tensor) -> float:
    """As `best_bound`, with all patterns alike."""
    total, patterns = 0.0, mask_patterns(texts.shape[1])
    for hidden in patterns:
        for i in hidden.nonzero()[:, 0].tolist():
            known = texts[:, ~hidden & sees[i]]
            total += entropy_of(torch.cat([known, texts[:, i : i + 1]], 1), probs) - entropy_of(known, probs)
    return total / len(patterns)
