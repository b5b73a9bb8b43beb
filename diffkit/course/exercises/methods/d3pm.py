"""Exercises of notebook 12_d3pm."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from diffkit.course.exercises.checks import Wrong, differ, exercise, far_from, must_have_slope, not_these, tensor_of
from diffkit.course.experiments.exact_chain import matrix
from diffkit.languages.story_language import load_language
from diffkit.processes.d3pm import D3PM
from diffkit.processes.schedules import get_schedule
from diffkit.processes.transitions import divergence, uniform_over_tokens
from diffkit.random import categorical


def corrupt(x0: Tensor, alpha: float, vocab_size: int, mask_id: int, rng: Generator) -> Tensor:
    """What `D3PM.corrupt` draws for uniform noise: keep a token with chance alpha, else draw it from all but MASK."""
    other = uniform_over_tokens(vocab_size, mask_id).expand(*x0.shape, -1)
    return torch.where(torch.rand(x0.shape, generator=rng) < alpha, x0, categorical(other, rng))


def posterior(weights: Tensor, zt: Tensor, Q_0s: Tensor, Q_st: Tensor) -> Tensor:
    """What `D3PM.posterior` computes, with matrices: q(z_s | z_t, x_0) for clean tokens of these weights, (B, L, V)."""
    joint = (weights @ Q_0s) * Q_st.T[zt]
    return joint / joint.sum(-1, keepdim=True)


def others(probs: Tensor, zt: Tensor, Q_0t: Tensor) -> Tensor:
    """p(x_0[i] | all of z_t) to p(x_0[i] | the other positions of z_t), (B, L, V): divide out what z_t[i] says."""
    weights = probs / Q_0t.T[zt]
    return weights / weights.sum(-1, keepdim=True)


def step_nats(f: Tensor, x0: Tensor, zt: Tensor, Q_0s: Tensor, Q_st: Tensor) -> Tensor:
    """What `D3PM.terms` computes for one step, without its factor T: KL(q(z_s | z_t, x_0) || p(z_s | z_t)), (B, L)."""
    truth = posterior(F.one_hot(x0, len(Q_0s)).to(f), zt, Q_0s, Q_st)
    return divergence(truth, posterior(f, zt, Q_0s, Q_st))


# ----------------------------------------------------------------------------------------------------------- the checks


@exercise
def check_uniform_noise(corrupt: Callable[[Tensor, float, int, int, Generator], Any]) -> str:
    """corrupt(x0, alpha, vocab_size, mask_id, rng) -> z_t, (B, L): uniform noise, drawn for every token by itself."""
    V, mask_id, rng = 6, 2, Generator().manual_seed(12)
    words = [v for v in range(V) if v != mask_id]
    x0 = torch.tensor(words)[torch.randint(0, V - 1, (400, 50), generator=rng)]
    for alpha in (0.6, 0.1, 1.0):
        zt = tensor_of(corrupt, x0, alpha, V, mask_id, rng, shape=(400, 50), called="z_t").double()
        if not torch.isin(zt, torch.tensor([*words, mask_id]).double()).all():
            raise Wrong(f"z_t should hold ids from 0 to {V - 1}.")
        if (zt == mask_id).any():
            raise Wrong("yours draws MASK; uniform noise draws from all tokens but MASK.")
        kept, n = (zt == x0).double(), x0.numel()
        want = alpha + (1 - alpha) / (V - 1)
        if far_from(kept.mean().item(), want, n):
            why = {
                "a token drawn anew may be what it was; yours is always another one": alpha,
                "alpha is the chance to be kept, not to be drawn anew": (1 - alpha) + alpha / (V - 1),
            }
            said = [word for word, share in why.items() if not far_from(kept.mean().item(), share, n)]
            raise Wrong(f"with alpha = {alpha}, {want:.3f} of the tokens should be as before, as a token drawn anew "
                        f"is the old one in 1 case of {V - 1}; yours {kept.mean():.3f}. {' '.join(said)}")  # fmt: skip
        spread = kept.sum(1).var() / (50 * want * (1 - want) + 1e-9)
        if alpha < 1 and not 0.6 < spread < 1.5:  # a binomial's variance, 400 rows
            raise Wrong("whole rows are kept or drawn anew together; every token has a draw of its own.")
        new = zt[kept == 0]
        for v in words:
            if len(new) and far_from((new == v).double().mean().item(), 1 / (V - 1), len(new)):
                raise Wrong(f"with alpha = {alpha} a token that changed should be {v} with chance 1/{V - 1}, as all "
                            f"tokens but MASK are alike; yours is with {(new == v).double().mean():.3f}.")  # fmt: skip
    return "No matrix, no loop: one draw that decides, one draw of a word. `D3PM.corrupt` with V x V numbers saved."


@exercise
def check_posterior(posterior: Callable[[Tensor, Tensor, Tensor, Tensor], Any]) -> str:
    """posterior(weights, zt, Q_0s, Q_st) -> (B, L, V), q(z_s | z_t, x_0) for clean tokens of these weights."""
    rng = Generator().manual_seed(3)
    first, second = torch.rand(2, 4, 4, generator=rng, dtype=torch.float64).softmax(-1)
    for one_hot in (True, False):
        x0, zt = torch.randint(0, 4, (2, 3, 5), generator=rng)
        f = torch.randn(3, 5, 4, generator=rng, dtype=torch.float64).softmax(-1)
        w = F.one_hot(x0, 4).double() if one_hot else f
        mine = tensor_of(posterior, w, zt, first, second, shape=(3, 5, 4), called="the posterior").double()
        joint = (w @ first) * second.T[zt]
        row, turned = (w @ first) * second[zt], (w @ first.T) * second.T[zt]
        not_these(
            mine,
            {
                "these are the chances of x_0, then b, then z_t; divide them by their sum over b": joint,
                "you took the row z_t of Q_st; what leads *to* z_t is its column": row / row.sum(-1, keepdim=True),
                "that is where x_0 is at s; you have not used z_t": w @ first,
                "that is what z_t says by itself; weigh in where x_0 is at s": second.T[zt]
                / second.T[zt].sum(-1, keepdim=True),
                "you went to s along the columns of Q_0s; what x_0 leads to is its row": turned
                / turned.sum(-1, keepdim=True),
                "you divide by the sum of everything; each position has a sum of its own": joint / joint.sum(),
            },
        )
    language = load_language("micro")
    for noise, t in (("uniform", 7.0), ("gaussian", 4.0)):
        process = D3PM(language.vocab_size, language.mask_id, noise, get_schedule("linear", 10))
        x0 = language.sample(20, rng)
        zt, _ = process.corrupt(x0, t, rng)
        mine = tensor_of(posterior, process.one_hot(x0), zt, matrix(process, 0, t - 1), matrix(process, t - 1, t),
                         shape=(*x0.shape, language.vocab_size), called="the posterior").double()  # fmt: skip
        off = (mine - process.posterior(process.one_hot(x0), zt, t, t - 1)).abs()
        if off.max() > 1e-6:
            b, i, _ = (off == off.max()).nonzero()[0].tolist()
            raise Wrong(f"{noise} noise on micro, x_0 = {x0[b, i]} and z_t = {zt[b, i]}: off by up to {off.max():.4f}. "
                        "Row x_0 of Q_0s times column z_t of Q_st, over its sum.")  # fmt: skip
    return "Bayes' rule with a row and a column, the same as `D3PM.posterior` to 1e-6 on micro."


@exercise
def check_others(others: Callable[[Tensor, Tensor, Tensor], Any]) -> str:
    """others(probs, zt, Q_0t) -> (B, L, V), the prediction from the other positions; probs is that from all of z_t."""
    rng = Generator().manual_seed(4)
    Q = torch.rand(4, 4, generator=rng, dtype=torch.float64).mul(3).softmax(-1)
    zt = torch.randint(0, 4, (3, 5), generator=rng)
    want = torch.randn(3, 5, 4, generator=rng, dtype=torch.float64).softmax(-1)
    probs = want * Q.T[zt]
    probs = probs / probs.sum(-1, keepdim=True)
    mine = tensor_of(others, probs, zt, Q, shape=(3, 5, 4), called="the prediction").double()
    twice, row = probs * Q.T[zt], probs / Q[zt]
    not_these(
        mine,
        {
            "you weigh z_t's own position in once more; it is in there already and has to come out": twice
            / twice.sum(-1, keepdim=True),
            "these no longer sum to one; divide by their sum": probs / Q.T[zt],
            "you divide by the row z_t of Q_0t; what x_0 = a says of z_t stands in row a, so take the column": row
            / row.sum(-1, keepdim=True),
            "that is still the prediction from all of z_t": probs,
        },
    )
    language = load_language("micro")
    process = D3PM(language.vocab_size, language.mask_id, "uniform", "linear")
    t = torch.full((30,), 400.0)
    zt, _ = process.corrupt(language.sample(30, rng), t, rng)
    best = [language.denoiser(D3PM(language.vocab_size, language.mask_id, "uniform", "linear", reverse=form))(zt, t)
            for form in ("mixture", "joint")]  # fmt: skip
    mine = tensor_of(others, best[0].softmax(-1), zt, matrix(process, 0, 400.0),
                     shape=(30, language.length, language.vocab_size), called="the prediction").double()  # fmt: skip
    off = (mine - best[1].softmax(-1)).abs().max()
    if off > 1e-6:
        raise Wrong(f"on micro, uniform noise at t = 400, the prediction from the others is off by up to {off:.4f}. "
                    "p(x_0 | all) is p(x_0 | others) times column z_t of Q_0t: divide that out.")  # fmt: skip
    return "The best f of the joint form, the same as the exact denoiser's to 1e-6."


@exercise
def check_step_nats(step: Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Any]) -> str:
    """step(f, x0, zt, Q_0s, Q_st) -> (B, L) nats, KL(q(z_s | z_t, x_0) || p(z_s | z_t)) in the joint form."""
    language, T, rng = load_language("micro"), 10, Generator().manual_seed(6)
    V = language.vocab_size
    for noise, t in (("uniform", 6.0), ("absorbing", 5.0), ("uniform", 1.0)):
        process = D3PM(V, language.mask_id, noise, get_schedule("linear", T))
        x0 = language.sample(40, rng)
        zt, _ = process.corrupt(x0, t, rng)
        logits = torch.randn(*x0.shape, V, generator=rng, dtype=torch.float64)
        f, (first, second) = process.log_probs(logits).exp(), (matrix(process, 0, t - 1), matrix(process, t - 1, t))
        mine = tensor_of(step, f, x0, zt, first, second, shape=tuple(x0.shape), called="the KL").double()
        parts = process.terms(logits, x0, zt, torch.full((len(x0),), t))
        want = (parts.diffusion + parts.reconstruction) / T
        q, p = posterior(process.one_hot(x0), zt, first, second), posterior(f, zt, first, second)
        each = torch.stack([posterior(process.one_hot(torch.full_like(x0, a)), zt, first, second) for a in range(V)])
        mixed = (f.movedim(-1, 0)[..., None] * each.nan_to_num(0.0)).sum(0)
        slips = {
            "that is minus the KL": -want,
            "that is T times as much; T comes in when t is drawn": T * want,
            "the expectation is under q, not under p: swap the two": divergence(p, q),
            "that is the cross-entropy -sum q log p; take off the entropy of q": -torch.special.xlogy(q, p).sum(-1),
            "that is the mixture form, the posterior averaged over f. In the joint form f goes into the posterior in "
            "the place of x_0": divergence(q, mixed),
            "that is -log f(x_0), the auxiliary loss; the bound compares two distributions of z_s": -f.gather(
                -1, x0[..., None])[..., 0].log(),
        }  # fmt: skip
        not_these(mine, {why: slip for why, slip in slips.items() if not torch.allclose(slip, want, atol=1e-4)})
        off = (mine - want).abs()
        if off.max() > 1e-6:
            b, i = (off == off.max()).nonzero()[0].tolist()
            small = " What you add inside the logs is too much; 1e-12 will do." if off.max() < 1e-3 else ""
            raise Wrong(f"{noise} noise, t = {t:.0f}, x_0 = {x0[b, i]}, z_t = {zt[b, i]}: the sum of q log(q / p) over "
                        f"z_s {differ(want[b, i], mine[b, i])}.{small}")  # fmt: skip
        point = f.clone().requires_grad_()
        why = "Where q = 0 the branch that is not taken has a slope, too: clamp p first, say at 1e-30."
        must_have_slope(step(point, x0, zt, first, second), point, why)
    return "The same as `D3PM.terms` to 1e-6 on micro, at the last step too, where it is -log p(x_0 | z_1)."
