"""Old keys: exact on the first call of a block and for one layer, wrong by a known kind of amount for more."""

import pytest
import torch
from toys import MASK, MICRO, TEXTS, L, V, deduplicated, generator, masked_diffusion, sharp_network, table_denoiser

from diffkit.course.block_cache import Blockwise, StaleCache, dual_cache, prefix_cache, reuse_error
from diffkit.course.network_calls import CallCounter
from diffkit.network.cache import KeyValueCache
from diffkit.sampling.parallel import above_threshold, most_confident
from diffkit.sampling.sampler import denoise_frames, last_frame

PROCESS = masked_diffusion()
CANVAS = 12
CACHES = {"prefix": prefix_cache, "dual": dual_cache}
each_cache = pytest.mark.parametrize("cache", CACHES.values(), ids=CACHES.keys())


def network(layers, **settings):
    return sharp_network(seed=0, factor=6, num_layers=layers, max_length=CANVAS, **settings)


def canvases(n=8, seed=1, hidden=0.5):
    rng = generator(seed)
    ids = torch.randint(0, V - 1, (n, CANVAS), generator=rng)
    ids = torch.where(ids >= MASK, ids + 1, ids)
    return torch.where(torch.rand(n, CANVAS, generator=rng) < hidden, MASK, ids)


def write(sampler, denoise, seed=2, **how):
    return last_frame(denoise_frames(sampler, denoise, rng=generator(seed), **how)).tokens


@torch.no_grad()
@each_cache
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_old_keys_are_exact_for_one_layer_and_on_the_first_call(layers, cache):
    """A block opens, one token of it is written: with one layer nothing differs, with more the beliefs do; and without
    a change they do not, at any depth. Double precision, tolerance 1e-12."""
    model, before = network(layers), canvases(hidden=0.7)
    before[:, 4:8] = MASK
    span = cache(4, 8, CANVAS)
    hidden = torch.zeros_like(before, dtype=torch.bool)
    hidden[:, 5:8] = True
    after = before.clone()
    after[:, 4] = 3
    assert reuse_error(PROCESS, model, before, before, hidden, span).max() < 1e-12
    error = reuse_error(PROCESS, model, before, after, hidden, span)
    assert error.shape == (24,)
    assert error.max() < 1e-12 if layers == 1 else error.max() > 1e-4
    assert error.max() <= 1


@torch.no_grad()
def test_the_first_reading_is_a_plain_one_and_reads_any_rows_later():
    """The full pass gives the plain logits; with old keys for some rows and the whole canvas as stretch, again."""
    model, ids, old = network(3), canvases(), StaleCache()
    plain = model(ids, 0.0)
    assert torch.equal(model(ids, 0.0, cache=old), plain)
    old.rows = torch.arange(8) % 3 == 0
    torch.testing.assert_close(model(ids[old.rows], 0.0, cache=old), plain[old.rows], atol=1e-10, rtol=0)
    old.first = 5
    part = model(ids[old.rows, 5:9], 0.0, cache=old)
    torch.testing.assert_close(part, plain[old.rows, 5:9], atol=1e-10, rtol=0)


@each_cache
@pytest.mark.parametrize("choose", [most_confident(1), above_threshold(0.6)], ids=["one", "above"])
@pytest.mark.parametrize("size", [1, 4, 5, CANVAS])
def test_one_layer_writes_the_same_tokens_with_and_without_old_keys(cache, choose, size):
    """Same random stream, new texts and prompts, blocks that do not divide the canvas too."""
    model = network(1)
    for how in ({"shape": (6, CANVAS)}, {"start": canvases()}):
        kept = write(Blockwise(PROCESS, size, choose, cache), model, **how)
        assert torch.equal(kept, write(Blockwise(PROCESS, size, choose), model, **how))


@each_cache
def test_blocks_of_one_call_are_exact_at_any_depth(cache):
    """If each block is written in a single call, every call is a first one: no old key is ever used."""
    model = network(3)
    all_at_once = above_threshold(0.0)
    kept = write(Blockwise(PROCESS, 4, all_at_once, cache), model, shape=(8, CANVAS))
    assert torch.equal(kept, write(Blockwise(PROCESS, 4, all_at_once), model, shape=(8, CANVAS)))


def test_deeper_networks_write_other_tokens_from_old_keys():
    """The approximation is visible: else the tests above would compare a thing with itself."""
    model = network(3)
    whole = write(Blockwise(PROCESS, 6, most_confident(1)), model, shape=(64, CANVAS))
    for cache in CACHES.values():
        assert not torch.equal(whole, write(Blockwise(PROCESS, 6, most_confident(1), cache), model, shape=(64, CANVAS)))


@pytest.mark.parametrize("cache", [None, *CACHES.values()])
def test_blocks_are_filled_in_order_and_what_was_given_stays(cache):
    start = canvases(hidden=0.8)
    start[0] = torch.where(start[0] == MASK, 0, start[0])  # one complete text
    frames = list(
        denoise_frames(Blockwise(PROCESS, 5, above_threshold(0.5), cache), network(2), start=start, rng=generator(3))
    )
    for before, after in zip(frames[:-1], frames[1:], strict=True):
        visible = before.tokens != MASK
        assert torch.equal(after.tokens[visible], before.tokens[visible])
        later = after.tokens != before.tokens
        open_block = (before.tokens == MASK).any(0).int().argmax() // 5
        assert later.any() and not later[:, 5 * (open_block + 1) :].any()
    assert (frames[-1].tokens != MASK).all() and frames[-1].t == 0


def test_fewer_places_are_read():
    """A full reading opens each block; then prefix reads from the block on, dual the block alone."""
    read = {}
    for name, cache in {"none": None, **CACHES}.items():
        model = network(2)
        sizes = []
        model.register_forward_pre_hook(lambda _, given, sizes=sizes: sizes.append(given[0].shape[1]))
        write(Blockwise(PROCESS, 4, most_confident(1), cache), model, shape=(2, CANVAS))
        read[name] = sizes
    assert read["none"] == [12] * 12
    assert read["prefix"] == [12, 12, 12, 12, 12, 8, 8, 8, 12, 4, 4, 4]
    assert read["dual"] == [12, 4, 4, 4] * 3


def test_without_old_keys_any_denoiser_will_do_and_one_block_is_the_plain_order():
    """The exact denoiser, one token a call, left to right by blocks of one: exact texts of the language only."""
    exact = deduplicated(MICRO.denoiser(PROCESS))
    ids = write(Blockwise(PROCESS, 1, most_confident(1)), exact, shape=(200, L))
    assert {tuple(row) for row in ids.tolist()} <= {tuple(row) for row in TEXTS.tolist()}


def test_what_cannot_be_kept_is_said():
    with pytest.raises(ValueError, match="size must be a whole number of at least 1, got 0"):
        Blockwise(PROCESS, 0, most_confident(1))
    with pytest.raises(TypeError, match="cache"):  # a plain function has no keys and values
        write(Blockwise(PROCESS, 2, most_confident(1), dual_cache), table_denoiser(), shape=(2, L))
    with pytest.raises(ValueError, match="a cache needs a network that is causal"):
        network(2)(canvases(), 0.0, cache=KeyValueCache())


def test_calls_are_counted_through_the_cache():
    counted = CallCounter(network(2))
    write(Blockwise(PROCESS, 4, most_confident(2), dual_cache), counted, shape=(3, CANVAS))
    assert counted.calls == 6 and counted.rows == 18
