"""Guidance: classifier-free, and by the exact classifier. Denoisers in, a denoiser out."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from diffkit.checks import check_whole
from diffkit.languages.exact import Language
from diffkit.model import DiffusionModel
from diffkit.network.conditioning import Conditioned
from diffkit.processes.base import Denoise, Process, as_denoiser

MIN_LOG_PROB = -30.0  # log-probability of a token that the unconditional prediction excludes
LARGEST_SCALE = 1e6  # beyond, single precision overflows
Classify = Callable[[Tensor, Tensor], Tensor]  # (z_t, t) -> (B, L, V)


def total(raw: Tensor, zt: Tensor, where: Tensor | None) -> Tensor:
    """Log of the weight of all tokens but z_t itself, (..., 1); 0 where nothing else is possible.

    What a position becomes if it changes is in proportion to these weights. Their sum is a constant for a process
    that reads logits, and for SEDD, which reads log scores, the rate at which it changes: guidance must keep it.
    """
    if zt.shape != (raw.shape[:-1] if where is None else where.shape):
        return raw.logsumexp(-1, keepdim=True)  # embeddings, or blocks: logits, whose sum means nothing
    own = zt if where is None else zt[where]
    weight = raw.scatter(-1, own.long()[..., None], -torch.inf).logsumexp(-1, keepdim=True)
    return torch.where(weight == -torch.inf, 0.0, weight)


class Guided(nn.Module):
    """Classifier-free guidance, see `guide`."""

    def __init__(self, conditional: Denoise, unconditional: Denoise, scale: float):
        super().__init__()
        self.conditional, self.unconditional = as_denoiser(conditional), as_denoiser(unconditional)
        self.scale = scale

    def forward(self, zt: Tensor, t: Tensor, where: Tensor | None = None) -> Tensor:
        raw = self.conditional(zt, t, where)
        log_p, log_q = (x - total(x, zt, where) for x in (raw, self.unconditional(zt, t, where)))
        guided = (1 + self.scale) * log_p - self.scale * log_q.clamp(min=MIN_LOG_PROB)
        guided = guided.masked_fill(log_p == -torch.inf, -torch.inf)
        return guided - total(guided, zt, where) + total(raw, zt, where)


def check_scale(scale: float, where: str) -> None:
    """Raise ValueError for a scale that is no number, or too large to compute with."""
    if not abs(scale) <= LARGEST_SCALE:
        raise ValueError(f"{where}: the scale must lie within {LARGEST_SCALE:g} of 0, got {scale}.")


def guide(conditional: Denoise, unconditional: Denoise, scale: float) -> Denoise:
    """Classifier-free guidance: (1 + w) log p(x | z, y) - w log p(x | z), normalised again at every position.

    The scale w: 0 conditions on the label as it was learned, and gives the conditional denoiser itself; above 0
    stresses what the label makes likelier; -1 ignores the label. Only predicted tokens are guided, never which
    tokens are revealed, nor the rate at which tokens change.
    Source: arXiv:2207.12598; for discrete diffusion arXiv:2412.10193, which counts from one: its gamma is 1 + w.
    """
    check_scale(scale, "guide")
    if scale in (0, -1):
        return conditional if scale == 0 else unconditional
    return Guided(conditional, unconditional, scale)


def condition_on(model: DiffusionModel, label: int, scale: float = 0.0) -> Denoise:
    """A conditional model given a label: `guide` with its own two predictions.

    Raises: ValueError if the model takes no label, or not this one.
    """
    if not model.labels:
        raise ValueError(
            "condition_on: this model was trained without labels. Load tales-mdlm-conditional, or train one."
        )
    check_whole(label, "label", "condition_on", 0, model.labels - 1)
    return guide(Conditioned(model, label), model, scale)


def exact_classifier(language: Language, process: Process, label: str) -> Classify:
    """log p(label | z_t and x_0[i] = v) of every position i and token v, by Bayes from two posteriors.

    p(y | z, x_i = v) = p(y) p(z | y) p(x_i = v | z, y) / (p(z) p(x_i = v | z)): two passes in place of L V calls of a
    classifier. For a token that cannot stand there it returns p(y | z), and p(y) for every token if no story fits z.
    """
    prior = language.template_probs[language.template_labels == language.label_id(label)].sum().log()

    def classify(zt: Tensor, t: Tensor) -> Tensor:
        evidence = process.log_likelihood(zt, t)
        (log_p, probs), (log_p_y, probs_y) = language.posterior(evidence), language.posterior(evidence, label)
        given_z = (prior + log_p_y - log_p)[:, None, None]  # log p(y | z), (B, 1, 1)
        given_z = torch.where(torch.isfinite(given_z), given_z, prior)
        return torch.where(probs > 0, given_z + probs_y.log() - probs.log(), given_z)

    return classify


class ClassifierGuided(nn.Module):
    """Classifier guidance, see `classifier_guided`."""

    def __init__(self, denoise: Denoise, classify: Classify, scale: float):
        super().__init__()
        self.denoise, self.classify, self.scale = as_denoiser(denoise), classify, scale

    def forward(self, zt: Tensor, t: Tensor, where: Tensor | None = None) -> Tensor:
        raw, log_p = self.denoise(zt, t, where), self.classify(zt, t)
        log_p = log_p if where is None else log_p[where]
        allowed = log_p.amax(-1, keepdim=True) > -torch.inf
        guided = torch.where(allowed, raw + self.scale * log_p.to(raw), raw)
        return guided - total(guided, zt, where) + total(raw, zt, where)


def classifier_guided(denoise: Denoise, classify: Classify, scale: float) -> Denoise:
    """Classifier guidance: add g times log p(label | token) to the logits; g = 1 is Bayes' rule.

    Source: arXiv:2105.05233, section 4; for discrete diffusion arXiv:2412.10193, section 3.
    """
    check_scale(scale, "classifier_guided")
    return ClassifierGuided(denoise, classify, scale) if scale else denoise
