"""Block diffusion: its limits are the twin and MDLM, no block sees what it must not, the cache is exact."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare
from toys import MASK, MICRO, TALES, TEXTS, L, V, generator, likeness, micro_counts, moved_network, random_texts

from diffkit.evaluation.bounds import gap_to_entropy, sequence_bounds
from diffkit.model import build_model
from diffkit.network.attention import two_stream_mask
from diffkit.network.cache import KeyValueCache
from diffkit.processes.autoregressive import Autoregressive
from diffkit.processes.block import BlockDiffusion
from diffkit.processes.masked import MaskedDiffusion
from diffkit.sampling.sampler import denoise_frames, infill, sample
from diffkit.training.losses import OBJECTIVES

ALL = [1, 2, 3, L]  # sizes of blocks; the last block of 2 and of 3 is shorter
each_block = pytest.mark.parametrize("block", ALL)


def process(block):
    return BlockDiffusion(V, MASK, block)


def network(block, **settings):
    return moved_network(process(block), **settings)


def all_maskings(block):
    """Every way to hide at least one token of each block, (M, L) bool, and how likely `hide` is to choose it, (M,)."""
    sizes = [min(block, L - first) for first in range(0, L, block)]
    ways, chances = [], []
    for parts in itertools.product(*([p for p in itertools.product([False, True], repeat=n) if any(p)] for n in sizes)):
        ways.append(sum(parts, ()))
        chances.append(1.0)
        for part in parts:
            subsets = torch.tensor([sum(other) == sum(part) for other in itertools.product([0, 1], repeat=len(part))])
            chances[-1] /= len(part) * int(subsets.sum())  # the count is uniform, then the subset
    return torch.tensor(ways), torch.tensor(chances, dtype=torch.float64)


def exact_bound(block, denoise, x0):
    """Mean of the bound of one text (L,) over every masking of every block, from the denoiser's answers alone."""
    hidden, chance = all_maskings(block)
    xt = torch.where(hidden, MASK, x0)
    logits = denoise(torch.cat([xt, x0.expand_as(xt)], 1), torch.zeros(len(xt))).clone()
    logits[..., MASK] = -torch.inf
    nats = -logits.log_softmax(-1).gather(2, x0.expand_as(xt)[..., None])[..., 0]
    number = torch.arange(L) // block
    share = torch.stack([hidden[:, number == b].double().mean(1) for b in number], 1)
    return (chance[:, None] * torch.where(hidden, nats / share, 0.0)).sum().item()


# ------------------------------------------------------------------------------------------------------------ maskings


@given(st.integers(1, L), st.floats(0, 0.999999), st.integers(0, 50))
def test_every_block_hides_as_many_tokens_as_its_place_says(block, u, seed):
    x0, number = random_texts(3, seed), torch.arange(L) // block
    xt, share = process(block).hide(x0, torch.full((3,), u, dtype=torch.float64), generator(seed))
    hidden, N = xt == MASK, int(number[-1]) + 1
    assert torch.equal(torch.where(hidden, x0, xt), x0)
    for b in range(N):
        size = int((number == b).sum())
        count = min(int((u + b / N) % 1 * size), size - 1) + 1
        assert (hidden[:, number == b].sum(1) == count).all()
        torch.testing.assert_close(share[:, number == b], torch.full((3, size), count / size, dtype=torch.float64))


def test_counts_and_subsets_have_the_law_of_the_estimator():
    """Chi-square over all 21 maskings of blocks 3 and 2; p below 1e-7 by chance in one of ten million seeds.

    Counts of different blocks go together, so each block is looked at by itself.
    """
    n = 20_000
    u = torch.rand(n, generator=generator(1), dtype=torch.float64)
    hidden = process(3).hide(TEXTS[:1].expand(n, L), u, generator(2))[0] == MASK
    for places, ways in ((slice(0, 3), 8), (slice(3, 5), 4)):
        part = hidden[:, places]
        size = part.shape[1]
        codes = torch.bincount((part * 2 ** torch.arange(size)).sum(1), minlength=ways)[1:]
        counts = torch.tensor([bin(code).count("1") for code in range(1, ways)])
        chance = torch.tensor([1 / (size * int((counts == k).sum())) for k in counts])
        assert chisquare(codes.numpy(), (chance * n).numpy()).pvalue > 1e-7


@given(st.floats(0, 1000), st.integers(0, 20), st.sampled_from(ALL))
def test_time_hides_whole_blocks_from_the_right(t, seed, block):
    x0 = random_texts(3, seed)
    xt, is_masked = process(block).corrupt(x0, torch.full((3,), t), generator(seed))
    hidden = int(is_masked[0].sum())
    assert hidden - 1 < t / 1000 * L <= hidden + 1e-9 and (is_masked.sum(1) == hidden).all()
    assert torch.equal(xt, torch.where(is_masked, MASK, x0))
    number = torch.arange(L) // block
    for row in is_masked:
        first = number[row].min() if row.any() else L
        assert row[number > first].all() and not row[number < first].any()


# ---------------------------------------------------------------------------------------------------------- the bound


@pytest.mark.parametrize("language", [MICRO, TALES], ids=["micro", "tales"])
def test_blocks_of_one_token_give_the_exact_log_likelihood(language):
    ours = BlockDiffusion(language.vocab_size, language.mask_id, 1)
    x0 = TEXTS if language is MICRO else language.sample(4, generator())
    found = sequence_bounds(ours, language.denoiser(ours), x0, rng=generator())
    torch.testing.assert_close(found, -language.log_prob(x0), rtol=0, atol=1e-9)
    assert not ours.bound_varies and process(2).bound_varies


def test_blocks_of_one_token_are_the_twin_with_the_same_beliefs():
    """A random function of the words before a place, asked by both processes."""
    table = torch.randn(V**L, V, dtype=torch.float64, generator=generator(3))
    powers = V ** torch.arange(L)

    def beliefs(x):  # (B, L) ids -> (B, L, V), row i from x_<i and i alone
        codes = torch.stack([(x[:, :i] @ powers[:i] + 7 * i) % len(table) for i in range(L)], 1)
        return table[codes]

    twin, ours, x0 = Autoregressive(V, MASK), process(1), random_texts(20)
    want = twin.bound(lambda z, t: beliefs(torch.cat([z[:, 1:], z[:, :1]], 1)), x0, torch.zeros(20), generator())
    found = ours.bound(lambda z, t: beliefs(z.chunk(2, 1)[1]), x0, torch.zeros(20), generator())
    torch.testing.assert_close(found, want, rtol=0, atol=1e-9)


@pytest.mark.parametrize("who", ["exact", "network"])
def test_a_single_block_is_mdlm(who):
    """The same masks, the same nats: each token's bound agrees, not only its mean."""
    ours, mdlm, x0 = process(L), MaskedDiffusion(V, MASK, "linear"), TEXTS
    if who == "exact":
        blockwise, whole = MICRO.denoiser(ours), MICRO.denoiser(mdlm)
    else:
        blockwise, whole = network(L), build_model(mdlm, dict(network(L).config.denoiser, block=0)).double().eval()
        whole.load_state_dict(blockwise.state_dict())
    u = torch.rand(len(x0), generator=generator(4), dtype=torch.float64)
    found = ours.bound(blockwise, x0, u, generator(5))
    torch.testing.assert_close(found, mdlm.bound(whole, x0, u, generator(5)), rtol=0, atol=1e-9)


@each_block
def test_with_the_exact_denoiser_the_bound_is_the_log_likelihood_of_every_text(block):
    found = [exact_bound(block, MICRO.denoiser(process(block)), text) for text in TEXTS]
    assert found == pytest.approx((-MICRO.log_prob(TEXTS)).tolist(), abs=1e-9)


@pytest.mark.parametrize("block", [2, 3])
def test_the_bound_is_unbiased(block):
    """Mean of 40,000 draws against the sum over all maskings: 6 standard errors, false alarm 2e-9."""
    model, x0, n = network(block), random_texts(1), 40_000
    u = torch.rand(n, generator=generator(6), dtype=torch.float64)
    with torch.no_grad():
        drawn = process(block).bound(model, x0.expand(n, L), u, generator(7)).sum(1)
        want = exact_bound(block, model, x0[0])
    assert abs(drawn.mean().item() - want) < 6 * drawn.std().item() / n**0.5


def test_training_times_give_the_same_mean_as_places():
    """`loss` at t uniform on 1..T and `bound` at u: means of 40,000 draws within 6 standard errors, 2e-9."""
    model, x0, n = network(2), random_texts(1).expand(40_000, L), 40_000
    t = torch.randint(1, 1001, (n,), generator=generator(8))
    with torch.no_grad():
        nats = process(2).loss(model, x0, t, generator(9)).diffusion.sum(1)
        want = exact_bound(2, model, x0[0])
    assert abs(nats.mean().item() - want) < 6 * nats.std().item() / n**0.5


@each_block
def test_the_gap_of_the_exact_denoiser_is_zero(block):
    gap = gap_to_entropy(process(block), MICRO.denoiser(process(block)), MICRO, 30, rng=generator())
    assert gap.mean == pytest.approx(0, abs=1e-12)


# --------------------------------------------------------------------------------------------------------- two streams


def test_the_mask_of_two_streams_written_out():
    """L = 4 in blocks of 2: what each of the 8 rows sees, read off the paper's figure."""
    want = """
        ##......
        ##......
        ..####..
        ..####..
        ....##..
        ....##..
        ....####
        ....####
    """
    found = two_stream_mask(4, 2)
    assert ["".join(".#"[int(x)] for x in row) for row in found] == want.split()


@each_block
def test_no_block_sees_itself_or_what_follows_in_the_clean_text(block):
    model, x0 = network(block), random_texts(6)
    xt, _ = process(block).hide(x0, torch.rand(6, generator=generator()), generator())
    want, number = model(torch.cat([xt, x0], 1), 0.0), torch.arange(L) // block
    for j in range(L):
        changed = x0.clone()
        changed[:, j] = torch.where(x0[:, j] == 0, 2, 0)
        found = model(torch.cat([xt, changed], 1), 0.0)
        blind = number <= number[j]
        assert torch.equal(found[:, blind], want[:, blind])
        assert not (~blind).any() or not torch.equal(found[:, ~blind], want[:, ~blind])


@each_block
@pytest.mark.parametrize("rotary", [True, False])
def test_two_streams_say_what_a_reader_of_the_prefix_says(block, rotary):
    """Noisy block b of the training pass equals a run on [clean prefix ; noisy block b], as in sampling."""
    model, x0 = network(block, rotary=rotary), random_texts(6)
    xt, _ = process(block).hide(x0, torch.rand(6, generator=generator()), generator())
    whole = model(torch.cat([xt, x0], 1), 0.0)
    for first in range(0, L, block):
        last = min(first + block, L)
        alone = model(torch.cat([x0[:, :first], xt[:, first:last]], 1), 0.0, cache=KeyValueCache())
        torch.testing.assert_close(alone[:, first:], whole[:, first:last], rtol=0, atol=1e-10)


@each_block
@pytest.mark.parametrize("steps", [1, 3, L])
def test_every_answer_of_the_cached_network_is_that_of_the_whole_one(block, steps):
    """One text at a time, and a batch with prompts of other lengths; with a token given at the end, too."""
    model, start = network(block), random_texts(10, 5)
    start[torch.arange(L) >= torch.arange(10)[:, None] % L] = MASK
    start[:, -1] = MICRO.eos_id
    for texts in (start, *start.split(1)):
        cached = model.with_cache()

        def both(zt, t, where, cached=cached):
            found = cached(zt, t, where)
            torch.testing.assert_close(found, model(zt, t, where), rtol=1e-10, atol=1e-10)
            return found

        slow = infill(process(block), both, texts, steps=steps, rng=generator(4))
        assert torch.equal(infill(process(block), model, texts, steps=steps, rng=generator(4)), slow)
        assert (slow != MASK).all()
        nowhere, other = torch.zeros(len(texts), L, dtype=torch.bool), torch.cat([texts, texts.flip(1)], 1)
        assert cached(texts.repeat(1, 2), 0.0, nowhere).shape == (0, V)
        torch.testing.assert_close(cached(other, 0.0, ~nowhere), model(other, 0.0, ~nowhere))


def test_only_the_places_asked_for_are_computed():
    model, x0 = network(2), random_texts(6)
    pair, where = torch.cat([random_texts(6, 1), x0], 1), torch.rand(6, L, generator=generator()) < 0.4
    torch.testing.assert_close(model(pair, 0.0, where), model(pair, 0.0)[where], rtol=0, atol=1e-12)


# ------------------------------------------------------------------------------------------------------------ sampling


@pytest.mark.parametrize("block", [2, L])
def test_the_exact_denoiser_writes_the_language(block):
    """Chi-square over all 16 texts, one token at a time; p below 1e-7 by chance in one of ten million seeds."""
    n = 3000
    ours = process(block)
    counts = micro_counts(sample(ours, MICRO.denoiser(ours), shape=(n, L), steps=L, rng=generator(3)))
    assert counts[-1] == 0 and likeness(counts) > 1e-7


@pytest.mark.parametrize("steps", [1, 2, L])
def test_blocks_are_filled_in_reading_order(steps):
    frames = list(denoise_frames(process(2), network(2), shape=(20, L), steps=steps, rng=generator()))
    for i, frame in enumerate(frames):
        hidden = frame.z == MASK
        assert (hidden.sum(1) == L * (steps - i) // steps).all()
        number = (torch.arange(L) // 2).expand(20, L)
        first = torch.where(hidden, number, L).amin(1, keepdim=True)
        assert hidden[number > first].all() and not hidden[number < first].any()


def test_what_is_given_is_kept_and_later_blocks_are_not_seen():
    start, other = random_texts(40, 7), random_texts(40, 8)
    hidden = torch.rand(40, L, generator=generator(6)) < 0.5
    filled = infill(process(2), network(2), start.masked_fill(hidden, MASK), steps=3, rng=generator())
    assert torch.equal(filled[~hidden], start[~hidden]) and (filled != MASK).all()
    start[:, :2] = other[:, :2] = MASK
    first = infill(process(2), network(2), start, steps=1, rng=generator(9))
    assert torch.equal(first[:, :2], infill(process(2), network(2), other, steps=1, rng=generator(9))[:, :2])


# -------------------------------------------------------------------------------------------------- as any other model


def test_the_objective_is_the_bound():
    t = torch.randint(1, 1001, (16,), generator=generator())
    nats = process(2).loss(network(2), TEXTS, t, generator(1)).diffusion
    assert OBJECTIVES["bound"](process(2), network(2), TEXTS, t, generator(1)).item() == nats.mean().item()


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="mask_id must be one of the 5 ids, got 5"):
        BlockDiffusion(5, 5, 2)
    with pytest.raises(ValueError, match="at least one token, got block=0"):
        BlockDiffusion(5, 1, 0)
    with pytest.raises(ValueError, match="'confidence' is for masked diffusion; BlockDiffusion"):
        sample(process(2), network(2), shape=(1, L), steps=1, rng=generator(), order="confidence")
    with pytest.raises(ValueError, match=r"noisy and then clean text, \(B, 2 L\) ids, got \(16, 5\)"):
        network(2)(TEXTS, 0.0)
    with pytest.raises(ValueError, match=f"at most {L} tokens .* got {L + 1}"):
        network(2)(torch.zeros(1, 2 * L + 2, dtype=torch.long), 0.0)
    with pytest.raises(ValueError, match="block must lie in 0..5, without causal and with time='none'"):
        network(2, time="adaln")
