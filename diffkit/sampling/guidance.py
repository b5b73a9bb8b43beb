"""Steering: classifier-free guidance, and guidance by the exact classifier. Denoisers in, a denoiser out."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from diffkit.checks import check_finite, check_whole
from diffkit.languages.story_language import StoryLanguage
from diffkit.model import DiffusionModel
from diffkit.network.conditioning import Conditioned
from diffkit.processes.base import Denoise, Process

MIN_LOG_PROB = -30.0  # log-probability that a word counts with where the unconditional belief excludes it
Classify = Callable[[Tensor, Tensor], Tensor]  # (z_t, t) -> (B, L, V)


def guide(conditional: Denoise, unconditional: Denoise, scale: float) -> Denoise:
    """Classifier-free guidance: beliefs (1 + w) log p(x | z, y) - w log p(x | z), normalised again at every position.

    The scale w: 0 follows the label as it was learned, and gives the conditional denoiser itself; above 0 stresses
    what the label makes likelier; -1 ignores the label. Only beliefs about words are guided, never the chance that a
    word is revealed.
    Source: arXiv:2207.12598; for discrete diffusion arXiv:2412.10193, which counts from one: its gamma is 1 + w.
    """
    check_finite(scale, "scale", "guide")
    if scale in (0, -1):
        return conditional if scale == 0 else unconditional

    def guided(zt: Tensor, t: Tensor) -> Tensor:
        told, untold = (denoise(zt, t).log_softmax(-1) for denoise in (conditional, unconditional))
        gradient_guided = (1 + scale) * told - scale * untold.clamp(min=MIN_LOG_PROB)
        return gradient_guided.masked_fill(told == -torch.inf, -torch.inf)

    return guided


def condition_on(model: DiffusionModel, label: int, scale: float = 0.0) -> Denoise:
    """A conditional model that writes stories with this label: `guide` with its own two beliefs.

    Raises: ValueError if the model takes no label, or not this one.
    """
    if not model.labels:
        raise ValueError("follow: this model was trained without labels. Load tales-mdlm-conditional, or train one.")
    check_whole(label, "label", "follow", 0, model.labels - 1)
    return guide(Conditioned(model, label), model, scale)


def exact_classifier(language: StoryLanguage, process: Process, label: str) -> Classify:
    """log p(label | z_t and x_0[i] = v) of every place i and word v, by Bayes from two posteriors.

    p(y | z, x_i = v) = p(y) p(z | y) p(x_i = v | z, y) / (p(z) p(x_i = v | z)): two passes in place of L V calls of a
    classifier. Of a word that cannot stand there it has no opinion and says p(y | z); so it does of every word, p(y),
    where no story fits z.
    """
    prior = language.template_probs[language.template_labels == language.label_id(label)].sum().log()

    def classify(zt: Tensor, t: Tensor) -> Tensor:
        evidence = process.log_likelihood(zt, t)
        (log_p, probs), (log_p_told, probs_told) = language.posterior(evidence), language.posterior(evidence, label)
        seen = (prior + log_p_told - log_p)[:, None, None]  # log p(y | z), (B, 1, 1)
        seen = torch.where(torch.isfinite(seen), seen, prior)
        return torch.where(probs > 0, seen + probs_told.log() - probs.log(), seen)

    return classify


def classifier_guided(denoise: Denoise, classify: Classify, scale: float) -> Denoise:
    """Classifier guidance: add g times the classifier's opinion of each word to the belief; g = 1 is Bayes' rule.

    Source: arXiv:2105.05233, section 4; for discrete diffusion arXiv:2412.10193, section 3.
    """
    check_finite(scale, "scale", "classifier_guided")
    if scale == 0:
        return denoise

    def guided(zt: Tensor, t: Tensor) -> Tensor:
        logits, opinion = denoise(zt, t), classify(zt, t)
        allowed = opinion.amax(-1, keepdim=True) > -torch.inf
        return torch.where(allowed, logits + scale * opinion.to(logits), logits)

    return guided
