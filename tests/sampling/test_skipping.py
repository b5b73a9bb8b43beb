"""Fast samplers: the exact ones write the same tokens, or follow the same law; the others do what their rule says."""

import pytest
import torch
import toys
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from toys import MASK, MICRO, PROBS, TEXTS, L, V, generator, masked_diffusion, micro_counts, prompts, sharp_network

from diffkit.course.network_calls import CallCounter
from diffkit.sampling.parallel import (
    ParallelUnmasking,
    above_threshold,
    confidence_threshold,
    entropy_bounded,
    most_confident,
    within_entropy,
)
from diffkit.sampling.sampler import Ancestral, denoise_frames, last_frame, sample
from diffkit.sampling.skipping import SkipIdle, even_times, first_hitting

PROCESS = masked_diffusion()
TABLE = toys.table_denoiser(seed=4)


def exact_denoiser():
    return toys.deduplicated(MICRO.denoiser(PROCESS))


def write(sampler, denoise, start=None, n=64, seed=0):
    how = {"shape": (n, L)} if start is None else {"start": start}
    return last_frame(denoise_frames(sampler, denoise, rng=generator(seed), **how)).tokens


SAMPLERS = {
    "lazy": SkipIdle(PROCESS, even_times(1000, 7)),
    "first hitting": first_hitting(PROCESS),
    "one": ParallelUnmasking(PROCESS, most_confident(1)),
    "three": ParallelUnmasking(PROCESS, most_confident(3)),
    "above": confidence_threshold(PROCESS, 0.5),
    "entropy": entropy_bounded(PROCESS, 0.5),
}
each_sampler = pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS.keys())


# ------------------------------------------------------------------------------------------- exact: the same tokens


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize("steps", [1, 3, 60, 400])
def test_lazy_writes_the_tokens_of_the_plain_sampler(schedule, steps):
    """Same random stream, same ids: for a network with time too, new texts and prompts, every step and in the end."""
    process = masked_diffusion(schedule)
    model = sharp_network(time="adaln")
    for start in (None, prompts(8)):
        how = {"shape": (8, L)} if start is None else {"start": start}
        lazy = denoise_frames(SkipIdle(process, even_times(1000, steps)), model, rng=generator(5), **how)
        full = denoise_frames(Ancestral(process, even_times(1000, steps)), model, rng=generator(5), **how)
        for quick, slow in zip(lazy, full, strict=True):
            assert torch.equal(quick.tokens, slow.tokens) and (quick.step, quick.t) == (slow.step, slow.t)


def test_lazy_computes_its_head_only_for_what_it_reveals():
    """Every masked token is looked at once; a row without a reveal is not read."""
    counted = CallCounter(sharp_network())
    start = prompts()
    frames = list(denoise_frames(SkipIdle(PROCESS, even_times(1000, 400)), counted, start=start, rng=generator(1)))
    changes = [(a.tokens != b.tokens).any(1).sum().item() for a, b in zip(frames[:-1], frames[1:], strict=True)]
    assert counted.heads == (start == MASK).sum() > 100
    assert counted.rows == sum(changes) and counted.calls == sum(change > 0 for change in changes) < 400


# ------------------------------------------------------------------------------------------------ exact: the same law


def chain_probs(process, denoise, times):
    stays = [float(process.stay_masked(t, s)) for t, s in zip(times[:-1], times[1:], strict=True)]
    return torch.tensor([toys.chain_prob(denoise, x0, stays) for x0 in TEXTS], dtype=torch.float64)


@pytest.mark.parametrize("times", [[1000.0, 0.0], [1000.0, 400.0, 0.0], [1000.0, 900.0, 850.0, 100.0, 0.0]])
def test_skipped_steps_follow_the_exact_law_of_the_times_that_are_left(times):
    """Any times will do, unevenly spaced too. Chi-square over 16 texts and "other", 8,000 draws, once in a million."""
    times = torch.tensor(times, dtype=torch.float64)
    probs = chain_probs(PROCESS, exact_denoiser(), times)
    counts = micro_counts(write(SkipIdle(PROCESS, times), exact_denoiser(), n=8000, seed=6))
    want = torch.cat([probs, 1 - probs.sum(0, keepdim=True)])
    assert stats.chisquare(counts, 8000 * want).pvalue > 1e-6
    even = chain_probs(PROCESS, exact_denoiser(), even_times(1000, 64))
    assert stats.chisquare(counts[:16], counts[:16].sum() * even / even.sum()).pvalue < 1e-3 or len(times) == 5


def test_first_hitting_follows_the_law_of_infinitely_many_steps():
    """An imperfect denoiser: its law is that of a random order of single reveals, by enumeration of all mask patterns.

    Chi-square over 16 texts and "other", 8,000 draws; fails by chance once in a million seeds.
    """
    infinite = torch.tensor([random_order_prob(TABLE, x0) for x0 in TEXTS], dtype=torch.float64)
    many = chain_probs(PROCESS, TABLE, even_times(1000, 1000))
    torch.testing.assert_close(infinite, many, atol=0, rtol=0.02)  # the ancestral chain is close to its limit
    counted = CallCounter(TABLE)
    counts = micro_counts(write(first_hitting(PROCESS), counted, n=8000, seed=7))
    want = torch.cat([infinite, 1 - infinite.sum(0, keepdim=True)])
    assert counted.calls == L and counted.heads == 8000 * L
    assert stats.chisquare(counts, 8000 * want).pvalue > 1e-6


def random_order_prob(denoise, x0):
    """Probability that single reveals in random order write x0: sum over subsets, each next place equally likely."""
    from toys import SUBSETS, beliefs

    belief = beliefs(denoise, torch.where(SUBSETS, MASK, x0)).gather(2, x0.expand(len(SUBSETS), L)[..., None])[..., 0]
    index = {tuple(hidden.tolist()): i for i, hidden in enumerate(SUBSETS)}
    prob = torch.zeros(len(SUBSETS), dtype=torch.float64)
    prob[index[(True,) * L]] = 1
    for hidden in sorted(index, key=sum, reverse=True):
        for place in [i for i in range(L) if hidden[i]]:
            after = tuple(h and j != place for j, h in enumerate(hidden))
            prob[index[after]] += prob[index[hidden]] * belief[index[hidden], place] / sum(hidden)
    return prob[index[(False,) * L]].item()


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_first_hitting_times_are_those_of_independent_reveals(schedule):
    """gamma at each reveal, latest first, is an order statistic of L uniforms: Beta(L + 1 - k, k). Kolmogorov-Smirnov
    with 4,000 rows for each k, fails by chance once in a million seeds (five tests)."""
    process, seen = masked_diffusion(schedule), []

    def spying(zt, t):
        seen.append(t.clone())
        return TABLE(zt, t)

    write(first_hitting(process), spying, n=4000, seed=8)
    for k, t in enumerate(seen, 1):
        assert stats.kstest(process.schedule.gamma(t), stats.beta(L + 1 - k, k).cdf).pvalue > 2e-7
    assert stats.kstest(process.schedule.gamma(seen[0]), stats.uniform.cdf).pvalue < 1e-6


# ---------------------------------------------------------------------------------------- rules that look at beliefs


def table_of(rows):
    """Beliefs (N, V) from short lists."""
    return torch.tensor([row + [0.0] * (V - len(row)) for row in rows], dtype=torch.float64)


def test_above_reveals_all_sure_places_and_at_least_one():
    is_masked = torch.tensor([[True, False, True, True], [False, True, True, False], [False] * 4])
    probs = table_of([[0.95, 0.05], [0.5, 0.5], [0.92, 0.08], [0.6, 0.4], [0.3, 0.7]])
    want = torch.tensor([[True, False, False, True], [False, False, True, False], [False] * 4])
    assert torch.equal(above_threshold(0.9)(probs, is_masked), want)
    assert torch.equal(above_threshold(0.0)(probs, is_masked), is_masked)


def test_most_confident_takes_ties_from_the_left():
    is_masked = torch.tensor([[True, True, False, True]])
    same = table_of([[0.5, 0.5]] * 3)
    assert most_confident(2)(same, is_masked).tolist() == [[True, True, False, False]]
    assert torch.equal(most_confident(9)(same, is_masked), is_masked)


@given(seed=st.integers(0, 10**6), bound=st.floats(0, 4), hidden=st.floats(0, 1))
def test_entropy_bounded_is_the_largest_set_of_the_most_certain(seed, bound, hidden):
    """Against a search over every size of the set, written out; a place is left out only if the set would break."""
    rng = generator(seed)
    is_masked = torch.rand(3, 6, generator=rng) < hidden
    probs = (3 * torch.randn(int(is_masked.sum()), V, generator=rng, dtype=torch.float64)).softmax(-1)
    chosen = within_entropy(bound)(probs, is_masked)
    entropies = (-(probs * probs.log()).sum(-1) * 1e4).round() / 1e4
    first = 0
    for row in range(3):
        n = int(is_masked[row].sum())
        mine = entropies[first : first + n].sort().values
        sizes = [k for k in range(1, n + 1) if mine[:k].sum() - mine[:k].max() <= bound + 1e-6]
        assert chosen[row].sum() == (max(sizes) if n else 0)
        picked = entropies[first : first + n][chosen[row][is_masked[row]]]
        torch.testing.assert_close(picked.sort().values, mine[: len(picked)])
        first += n
    assert not (chosen & ~is_masked).any()


def test_no_slack_is_exact_with_the_exact_denoiser():
    """Bound 0: one place, and those that are certain. Chi-square, 8,000 draws, fails once in a million seeds; and with
    a large bound, all at once, the law is visibly another."""
    one = micro_counts(write(entropy_bounded(PROCESS, 0.0), exact_denoiser(), n=8000, seed=9))
    assert one[16] == 0 and stats.chisquare(one[:16], 8000 * PROBS).pvalue > 1e-6
    counted = CallCounter(exact_denoiser())
    all_at_once = micro_counts(write(entropy_bounded(PROCESS, 100.0), counted, n=8000, seed=9))
    assert counted.calls == 1 and all_at_once[16] > 1000


def test_a_threshold_takes_fewer_calls_where_the_text_is_certain():
    """Of `micro`, where words decide others, with no error: above a threshold of 1 - 1e-9 nothing is guessed."""
    counted = CallCounter(exact_denoiser())
    counts = micro_counts(write(confidence_threshold(PROCESS, 1 - 1e-9), counted, n=4000, seed=10))
    assert counts[16] == 0 and stats.chisquare(counts[:16], 4000 * PROBS).pvalue > 1e-6
    assert counted.rows < 4000 * L


@each_sampler
def test_all_is_filled_what_was_given_stays_and_rows_do_not_mix(sampler):
    """Prompts of every kind, complete and empty ones too; a token once revealed stays; the start is not written on."""
    start = torch.cat([prompts(8), TEXTS[:1], torch.full((1, L), MASK)])
    kept = start.clone()
    frames = list(denoise_frames(sampler, TABLE, start=start, rng=generator(11)))
    assert frames[0].t == 1000 and frames[-1].t == 0 and [f.step for f in frames] == list(range(len(frames)))
    for before, after in zip(frames[:-1], frames[1:], strict=True):
        visible = before.tokens != MASK
        assert torch.equal(after.tokens[visible], before.tokens[visible]) and after.t <= before.t
    assert (frames[-1].tokens != MASK).all() and torch.equal(start, kept)
    again = list(denoise_frames(sampler, TABLE, start=start, rng=generator(11)))
    assert all(torch.equal(a.tokens, b.tokens) for a, b in zip(frames, again, strict=True))


@each_sampler
def test_a_complete_text_costs_no_call(sampler):
    counted = CallCounter(TABLE)
    assert torch.equal(write(sampler, counted, start=TEXTS), TEXTS) and counted.calls == 0


def test_what_is_not_understood_is_said():
    with pytest.raises(ValueError, match="give either shape"):
        next(denoise_frames(SAMPLERS["lazy"], TABLE, rng=generator()))
    with pytest.raises(ValueError, match="a sampler brings"):
        next(denoise_frames(SAMPLERS["lazy"], TABLE, shape=(1, L), steps=5, rng=generator()))
    with pytest.raises(ValueError, match="got 90"):
        confidence_threshold(PROCESS, 90)
    with pytest.raises(ValueError, match="got -1"):
        entropy_bounded(PROCESS, -1)


def test_lazy_is_the_plain_sampler_on_a_shipped_model():
    """In single precision, where a smaller batch may round otherwise: the same stories all the same."""
    from diffkit.model import load_model

    model = load_model("tales-mdlm")
    length = model.denoiser.config.max_length
    plain = sample(model.process, model, shape=(4, length), steps=60, rng=generator(12))
    every_step = Ancestral(model.process, even_times(1000, 60))
    assert torch.equal(sample(every_step, model, shape=(4, length), rng=generator(12)), plain)
