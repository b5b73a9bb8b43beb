"""What every language with exact inference offers, and its posterior as a denoiser."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Generator, Tensor
from transformers import PreTrainedTokenizerBase

from diffkit.checks import check_ids

FAINT = -14.0  # nats: log-likelihood of a misread token where a canvas fits no text


class HasLikelihood(Protocol):
    """What the exact denoiser needs of a diffusion process."""

    def log_likelihood(self, zt: Tensor, t: Tensor) -> Tensor: ...  # log q(z_t[i] | x_0[i] = v), (B, L, V)

    def ideal_output(self, log_posterior: Tensor, zt: Tensor, t: Tensor) -> Tensor: ...  # the optimal output


class Language(Protocol):
    """A distribution over canvases (text, EOS, then PAD) of which all is known: a StoryLanguage or a SagaLanguage."""

    grammar: Any
    length: int  # L
    labels: list[str]  # the ways a text can end
    vocab_size: int
    mask_id: int
    pad_id: int
    eos_id: int
    template_probs: Tensor  # (K,) probability of each plot
    template_labels: Tensor  # (K,) how each plot ends

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase: ...
    def sample(self, n: int, rng: Generator, label: str | None = None) -> Tensor: ...  # (n, L) int64
    def posterior(self, log_evidence: Tensor, label: str | None = None) -> tuple[Tensor, Tensor]: ...
    def seen(self, ids: Tensor) -> Tensor: ...  # evidence of looking at tokens, (B, L, V)
    def log_prob(self, ids: Tensor) -> Tensor: ...  # (n, L) to (n,) nats
    def parse(self, ids: Tensor) -> Tensor: ...  # the plot of each canvas, (n,); -1 outside the language
    def length_law(self) -> Tensor: ...  # (L,) probability of each number of words
    def entropy(self) -> float: ...  # nats
    def label_id(self, label: str) -> int: ...
    def denoiser(self, process: HasLikelihood, label: str | None = None) -> ExactDenoiser: ...
    def decode(self, ids: Tensor) -> list[str]: ...


class ExactDenoiser:
    """The posterior of a language as a denoiser.

    A state that fits no text (samplers that reveal several tokens at once make them) has no posterior. There each
    token counts as misread with a probability of about one in a million: the prediction completes the nearest texts.

    Raises: ValueError for an unknown label.
    """

    def __init__(self, language: Language, process: HasLikelihood, label: str | None = None):
        if label is not None:
            language.label_id(label)
        self.language, self.process, self.label = language, process, label

    def __call__(self, zt: Tensor, t: Tensor, where: Tensor | None = None) -> Tensor:
        evidence = self.process.log_likelihood(zt, t)
        log_p, probs = self.language.posterior(evidence, self.label)
        lost = log_p == -torch.inf
        if lost.any():
            faint = evidence[lost] - evidence[lost].amax(-1, keepdim=True)
            probs[lost] = self.language.posterior(faint.clamp(min=FAINT), self.label)[1]
        raw = self.process.ideal_output(probs.log(), zt, t)
        return raw if where is None else raw[where]


def evidence_of_tokens(ids: Tensor, language: Language) -> Tensor:
    """Evidence of looking at tokens, (B, L) ids to (B, L, V): 0 at what is seen, -inf elsewhere; all 0 at MASK."""
    name = type(language).__name__
    check_ids(ids, language.vocab_size, name)
    if ids.shape[1] != language.length:
        raise ValueError(f"{name}: ids must be (n, {language.length}), got {tuple(ids.shape)}. Pad them?")
    hidden = (ids == language.mask_id)[..., None]
    is_word = torch.nn.functional.one_hot(ids.long(), language.vocab_size).bool()
    return torch.zeros(is_word.shape, dtype=torch.float64).masked_fill_(~(is_word | hidden), -torch.inf)


def check_evidence(log_evidence: Tensor, language: Language) -> None:
    """Raise ValueError for evidence of a wrong shape, NaN or +inf."""
    shape = (language.length, language.vocab_size)
    if log_evidence.ndim != 3 or log_evidence.shape[1:] != shape:
        raise ValueError(f"posterior: log_evidence must be (B, *{shape}), got {tuple(log_evidence.shape)}.")
    if torch.isnan(log_evidence).any() or (log_evidence == torch.inf).any():
        raise ValueError("posterior: log_evidence must be finite or -inf; it holds NaN or +inf.")


def text_of_canvases(ids: Tensor, language: Language) -> list[str]:
    """Canvases to texts: (n, L) ids to n strings, cut at EOS or PAD; a MASK shows as [MASK]."""
    check_ids(ids, language.vocab_size, type(language).__name__)
    is_text = ((ids != language.eos_id) & (ids != language.pad_id)).cumprod(1).bool()
    return [language.tokenizer.decode(row[kept].tolist()) for row, kept in zip(ids, is_text, strict=True)]


def number_of_label(label: str, language: Language) -> int:
    """The index of a label in `labels`. Raises ValueError for an unknown one."""
    if label not in language.labels:
        raise ValueError(f"{type(language).__name__}: label must be one of {language.labels}, got {label!r}.")
    return language.labels.index(label)


def normalise(log_weights: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """logsumexp over an axis, and the softmax along it, with zeros where every weight is -inf."""
    total = log_weights.logsumexp(axis, keepdim=True)
    return total.squeeze(axis), (log_weights - total.clamp(min=torch.finfo(total.dtype).min)).exp()
