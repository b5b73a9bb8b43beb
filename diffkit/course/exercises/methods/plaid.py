"""Exercises of notebook 15_plaid."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Generator, Tensor

from diffkit.course.exercises.checks import Wrong, exercise, not_these, tensor_of, worst
from diffkit.languages.story_language import StoryLanguage, load_language
from diffkit.processes.gaussian.plaid import Plaid


def word_probs(raw: Tensor, zt: Tensor, vectors: Tensor, alpha: Any, sigma: Any) -> Tensor:
    """What `Plaid.token_probs` computes: the network's logits and log q(z_t | w), through a softmax, (B, L, V)."""
    own = (alpha * zt @ vectors.T - alpha**2 / 2 * vectors.square().sum(-1)) / sigma**2
    return (raw + own).softmax(-1)


def diffusion_loss(probs: Tensor, ids: Tensor, vectors: Tensor, g: Tensor, slope: Tensor) -> Tensor:
    """What `Plaid.diffusion_loss` computes: half of minus SNR's slope times the squared error, (B, L) nats."""
    error = (vectors[ids] - probs @ vectors).square().sum(-1)
    return (0.5 * slope * (-g).exp())[:, None] * error


def self_conditioned(network: Callable[[Tensor], Tensor], estimate: Callable[[Tensor], Tensor], zt: Tensor) -> Tensor:
    """What `Plaid.self_conditioned_output` computes when every text gets an estimate, (B, L, V)."""
    with torch.no_grad():
        x = estimate(network(torch.cat([zt, torch.zeros_like(zt)], -1)))
    return network(torch.cat([zt, x], -1))


def best_visits(nats: Tensor, piece: Tensor, visits: Tensor) -> Tensor:
    """How often to visit each piece of the noise axis for the least variance, from estimates of the bound, (bins,)."""
    squares = torch.zeros_like(visits).scatter_add(0, piece, nats.square())
    count = torch.zeros_like(visits).scatter_add(0, piece, torch.ones_like(nats))
    height = visits * (squares / count.clamp(min=1)).sqrt()
    return height / height.sum()


# ----------------------------------------------------------------------------------------------------------- the checks


def _micro(seed: int, self_conditioned: bool = False) -> tuple[StoryLanguage, Plaid, Generator]:
    language, rng = load_language("micro"), Generator().manual_seed(seed)
    process = Plaid(language.vocab_size, language.mask_id, width=4, self_conditioned=self_conditioned)
    process.words.data = torch.randn(process.words.shape, generator=rng)
    process.visits.data = torch.randn(process.bins, generator=rng)
    return language, process.requires_grad_(False), rng


@exercise
def check_word_probs(word_probs: Callable[[Tensor, Tensor, Tensor, float, float], Any]) -> str:
    """word_probs(raw, zt, vectors, alpha, sigma) -> (B, L, V): the network's logits and what z_t says itself."""
    for seed, t in ((1, 300.0), (2, 600.0)):
        language, process, rng = _micro(seed)
        zt = process.diffuse(language.sample(6, rng), t, rng)
        raw = torch.randn(*zt.shape[:2], language.vocab_size, generator=rng, dtype=torch.float64)
        raw[..., language.mask_id] = -torch.inf
        alpha, sigma = (float(each) for each in process.alpha_sigma(t))
        vectors = process.vectors()
        mine = tensor_of(word_probs, raw, zt, vectors, alpha, sigma, shape=tuple(raw.shape), called="p").double()
        product = zt @ vectors.T
        slips = {
            "that is the network alone; add what the point says": raw,
            "these are products alone; how sure they are depends on the noise": raw + product,
            "divide by sigma squared, the variance": raw + alpha / sigma * product,
            "z holds alpha e(w), not e(w): alpha is missing": raw + product / sigma**2,
            "the nearer word must get the larger number; the sign is wrong": raw - alpha / sigma**2 * product,
            "the square of a difference has the product twice, and the 2 below cancels it": raw
            + 2 * alpha / sigma**2 * product,
            "that is what the point says; add the network's logits": (alpha / sigma**2 * product).index_fill(
                -1, torch.tensor(language.mask_id), -torch.inf
            ),
        }
        not_these(mine, {why: slip.softmax(-1) for why, slip in slips.items()})
        if torch.allclose(mine.exp().sum(-1), torch.ones(()).double(), atol=1e-5):
            raise Wrong("these are log-probabilities; asked are probabilities.")
        want = process.token_probs(raw, zt, t)
        worst(mine, want, f"micro, t = {t:.0f}", "p", "softmax of raw - |z - alpha e|^2 / (2 sigma^2).")
    return "The same as `Plaid.token_probs` to 1e-6 on micro, and it costs one matrix product."


@exercise
def check_diffusion_loss(loss: Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Any]) -> str:
    """loss(probs, ids, vectors, g, slope) -> (B, L) nats, weighted by half of minus the slope of SNR = exp(-g)."""
    for seed in (3, 4):
        language, process, rng = _micro(seed)
        x0, t = language.sample(6, rng), 1000 * torch.rand(6, generator=rng, dtype=torch.float64)
        raw = torch.randn(6, 5, language.vocab_size, generator=rng, dtype=torch.float64)
        probs = process.token_probs(raw, process.diffuse(x0, t, Generator().manual_seed(seed)), t)
        first, last = process.ends.double()
        g, slope, vectors = -process.log_snr(t), (last - first) * process.on_axis(t)[1], process.vectors()
        mine = tensor_of(loss, probs, x0, vectors, g, slope, shape=(6, 5), called="the loss").double()
        want = process.diffusion_loss(lambda zt, t, raw=raw: raw, x0, t, Generator().manual_seed(seed))
        squares = (vectors[x0][..., None, :] - vectors).square().sum(-1)  # (B, L, V)
        clean = (vectors[x0] - probs @ vectors).square()
        rate = (slope * (-g).exp())[:, None]
        slips = {
            "the half is missing: KL of two normals is the squared distance over twice the variance": 2 * want,
            "the sign is wrong: SNR falls, so minus its slope is positive": -want,
            "SNR is exp(-g), not exp(g)": want * (2 * g).exp()[:, None],
            "the weight is the slope of SNR, not SNR itself: the slope of g is missing": want / slope[:, None],
            "that is the slope of log SNR; take SNR's": want * g.exp()[:, None],
            "that is the mean of the squared distances; take the distance to the mean word": 0.5
            * rate
            * (probs * squares).sum(-1),
            "sum the squared error over the numbers of a vector; yours is a mean": 0.5 * rate * clean.mean(-1),
            "the error has to be squared": 0.5 * rate * clean.sum(-1).sqrt(),
        }
        not_these(mine, {why: slip for why, slip in slips.items() if not torch.allclose(slip, want, atol=1e-4)})
        worst(mine, want, "micro", "the loss", "Half of g' exp(-g) times |e(w) - mean word|^2.")
    return "The same as `Plaid.diffusion_loss` to 1e-6 on micro."


@exercise
def check_self_conditioned(conditioned: Callable[[Any, Any, Tensor], Any]) -> str:
    """conditioned(network, estimate, zt) -> (B, L, V): the network's output when it also reads its first estimate."""
    for seed, t in ((5, 200.0), (6, 500.0)):
        language, process, rng = _micro(seed, self_conditioned=True)
        zt = process.diffuse(language.sample(4, rng), t, rng)
        table = torch.randn(8, language.vocab_size, generator=rng, dtype=torch.float64).requires_grad_()

        def network(both: Tensor, table: Tensor = table) -> Tensor:
            if both.shape != (4, 5, 8):
                raise Wrong(
                    f"the network reads z_t and an estimate side by side, (4, 5, 8); yours {tuple(both.shape)}."
                )
            return both @ table

        def estimate(raw: Tensor, process: Plaid = process, zt: Tensor = zt, t: float = t) -> Tensor:
            return process.estimate(raw, zt, t)

        answers: list[Any] = []

        def kept(*given: Any, answers: list[Any] = answers) -> Any:
            answers.append(conditioned(*given))
            return answers[-1]

        mine = tensor_of(kept, network, estimate, zt, shape=(4, 5, language.vocab_size), called="the output").double()
        want = process.self_conditioned_output(lambda both, t, where=None: network(both), zt, t, 4)
        blind = network(torch.cat([zt, torch.zeros_like(zt)], -1))
        x = estimate(blind.detach())
        not_these(
            mine,
            {
                "that is the first call; give its estimate to a second one": blind.detach(),
                "z_t comes first, the estimate behind it": network(torch.cat([x, zt], -1)).detach(),
                "the estimate is given twice; the network still needs z_t": network(torch.cat([x, x], -1)).detach(),
                "the first call reads zeros where the estimate will be, not z_t": network(
                    torch.cat([zt, estimate(network(torch.cat([zt, zt], -1))).detach()], -1)
                ).detach(),
            },
        )
        worst(mine, want.detach(), "micro", "the output", "network([z_t, estimate(network([z_t, 0]))]).")
        if isinstance(answers[-1], Tensor) and answers[-1].requires_grad:
            own, right = (torch.autograd.grad(each.square().sum(), table)[0] for each in (answers[-1], want))
            if not torch.allclose(own, right, rtol=1e-6, atol=1e-6):
                raise Wrong("the number is right, but a gradient flows through the first estimate; stop it there.")
    return "The same as `Plaid.self_conditioned_output` to 1e-6 on micro, and so is its gradient."


@exercise
def check_visits(best: Callable[[Tensor, Tensor, Tensor], Any]) -> str:
    """best(nats, piece, visits) -> (bins,) chances to visit each piece, for the least variance of the estimate."""
    for seed in (7, 8):
        rng = Generator().manual_seed(seed)
        visits = (2 * torch.rand(5, generator=rng, dtype=torch.float64)).softmax(0)
        piece = torch.arange(400) % 5
        height = 3 * torch.rand(5, generator=rng, dtype=torch.float64) + 0.1
        nats = height[piece] / visits[piece] * (0.5 + torch.rand(400, generator=rng, dtype=torch.float64))
        mine = tensor_of(best, nats, piece, visits, shape=(5,), called="the chances").double()
        want = best_visits(nats, piece, visits)
        squares = torch.stack([nats[piece == k].square().mean() for k in range(5)])
        means = torch.stack([nats[piece == k].mean() for k in range(5)])
        slips = {
            "nats as drawn are small where visits are many; multiply by visits": squares.sqrt(),
            "the mean square is still to be rooted": visits.square() * squares,
            "an estimate scatters by its mean square; you took the mean": visits * means,
            "you multiply by the visits once more": visits.square() * squares.sqrt(),
            "that is what even_loss moves towards in one step; its fixed point has a root": visits * squares,
        }
        if abs(mine.sum() - 1) > 1e-6:
            raise Wrong(f"chances add up to 1, yours to {mine.sum():.4f}.")
        not_these(mine, {why: slip / slip.sum() for why, slip in slips.items()})
        worst(mine, want, "five pieces", "the chance", "visits times the root mean square of nats, over its sum.")
        cost = [float(((visits**2 * squares) / p.clamp(min=1e-9)).sum()) for p in (mine, visits)]
    return f"The mean square falls from {cost[1]:.1f} to {cost[0]:.1f}, and by Cauchy-Schwarz no other choice is lower."
