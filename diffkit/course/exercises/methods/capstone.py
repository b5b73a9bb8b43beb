"""The capstone of notebooks 11 and 16: an unmasking order that beats the shipped ones."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Generator, Tensor

from diffkit.course.exercises.checks import Wrong, exercise
from diffkit.course.parallel_cost import (
    InvalidOrder,
    Plan,
    checked,
    evenly,
    excess_nats,
    reveal_steps,
    shipped_plans,
)
from diffkit.evaluation.statistics import mean_of
from diffkit.languages.story_language import StoryLanguage, load_language
from diffkit.processes.masked import MaskedDiffusion
from diffkit.sampling.unmasking import Score, rounded

N, SEED, STEPS, FEW = 32, 11, 16, 8  # stories, which ones, network calls, half of them


def one_question(probs: Tensor, rng: Generator) -> Tensor:
    """The bar of notebook 16: the position of highest entropy first, then the most certain ones."""
    doubt = rounded(torch.special.entr(probs).sum(-1))
    return (-doubt).scatter(1, doubt.argmax(1, keepdim=True), 1e9)


@lru_cache
def bars(steps: int) -> dict[str, Tensor]:
    """Excess nats (N,) of every shipped order on the same stories."""
    return {name: judge(plan, steps) for name, plan in shipped_plans().items()}


def judge(plan: Plan, steps: int) -> Tensor:
    """Excess nats (N,) of a plan. Raises Wrong for an answer that is none."""
    try:
        return excess_nats(plan, load_language("tales"), steps=steps, n=N, seed=SEED)
    except InvalidOrder as bad:
        raise Wrong(str(bad)) from None


def costliest_step(plan: Plan, language: StoryLanguage, steps: int) -> str:
    """The step at which drawing independently lost most: its tokens, their joint and their independent probability."""
    process = MaskedDiffusion(len(language.tokenizer), language.mask_id)
    x0 = language.sample(N, Generator().manual_seed(SEED))
    worst = (-1.0, "")
    for number, step in enumerate(reveal_steps(process, language.denoiser(process), x0, plan, steps), 1):
        after = torch.where(step.reveal, x0, step.zt)
        together = language.log_prob(after) - language.log_prob(step.zt)  # (N,)
        row = int((together + step.nats).argmax())
        if (lost := float(together[row] + step.nats[row])) > worst[0]:
            ids = x0[row][step.reveal[row]]
            words = language.tokenizer.convert_ids_to_tokens(ids.tolist())
            shown = " ".join(words[:12]) + (" ..." if len(words) > 12 else "")
            worst = (
                lost,
                (
                    f'its step {number} may show "{shown}" at once: together these tokens have probability '
                    f"{together[row].exp():.2g}, drawn independently {(-step.nats[row]).exp():.2g}"
                ),
            )
    return worst[1]


def beaten(plan: Plan, mine: Tensor, others: dict[str, Tensor], steps: int) -> str:
    """How far below the best of the others. Raises Wrong, with the step that cost most, if it is not."""
    best = min(others, key=lambda name: float(others[name].mean()))
    same = next((name for name, nats in others.items() if torch.allclose(nats, mine, atol=1e-9)), None)
    if same is not None:
        raise Wrong(f"on all {N} stories that is what `{same}` does: {mine.mean():.2f} nats a story in {steps} steps.")
    ahead = mean_of(others[best] - mine)
    against = f"in {steps} steps your plan costs {mine.mean():.2f} nats a story, the best so far, `{best}`, "
    against += f"{others[best].mean():.2f}"
    if not ahead.mean > 2 * ahead.standard_error:
        close = f" That is ahead by {ahead.mean:.2f}, within chance." if ahead.mean > 0 else ""
        raise Wrong(f"{against}.{close} For instance, {costliest_step(plan, load_language('tales'), steps)}.")
    return f"{against[0].upper()}{against[1:]}: {ahead.mean:.2f} ± {ahead.standard_error:.2f} less."


def reject_batch_dependence(answer: Any, others: Any) -> None:
    """Raise Wrong if the scores of the first story change with the others of the batch."""
    if isinstance(answer, Tensor) and answer.ndim and not torch.equal(answer[0], others[0]):
        raise Wrong("the scores of one story depend on the other stories of the batch. Positions are dimension 1.")


def partly_hidden() -> tuple[Tensor, Tensor]:
    """Predictions (5, L, V) for five stories with three fifths hidden, and the masks (5, L)."""
    language = load_language("tales")
    process, rng = MaskedDiffusion(len(language.tokenizer), language.mask_id), Generator().manual_seed(SEED)
    x0 = language.sample(5, rng)
    zt = torch.where(torch.rand(x0.shape, generator=rng) < 0.6, language.mask_id, x0)
    return process.log_probs(language.denoiser(process)(zt, torch.ones(5)), zt).exp(), zt == language.mask_id


@exercise
def check_unmasking_order(score: Score) -> str:
    """score(probs, rng) -> (B, L), high first, equally many at every step: beats the shipped orders at 16 steps."""
    probs, is_masked = partly_hidden()
    answers = [score(probs[rows].clone(), Generator().manual_seed(1)) for rows in ([0, 1, 2], [0, 3, 4])]
    try:
        evenly(lambda *_: answers[0])(probs[:3], is_masked[:3], STEPS)
    except InvalidOrder as bad:
        raise Wrong(str(bad)) from None
    reject_batch_dependence(*answers)
    return beaten(evenly(score), judge(evenly(score), STEPS), bars(STEPS), STEPS)


@exercise
def check_reveal_plan(plan: Plan) -> str:
    """plan(probs, is_masked, steps_left) -> (B, L) bool, what to reveal now: beats every order at 16 and at 8 steps."""
    probs, is_masked = partly_hidden()
    batches = [0, 1, 2], [0, 3, 4]
    answers = [plan(probs[rows].clone(), is_masked[rows].clone(), STEPS) for rows in batches]
    try:
        checked(answers[0], is_masked[:3])
    except InvalidOrder as bad:
        raise Wrong(str(bad)) from None
    reject_batch_dependence(*answers)
    if not answers[0].any():
        raise Wrong("with most of a story hidden and 16 steps left your plan reveals nothing: that call is wasted.")
    verdict = beaten(plan, judge(plan, STEPS), bars(STEPS), STEPS)
    others = {**bars(FEW), "one open question": judge(evenly(one_question), FEW)}
    return f"{verdict} {beaten(plan, judge(plan, FEW), others, FEW)}"
