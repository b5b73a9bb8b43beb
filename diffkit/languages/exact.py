"""What every language with exact inference offers, and its posterior as a denoiser."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Generator, Tensor

from diffkit.checks import check_ids
from diffkit.data.tokenizer import word_level_tokenizer

FAINT = -14.0  # nats: log-likelihood of a misread token where a canvas fits no text


class HasLikelihood(Protocol):
    """What the exact denoiser needs of a diffusion process."""

    def log_likelihood(self, zt: Tensor, t: Tensor) -> Tensor: ...  # log q(z_t[i] | x_0[i] = v), (B, L, V)

    def ideal_output(self, log_posterior: Tensor, zt: Tensor, t: Tensor) -> Tensor: ...  # the optimal output


class Language:
    """A distribution over canvases (text, EOS, then PAD) of which everything is known.

    A StoryLanguage or a SagaLanguage brings `sample`, `log_prob`, `parse`, `length_law`, `entropy` and `_posterior`.

    Args:       length: L, the canvas in tokens; words: all that its texts can hold.
    Attributes: tokenizer; vocab_size; mask_id, pad_id, eos_id; labels, the ways a text can end; template_probs (K,),
                the probability of each plot; template_labels (K,), how each plot ends, an index of `labels`.
    """

    labels: list[str]
    template_probs: Tensor
    template_labels: Tensor
    _at_once: int  # texts that are inferred together

    def __init__(self, grammar: Any, length: int, words: Sequence[str]):
        self.grammar, self.length, self.tokenizer = grammar, length, word_level_tokenizer(words)
        self.vocab_size = len(self.tokenizer)
        self.mask_id, self.pad_id, self.eos_id = (
            self.tokenizer.convert_tokens_to_ids(token) for token in ("[MASK]", "[PAD]", "[EOS]")
        )

    def sample(self, n: int, rng: Generator, label: str | None = None) -> Tensor:
        """Draw n texts.

        Args:    label: one of `labels` to draw only texts that end that way, None for any.
        Returns: (n, L) int64 canvases: the text, EOS, then PAD.
        Raises:  ValueError for an unknown label.
        """
        raise NotImplementedError

    def log_prob(self, ids: Tensor) -> Tensor:
        """Exact log-probability of canvases, (n, L) ids to (n,) float64 nats; -inf outside the language.

        PAD and EOS count. A MASK is summed over: a canvas with masks gets the log-probability of its visible tokens.
        """
        raise NotImplementedError

    def parse(self, ids: Tensor) -> Tensor:
        """The plot of each canvas, an index of `template_probs`, (n,) int64; -1 outside the language."""
        raise NotImplementedError

    def length_law(self) -> Tensor:
        """Probability of each number of words, EOS and PAD not counted, (L,) float64."""
        raise NotImplementedError

    def entropy(self) -> float:
        """Entropy of a text in nats. Raises ValueError if a text does not tell how it was made."""
        raise NotImplementedError

    def _posterior(self, log_evidence: Tensor, label: str | None) -> tuple[Tensor, Tensor]:
        """`posterior` of a few texts, on the CPU."""
        raise NotImplementedError

    def posterior(self, log_evidence: Tensor, label: str | None = None) -> tuple[Tensor, Tensor]:
        """Exact posterior of every token, given independent evidence about each position.

        Args:    log_evidence: (B, L, V), entry [b, i, v] the log-likelihood of what was observed at position i of
                     text b if its clean token were v. Hidden: all 0. Seen to be w: 0 at w, -inf elsewhere. Noisy:
                     anything between.
                 label: condition on the way the text ends.
        Returns: log_p (B,) float64, log-likelihood in nats of all the evidence, and
                 probs (B, L, V) float64, p(x_0[i] = v | evidence); all zero where log_p is -inf.
        Raises:  ValueError for a wrong shape, NaN or +inf.
        """
        shape = (self.length, self.vocab_size)
        if log_evidence.ndim != 3 or log_evidence.shape[1:] != shape:
            raise ValueError(f"posterior: log_evidence must be (B, *{shape}), got {tuple(log_evidence.shape)}.")
        if torch.isnan(log_evidence).any() or (log_evidence == torch.inf).any():
            raise ValueError("posterior: log_evidence must be finite or -inf; it holds NaN or +inf.")
        parts = [self._posterior(rows.cpu(), label) for rows in log_evidence.split(self._at_once)]
        log_p, probs = (torch.cat(part).to(log_evidence.device) for part in zip(*parts, strict=True))
        return log_p, probs

    def seen(self, ids: Tensor) -> Tensor:
        """Evidence of looking at tokens, (B, L) ids to (B, L, V): 0 at what is seen, -inf elsewhere; all 0 at MASK."""
        name = type(self).__name__
        check_ids(ids, self.vocab_size, name)
        if ids.shape[1] != self.length:
            raise ValueError(f"{name}: ids must be (n, {self.length}), got {tuple(ids.shape)}. Pad them?")
        hidden = (ids == self.mask_id)[..., None]
        is_word = torch.nn.functional.one_hot(ids.long(), self.vocab_size).bool()
        return torch.zeros(is_word.shape, dtype=torch.float64).masked_fill_(~(is_word | hidden), -torch.inf)

    def label_id(self, label: str) -> int:
        """The index of a label in `labels`. Raises ValueError for an unknown one."""
        if label not in self.labels:
            raise ValueError(f"{type(self).__name__}: label must be one of {self.labels}, got {label!r}.")
        return self.labels.index(label)

    def denoiser(self, process: HasLikelihood, label: str | None = None) -> ExactDenoiser:
        """The optimal denoiser of this language: call it like a model, (z_t, t) -> what the process expects."""
        return ExactDenoiser(self, process, label)

    def decode(self, ids: Tensor) -> list[str]:
        """Canvases to texts: (n, L) ids to n strings, cut at EOS or PAD; a MASK shows as [MASK]."""
        check_ids(ids, self.vocab_size, type(self).__name__)
        is_text = ((ids != self.eos_id) & (ids != self.pad_id)).cumprod(1).bool()
        return [self.tokenizer.decode(row[kept].tolist()) for row, kept in zip(ids, is_text, strict=True)]


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


def normalise(log_weights: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """logsumexp over an axis, and the softmax along it, with zeros where every weight is -inf."""
    total = log_weights.logsumexp(axis, keepdim=True)
    return total.squeeze(axis), (log_weights - total.clamp(min=torch.finfo(total.dtype).min)).exp()
