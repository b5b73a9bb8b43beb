"""A text read once: every token counted once, against enumeration, brute force and an exact language's entropy."""

import itertools
import math

import numpy as np
import pytest
import torch
from toys import MASK, MICRO, PROBS, TEXTS, L, V, generator, masked_diffusion

from diffkit.data.chunks import texts_of
from diffkit.data.tokenizer import text_ids, train_tokenizer, word_level_tokenizer
from diffkit.evaluation.statistics import Sums, mean_of
from diffkit.evaluation.text import Counted, bound_on_text, full_windows, stream_of, text_bounds, together, windows_of
from diffkit.model import build_model
from diffkit.processes.autoregressive import Autoregressive
from diffkit.processes.masked import MaskedDiffusion

SHAPE = {"hidden_size": 16, "num_layers": 1, "num_heads": 2}


@pytest.mark.parametrize(("length", "stride"), [(4, None), (4, 4), (4, 1), (5, 3), (7, 2), (30, 11)])
@pytest.mark.parametrize("n", [0, 1, 3, 4, 5, 8, 23])
def test_every_token_is_new_in_one_window(length, stride, n):
    """New tokens in order are the text; each window is whole and holds the text right before its new tokens."""
    ids = np.arange(n)
    pieces = np.split(ids, sorted({k for k in (2, 3, 9) if k < n}))
    found = [*windows_of(pieces, length, stride)]
    assert [i for window, given in found for i in window[~given].tolist()] == ids.tolist()
    for window, _ in found:
        assert len(window) == min(length, n) and (window.diff() == 1).all()
    assert sum(len(batch.ids) for batch in together(found)) == len(found)


def test_windows_of_an_exact_language_have_its_entropy():
    """512 stories end to end, a story a window: the mean is within 5.5 standard errors of the entropy (p < 1e-7)."""
    stories, process = MICRO.sample(512, generator()), masked_diffusion()
    windows = windows_of([story.numpy() for story in stories], L)
    judges = {"masked": (process, MICRO.denoiser(process))}
    in_order = Autoregressive(V, MASK)
    judges["in order"] = (in_order, MICRO.denoiser(in_order))
    *_, found = text_bounds(judges, together(windows), MICRO.tokenizer)
    entropy, (exact,) = MICRO.entropy() / L, found.beside
    assert abs(found.per_token.mean - entropy) < 5.5 * found.per_token.standard_error < 0.2
    assert exact.per_token.mean == pytest.approx(-MICRO.log_prob(stories).mean().item() / L)
    assert exact.per_token.standard_error == pytest.approx(mean_of(MICRO.log_prob(stories) / L).standard_error)
    assert abs(exact.difference.mean) < 5.5 * exact.difference.standard_error
    assert found.read.windows == 512 and not found.exact and exact.exact and found.read.tokens == 512 * L


def by_hand(log_p, ids, length, stride):
    """-log p of a text, nats: each window's new tokens, straight from the definition."""
    nats, done = 0.0, 0
    while done < len(ids):
        end = min(len(ids), length if not done else done + stride)
        start = max(0, end - length)
        for i in range(done, end):
            nats -= log_p(ids[start:i], ids[i])
        done = end
    return nats


@pytest.mark.parametrize("stride", [1, 2, 3, L])
def test_strides_give_what_brute_force_gives(stride):
    """A bigram with MASK at the start of each window: what a token costs is known from the one before it."""
    counts = torch.rand(V, V, generator=generator(1), dtype=torch.float64)
    counts[:, MASK] = 0
    table = (counts / counts.sum(1, keepdim=True)).log()
    ids = [i for i in torch.randint(0, V, (23,), generator=generator(2)).tolist() if i != MASK]
    windows = windows_of([np.array(ids)], L, stride)
    judges = {"bigram": (Autoregressive(V, MASK), lambda xt, t: table[xt])}
    *_, found = text_bounds(judges, together(windows), MICRO.tokenizer, stride=stride)
    nats = by_hand(lambda before, token: table[(before or [MASK])[-1], token].item(), ids, L, stride)
    assert found.read.tokens == len(ids) and found.per_token.mean == pytest.approx(nats / len(ids))


def test_a_stride_bounds_the_new_tokens_given_the_others():
    """Masked diffusion, exact denoiser: the mean over many draws is -log p(new | context), from the table of texts."""
    process, story = masked_diffusion(), TEXTS[8]
    batch = next(together([(story, torch.arange(L) < 2)] * 64))
    *_, found = text_bounds({"": (process, MICRO.denoiser(process))}, [batch] * 30, MICRO.tokenizer)
    agree = (TEXTS[:, :2] == story[:2]).all(1)
    nats = (PROBS[agree].sum() / PROBS[8]).log().item()
    assert nats > 0.1 and found.read.tokens == 64 * 30 * (L - 2)
    assert abs(found.per_token.mean * (L - 2) - nats) < 5.5 * found.per_token.standard_error * (L - 2)


def test_a_ratio_has_the_error_of_a_ratio():
    """Equal windows: that of the mean. Unequal ones: as a jackknife says, to first order."""
    x, k = torch.rand(400, generator=generator()) * 9, torch.randint(1, 9, (400,), generator=generator(1))
    same, sums = Sums(), Sums()
    same.add(x, torch.full((400,), 4))
    assert same.ratio() == pytest.approx(mean_of(x / 4))
    for part in (slice(0, 7), slice(7, 400)):
        sums.add(x[part], k[part])
    left_out = (x.sum() - x).double() / (k.sum() - k)
    jackknife = ((left_out - left_out.mean()) ** 2).sum().mul(399 / 400).sqrt().item()
    assert sums.ratio().mean == pytest.approx(x.double().sum().item() / k.sum().item())
    assert sums.ratio().standard_error == pytest.approx(jackknife, rel=0.02)
    one = Sums()
    one.add(x[:1], k[:1])
    assert math.isnan(one.ratio().standard_error)


TEXT = ["Über 12 naïve cafés, 日本語 and 🙂🙂 emoji.", "A second  document\nof two lines", "end"]


@pytest.mark.parametrize("length", [3, 5, 64])
def test_characters_and_words_are_those_of_the_text(length):
    """Windows cut words and letters of several bytes in two; nothing is counted twice or lost."""
    tokenizer = train_tokenizer(TEXT * 3, 280)
    counted, windows = Counted(tokenizer), [*windows_of(stream_of(TEXT * 9, tokenizer), length, 2)]
    for window in windows:
        counted.add(next(together([window])))
    read = counted.read(2)
    assert read.characters == 9 * sum(map(len, TEXT)) and read.words == 9 * sum(len(text.split()) for text in TEXT)
    assert read.unknown == 0 and read.windows == len(windows)
    ids = torch.from_numpy(np.concatenate([*stream_of(TEXT * 9, tokenizer)]))
    assert read.tokens == len(ids) and texts_of(ids[None], tokenizer)[:3] == TEXT


def test_a_long_document_has_the_ids_that_it_has_whole(monkeypatch):
    """However it is cut, so that what is held does not grow with it; nothing is made of a blank one."""
    monkeypatch.setattr("diffkit.evaluation.text.PIECE", 12)
    tokenizer, document = train_tokenizer(TEXT * 3, 280), "  ".join(TEXT * 3)
    pieces = [*stream_of([document, " ", document], tokenizer)]
    assert len(pieces) > 20 and max(map(len, pieces)) < 30
    assert np.concatenate(pieces).tolist() == 2 * [*text_ids(document, tokenizer), tokenizer.eos_token_id]


@pytest.fixture(scope="module")
def letters():
    """A model of letters, saved in no folder, and its tokenizer."""
    tokenizer = word_level_tokenizer("abcdefghij")
    torch.manual_seed(0)
    process = MaskedDiffusion(len(tokenizer), tokenizer.mask_token_id)
    return build_model(process, SHAPE, max_length=8).eval(), tokenizer


def test_a_stream_without_end_is_read_as_far_as_it_is_needed(letters):
    """Nothing is read ahead but a few documents, and nothing is kept."""
    model, tokenizer = letters
    asked = []

    def endless():
        for i in itertools.count():
            asked.append(i)
            yield "a b c d e f g"

    found = bound_on_text(model, endless(), windows=70, tokenizer=tokenizer)
    assert found.read.windows == 70 and len(asked) < 100


def test_one_line_says_it_all(letters, tmp_path):
    model, tokenizer = letters
    (tmp_path / "my.txt").write_text("a b c d\ne f g h i j\na b\n", encoding="utf-8")
    found = bound_on_text(model, tmp_path / "my.txt", tokenizer=tokenizer, beside=[f"2-gram:{tmp_path / 'my.txt'}"])
    assert found.read.tokens == 15 and found.read.windows == 2 and found.read.words == 12, "an EOS after each of three"
    assert found.perplexity == pytest.approx(math.exp(found.per_token.mean))
    bits = found.per_token.mean / math.log(2) * 15 / found.read.characters
    assert found.bits_per_character.mean == pytest.approx(bits)
    shown = str(found)
    assert "bound on -log p" in shown and "at most" in shown and "8 tokens, each on its own" in shown
    assert shown.splitlines()[-1].startswith("2-gram") and "-log p " in shown.splitlines()[-1]
    assert found.beside[0].per_token.mean < found.per_token.mean, "it has counted this very text"
    short = bound_on_text(model, ["a b"], tokenizer=tokenizer)
    assert short.read.length == 3 and short.read.windows == 1, "a text shorter than a window is judged all the same"


def test_what_cannot_be_read_is_said(letters):
    model, tokenizer = letters
    for how, said in (
        ({"windows": -1}, "windows"), ({"stride": 0}, "stride"), ({"stride": 9}, "stride"),
        ({"beside": ["3-gram"]}, "3-gram:FILE"), ({"beside": ["tales-mdlm"]}, "another vocabulary"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=said):
            bound_on_text(model, ["a b"], tokenizer=tokenizer, **how)
    with pytest.raises(ValueError, match="no word of this text"):
        bound_on_text(model, ["", " "], tokenizer=tokenizer)
    with pytest.raises(ValueError, match="fewer than 8 tokens"):
        full_windows(["a"], tokenizer, 8)
