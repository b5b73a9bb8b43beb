"""Texts from files and by name, one document a row, and a split that no document crosses."""

import json

import datasets
import pytest
from datasets import Dataset
from huggingface_hub import HfApi
from hypothesis import given, settings
from hypothesis import strategies as st

from diffkit.data import corpus
from diffkit.data.corpus import CORPORA, load_corpus, split_documents

STORIES = [
    "Nora found a key.",
    "Otto saw the sea.\nIt was a puddle.",
    "A dog counted to three.",
    "The kite came down.",
]


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path_factory):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("hf"))


def write_text(folder, text, name="stories.txt"):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def texts(dataset):
    return [row["text"] for row in dataset]


def write(folder, kind):
    """The same stories in each of the formats."""
    path = folder / f"stories.{kind}"
    if kind == "txt":
        path.write_text("\n<|endoftext|>\n".join(STORIES), encoding="utf-8")
    elif kind == "jsonl":
        path.write_text("".join(json.dumps({"id": 1, "text": story}) + "\n" for story in STORIES), encoding="utf-8")
    elif kind == "json":
        path.write_text(json.dumps([{"text": story} for story in STORIES]), encoding="utf-8")
    else:
        Dataset.from_dict({"text": STORIES, "stars": [1, 2, 3, 4]}).to_parquet(path)
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
    folder = tmp_path / "my [odd] folder"
    (folder / "more").mkdir(parents=True)
    first = write(folder, kind)
    first.rename(folder / f"a.{kind}")
    write(folder / "more", kind)
    (folder / "README.md").write_text("not a story", encoding="utf-8")
    assert texts(load_corpus(folder)) == STORIES * 2


@pytest.mark.parametrize(
    ("text", "documents"),
    [
        ("one\n\ntwo\n <|endoftext|> \nthree\n<|endoftext|>\n<|endoftext|>\n", ["one\n\ntwo", "three"]),
        ("one\ntwo\n\n \n\nthree\n\n", ["one\ntwo", "three"]),
        ("one\r\ntwo\r\n\r\nthree", ["one\ntwo", "three"]),
        ("one\ntwo\nthree", ["one", "two", "three"]),
        ("\ufeffone", ["one"]),
    ],
)
def test_where_a_document_of_a_text_file_ends(tmp_path, text, documents):
    path = tmp_path / "stories.txt"
    path.write_bytes(text.encode("utf-8"))
    assert texts(load_corpus(path)) == documents


def test_a_text_that_changed_is_read_again(tmp_path):
    path = write_text(tmp_path, "one\ntwo")
    before = load_corpus(path)
    again = load_corpus(path.rename(tmp_path / "renamed.txt"))
    assert again._fingerprint == before._fingerprint
    assert texts(load_corpus(write_text(tmp_path, "one\nbut"))) == ["one", "but"]


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
        ("cut.jsonl", b'{"text": "one"}\n{"text": "tw', "cannot be read as json.* row 1"),
        ("mixed.jsonl", b'{"text": "one"}\n{"text": 2}\n', "something else in a later row"),
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
