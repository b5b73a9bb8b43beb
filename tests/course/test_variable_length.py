"""Lengths: exact posteriors from the EOS column, ends that come last, a canvas that grows as the whole one would."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from toys import MASK, MICRO, TALES, L, V, generator, uniform_denoiser

from diffkit.course.variable_length import (
    canvases_of,
    grow,
    left_to_right_in_blocks,
    length_histogram,
    length_probs,
    lengths_before_eos,
    words_first,
)
from diffkit.model import build_model
from diffkit.processes.block import BlockDiffusion
from diffkit.processes.masked import MaskedDiffusion
from diffkit.random import SharedGenerator, categorical
from diffkit.sampling.sampler import denoise_frames, sample
from diffkit.sampling.unmasking import random_order

ENDS = {"eos_id": MICRO.eos_id, "pad_id": MICRO.pad_id}


def block_network(block, seed=0):
    torch.manual_seed(seed)
    model = build_model(
        BlockDiffusion(V, MASK, block), {"hidden_size": 16, "num_layers": 2, "num_heads": 2}, max_length=L
    )
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.3 * torch.randn_like(p))
    return model.double().eval()


def test_lengths_are_counted_up_to_the_first_end():
    ids = torch.tensor([[5, 6, MICRO.eos_id, MICRO.eos_id], [5, 6, 7, 4], [MICRO.eos_id, 5, 5, 5]])
    assert lengths_before_eos(ids, MICRO.eos_id).tolist() == [2, 4, 0]


def test_the_histogram_is_a_smoothed_distribution():
    found = length_histogram(torch.tensor([2, 2, 3]), 4, smoothing=0.5)
    assert found.sum() == pytest.approx(1) and torch.allclose(
        found * 5.5, torch.tensor([0.5, 0.5, 2.5, 1.5, 0.5]).double()
    )


@pytest.mark.parametrize("hidden", [range(1, 5), range(TALES.length), range(4, TALES.length)])
def test_the_eos_column_of_the_exact_denoiser_is_the_exact_posterior_of_the_length(hidden):
    """Asked template by template: the probability of what is visible together with each length."""
    process = MaskedDiffusion(TALES.vocab_size, TALES.mask_id, "linear")
    canvas = TALES.sample(3, generator(2))
    canvas[:, list(hidden)] = TALES.mask_id
    lengths = torch.tensor([len(template.text.split()) for template in TALES.grammar.templates])
    joint = TALES._templates_of(canvas).softmax(1).T  # (K, 3)
    want = torch.zeros(TALES.length, 3, dtype=torch.float64).index_add_(0, lengths, joint).T
    assert torch.allclose(length_probs(process, TALES.denoiser(process), canvas, TALES.eos_id), want, atol=1e-9)


@given(st.lists(st.integers(0, L - 1), min_size=1, max_size=5))
def test_canvases_have_the_length_asked_for(lengths):
    canvas = canvases_of(torch.tensor(lengths), L, mask_id=MASK, **ENDS)
    assert (canvas == MASK).sum(1).tolist() == lengths == lengths_before_eos(canvas, MICRO.eos_id).tolist()
    assert all((row[n + 1 :] == MICRO.pad_id).all() for row, n in zip(canvas, lengths, strict=True))


@pytest.mark.parametrize("lengths", [[L], [-1], []])
def test_a_length_that_does_not_fit_is_refused(lengths):
    with pytest.raises(ValueError, match="EOS needs a position"):
        canvases_of(torch.tensor(lengths, dtype=torch.long), L, mask_id=MASK, **ENDS)


def test_words_come_before_ends():
    probs = torch.full((1, 3, V), 0.01).double()
    probs[0, 0, MICRO.pad_id], probs[0, 1, 6], probs[0, 2, MICRO.eos_id] = 0.9, 0.3, 0.8
    order = words_first([MICRO.eos_id, MICRO.pad_id])(probs, generator()).argsort(descending=True)
    assert order[0].tolist() == [1, 0, 2]


@given(st.integers(1, 4), st.integers(0, 99))
def test_blocks_are_revealed_from_left_to_right(block, seed):
    process = MaskedDiffusion(V, MASK, "linear")
    how = {"shape": (2, L), "steps": L, "order": left_to_right_in_blocks(block), "rng": generator(seed)}
    for frame in list(denoise_frames(process, uniform_denoiser, **how))[:-1]:
        first_hidden = (frame.z == MASK).int().argmax(1) // block
        last_shown = torch.where(frame.z != MASK, torch.arange(L), -1).amax(1) // block
        assert (last_shown <= first_hidden).all()


def test_the_end_last_is_still_exact_one_token_at_a_time():
    """The order does not matter to an exact denoiser; a text outside the language would have probability zero."""
    process = MaskedDiffusion(V, MASK, "linear")
    for order in (words_first([MICRO.eos_id, MICRO.pad_id]), left_to_right_in_blocks(2)):
        ids = sample(process, MICRO.denoiser(process), shape=(64, L), steps=L, order=order, rng=generator())
        assert (MICRO.log_prob(ids) > -torch.inf).all()


def in_full(process, network, rows, steps, rng):
    """What `grow` does, with the whole prefix read again at every step."""
    x, done = torch.full((rows, L), MICRO.pad_id), torch.zeros(rows, dtype=torch.bool)
    for first in range(0, L, process.block):
        here = slice(first, min(first + process.block, L))
        x[~done, here] = MASK
        for left in range(steps - 1, -1, -1):
            is_masked = x == MASK
            if not is_masked.any():
                break
            logits = network(torch.cat([x, x], 1), 0.0).double()
            beliefs = process.log_probs(logits, x).exp()[:, here]
            hidden = is_masked[:, here]
            due = (hidden.sum(1) - (hidden.sum(1) * left / (left + 1)).floor().long())[:, None]
            rank = random_order(beliefs, rng).masked_fill(~hidden, -1).argsort(1, descending=True).argsort(1)
            x[:, here] = torch.where(hidden & (rank < due), categorical(beliefs, rng), x[:, here])
        done |= (x[:, here] == MICRO.eos_id).any(1)
        if done.all():
            break
    return torch.where(torch.arange(L) > lengths_before_eos(x, MICRO.eos_id)[:, None], MICRO.pad_id, x)


@pytest.mark.parametrize("block", [1, 2, 3, L])
@pytest.mark.parametrize("steps", [1, 2])
def test_the_cache_changes_no_token(block, steps):
    network, steps = block_network(block), min(steps, block)
    *_, last = grow(network.process, network, rows=7, length=L, steps=steps, rng=generator(4), **ENDS)
    assert torch.equal(last.tokens, in_full(network.process, network, 7, steps, generator(4)))
    assert not (last.tokens == MASK).any()


def test_a_row_is_written_as_it_would_be_alone():
    network = block_network(2)
    *_, batch = grow(network.process, network, rows=6, length=L, steps=2, rng=generator(4), **ENDS)
    for row in range(6):
        rng = SharedGenerator(row, 6)
        rng.manual_seed(4)
        *_, alone = grow(network.process, network, rows=1, length=L, steps=2, rng=rng, **ENDS)
        assert torch.equal(alone.tokens[0], batch.tokens[row])


def test_nothing_is_written_behind_the_end():
    network = block_network(2)
    *_, last = grow(network.process, network, rows=40, length=L, steps=2, rng=generator(1), **ENDS)
    for row, n in zip(last.tokens, lengths_before_eos(last.tokens, MICRO.eos_id).tolist(), strict=True):
        assert (row[n + 1 :] == MICRO.pad_id).all()


@pytest.mark.parametrize("size", [0, 1, 3])
def test_a_prompt_is_kept(size):
    network, prompt = block_network(2), MICRO.sample(5, generator())[:, :size]
    *_, last = grow(network.process, network, rows=5, length=L, steps=2, rng=generator(), prompt=prompt, **ENDS)
    assert torch.equal(last.tokens[:, :size], prompt)


def test_a_canvas_of_one_token_is_a_text():
    network = block_network(2)
    *_, last = grow(network.process, network, rows=3, length=1, steps=1, rng=generator(), **ENDS)
    assert last.tokens.shape == (3, 1) and not (last.tokens == MASK).any()


@pytest.mark.parametrize("changes, says", [
    ({"steps": 3}, "steps must be a whole number in 1..2"), ({"steps": 0}, "steps must be a whole number in 1..2"),
    ({"length": 0}, "length must be a whole number in 1..5"),
    ({"length": L + 1}, "length must be a whole number in 1..5"),
    ({"prompt": torch.zeros(2, L, dtype=torch.long)}, "the prompt must be"),
    ({"prompt": torch.zeros(1, 2, dtype=torch.long)}, "the prompt must be"),
])  # fmt: skip
def test_mistakes_are_named(changes, says):
    network = block_network(2)
    settings = {"rows": 2, "length": L, "steps": 2, "rng": generator(), **ENDS} | changes
    with pytest.raises(ValueError, match=says):
        next(grow(network.process, network, **settings))
