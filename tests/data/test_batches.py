"""From documents to chunks without losing a token, and batches that resume exactly."""

import json
import os
from itertools import islice
from pathlib import Path

import datasets
import pytest
import torch
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from diffkit.data import chunks
from diffkit.data.batches import ChunkBatches, StoryBatches, StreamBatches
from diffkit.data.chunks import texts_of, tokenize_corpus
from diffkit.data.corpus import load_corpus, split_documents
from diffkit.data.tokenizer import train_tokenizer, word_level_tokenizer

STORIES = Path(__file__).parents[1] / "data" / "stories.txt"
LETTERS = "abcdefgh"
TOKENIZER = word_level_tokenizer(LETTERS)
EOS = TOKENIZER.eos_token_id


pytestmark = pytest.mark.usefixtures("own_caches")


def cached_files():
    return sorted(os.listdir(os.environ["DIFFKIT_CACHE"]))


def corpus_of(stories):
    features = datasets.Features({"text": datasets.Value("string")})
    return Dataset.from_dict({"text": [" ".join(story) for story in stories]}, features=features)


def stream_of(stories):
    """What the chunks should hold, end to end."""
    return [token for story in stories if story for token in [*TOKENIZER.encode(" ".join(story)), EOS]]


def numbered(n, length=4):
    """n chunks that can be told apart: chunk i is filled with i."""
    return Dataset.from_dict({"input_ids": [[i] * length for i in range(n)]})


def take(batches, n):
    return [batch.tolist() for batch in islice(batches, n)]


# --- chunks ---


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text(LETTERS, max_size=9), max_size=12), st.integers(1, 11))
def test_chunks_hold_every_token_in_order(stories, length):
    """Only the tail of the whole stream is missing, and an EOS stands after each document."""
    stream = stream_of(stories)
    if len(stream) < length:
        wrong = (
            f"one chunk needs {length} tokens, but this part of the text has {len(stream)}"
            if stories
            else "no documents"
        )
        with pytest.raises(ValueError, match=wrong):
            tokenize_corpus(corpus_of(stories), TOKENIZER, length)
        return
    chunks = tokenize_corpus(corpus_of(stories), TOKENIZER, length)
    assert {len(row) for row in chunks["input_ids"]} == {length}
    assert [token for row in chunks["input_ids"] for token in row] == stream[: len(stream) // length * length]


def test_no_token_is_lost_between_the_pieces_that_are_read_at_once():
    """2,500 documents are three pieces for the library underneath; the cut goes through."""
    stories = [LETTERS[: 1 + i % 8] for i in range(2500)]
    chunks = tokenize_corpus(corpus_of(stories), TOKENIZER, 7)
    stream = stream_of(stories)
    assert [token for row in chunks["input_ids"] for token in row] == stream[: len(stream) // 7 * 7]


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_several_workers_give_the_same_chunks(tmp_path):
    stories = [LETTERS[: 1 + i % 8] for i in range(300)]
    one, two = (
        tokenize_corpus(corpus_of(stories), TOKENIZER, 16, workers=workers, cache_dir=tmp_path / str(workers))
        for workers in (1, 2)
    )
    assert one["input_ids"][:] == two["input_ids"][:]


def test_the_second_time_nothing_is_tokenized(monkeypatch):
    stories = ["abc", "defg", "aaaa"]
    first = tokenize_corpus(corpus_of(stories), TOKENIZER, 4)
    files = cached_files()
    assert len(files) == 1
    monkeypatch.setattr(chunks, "_write_chunks", None)  # calling it would fail
    assert tokenize_corpus(corpus_of(stories), TOKENIZER, 4)["input_ids"][:] == first["input_ids"][:]
    assert cached_files() == files


def test_another_text_length_or_tokenizer_is_another_entry():
    other = word_level_tokenizer(LETTERS[::-1])
    tokenize_corpus(corpus_of(["abcd"]), TOKENIZER, 4)
    tokenize_corpus(corpus_of(["abce"]), TOKENIZER, 4)
    tokenize_corpus(corpus_of(["abcd"]), TOKENIZER, 5)
    reversed_ids = tokenize_corpus(corpus_of(["abcd"]), other, 4)["input_ids"][0]
    assert reversed_ids == other.convert_tokens_to_ids(list("abcd"))
    assert len(cached_files()) == 4


def test_the_key_does_not_depend_on_what_the_tokenizer_did_before():
    tokenize_corpus(corpus_of(["abcd"]), TOKENIZER, 4)
    TOKENIZER(["a b", "c"], padding=True, truncation=True, max_length=1)
    tokenize_corpus(corpus_of(["abcd"]), TOKENIZER, 4)
    assert len(cached_files()) == 1


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, OSError("no space left")])
def test_an_interrupted_run_leaves_nothing_behind(monkeypatch, interruption):
    def interrupted(*_):
        raise interruption

    with monkeypatch.context() as patch, pytest.raises(BaseException) as caught:
        patch.setattr(chunks.Cut, "__call__", interrupted)
        tokenize_corpus(corpus_of(["abcdefgh"] * 20), TOKENIZER, 4)
    assert caught.type in (KeyboardInterrupt, OSError)
    assert cached_files() == []
    assert len(tokenize_corpus(corpus_of(["abcdefgh"] * 20), TOKENIZER, 4)) == 45


def test_special_tokens_spelled_out_in_a_text_are_only_text():
    """MASK in a clean text would be impossible under every model."""
    dataset = Dataset.from_dict({"text": ["a [MASK] b [EOS] c"]})
    (row,) = tokenize_corpus(dataset, TOKENIZER, 10)["input_ids"]
    assert TOKENIZER.mask_token_id not in row and row.count(EOS) == 1 and row[-1] == EOS


@pytest.mark.parametrize("length", [3, 7, 16])
def test_documents_come_back_whole_from_chunks(length):
    """A chunk ends anywhere, also within a word: words are counted on the documents."""
    stories = [" ".join(LETTERS[: 1 + i % 8]) + " [EOS] [MASK]." for i in range(12)] + ["aaaaaaaa bbb"]
    tokenizer = train_tokenizer(stories, 262)
    chunks = tokenize_corpus(Dataset.from_dict({"text": stories}), tokenizer, length).with_format("torch")[:][
        "input_ids"
    ]
    *whole, last = texts_of(chunks, tokenizer)
    assert whole == stories[: len(whole)] and (stories + [""])[len(whole)].startswith(last)


def test_a_short_part_is_named_with_the_share_that_is_held_out(tmp_path):
    (tmp_path / "text.txt").write_text("\n".join(f"{letter} a b c" for letter in LETTERS), encoding="utf-8")
    split = split_documents(load_corpus(tmp_path / "text.txt"), validation_fraction=0.2, seed=0)
    told = f"one chunk needs 64 tokens, .* has {5 * len(split.validation)} .*8 documents.*held out.*of the text"
    with pytest.raises(ValueError, match=told):
        tokenize_corpus(split.validation, TOKENIZER, 64)


def broken(**special):
    vocab = {"a": 0, "[UNK]": 1, "b": 2, "c": 9, "[M]": 3, "[P]": 4, "[E]": 5}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel(vocab, unk_token="[UNK]")), unk_token="[UNK]", **special
    )


def test_ids_outside_the_vocabulary_are_refused():
    """The vocabulary of this tokenizer has a hole, so an id is as large as its size or larger."""
    tokenizer = broken(mask_token="[M]", pad_token="[P]", eos_token="[E]")
    with pytest.raises(ValueError, match=r"must lie in 0..6 .* span 5..9"):
        tokenize_corpus(Dataset.from_dict({"text": ["c"]}), tokenizer, 1)


def test_what_cannot_be_tokenized_is_refused():
    with pytest.raises(ValueError, match="no MASK and no PAD"):
        tokenize_corpus(corpus_of(["ab"]), broken(eos_token="[E]"), 1)
    with pytest.raises(TypeError, match="StreamBatches"):
        tokenize_corpus(corpus_of(["ab"]).to_iterable_dataset(), TOKENIZER, 1)


def test_from_a_file_to_batches():
    """The whole way, as a reader goes it, and what stood in the file can be read in the batches."""
    split = split_documents(load_corpus(STORIES), validation_fraction=0.4, seed=0)
    words = sorted({piece for row in load_corpus(STORIES) for piece in pieces(row["text"])})
    tokenizer = word_level_tokenizer(words)
    chunks = tokenize_corpus(split.train, tokenizer, 16)
    batch = next(ChunkBatches(chunks, 4, seed=0))
    assert batch.shape == (4, 16) and batch.dtype == torch.int64
    read = tokenizer.decode(chunks.with_format("torch")[:]["input_ids"].flatten())
    assert read.split("[EOS]")[0].strip() == " ".join(split.train[0]["text"].split())


def pieces(text):
    splitter = TOKENIZER.backend_tokenizer.pre_tokenizer
    return [piece for piece, _ in splitter.pre_tokenize_str(text)]


# --- batches from chunks ---


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 13), st.integers(1, 9), st.integers(0, 12), st.integers(0, 3))
def test_resuming_anywhere_equals_never_stopping(n, batch_size, stop, seed):
    straight = ChunkBatches(numbered(n), batch_size, seed)
    stopped = ChunkBatches(numbered(n), batch_size, seed)
    expected = take(straight, stop + 5)
    assert take(stopped, stop) == expected[:stop]
    resumed = ChunkBatches(numbered(n), batch_size, seed)
    resumed.load_state_dict(json.loads(json.dumps(stopped.state_dict())))
    assert take(resumed, 5) == expected[stop:]
    assert (resumed.position, resumed.epoch) == (straight.position, straight.epoch)
    assert resumed.position == (stop + 5) * batch_size


def test_every_epoch_holds_every_chunk_once_in_a_new_order():
    batches = ChunkBatches(numbered(10), 4, seed=0)
    served = [row[0] for batch in take(batches, 10) for row in batch]  # 40 chunks, four epochs
    epochs = [served[start : start + 10] for start in range(0, 40, 10)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4
    assert batches.epoch == 4 and batches.position == 40


def test_the_order_depends_on_the_seed_alone():
    assert take(ChunkBatches(numbered(30), 8, seed=1), 9) == take(ChunkBatches(numbered(30), 8, seed=1), 9)
    assert take(ChunkBatches(numbered(30), 8, seed=1), 9) != take(ChunkBatches(numbered(30), 8, seed=2), 9)


def test_a_state_of_other_batches_is_refused():
    state = ChunkBatches(numbered(7), 2, seed=0).state_dict()
    with pytest.raises(ValueError, match="chunks 7 there, 8 here"):
        ChunkBatches(numbered(8), 2, seed=0).load_state_dict(state)
    with pytest.raises(ValueError, match="seed 0 there, 1 here"):
        ChunkBatches(numbered(7), 2, seed=1).load_state_dict(state)


# --- batches of stories ---


class Dice:
    """A language of three throws."""

    def sample(self, n, rng):
        return torch.randint(1, 7, (n, 3), generator=rng)


def test_story_batches_are_endless_seeded_and_resume():
    straight = StoryBatches(Dice(), 5, seed=0)
    expected = take(straight, 12)
    assert len({str(batch) for batch in expected}) == 12
    resumed = StoryBatches(Dice(), 5, seed=0)
    resumed.load_state_dict({**straight.state_dict(), "position": 7})
    assert take(resumed, 5) == expected[7:]
    assert take(StoryBatches(Dice(), 5, seed=1), 12) != expected
    with pytest.raises(ValueError, match="batch_size 5 there, 4 here"):
        StoryBatches(Dice(), 4, seed=0).load_state_dict(straight.state_dict())


# --- batches from a stream ---


def streamed(stories, source, folder):
    """The same documents as a stream of each kind: rows of a table, a text file, rows of a json file."""
    if source == "table":
        return corpus_of(stories).to_iterable_dataset()
    if source == "filtered":
        return split_documents(corpus_of(stories).to_iterable_dataset(), validation_fraction=0.2, seed=0).train
    path = folder / f"stories.{source}"
    lines = [" ".join(story) for story in stories]
    lines = [json.dumps({"text": line}) for line in lines] if source == "jsonl" else lines
    path.write_text("\n".join(lines), encoding="utf-8")
    return load_corpus(path, streaming=True)


@pytest.mark.parametrize("source", ["table", "filtered", "txt", "jsonl"])
def test_a_stream_resumes_exactly_wherever_it_stopped(tmp_path, source):
    """Stops inside a block, between blocks and in later passes over the corpus."""
    stories = [LETTERS[: 1 + i % 8] + "abc" * (i % 3) for i in range(60)]
    dataset = streamed(stories, source, tmp_path)
    straight = StreamBatches(dataset, TOKENIZER, 7, 4, seed=0, buffer=10)
    states, expected = [straight.state_dict()], []
    for _ in range(40):
        expected += take(straight, 1)
        states.append(straight.state_dict())
    assert straight.position == 160 and straight.epoch >= 2
    for stop in (0, 1, 2, 3, 9, 17, 30):
        resumed = StreamBatches(dataset, TOKENIZER, 7, 4, seed=0, buffer=10)
        resumed.load_state_dict(json.loads(json.dumps(states[stop])))
        assert take(resumed, 6) == expected[stop : stop + 6]
        assert resumed.position == 4 * (stop + 6)


def test_a_stream_holds_every_token_of_every_pass():
    """A block that is as large as one pass holds the chunks of that pass, in another order."""
    stories = [LETTERS[i:] + LETTERS[:i] for i in range(7)] * 4  # 28 x 9 tokens = 36 chunks of 7
    batches = StreamBatches(corpus_of(stories).to_iterable_dataset(), TOKENIZER, 7, 6, seed=0, buffer=36)
    stream = stream_of(stories)
    chunks = sorted(stream[i : i + 7] for i in range(0, len(stream), 7))
    first, second = ([row for batch in take(batches, 6) for row in batch] for _ in range(2))
    assert sorted(first) == sorted(second) == chunks
    assert first != second and next(batches).dtype == torch.int64


def test_a_stream_that_is_too_short_is_refused():
    for stories in (["ab", "c"], ["", ""]):
        batches = StreamBatches(corpus_of(stories).to_iterable_dataset(), TOKENIZER, 6, 2, seed=0)
        with pytest.raises(ValueError, match="one chunk needs 6 tokens"):
            next(batches)


def test_a_state_of_another_stream_is_refused():
    make = dict(dataset=corpus_of(["abcd"]).to_iterable_dataset(), tokenizer=TOKENIZER, batch_size=2, seed=0)
    state = StreamBatches(**make, length=4).state_dict()
    with pytest.raises(ValueError, match="length 4 there, 5 here"):
        StreamBatches(**make, length=5).load_state_dict(state)
