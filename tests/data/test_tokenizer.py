"""Words to ids and back, and what load_tokenizer promises about MASK, PAD and EOS."""

import copy
import json
import time

import pytest
from huggingface_hub import HfApi
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from diffkit.data.chunks import Encode
from diffkit.data.tokenizer import (
    LONG_RUN,
    SpecialIds,
    canvas_from_text,
    load_tokenizer,
    special_ids,
    train_tokenizer,
    word_level_tokenizer,
)

WORDS = "Ida Otto dog the The ran said don't well-known café 's . , ! ? ; : \" ' - ( ) “ ”".split()
TOKENIZER = word_level_tokenizer(WORDS)


def foreign(folder, words=("the", "dog"), **special):
    """Write a tokenizer that has only the special tokens it is given, as a folder."""
    vocab = {word: i for i, word in enumerate([*special.values(), "<unk>", *words])}
    inner = Tokenizer(WordLevel(vocab, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>", **special).save_pretrained(folder)
    return folder


def test_ids_are_the_specials_and_then_the_words_in_order():
    assert TOKENIZER.convert_ids_to_tokens(range(len(TOKENIZER))) == ["[PAD]", "[MASK]", "[EOS]", "[UNK]", *WORDS]
    assert special_ids(TOKENIZER) == SpecialIds(mask=1, pad=0, eos=2)
    assert TOKENIZER.unk_token_id == 3


@pytest.mark.parametrize(
    "text",
    [
        "Ida's dog ran. The dog said, don't!",
        '"Otto ran," said Ida. Ida said, "The well-known dog ran!"',
        "“Otto ran?” said Ida (the dog).",
        "The dog [MASK], said [MASK]. [EOS] [PAD] [PAD]",
        "the café: Otto; Ida - the dog's.",
    ],
)
def test_decoding_writes_ordinary_english(text):
    assert TOKENIZER.decode(TOKENIZER.encode(text)) == text
    assert TOKENIZER.unk_token_id not in TOKENIZER.encode(text)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from([0, 1, 2, *range(4, len(TOKENIZER))]), max_size=30))
def test_any_ids_survive_the_way_through_text(ids):
    assert TOKENIZER.encode(TOKENIZER.decode(ids)) == ids


def test_case_and_unknown_words():
    assert TOKENIZER.encode("the The THE zebra") == [*TOKENIZER.convert_tokens_to_ids(["the", "The"]), 3, 3]


def test_nothing_is_added_around_a_text():
    batch = TOKENIZER(["the dog", "ran"], padding=True)
    assert batch["input_ids"][1] == [TOKENIZER.convert_tokens_to_ids("ran"), 0]
    assert set(batch) == {"input_ids", "attention_mask"}


@pytest.mark.parametrize("word", ["the dog", " dog", "", "dog.", "Ida's", "..", "\n"])
def test_a_word_that_reading_would_cut_is_refused(word):
    with pytest.raises(ValueError, match="must be one word or one mark"):
        word_level_tokenizer(["cat", word])


@pytest.mark.parametrize("words", [["dog", "cat", "dog"], ["[MASK]"]])
def test_a_repeated_word_is_refused(words):
    with pytest.raises(ValueError, match="may appear once"):
        word_level_tokenizer(words)


def test_saved_and_loaded_it_is_the_same(tmp_path):
    TOKENIZER.save_pretrained(tmp_path)
    text = "Ida's dog said, \"don't [MASK]!\" [EOS] [PAD]"
    for again in (AutoTokenizer.from_pretrained(tmp_path), load_tokenizer(tmp_path), load_tokenizer(str(tmp_path))):
        assert again.get_vocab() == TOKENIZER.get_vocab()
        assert again.decode(again.encode(text)) == text
        assert special_ids(again) == special_ids(TOKENIZER)


def test_a_tokenizer_does_not_remember_where_it_was_found(tmp_path):
    """transformers would save that it came from this disk, and whoever fetched it from the Hub would read that."""
    TOKENIZER.save_pretrained(tmp_path)
    load_tokenizer(tmp_path).save_pretrained(tmp_path / "again")
    first, again = (
        json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        for folder in (tmp_path, tmp_path / "again")
    )
    assert not {"is_local", "local_files_only"} & {*again} and first.keys() >= {"mask_token"} <= again.keys()


def test_a_separator_serves_as_eos(tmp_path):
    """As in BERT, which has [SEP] and no EOS: the vocabulary does not grow."""
    foreign(tmp_path / "bert", mask_token="[MASK]", pad_token="[PAD]", sep_token="[SEP]")
    tokenizer = load_tokenizer(tmp_path / "bert")
    assert special_ids(tokenizer).eos == tokenizer.sep_token_id
    assert len(tokenizer) == len(AutoTokenizer.from_pretrained(tmp_path / "bert"))


def test_missing_tokens_are_added_and_the_vocabulary_grows(tmp_path):
    """As in GPT-2, which has only <|endoftext|>."""
    foreign(tmp_path / "gpt", eos_token="<|endoftext|>")
    size = len(AutoTokenizer.from_pretrained(tmp_path / "gpt"))
    tokenizer = load_tokenizer(tmp_path / "gpt")
    assert len(tokenizer) == size + 2
    assert tokenizer.convert_ids_to_tokens(special_ids(tokenizer)) == ["[MASK]", "[PAD]", "<|endoftext|>"]
    tokenizer.save_pretrained(tmp_path / "again")
    assert special_ids(load_tokenizer(tmp_path / "again")) == special_ids(tokenizer)


def test_special_ids_says_what_is_missing(tmp_path):
    plain = AutoTokenizer.from_pretrained(foreign(tmp_path, pad_token="[PAD]"))
    with pytest.raises(ValueError, match="no MASK and no EOS"):
        special_ids(plain)


def test_mask_must_be_a_token_of_its_own(tmp_path):
    with pytest.raises(ValueError, match="MASK must be a token of its own"):
        load_tokenizer(foreign(tmp_path, mask_token="<s>", pad_token="<s>", eos_token="</s>"))


def test_a_config_without_a_vocabulary_is_no_tokenizer(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}', encoding="utf-8")
    with pytest.raises(ValueError, match="no words"):
        load_tokenizer(tmp_path)


def test_a_folder_without_a_tokenizer_is_named(tmp_path):
    with pytest.raises(ValueError, match="holds no tokenizer"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("name", ["diffkit-tests/no-such-tokenizer", "./no/such/folder"])
def test_without_a_network_the_error_names_the_ways_out(monkeypatch, name):
    def unreachable(*_, **__):
        raise ConnectionError("no network")

    monkeypatch.setattr(HfApi, "model_info", unreachable)
    with pytest.raises(OSError, match="no network") as caught:
        load_tokenizer(name)
    for part in (name, "local folder", "'tales'", "cache"):
        assert part in str(caught.value)


# ---------------------------------------------------------------------------------------------------- learned from text

STORIES = ["The dog found a red ball.", "The dog ran home with the red ball!", "A dog, a ball and a bone."] * 5
LEARNED = train_tokenizer(STORIES, 290)


@settings(max_examples=60)
@given(st.text())
def test_a_learned_tokenizer_gives_every_text_back(text):
    """Bytes know every sign, in every script; text that spells a special token is that token."""
    if not any(token in text for token in ("[PAD]", "[MASK]", "[EOS]")):
        assert LEARNED.decode(LEARNED.encode(text)) == text


def test_what_is_frequent_becomes_one_piece():
    assert len(LEARNED) == 290 and special_ids(LEARNED) == SpecialIds(mask=1, pad=0, eos=2)
    assert len(LEARNED.encode("The dog")) == 2 and len(LEARNED.encode("Xylophone")) >= 7
    assert train_tokenizer(STORIES, 290).get_vocab() == LEARNED.get_vocab()


def test_a_learned_tokenizer_is_saved_and_loaded(tmp_path):
    LEARNED.save_pretrained(tmp_path)
    again = load_tokenizer(tmp_path)
    assert again.get_vocab() == LEARNED.get_vocab() and again.encode("The dog[EOS]") == LEARNED.encode("The dog[EOS]")


@pytest.mark.parametrize("text", ["[MASK] a [PAD]", "a<|endoftext|>b", "a [EOS] [SEP] b"])
@pytest.mark.parametrize("eos", ["[EOS]", "<|endoftext|>", "[SEP]"])
def test_a_special_token_spelled_out_is_text(text, eos):
    """In a corpus as in a prompt; only ___ is MASK, and only `complete` writes EOS and PAD."""
    tokenizer = copy.deepcopy(LEARNED)
    tokenizer.add_special_tokens({"eos_token": eos})
    mask, pad, end = special_ids(tokenizer)
    (ids,) = canvas_from_text(f"{text} ___ c", tokenizer, 60, complete=True).tolist()
    words = [i for i in ids if i != pad]
    assert words.count(mask) == words.count(end) == 1 and words[-1] == end
    assert tokenizer.decode(words[: words.index(mask)]) == text
    (row,) = Encode(tokenizer)({"text": [text]})["ids"]
    assert row[-1] == end and not {mask, pad, end} & {*row[:-1]} and tokenizer.decode(row[:-1]) == text


@pytest.mark.parametrize("run", [".", "ab", " ", "\n"])
def test_a_long_run_costs_no_more_than_its_length(run):
    """A word of 300 kB, a row of dots, an empty page: merging in one piece takes the square of its length."""
    began, long = time.monotonic(), run * (300_000 // len(run))
    learned = train_tokenizer([*STORIES, f"a {long} b", long], 290)
    assert time.monotonic() - began < 20  # 35 s on a fast machine before
    assert learned.decode(learned.encode(long[:2500])) == long[:2500]
    pieces = LONG_RUN.split(f"a {long} b")
    assert "".join(pieces) == f"a {long} b" and max(map(len, pieces)) < 2000


def test_a_vocabulary_below_the_bytes_or_no_text_is_refused():
    with pytest.raises(ValueError, match="vocab_size must be at least 259"):
        train_tokenizer(STORIES, 258)
    with pytest.raises(ValueError, match="the texts are empty"):
        train_tokenizer([], 300)
