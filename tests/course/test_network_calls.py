"""Calls of the network, counted and saved: the cache changes no token, and counts follow their closed form."""

import pytest
import torch
from toys import L, V, generator, masked_diffusion, prompts, sharp_network

from diffkit.course.network_calls import CallCounter, NoChangeCache, expected_calls
from diffkit.processes.schedules import get_schedule
from diffkit.sampling.sampler import Ancestral, denoise_frames, last_frame
from diffkit.sampling.skipping import SkipIdle, even_times

PROCESS = masked_diffusion()


def test_the_cache_changes_no_token_and_saves_calls():
    """Same random stream, same ids; rows are read again only after they changed."""
    plain, cached = CallCounter(sharp_network()), CallCounter(sharp_network())
    steps = 200
    sampler = Ancestral(PROCESS, even_times(1000, steps))
    full = list(denoise_frames(sampler, plain, shape=(16, L), rng=generator(2)))
    quick = list(denoise_frames(sampler, NoChangeCache(cached), shape=(16, L), rng=generator(2)))
    assert all(torch.equal(a.tokens, b.tokens) for a, b in zip(full, quick, strict=True))
    changed = sum(
        (a.tokens != b.tokens).any(1).sum().item() for a, b in zip(full[:-2], full[1:-1], strict=True)
    )  # what the last step changes is not looked at any more
    assert plain.rows == 16 * steps and cached.rows == 16 + changed <= 16 * (L + 1)


def test_the_cache_sees_a_change_of_one_in_a_large_id():
    """150,000 and 150,001 are equal to torch.allclose; and another batch is another batch."""
    counted = CallCounter(lambda zt, t: zt[..., None].double())
    cache = NoChangeCache(counted)
    ids, t = torch.full((2, 3), 150_000), torch.zeros(2)
    cache(ids, t)
    other = ids.clone()
    other[1, 2] += 1
    assert torch.allclose(ids, other) and not torch.equal(ids, other)
    before = cache(ids, t).clone()
    assert cache(other, t)[1, 2] == 150_001 and counted.rows == 3
    assert torch.equal(before, ids[..., None].double())
    assert cache(other[:1], t[:1]).shape == (1, 3, 1) and counted.rows == 4


def test_what_was_handed_out_before_does_not_change_later():
    cache = NoChangeCache(sharp_network())
    first = cache(prompts(4, hidden=1.0), torch.zeros(4))
    kept = first.clone()
    cache(prompts(4), torch.zeros(4))
    assert torch.equal(first, kept)


def test_the_cache_refuses_a_network_with_time():
    """Why: the same ids, another time, another prediction."""
    model = sharp_network(time="sinusoidal")
    with pytest.raises(ValueError, match="takes the time"):
        NoChangeCache(model, model.config.time)


@pytest.mark.parametrize(("steps", "length"), [(128, 64), (1000, 5), (7, 30)])
def test_number_of_calls_against_its_closed_form(steps, length):
    """N (1 - (1 - 1/N)^L) on average; 400 texts, within 5.5 standard errors (once in ten million seeds)."""
    times, schedule = even_times(1000, steps), get_schedule("linear")
    closed = steps * (1 - (1 - 1 / steps) ** length)
    assert expected_calls(schedule, times, length) == pytest.approx(closed, rel=1e-9)
    assert expected_calls(get_schedule("cosine"), times, 1) == pytest.approx(1, rel=1e-9)
    uniform = CallCounter(lambda zt, t: torch.zeros(*zt.shape, V))
    calls = []
    for seed in range(20):
        before = uniform.rows
        frames = denoise_frames(SkipIdle(PROCESS, times), uniform, shape=(20, length), rng=generator(seed))
        last_frame(frames)
        calls.append((uniform.rows - before) / 20)
    calls = torch.tensor(calls, dtype=torch.float64)
    assert abs(calls.mean() - closed) < 5.5 * max(calls.std().item() / 20**0.5, 1e-9)
