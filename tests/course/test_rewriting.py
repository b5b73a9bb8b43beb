"""Scores against enumerated conditionals; and what rewriting may change."""

import torch
from toys import MICRO, TALES, generator

from diffkit.course.rewriting import predict_with, rewrite_frames, token_scores
from diffkit.processes.masked import MaskedDiffusion


def masked(language):
    process = MaskedDiffusion(language.vocab_size, language.mask_id)
    return process, language.denoiser(process)


def test_scores_of_one_token_at_a_time_are_exact_conditionals():
    """log p(x_i | all others), by enumeration of what else could stand there."""
    process, exact = masked(MICRO)
    x0 = MICRO.sample(12, generator())
    found = token_scores(predict_with(process, exact), x0, process.mask_id, groups=MICRO.length)
    for i in range(MICRO.length):
        others = x0[:, None].repeat(1, MICRO.vocab_size, 1)
        others[..., i] = torch.arange(MICRO.vocab_size)
        log_p = MICRO.log_prob(others.flatten(0, 1)).view(len(x0), -1)
        log_p[:, process.mask_id] = -torch.inf  # MASK stands for any word
        torch.testing.assert_close(found[:, i], MICRO.log_prob(x0) - log_p.logsumexp(1), atol=1e-9, rtol=0)


def test_a_story_stays_a_story_when_one_word_is_drawn_anew():
    """Given tokens stay, and no round changes more tokens than it hides."""
    process, exact = masked(TALES)
    draft, frozen = TALES.sample(6, generator()), torch.arange(TALES.length) < 5
    as_lists = lambda *given: token_scores(*given).tolist()  # noqa: E731 - the exercise takes such an answer, too
    settings = {"rounds": 3, "count": 1, "steps": 1, "rng": generator(1), "scores": as_lists}
    frames = rewrite_frames(process, exact, draft, frozen=frozen.expand(6, -1), **settings)
    texts = [frame.tokens for frame in frames if frame.step % 2 == 0]
    assert torch.equal(texts[0], draft) and len(texts) == 4
    for before, after in zip(texts, texts[1:], strict=False):
        assert ((before != after).sum(1) <= 1).all() and torch.equal(after[:, frozen], draft[:, frozen])
        assert TALES.log_prob(after).isfinite().all()


def test_the_wrong_word_is_found_and_mended():
    """A word that no story has there has no likelihood given the others, so it is the first to go."""
    process, exact = masked(TALES)
    story = TALES.sample(4, generator(2))
    broken = story.clone()
    broken[:, 8] = torch.where(story[:, 9] == story[:, 8], story[:, 3], story[:, 9])
    assert not TALES.log_prob(broken).isfinite().any()
    last = [*rewrite_frames(process, exact, broken, rounds=1, count=1, steps=1, groups=TALES.length, rng=generator(3))][
        -1
    ]
    assert TALES.log_prob(last.tokens).isfinite().all()
