"""Texts to chunks of ids: tokenized, joined into one stream with an EOS after each document, cut to equal length.

No chunk holds PAD, so a bound on the chunks is a bound on the stream.
"""

from __future__ import annotations

import json
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, Features, IterableDataset, List, Value
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from diffkit.data.tokenizer import special_ids, text_ids
from diffkit.io import write_once
from diffkit.paths import cache_folder, user_path


def tokenize_corpus(
    dataset: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    length: int,
    *,
    workers: int = 1,
    cache_dir: str | Path | None = None,
) -> Dataset:
    """Tokenize documents, join them with an EOS after each, and cut the stream into chunks of `length` tokens.

    No token is lost between chunks; only the tail of the whole stream, shorter than one chunk, is dropped. Empty
    documents are skipped. A special token spelled out inside a text is read as plain characters. The result is kept on
    disk under a key made of the text, the tokenizer and the length; it appears there in one move when it is whole.

    Args:    length: tokens in a chunk. workers: processes; with 1 a fast tokenizer still uses all cores.
             cache_dir: default $DIFFKIT_CACHE, else ~/.cache/diffkit.
    Returns: rows of one column `input_ids`, `length` int32 each, memory-mapped.
    Raises:  ValueError if all the text is shorter than one chunk, or the tokenizer lacks MASK, PAD or EOS, or gives
             an id outside its vocabulary; TypeError for a streamed corpus (use StreamBatches).
    """
    if isinstance(dataset, IterableDataset):
        raise TypeError("tokenize_corpus: needs a corpus on disk, but this one is streamed. Use StreamBatches for it.")
    encode, cut = Encode(tokenizer), Cut(tokenizer, length)
    key = blake2b(f"{dataset._fingerprint} {_rules(tokenizer)} {length}".encode(), digest_size=16).hexdigest()
    home = user_path(cache_dir) if cache_dir else cache_folder()
    path = home / f"chunks-{key}.arrow"
    write_once(path, lambda scratch: _write_chunks(dataset, encode, cut, workers, scratch))
    return Dataset.from_file(str(path))


def _write_chunks(dataset: Dataset, encode: Encode, cut: Cut, workers: int, scratch: Path) -> Path:
    """Documents to ids, in parallel; then one pass over the stream that carries the rest of each piece to the next."""
    if len(dataset) == 0:
        raise ValueError("tokenize_corpus: the corpus has no documents. Check the file, the split and the limit.")
    stream = dataset.map(
        encode,
        desc="tokenizing",
        batched=True,
        num_proc=workers if workers > 1 else None,
        remove_columns=dataset.column_names,
        features=Features({"ids": List(Value("int32"))}),
        cache_file_name=str(scratch / "stream.arrow"),
        new_fingerprint="stream",  # nothing is looked up by it: both files live only until the move
    )
    chunks = stream.with_format("arrow").map(
        lambda table: {"input_ids": cut(table["ids"].combine_chunks().flatten().to_numpy())},
        desc="cutting",
        batched=True,
        remove_columns=["ids"],
        features=Features({"input_ids": List(Value("int32"), length=cut.length)}),
        cache_file_name=str(scratch / "chunks.arrow"),
        new_fingerprint="chunks",
    )
    if len(chunks) == 0:
        raise ValueError(
            f"tokenize_corpus: one chunk needs {cut.length} tokens, but this part of the text has {len(cut.rest)} "
            f"({dataset.info.description or 'all of it'}). More text, another share held out, or shorter chunks help."
        )
    return scratch / "chunks.arrow"


class Encode:
    """Rows of text to rows of ids, an EOS after each document."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        self.tokenizer, self.eos = tokenizer, special_ids(tokenizer).eos

    def __call__(self, rows: dict[str, list[str]]) -> dict[str, list[list[int]]]:
        texts = [text for text in rows["text"] if text and text.strip()]
        return {"ids": [[*document, self.eos] for document in text_ids(texts, self.tokenizer)]}


class Cut:
    """A stream of ids that arrives in pieces, to chunks of equal length; `rest` is what fills no chunk yet."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, length: int):
        self.vocab, self.mask, self.length = len(tokenizer), special_ids(tokenizer).mask, length
        self.rest = np.empty(0, dtype=np.int32)

    def __call__(self, ids: np.ndarray) -> np.ndarray:  # (n,) -> (chunks, length)
        if ids.size and (ids.min() < 0 or ids.max() >= self.vocab or (ids == self.mask).any()):
            raise ValueError(
                f"tokenize: ids of a text must lie in 0..{self.vocab - 1} and never be MASK ({self.mask}), but they "
                f"span {ids.min()}..{ids.max()}. Does the tokenizer fit its vocabulary?"
            )
        ids = np.concatenate([self.rest, ids])
        whole = len(ids) // self.length * self.length
        self.rest = ids[whole:].copy()
        return ids[:whole].reshape(-1, self.length)


def texts_of(chunks: Tensor, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """The documents in chunks (N, L) of one stream; a document goes on from a chunk to the next."""
    ids = chunks.flatten()
    ends = (ids == tokenizer.eos_token_id).nonzero().flatten() + 1
    return tokenizer.batch_decode([piece.tolist() for piece in ids.tensor_split(ends.cpu())], skip_special_tokens=True)


def _rules(tokenizer: PreTrainedTokenizerBase) -> str:
    """Everything that decides how the tokenizer turns a text into ids, as one string."""
    rules: Any = sorted(tokenizer.get_vocab().items())
    if tokenizer.is_fast:
        rules = json.loads(tokenizer.backend_tokenizer.to_str()) | {"truncation": None, "padding": None}
    return json.dumps([type(tokenizer).__name__, rules, special_ids(tokenizer)])
