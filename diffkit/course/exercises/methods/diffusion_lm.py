"""Exercises of notebook 14_diffusion_lm."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Generator, Tensor

from diffkit.course.embedding_guidance import exact_log_classifier, gradient_guided
from diffkit.course.exercises.checks import Wrong, exercise, must_have_slope, not_these, tensor_of, worst
from diffkit.languages.story_language import StoryLanguage, load_language
from diffkit.processes.gaussian.diffusion_lm import DiffusionLM
from diffkit.processes.gaussian.embedding_diffusion import MOVERS
from diffkit.random import normal_like

Strengths = tuple[Any, Any]  # alpha and sigma of one time
Posterior = Callable[[Tensor], tuple[Tensor, Tensor]]  # log evidence (B, L, V) -> log p (B,), probs (B, L, V)
NEVER = -1e6  # in place of -inf, whose slope is NaN


def diffuse(ids: Tensor, tau: Tensor, vectors: Tensor, noise: Tensor) -> Tensor:
    """What `DiffusionLM.diffuse` draws: word vectors with square-root noise at t / T = tau (B,), (B, L, E)."""
    kept = (1 - (tau + 1e-4).sqrt()).clamp(min=1e-4)[:, None, None]
    return kept.sqrt() * vectors[ids] + (1 - kept).sqrt() * noise


def step(x: Tensor, zt: Tensor, now: Strengths, then: Strengths, fresh: Any, noise: Tensor) -> Tensor:
    """`ddim`, `ddpm` and `renoise` in one: a share `fresh` of the noise's variance is drawn anew."""
    old = (zt - now[0] * x) / now[1]
    return then[0] * x + then[1] * ((1 - fresh) ** 0.5 * old + fresh**0.5 * noise)


def objective(guess: Tensor, ids: Tensor, z0: Tensor, vectors: Tensor, bias: Tensor, alpha_T: Any) -> Tensor:
    """What `DiffusionLM.end_to_end` computes once the noise is drawn: one number."""
    clean = vectors[ids]
    nats = -(z0 @ vectors.T + bias).log_softmax(-1).gather(-1, ids[..., None])
    return (guess - clean).square().mean() + nats.mean() + (alpha_T * clean).square().mean()


def pushed(
    guess: Callable[[Tensor], Tensor], log_p: Callable[[Tensor], Tensor], zt: Tensor, alpha: Any, sigma: Any,
    strength: float = 1.0,
) -> Tensor:  # fmt: skip
    """What `gradient_guided` computes: the estimate, moved along the slope of log_p (B,) by z_t."""
    with torch.enable_grad():
        point = zt.detach().requires_grad_()
        (slope,) = torch.autograd.grad(log_p(point).sum(), point)
    return guess(zt) + strength * sigma**2 / alpha * slope


def log_known(posterior: Posterior, evidence: Tensor, start: Tensor, mask_id: int) -> Tensor:
    """log p(the words of `start` | z_t), (B,): MASK marks what is missing; evidence is log q(z_t | word)."""
    is_wrong = (start != mask_id)[..., None] & (torch.arange(evidence.shape[-1]) != start[..., None])
    return posterior(evidence.masked_fill(is_wrong, NEVER))[0] - posterior(evidence)[0]


# ----------------------------------------------------------------------------------------------------------- the checks


def _micro(seed: int, clamp: float = 0.0) -> tuple[StoryLanguage, DiffusionLM, Generator]:
    """The small language, and words in space, drawn with a seed."""
    language = load_language("micro")
    process = DiffusionLM(language.vocab_size, language.mask_id, width=4, clamp=clamp)
    rng = Generator().manual_seed(seed)
    process.words.data = 2 * torch.randn(process.words.shape, generator=rng)
    process.bias.data = torch.randn(process.bias.shape, generator=rng)
    return language, process.requires_grad_(False), rng


@exercise
def check_diffuse(diffuse: Callable[[Tensor, Tensor, Tensor, Tensor], Any]) -> str:
    """diffuse(ids, tau, vectors, noise) -> z_t, (B, L, E): square-root schedule, tau = t / T (B,)."""
    language, process, rng = _micro(1)
    tau = torch.tensor([0.0, 0.04, 0.25, 0.64, 1.0], dtype=torch.float64)
    for _ in range(2):
        ids, vectors = language.sample(5, rng), process.vectors()
        seed = int(torch.randint(0, 1000, (), generator=rng))
        noise = normal_like(vectors[ids], Generator().manual_seed(seed))
        mine = tensor_of(diffuse, ids, tau, vectors, noise, shape=(5, 5, 4), called="z_t").double()
        want = process.diffuse(ids, 1000 * tau, Generator().manual_seed(seed))
        kept = (1 - (tau + 1e-4).sqrt()).clamp(min=1e-4)[:, None, None]
        clean, no_floor = vectors[ids], (1 - tau.sqrt()).clamp(min=1e-4)[:, None, None]
        slips = {
            "alpha^2 is 1 - sqrt(...), so take a root once more for alpha, and likewise for sigma": kept * clean
            + (1 - kept) * noise,
            "alpha and sigma are swapped": (1 - kept).sqrt() * clean + kept.sqrt() * noise,
            "sigma = sqrt(1 - alpha^2), not 1 - alpha": kept.sqrt() * clean + (1 - kept.sqrt()) * noise,
            "the small 0.0001 is missing: at tau = 0 there must be some noise already": no_floor.sqrt() * clean
            + (1 - no_floor).sqrt() * noise,
            "that is the signal alone; add sigma times the noise": kept.sqrt() * clean,
        }
        not_these(mine, slips)
        worst(mine, want, "micro", "z_t", "alpha e(w) + sigma noise, where alpha^2 is at least 0.0001.")
    return "The same as `DiffusionLM.diffuse` to 1e-6 on micro."


@exercise
def check_gaussian_step(step: Callable[[Tensor, Tensor, Strengths, Strengths, float, Tensor], Any]) -> str:
    """step(x, zt, now, then, fresh, noise) -> z_s, (B, L, E); now and then are (alpha, sigma) of t and s."""
    language, process, rng = _micro(2)
    for name, t, s in (("ddim", 700.0, 400.0), ("renoise", 700.0, 100.0), ("ddpm", 900.0, 500.0), ("ddpm", 60.0, 0.0)):
        zt = process.diffuse(language.sample(6, rng), t, rng)
        x, seed = normal_like(zt, rng), int(torch.randint(0, 1000, (), generator=rng))
        noise = normal_like(zt, Generator().manual_seed(seed))
        now, then = ([float(each) for each in process.alpha_sigma(time)] for time in (t, s))
        ratio = (now[0] * then[1] / (now[1] * then[0])) ** 2  # SNR_t / SNR_s
        fresh = {"ddim": 0.0, "renoise": 1.0, "ddpm": 1 - ratio}[name]
        mine = tensor_of(step, x, zt, (now[0], now[1]), (then[0], then[1]), fresh, noise,
                         shape=tuple(zt.shape), called="z_s").double()  # fmt: skip
        before, after = (torch.full((6,), each, dtype=torch.float64) for each in (t, s))
        want = MOVERS[name](process, x, zt, before, after, Generator().manual_seed(seed))
        old = (zt - now[0] * x) / now[1]
        mixed = (1 - fresh) ** 0.5 * old + fresh**0.5 * noise
        slips = {
            "noises add by their variances, so each share goes under a root": then[0] * x
            + then[1] * ((1 - fresh) * old + fresh * noise),
            "fresh and old are swapped": then[0] * x + then[1] * (fresh**0.5 * old + (1 - fresh) ** 0.5 * noise),
            "the old noise is (z_t - alpha_t x) / sigma_t; yours is not divided by sigma_t": then[0] * x
            + then[1] * ((1 - fresh) ** 0.5 * (zt - now[0] * x) + fresh**0.5 * noise),
            "the old noise is what is left of z_t without alpha_t x; you take all of z_t": then[0] * x
            + then[1] * ((1 - fresh) ** 0.5 * zt + fresh**0.5 * noise),
            "you arrive at t again; signal and noise have the strengths of s": now[0] * x + now[1] * mixed,
            "x is to be scaled by alpha_s": x + then[1] * mixed,
        }
        not_these(mine, {why: slip for why, slip in slips.items() if not torch.allclose(slip, want, atol=1e-4)})
        worst(mine, want, f"fresh = {fresh:.2f}, from {t:.0f} to {s:.0f}", "z_s", "alpha_s x + sigma_s times a "
               "mixture of the old noise and the new one, with variance one.")  # fmt: skip
    return "The same as `ddim`, `renoise` and `ddpm` to 1e-6 on micro: three samplers in one line."


@exercise
def check_objective(objective: Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, float], Any]) -> str:
    """objective(guess, ids, z0, vectors, bias, alpha_T) -> one number: error, rounding and end, each a plain mean."""
    for seed in (3, 4):
        language, process, rng = _micro(seed)
        ids, t = language.sample(8, rng), torch.full((8,), 300.0, dtype=torch.float64)
        guess = normal_like(process.vectors()[ids], rng)
        both = Generator().manual_seed(seed)
        process.diffuse(ids, t, both)  # end_to_end draws z_t first
        z0, vectors = process.diffuse(ids, torch.zeros(8, dtype=torch.float64), both), process.vectors()
        bias = process.bias.double().index_fill(0, torch.tensor(process.mask_id), -torch.inf)
        alpha_T = float(process.alpha_sigma(1000.0)[0])
        mine = tensor_of(objective, guess, ids, z0, vectors, bias, alpha_T, shape=(), called="the objective").double()
        want = process.end_to_end(lambda zt, t, guess=guess: guess, ids, t, Generator().manual_seed(seed))
        clean = vectors[ids]
        squared, end = (guess - clean).square(), (alpha_T * clean).square()
        nats = -(z0 @ vectors.T + bias).log_softmax(-1).gather(-1, ids[..., None])
        unbiased = -(z0 @ vectors.T + bias.clamp(min=-1e30) * (bias < -1e9)).log_softmax(-1).gather(-1, ids[..., None])
        from_guess = -(guess @ vectors.T + bias).log_softmax(-1).gather(-1, ids[..., None])
        slips = {
            "the rounding term is missing, and without it the vectors collapse": squared.mean() + end.mean(),
            "the end of the noise is missing": squared.mean() + nats.mean(),
            "the error is a mean over its numbers, not a sum over them": squared.sum(-1).mean()
            + nats.mean() + end.mean(),
            "the end is alpha_T squared times the square; alpha_T goes inside": squared.mean()
            + nats.mean() + (alpha_T * clean.square()).mean(),
            "rounding reads z_0, not the guess": squared.mean() + from_guess.mean() + end.mean(),
            "the logits of rounding have a bias": squared.mean() + unbiased.mean() + end.mean(),
            "rounding is -log p; its sign is wrong": squared.mean() - nats.mean() + end.mean(),
        }  # fmt: skip
        not_these(mine, {why: slip for why, slip in slips.items() if abs(slip - want) > 1e-4})
        if not (mine - want).abs() <= 1e-6 * want.abs().clamp(min=1):
            raise Wrong(f"error {squared.mean():.4f} + rounding {nats.mean():.4f} + end {end.mean():.6f} make "
                        f"{want:.5f}, yours is {mine:.5f}.")  # fmt: skip
    return "The same as `DiffusionLM.end_to_end` to 1e-6 on micro."


@exercise
def check_push(pushed: Callable[[Any, Any, Tensor, float, float], Any]) -> str:
    """pushed(guess, log_p, zt, alpha, sigma) -> (B, L, E), E[x | z_t, y] from E[x | z_t] and log p(y | z_t)."""
    for seed, t in ((5, 400.0), (6, 800.0)):
        language, process, rng = _micro(seed)
        label, when = language.labels[seed % 2], torch.full((7,), t, dtype=torch.float64)
        zt = process.diffuse(language.sample(7, rng), t, rng)
        alpha, sigma = (float(each) for each in process.alpha_sigma(t))
        classifier, exact = exact_log_classifier(language, process, label), language.denoiser(process)

        def guess(z: Tensor, exact: Any = exact, when: Tensor = when) -> Tensor:
            return exact(z.detach(), when)

        def log_p(z: Tensor, classifier: Any = classifier, when: Tensor = when) -> Tensor:
            return classifier(z, when)

        mine = tensor_of(pushed, guess, log_p, zt, alpha, sigma, shape=tuple(zt.shape), called="the guess").double()
        want = gradient_guided(process, exact, classifier, 1.0)(zt, when)
        x = exact(zt, when)
        push = want - x
        slips = {
            "that is the guess without a push": x,
            "that is the push alone; add it to the guess": push,
            "the push goes uphill: add it": x - push,
            "divide by alpha: the slope is that by z, and z holds alpha x": x + alpha * push,
            "how far to go is the variance, sigma squared": x + push / sigma,
            "how far to go depends on the noise": x + push * alpha / sigma**2,
            "that is the slope of the mean over the batch; each row has a slope of its own": x + push / 7,
            "the point itself is no guess: push E[x | z_t]": zt + push,
        }
        not_these(mine, slips)
        worst(mine, want, f"micro, t = {t:.0f}, label {label}", "it", "E[x | z] + sigma^2 / alpha times the gradient.")
    return "With exact parts it is E[x | z_t, y], to 1e-6 on micro: Bayes' rule, and no approximation."


@exercise
def check_log_known(log_known: Callable[[Posterior, Tensor, Tensor, int], Any]) -> str:
    """log_known(posterior, evidence, start, mask_id) -> (B,) log p(known words of start | z_t)."""
    for seed, t in ((7, 600.0), (8, 300.0)):
        language, process, rng = _micro(seed)
        texts = language.sample(600, rng).unique(dim=0)
        log_p = language.log_prob(texts)
        x0 = language.sample(9, rng)
        hidden = torch.rand(x0.shape, generator=rng) < 0.6
        start = torch.where(hidden | (torch.arange(9) == 8)[:, None], language.mask_id, x0)  # in the last row nothing
        evidence = process.log_likelihood(process.diffuse(x0, t, rng), t)
        mine = tensor_of(
            log_known, language.posterior, evidence, start, language.mask_id, shape=(9,), called="log p"
        ).double()
        of_text = sum(evidence[:, i, texts[:, i]] for i in range(x0.shape[1])) + log_p  # (B, texts): log p(x_0, z_t)
        fits = ((texts == start[:, None]) | (start[:, None] == language.mask_id)).all(-1)
        joint, alone = of_text.masked_fill(~fits, -torch.inf).logsumexp(1), of_text.logsumexp(1)
        want = joint - alone
        _, probs = language.posterior(evidence)
        apart = probs.gather(-1, x0[..., None])[..., 0].log().where(start != language.mask_id, 0.0).sum(1)
        known = evidence.gather(-1, start[..., None])[..., 0].where(start != language.mask_id, 0.0).sum(1)
        slips = {
            "that is log p(known, z_t); divide by p(z_t)": joint,
            "that is log p(z_t)": alone,
            "the sign is wrong: it is the log of a probability, at most 0": -want,
            "that multiplies the words one by one, as if they knew nothing of each other": apart,
            "that is what the known positions say of themselves; the others count, too": known,
            "that is the likelihood of z_t under the known words; Bayes' rule is still to come": joint
            - torch.log((fits * log_p.exp()).sum(1)),
        }
        not_these(mine, {why: slip for why, slip in slips.items() if not torch.allclose(slip, want, atol=1e-4)})
        worst(mine, want, f"micro, t = {t:.0f}", "log p", "log p of all evidence where wrong words are ruled out, "
               "less log p of the evidence as it was.")  # fmt: skip
        point = evidence.clone().requires_grad_()
        answer = log_known(language.posterior, point, start, language.mask_id)
        must_have_slope(answer, point, "Rule words out by -1e6 in place of -inf.")
    return "The same to 1e-6 as adding up all sixteen texts of micro, with a slope to climb."
