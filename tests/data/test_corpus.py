"""Texts from files and by name, one document a row, and a split that no document crosses."""

import bz2
import errno
import gzip
import json
import lzma
import os
import resource

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset
from huggingface_hub import HfApi
from hypothesis import given, settings
from hypothesis import strategies as st

from diffkit.data import corpus
from diffkit.data.chunks import tokenize_corpus
from diffkit.data.corpus import CORPORA, load_corpus, shadowed, split_documents
from diffkit.data.tokenizer import load_tokenizer, word_level_tokenizer

STORIES = ["Nora found a key.", "Otto saw the sea.\nIt was a puddle.", "A dog counted to three.", "The kite came down."]


pytestmark = pytest.mark.usefixtures("own_caches")


def write_text(folder, text, name="stories.txt"):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def texts(dataset):
    return [row["text"] for row in dataset]


def write(folder, kind, stories=STORIES):
    """The same stories in each of the formats."""
    path = folder / f"stories.{kind}"
    if kind == "txt":
        path.write_text("\n<|endoftext|>\n".join(stories), encoding="utf-8")
    elif kind == "jsonl":
        path.write_text("".join(json.dumps({"id": 1, "text": story}) + "\n" for story in stories), encoding="utf-8")
    elif kind == "json":
        path.write_text(json.dumps([{"text": story} for story in stories]), encoding="utf-8")
    else:
        Dataset.from_dict({"text": stories, "stars": [1, 2, 3, 4]}).to_parquet(path)
    return path


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("kind", ["txt", "jsonl", "json", "parquet"])
def test_every_format_gives_the_same_documents(tmp_path, kind, streaming):
    path = write(tmp_path, kind)
    dataset = load_corpus(path, streaming=streaming)
    assert texts(dataset) == STORIES
    assert set(next(iter(dataset))) == {"text"}
    assert texts(load_corpus(str(path), streaming=streaming, limit=3)) == STORIES[:3]
    assert texts(load_corpus(path, streaming=streaming, limit=99)) == STORIES


@pytest.mark.parametrize("kind", ["txt", "jsonl"])
def test_a_folder_is_its_files_in_order_and_a_file_ends_a_document(tmp_path, kind):
    folder = tmp_path / "my [odd] ::folder"
    (folder / "more").mkdir(parents=True)
    first = write(folder, kind)
    first.rename(folder / f"a.{kind}")
    last = "and an end" if kind == "txt" else json.dumps({"text": "and an end"})
    write_text(folder / "more", last, f"b.{kind}")
    assert texts(load_corpus(folder)) == [*STORIES, "and an end"]


PACK = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}
PACK[".zst"] = lambda content: pa.Codec("zstd").compress(content, asbytes=True)


@pytest.mark.parametrize("kind", ["txt", "jsonl"])
def test_compressed_files_are_read_and_what_is_left_out_is_named(tmp_path, kind):
    """Half of a folder of shards was left out without a word where they were compressed."""
    for i, (ending, pack) in enumerate(PACK.items()):
        line = f"story {i}" if kind == "txt" else json.dumps({"text": f"story {i}"})
        (tmp_path / f"part-{i}.{kind}{ending}").write_bytes(pack(f"{line}\n".encode()))
    (tmp_path / f"copy.{kind}.gz").write_bytes((tmp_path / f"part-1.{kind}.gz").read_bytes())
    (tmp_path / f"twin.{kind}.xz").write_bytes(lzma.compress((tmp_path / f"part-0.{kind}").read_bytes()))
    (tmp_path / ".checkpoints").mkdir()
    for name in (f".checkpoints/part-0.{kind}", f"._part-0.{kind}", "README.md"):
        (tmp_path / name).write_text("not a story", encoding="utf-8")
    (tmp_path / f"lost.{kind}").symlink_to("nowhere")
    dataset = load_corpus(tmp_path)
    assert sorted(texts(dataset)) == [f"story {i}" for i in range(5)]
    told = dataset.info.description
    assert "read 5 files" in told and "5 documents, one a" in told
    left_out = [f"part-1.{kind}.gz (the same as copy.{kind}.gz)", "README.md (of another kind)", f"lost.{kind} (a link"]
    left_out += ["3 hidden", f"twin.{kind}.xz (the same as part-0.{kind})"]
    assert [each for each in left_out if each not in told] == []
    assert texts(load_corpus(tmp_path / f"part-4.{kind}.zst")) == ["story 4"]
    (tmp_path / f"part-1.{kind}.gz").write_bytes(gzip.compress(b"text" * 99)[:-9])
    with pytest.raises(ValueError, match="part-1.* cannot be read"):
        load_corpus(tmp_path)


@pytest.mark.parametrize(
    ("text", "documents", "how"),
    [
        ("one\n\ntwo\n <|endoftext|> \nthree\n<|endoftext|>\n<|endoftext|>\n", ["one\n\ntwo", "three"], "<|endoft"),
        ("one\ntwo\n\n \n\nthree\n\n", ["one\ntwo", "three"], "2 documents, ended by blank lines"),
        ("one\r\ntwo\r\n\r\nthree", ["one\ntwo", "three"], "by blank lines"),
        ("one\ntwo\nthree", ["one", "two", "three"], "3 documents, one a line"),
        ("one\rtwo\r<|endoftext|>\rthree\r", ["one\ntwo", "three"], "<|endoftext|>"),  # old Macs
        ("one\rtwo\r\rthree\r", ["one\ntwo", "three"], "by blank lines"),
        ("\ufeffone", ["one"], "1 document"),
        ("\ufeff<|endoftext|>\none\n\ntwo", ["one\n\ntwo"], "<|endoftext|>"),
        ("one\u2028two\x0cthree\x85\nfour", ["one\u2028two\x0cthree", "four"], "one a line"),
    ],
)
def test_where_a_document_of_a_text_file_ends(tmp_path, text, documents, how):
    path = tmp_path / "stories.txt"
    path.write_bytes(text.encode("utf-8"))
    for streaming in (False, True):
        assert texts(load_corpus(path, streaming=streaming)) == documents
    assert how in load_corpus(path).info.description


@pytest.mark.parametrize("kind", ["txt", "jsonl", "json", "parquet"])
def test_a_file_that_was_replaced_is_read_again(tmp_path, kind):
    """Also by one of the same name, size and time; the same content under another name is the same corpus."""
    before = load_corpus(write(tmp_path, kind))
    path = write(tmp_path, kind, [story.replace("a", "o") for story in STORIES])
    os.utime(path, (1e9, 1e9))
    assert texts(load_corpus(path))[0] == "Noro found o key." and texts(before) == STORIES
    again = load_corpus(write(tmp_path, kind).rename(tmp_path / f"renamed.{kind}"))
    assert again._fingerprint == before._fingerprint and texts(again) == STORIES


def test_only_the_text_is_asked_of_a_row_and_rows_without_it_are_counted(tmp_path):
    """Extra columns, other orders, texts that look like dates, and null are no fault."""
    rows = [{"text": "2024-01-01"}, {"id": 1}, {"text": None}, {"text": " "}, {"text": "2024-01-02", "id": 2}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    (tmp_path / "b.json").write_text(json.dumps([{"url": "u", "text": "2024-01-03"}]), encoding="utf-8")
    dataset = load_corpus(tmp_path)
    assert texts(dataset) == ["2024-01-01", "2024-01-02", "2024-01-03"]
    assert "3 documents, one a row; 3 of 6 rows have no text" in dataset.info.description
    assert texts(load_corpus(tmp_path, streaming=True)) == texts(dataset)


@pytest.mark.parametrize("kind", [pa.string_view(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())], ids=str)
def test_every_kind_of_string_in_parquet_is_text(tmp_path, kind):
    first, second = (pa.array(part, kind) for part in (STORIES[:2], [None, *STORIES[2:]]))
    pq.write_table(pa.table({"text": first}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"id": [1, 2, 3], "text": second}), tmp_path / "b.parquet")
    dataset = load_corpus(tmp_path)
    assert texts(dataset) == STORIES and "1 of 5 rows have no text" in dataset.info.description


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path, monkeypatch):
    path = write_text(tmp_path, "\n".join(f"story {i} {'and so on ' * 9}" for i in range(900)))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, limits[1]))
    try:
        with pytest.raises(OSError, match="cannot be written .*Make room"):
            load_corpus(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert os.listdir(os.environ["DIFFKIT_CACHE"]) == [] and len(load_corpus(path)) == 900

    def full(*_, **__):
        raise RuntimeError("while writing") from OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(HfApi, "dataset_info", lambda *_, **__: None)
    monkeypatch.setattr(corpus.datasets, "load_dataset", full)
    with pytest.raises(OSError, match="cannot be kept on the disk") as caught:
        load_corpus("tinystories")
    assert not isinstance(caught.value, ConnectionError)  # the Hub is not at fault


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
    """Where no shell has replaced it: in a file of settings, or of environment variables."""
    (tmp_path / "home").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DIFFKIT_CACHE", "~/kept")
    write(tmp_path / "home", "txt")
    tokenizer = word_level_tokenizer(["a", "dog"])
    tokenizer.save_pretrained(tmp_path / "home" / "words")
    assert len(load_tokenizer("~/words")) == len(tokenizer)
    tokenize_corpus(load_corpus("~/stories.txt"), tokenizer, 4)
    tokenize_corpus(load_corpus("~/stories.txt"), tokenizer, 4, cache_dir="~/other")
    assert len([*tmp_path.glob("home/kept/*.arrow")]) == 2 and len([*tmp_path.glob("home/other/*.arrow")]) == 1
    assert not (tmp_path / "~").exists()


def test_a_folder_named_like_a_corpus_is_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    hub_with(monkeypatch, Dataset.from_dict({"text": STORIES}))
    assert "4 documents" in load_corpus("tinystories").info.description and shadowed("micro") == ""
    (tmp_path / "tinystories").mkdir()
    assert "./tinystories" in load_corpus("tinystories").info.description


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.txt", b"", "is empty"),
        ("empty.jsonl", b"", "is empty"),
        ("blank.txt", b"\n \n\n", "holds no documents"),
        ("latin.txt", "one\ncaf\xe9".encode("latin-1"), "line 2 holds other bytes"),
        ("binary.txt", b"one\n\x00\x01\x02", "line 2 holds other bytes"),
        ("binary.jsonl", b"\x00\xff\x80\x81", "line 1 holds other bytes"),
        ("latin.jsonl", '{"text": "one"}\n{"text": "caf\xe9"}\n'.encode("latin-1"), "line 2 holds other bytes"),
        ("cut.jsonl", b'{"text": "one"}\n{"text": "tw', "cannot be read as json .line 2"),
        ("mixed.jsonl", b'{"text": "one"}\n{"text": 2}\n', "row 2 has 2 as its text"),
        ("pair.jsonl", b'{"text": "\\ud800"}\n', "surrogates not allowed"),
        ("field.jsonl", b'{"id": 3, "story": "one"}\n', "but rows hold id, story"),
        ("binary.parquet", b"not parquet at all", "cannot be read as parquet"),
        ("stories.docx", b"text", "files of one kind"),
    ],
)
def test_files_that_hold_no_text_are_refused(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        load_corpus(tmp_path / name)
    assert name in str(caught.value)


def test_folders_of_no_kind_and_of_two_kinds_are_refused(tmp_path):
    with pytest.raises(ValueError, match="there is none"):
        load_corpus(tmp_path)
    write(tmp_path, "txt"), write(tmp_path, "jsonl")
    with pytest.raises(ValueError, match="there is json and text"):
        load_corpus(tmp_path)


def test_a_missing_file_is_refused():
    with pytest.raises(FileNotFoundError, match="tinystories, wikitext-2, openwebtext"):
        load_corpus("no-such-corpus")


def test_a_split_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(ValueError, match="split_documents"):
        load_corpus("openwebtext", "validation")
    with pytest.raises(ValueError, match="train"):
        load_corpus(write(tmp_path, "txt"), "test")


@pytest.mark.parametrize("name", CORPORA)
def test_without_a_network_the_error_names_the_corpus_and_two_ways_out(monkeypatch, name):
    def unreachable(*_, **__):
        raise ConnectionError("no network")

    monkeypatch.setattr(HfApi, "dataset_info", unreachable)
    with pytest.raises(ConnectionError, match=CORPORA[name].repository) as caught:
        load_corpus(name)
    assert "local .txt" in str(caught.value) and "'tales'" in str(caught.value)
    assert not datasets.config.HF_HUB_OFFLINE  # the setting is put back


def hub_with(monkeypatch, answer):
    """A hub that answers every request for a data set with `answer`; returns the requests."""
    requests = []
    monkeypatch.setattr(HfApi, "dataset_info", lambda *_, **__: None)
    monkeypatch.setattr(
        corpus.datasets, "load_dataset", lambda *place, **options: requests.append((place, options)) or answer
    )
    return requests


def test_named_corpora_are_asked_for_as_the_table_says(monkeypatch):
    rows = Dataset.from_dict({"text": STORIES})
    requests = hub_with(monkeypatch, rows)
    assert texts(load_corpus("tinystories", "validation", limit=2)) == STORIES[:2]
    assert requests == [(("roneneldan/TinyStories", None), {"split": "validation", "streaming": False})]
    requests = hub_with(monkeypatch, rows.to_iterable_dataset())
    assert texts(load_corpus("openwebtext", limit=2)) == STORIES[:2]
    assert requests == [(("Skylion007/openwebtext", None), {"split": "train", "streaming": True})]


@pytest.mark.parametrize("streaming", [False, True])
def test_lines_of_wikitext_become_articles(monkeypatch, streaming):
    lines = ["", " = Pear = \n", "", " A fruit . \n", " = = Uses = = \n", " Pie . \n", " = Key = \n", " Of brass . \n"]
    rows = Dataset.from_dict({"text": lines})
    hub_with(monkeypatch, rows.to_iterable_dataset() if streaming else rows)
    pear, key = texts(load_corpus("wikitext-2", streaming=streaming))
    assert pear.startswith("= Pear =") and pear.endswith("Pie .") and "= = Uses = =" in pear
    assert key == "= Key = \n Of brass ."


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.sampled_from([f"{space}tale{space}{i}{space}" for i in range(12) for space in (" ", "\n")])),
    st.floats(0.05, 0.95),
    st.integers(0, 5),
)
def test_no_document_is_on_both_sides_and_none_is_lost(stories, share, seed):
    distinct = {" ".join(story.split()) for story in stories}
    dataset = Dataset.from_dict({"text": stories})
    try:
        split = split_documents(dataset, validation_fraction=share, seed=seed)
    except ValueError:  # one side is empty
        return
    train, validation = ({" ".join(text.split()) for text in texts(side)} for side in split)
    assert not train & validation and train | validation == distinct
    assert sorted(texts(split.train) + texts(split.validation)) == sorted(stories)
    n, size = (sum(map(count, texts(split.validation))) for count in (lambda _: 1, len))
    told = f"{n} held out, {size / sum(map(len, stories)):.1%} of the text"
    assert told in split.train.info.description and told in split.validation.info.description


def test_a_fraction_is_a_share_and_is_stable_as_the_corpus_grows():
    stories = [f"story {i}" for i in range(2000)]
    small = split_documents(Dataset.from_dict({"text": stories[:1000]}), validation_fraction=0.1, seed=3)
    large = split_documents(Dataset.from_dict({"text": stories}), validation_fraction=0.1, seed=3)
    assert 150 < len(large.validation) < 250  # 200 +- 13.4 at one standard deviation
    assert set(texts(small.train)) < set(texts(large.train))
    streamed = split_documents(
        Dataset.from_dict({"text": stories}).to_iterable_dataset(), validation_fraction=0.1, seed=3
    )
    assert texts(streamed.train) == texts(large.train) and texts(streamed.validation) == texts(large.validation)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_split_without_two_sides_is_refused(share):
    dataset = Dataset.from_dict({"text": STORIES})
    for each in (dataset, dataset.to_iterable_dataset()):
        with pytest.raises(ValueError, match="split_documents"):
            split_documents(each, validation_fraction=share, seed=0)


def test_a_stray_blank_line_is_told(tmp_path):
    """A document a line and one blank line among 400: two documents, which the line of account says."""
    path = write_text(tmp_path, "\n".join(["a tale"] * 200 + [""] + ["another"] * 200))
    dataset, told = load_corpus(path), set()
    for seed in range(40):
        try:
            told.add(split_documents(dataset, validation_fraction=0.1, seed=seed).train.info.description[-60:])
        except ValueError as error:
            told.add(str(error)[50:90])
            assert "2 documents, ended by blank lines" in str(error)
    assert any("1 held out, 46.7% of the text" in each or "1 held out, 53.3% of the text" in each for each in told)
