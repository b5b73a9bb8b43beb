"""Hugging Face's discrete schedulers driven by our denoisers, the laws they should have, and our steps as a scheduler.

diffusers is not imported here: whatever has `set_timesteps` and `step` will do.
"""

from __future__ import annotations

import importlib.util
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor

from diffkit.course.uniform_blocks.exact import Tabulated, next_law, total_variation, words_of
from diffkit.languages.story_language import StoryLanguage
from diffkit.processes.base import Denoise
from diffkit.processes.d3pm import D3PM
from diffkit.sampling.parallel import within_entropy


@torch.no_grad()
def run_scheduler(
    scheduler: Any, language: StoryLanguage, denoise: Denoise, *, n: int, steps: int, rng: Generator, T: int = 1000,
    **arguments: Any,
) -> Tensor:  # fmt: skip
    """n texts, (n, L) ids, by a scheduler of uniform noise (or of masks, with mask_token_id among its arguments).

    A scheduler counts its K tokens by the columns of the logits, so MASK is left out and the others are renumbered. It
    knows no time: after j of N steps it takes alpha to be j / N, and `denoise` is given t = T (1 - j / N).
    """
    is_masked = arguments.get("mask_token_id") is not None
    words = torch.arange(language.vocab_size) if is_masked else words_of(language)
    scheduler.set_timesteps(steps)
    start = torch.randint(len(words), (n, language.length), generator=rng)
    z = torch.full_like(start, language.mask_id) if is_masked else start  # column numbers
    sweeps = getattr(scheduler.config, "corrector_steps", 0)

    def logits(j: int) -> Tensor:
        raw = denoise(words[z], torch.full((n,), T * (1 - j / steps), dtype=torch.float64))
        return raw[..., words].clamp(min=-1e4)

    for j in range(steps):
        z = scheduler.step(logits(j), j, z, generator=rng, **arguments).prev_sample
        for _ in range(sweeps if j + 1 < steps else 0):
            z = scheduler.step_correct(logits(j + 1), j, z, generator=rng).prev_sample
    return words[z]


class AsScheduler:
    """Reverse steps of a process behind the interface of a scheduler; its denoiser predicts from all positions."""

    config = SimpleNamespace()

    def __init__(self, process: D3PM):
        self.process, self.words = process, words_of(process)

    def set_timesteps(self, steps: int, device: Any = None) -> None:
        """Take this many steps."""
        self.steps = steps

    def step(self, model_output: Tensor, timestep: int, sample: Tensor, *, generator: Generator) -> SimpleNamespace:
        """From alpha = j / N to (j + 1) / N."""
        t, s = (self.process.T * (1 - j / self.steps) for j in (timestep, timestep + 1))
        raw = torch.full((*sample.shape, self.process.vocab_size), -torch.inf, dtype=torch.float64)
        raw[..., self.words] = model_output.double()
        zs = self.process.advance(lambda zt, t: raw, self.words[sample], t, s, generator)
        return SimpleNamespace(prev_sample=torch.searchsorted(self.words, zs), pred_logits=model_output)


def one_row_here(language: StoryLanguage, process: D3PM, n: int = 200, steps: int = 8) -> str:
    """Let the DiscreteDDIM scheduler of this machine write n texts, if diffusers is installed; what came of it."""
    if importlib.util.find_spec("diffusers") is None:
        return "diffusers is not installed here: the table above is what it gave. `pip install diffusers` to try it."
    import diffusers

    denoise, rng = language.denoiser(process), Generator().manual_seed(0)
    drawn = run_scheduler(
        diffusers.DiscreteDDIMScheduler(), language, denoise, n=n, steps=steps, rng=rng, temperature=1.0
    )
    valid = (language.log_prob(drawn) > -torch.inf).double().mean()
    return f"diffusers {diffusers.__version__}: DiscreteDDIM wrote {valid:.0%} valid texts in {steps} steps"


# -------------------------------------------------------------------------------------------- the laws they should have


def markov_law(exact: Tabulated, process: D3PM, steps: int) -> Tensor:
    """The law (K^L,) of N reverse steps of a process, summed over all canvases."""
    S, words = len(exact.states), words_of(exact.language)
    law = torch.full((S,), 1 / S, dtype=torch.float64)
    for j in range(steps):
        t, s = (process.before_end(torch.full((S,), process.T * (1 - i / steps))) for i in (j, j + 1))
        tokens = process.reverse_probs(exact.table(process.T * (1 - j / steps)), exact.states, t, s)
        law = next_law(law, tokens[..., words])
    return law


def entropy_bounded_law(
    exact: Tabulated, steps: int, bound_nats: float = 0.1, temperatures: tuple[float, float] = (0.8, 0.4), T: int = 1000
) -> Tensor:
    """The law (K^L,) of the canvas after N calls of `EntropyBounded`, before any argmax."""
    S, words, (first, last) = len(exact.states), words_of(exact.language), temperatures
    law, everywhere = torch.full((S,), 1 / S, dtype=torch.float64), torch.ones_like(exact.states, dtype=torch.bool)
    for left in range(steps, 0, -1):
        share = left / steps
        probs = (exact.table(T * share)[..., words] / (last + (first - last) * share)).softmax(-1)
        accepted = within_entropy(bound_nats)(probs.flatten(0, 1), everywhere)
        law = next_law(law, torch.where(accepted[..., None], probs, 1 / len(words)))
    return law


class Judged(NamedTuple):
    """Draws of a sampler beside a law."""

    chi_square: float  # over the texts of the language, and all else as one
    p_value: float  # how often chance alone gives as much
    off: float  # total variation of the law to the language, in [0, 1]


def judge(language: StoryLanguage, drawn: Tensor, law: Tensor, states: Tensor) -> Judged:
    """Chi-square of draws (n, L) against a law (S,) of the canvases `states`; cells of fewer than 5 are joined."""
    is_text = language.log_prob(states) > -torch.inf
    texts, chance = states[is_text], law[is_text]
    found = (drawn[:, None] == texts).all(-1).sum(0).double()  # (texts,)
    is_rare = chance * len(drawn) < 5
    found = torch.cat([found[~is_rare], len(drawn) - found[~is_rare].sum()[None]])
    want = torch.cat([chance[~is_rare], 1 - chance[~is_rare].sum()[None]]) * len(drawn)
    statistic = float(((found - want) ** 2 / want).sum())
    p_value = torch.special.gammaincc(torch.tensor((len(want) - 1) / 2).double(), torch.tensor(statistic / 2).double())
    return Judged(statistic, float(p_value), total_variation(language, law, states))
