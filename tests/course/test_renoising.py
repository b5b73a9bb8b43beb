"""The Gibbs corrector and the entropy-bounded sampler of uniform noise, by enumeration on a language of 3 tokens."""

import pytest
import torch
from brute_force import DUO, states_of
from toys import MASK, L, V, generator, table_denoiser

from diffkit.course.uniform_blocks.exact import (
    Tabulated,
    next_law,
    sample_in_blocks,
    time_agnostic,
    word_states,
    words_of,
)
from diffkit.course.uniform_blocks.judges import entropy_bounded_law
from diffkit.course.uniform_blocks.renoising import Corrected, EntropyBounded, gibbs_sweep
from diffkit.processes.d3pm import D3PM
from diffkit.processes.hybrid import HybridDiffusion
from diffkit.processes.sedd import UDLM
from diffkit.sampling.sampler import Ancestral, sample
from diffkit.sampling.skipping import even_times

SIZE, HIDDEN = DUO.vocab_size, DUO.mask_id
STATES = word_states(DUO)  # (K^3, 3)


def duo_counts(ids, states):
    """How often each state was drawn."""
    powers = SIZE ** torch.arange(DUO.length - 1, -1, -1)
    codes = (states * powers).sum(1)
    return (codes[:, None] == (ids * powers).sum(1)).sum(1)


def p_value(counts, law):
    """Chi-square over the states expected at least 5 times, the others together."""
    n, big = counts.sum(), law * counts.sum() >= 5
    found = torch.cat([counts[big], (n - counts[big].sum())[None]]).double()
    want = torch.cat([law[big], (1 - law[big].sum())[None]]).clamp(min=1e-12) * n
    statistic = ((found - want) ** 2 / want)[want > 1e-6].sum()
    return torch.special.gammaincc(torch.tensor((len(want) - 1) / 2).double(), statistic / 2).item()


def noisy_law(process, states, t):
    """The law of z_t: every text's chance times that of its tokens."""
    one_hot = torch.nn.functional.one_hot(states, SIZE).double()
    texts = DUO.log_prob(states).exp() * (states != HIDDEN).all(1)
    tokens = process.transitions.marginal(one_hot, 0, t)  # (S, L, V)
    chances = torch.stack([tokens[:, i][:, states[:, i]] for i in range(DUO.length)]).prod(0)
    return texts @ chances


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_gibbs_sweeps_keep_the_law(share):
    """From 8,000 canvases with the law of z_t, after 4 sweeps: chi-square, p above 1e-7."""
    process, t = HybridDiffusion(SIZE, HIDDEN, share), 300.0
    z, _ = process.corrupt(DUO.sample(8000, generator(1)), t, generator(2))
    for seed in range(4):
        z = gibbs_sweep(process, DUO.denoiser(process), z, torch.full((len(z),), t).double(), generator(10 + seed))
    states = states_of(DUO, with_mask=share < 1)
    assert p_value(duo_counts(z, states), noisy_law(process, states, t)) > 1e-7


def test_a_corrector_makes_as_many_calls_as_it_says_and_writes_the_language():
    process, calls = UDLM(SIZE, HIDDEN), []
    exact = DUO.denoiser(process)

    def counted(zt, t):
        calls.append(float(t[0]))
        return exact(zt, t)

    for n, sweeps in ((1, 1), (8, 1), (24, 1), (10, 3)):
        calls.clear()
        ids = sample(Corrected(process, n, sweeps), counted, shape=(500, DUO.length), rng=generator(n))
        assert len(calls) == n and min(calls) > 0
    ids = sample(Corrected(process, 65), exact, shape=(4000, DUO.length), rng=generator(3))
    found = duo_counts(ids, STATES) / 4000
    assert (found - DUO.log_prob(STATES).exp()).abs().sum() / 2 < 0.06


@pytest.mark.parametrize("calls", [1, 3])
def test_the_entropy_bounded_sampler_has_its_law(calls):
    """20,000 canvases against the sum over all paths; p above 1e-7."""
    process = D3PM(SIZE, HIDDEN, "uniform", reverse="mixture")
    exact = Tabulated(DUO, time_agnostic(DUO, process), ignores_time=True)
    law = entropy_bounded_law(exact, calls)
    assert law.sum().item() == pytest.approx(1)
    ids = sample(EntropyBounded(process, calls, best=False), exact, shape=(20_000, DUO.length), rng=generator(calls))
    assert p_value(duo_counts(ids, STATES), law) > 1e-7
    best = sample(EntropyBounded(process, calls), exact, shape=(50, DUO.length), rng=generator(calls))
    assert (best != HIDDEN).all()


def test_without_the_time_the_posterior_is_that_over_all_times():
    """Against the sum over texts, the integral of q_t(z | x) dt taken at 20,000 midpoints."""
    process = D3PM(SIZE, HIDDEN, "uniform", reverse="mixture")
    K, times = SIZE - 1, (torch.arange(20_000).double() + 0.5) / 20_000
    texts = STATES[DUO.log_prob(STATES) > -torch.inf]
    same = (STATES[:, None] == texts).sum(-1)  # (S, texts)
    chance = torch.stack([((1 - times + times / K) ** n * (times / K) ** (3 - n)).mean() for n in range(4)])
    weight = chance[same] * DUO.log_prob(texts).exp()
    one_hot = torch.nn.functional.one_hot(texts, SIZE).double()
    want = torch.einsum("sx,xlv->slv", weight / weight.sum(1, keepdim=True), one_hot)
    found = time_agnostic(DUO, process)(STATES, torch.zeros(len(STATES))).exp()
    torch.testing.assert_close(found, want, atol=1e-7, rtol=0)


def test_a_step_of_independent_draws_is_a_product():
    law = torch.rand(len(STATES), dtype=torch.float64, generator=generator()).softmax(0)
    tokens = torch.rand(len(STATES), 3, SIZE - 1, dtype=torch.float64, generator=generator(1)).softmax(-1)
    column = torch.searchsorted(words_of(DUO), STATES)
    moves = torch.stack([tokens[:, i][:, column[:, i]] for i in range(3)]).prod(0)
    torch.testing.assert_close(next_law(law, tokens), law @ moves, atol=1e-15, rtol=0)


def test_blocks_of_one_are_exact():
    """In one step a token: left-to-right ancestral sampling, whatever the noise; chi-square, p above 1e-7."""
    process = UDLM(SIZE, HIDDEN)
    ids = sample_in_blocks(DUO, Ancestral(process, even_times(1000, 1)), 4000, 1, generator(5))
    assert p_value(duo_counts(ids, STATES), DUO.log_prob(STATES).exp()) > 1e-7


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="no wrong tokens to redraw"):
        Corrected(UDLM(V, MASK, "absorbing"), 8)
    with pytest.raises(ValueError, match="calls must be a whole number"):
        Corrected(UDLM(V, MASK), 0)
    with pytest.raises(ValueError, match="steps must be a whole number"):
        EntropyBounded(UDLM(V, MASK), 0)
    ids = sample(Corrected(UDLM(V, MASK), 3), table_denoiser(), shape=(2, L), rng=generator())
    assert (ids != MASK).all()
