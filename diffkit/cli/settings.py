"""A whole run as plain settings, and `build`, the one function that sees all of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from datasets import Dataset, IterableDataset
from jsonargparse import ArgumentParser
from torch import Generator, Tensor
from transformers import PreTrainedTokenizerBase

from diffkit.cli import plain_yaml
from diffkit.data.batches import Batches, ChunkBatches, StoryBatches, StreamBatches, fixed_batches
from diffkit.data.chunks import tokenize_corpus
from diffkit.data.corpus import CORPORA, load_corpus, split_documents
from diffkit.data.tokenizer import load_tokenizer, special_ids, train_tokenizer
from diffkit.evaluation.bounds import nelbo
from diffkit.io import atomic_folder
from diffkit.languages.story_language import StoryLanguage, endings, load_language
from diffkit.languages.tales import GRAMMARS
from diffkit.model import DiffusionModel, build_model, start_from
from diffkit.network.transformer import SIZES, TIMES
from diffkit.processes import PROCESSES, process_from
from diffkit.processes.d3pm import REVERSES
from diffkit.processes.masked import WEIGHTS
from diffkit.processes.schedules import get_schedule
from diffkit.processes.transitions import LIMITS, TRANSITIONS
from diffkit.training.config import MOST, TrainConfig, refuse_null

MOST_TOKENS = {"batch_size": 2**24, "validation_sequences": 2**26}  # in so many sequences; no machine holds more
MOST_WORKERS, MOST_WIDTH = 1024, 4096
VALIDATION_SEED = 12345  # of the masks, and of the fresh stories: the same at every check, and in every run


@dataclass(frozen=True)
class DataSettings:
    """What the model reads.

    Args:
        corpus: a built-in language ("tales", "micro"), a corpus by name ("tinystories", "wikitext-2", "openwebtext"),
            or a local .txt, .jsonl or .parquet file or folder.
        tokenizer: a name on the Hub or a local folder; the built-in languages bring their own.
        length: tokens in a sequence; the built-in languages have their own.
        batch_size: sequences in a batch.
        validation_sequences: how many sequences the validation bound looks at.
        validation_fraction: share of the documents held out; a corpus with a validation split uses that.
        limit: read only the first so many documents (0: all).
        workers: processes that tokenize.
    """

    corpus: str
    tokenizer: str = "bert-base-uncased"
    length: int = 128
    batch_size: int = 64
    validation_sequences: int = 256
    validation_fraction: float = 0.01
    limit: int = 0
    workers: int = 1

    def __post_init__(self) -> None:
        refuse_null(self)
        if not self.corpus:
            raise ValueError("DataSettings: corpus is empty; give a text file, or the built-in language 'tales'.")
        for name in ("length", "batch_size", "validation_sequences", "workers"):
            if getattr(self, name) < 1:
                raise ValueError(f"DataSettings: {name} must be at least 1, got {getattr(self, name)}.")
        for name, most in MOST_TOKENS.items():
            if getattr(self, name) * self.length > most:
                raise ValueError(
                    f"DataSettings: {name} times length must be at most {most:,} tokens, got {getattr(self, name):,} "
                    f"times {self.length:,}. Choose a smaller one; --train.accumulate makes a step of several batches."
                )
        if self.workers > MOST_WORKERS or self.limit > MOST:
            raise ValueError(
                f"DataSettings: workers must be at most {MOST_WORKERS:,} and limit at most {MOST:,}, got "
                f"{self.workers:,} and {self.limit:,}."
            )
        if self.limit < 0 or not 0 < self.validation_fraction <= 1:
            raise ValueError(
                "DataSettings: limit must be 0 or more and validation_fraction in (0, 1], "
                f"got {self.limit} and {self.validation_fraction}."
            )


@dataclass(frozen=True)
class ModelSettings:
    """What is trained.

    Args:
        size: "pico", "nano", "tiny", "small" or "medium"; configs/ has files for each.
        process: the method ("mdlm": masked diffusion; "d3pm", "sedd" and "udlm": diffusion with other noise and other
            targets; "diffusion_lm" and "plaid": Gaussian noise on word vectors;
            "autoregressive": the twin that writes from left to right; "block": masked diffusion block by block).
        schedule: how the masking rate grows over time, a name from noise.py: "linear", "cosine", "quadratic", ...
        T: steps of the time axis.
        weight: mdlm: the bound in "discrete" or "continuous" time.
        block: tokens of a block; only process "block" has them.
        noise: d3pm, sedd, udlm: what tokens turn into, "absorbing" (MASK), "uniform" (any word), d3pm also "gaussian".
        reverse: d3pm: the network's answer is a belief from the other places ("joint") or from all ("mixture").
        auxiliary: d3pm: weight of the cross-entropy beside the bound, in the objective "hybrid".
        width: diffusion_lm and plaid: numbers in a word vector.
        self_conditioned: diffusion_lm and plaid: the network also reads its own first guess.
        time: how the network sees t: "none", "sinusoidal", "table" or "adaln".
        rotary: rotate queries and keys by position.
        dropout: share of activations dropped in training.
        conditional: also learn to write a story that ends as asked; a built-in language with labels is needed.
        init: train on from the weights of this model, a folder or the name of a shipped one; fresh weights if empty.
    """

    size: str
    process: str = "mdlm"
    schedule: str = "cosine"
    T: int = 1000
    weight: str = "discrete"
    block: int = 8
    noise: str = "absorbing"
    reverse: str = "joint"
    auxiliary: float = 1.0
    width: int = 16
    self_conditioned: bool = False
    time: str = "none"
    rotary: bool = True
    dropout: float = 0.0
    conditional: bool = False
    init: str = ""

    def __post_init__(self) -> None:
        refuse_null(self)
        known = {"size": [*SIZES], "process": [*PROCESSES], "weight": [*WEIGHTS], "time": [*TIMES]}
        known |= {"noise": [*(LIMITS if self.process in ("sedd", "udlm") else TRANSITIONS)], "reverse": [*REVERSES]}
        for name, names in known.items():
            if getattr(self, name) not in names:
                raise ValueError(f"ModelSettings: {name} must be one of {names}, got {getattr(self, name)!r}.")
        get_schedule(self.schedule, self.T)
        if not 0 <= self.dropout < 1:
            raise ValueError(f"ModelSettings: dropout must lie in [0, 1), got {self.dropout}.")
        if not 0 <= self.auxiliary < math.inf:
            raise ValueError(f"ModelSettings: auxiliary must be 0 or more, and finite, got {self.auxiliary}.")
        if not (1 <= self.block <= MOST and 1 <= self.width <= MOST_WIDTH):
            raise ValueError(
                f"ModelSettings: block must lie in 1..{MOST:,} and width in 1..{MOST_WIDTH:,}, got {self.block} and "
                f"{self.width}."
            )


class Run(NamedTuple):
    """All settings of a run: what one file of configs/ holds."""

    data: DataSettings
    model: ModelSettings
    train: TrainConfig


def read_config(path: Path) -> Run:
    """The settings of a YAML file, each key and type checked, as `diffkit train --config` reads it.

    Raises: argparse.ArgumentError that names the key that is unknown, missing or of the wrong type.
    """
    parser = ArgumentParser(exit_on_error=False, parser_mode=plain_yaml.MODE)
    for section, settings in (("data", DataSettings), ("model", ModelSettings), ("train", TrainConfig)):
        parser.add_class_arguments(settings, section)
    return Run(**vars(parser.instantiate(parser.parse_path(str(path)))))


class Workshop(NamedTuple):
    """Everything a run needs, built."""

    model: DiffusionModel
    tokenizer: PreTrainedTokenizerBase
    batches: Batches
    validate: Callable[[DiffusionModel], float]  # bound on held-out text, nats per token
    language: StoryLanguage | None  # None for real text
    label_of: Callable[[Tensor], Tensor] | None  # (B, L) to labels (B,), for a conditional model


class Texts(NamedTuple):
    """A corpus, ready to be read."""

    tokenizer: PreTrainedTokenizerBase
    batches: Batches
    validation: Tensor  # (N, L)
    length: int
    language: StoryLanguage | None


def build(data: DataSettings, model: ModelSettings, seed: int) -> Workshop:
    """Build corpus, tokenizer, model and validation from settings; nothing is trained yet.

    Raises: ValueError, OSError or ConnectionError that says which setting cannot be met.
    """
    if model.conditional and data.corpus not in GRAMMARS:
        raise ValueError(
            f"build: a conditional model needs labels, which {data.corpus!r} has not; choose the corpus "
            f"{' or '.join(sorted(GRAMMARS))}, or leave `conditional` out."
        )
    texts = read(data, seed)
    settings = {
        "vocab_size": len(texts.tokenizer), "mask_id": special_ids(texts.tokenizer).mask, "schedule": model.schedule,
        "T": model.T, "weight": model.weight, "noise": model.noise, "reverse": model.reverse,
        "auxiliary": model.auxiliary, "block": model.block, "width": model.width,
        "self_conditioned": model.self_conditioned,
    }  # fmt: skip
    process = process_from(settings | {"name": model.process})
    torch.manual_seed(seed)
    network = {"time": model.time, "rotary": model.rotary, "dropout": model.dropout, "max_length": texts.length}
    label_of = partial(endings, texts.language) if texts.language and model.conditional else None
    network |= {"labels": len(texts.language.labels) if texts.language and label_of else 0}
    name = data.corpus if texts.language else None
    built = build_model(process, model.size, language=name, **network)
    if model.init:
        start_from(built, model.init)
    return Workshop(
        built, texts.tokenizer, texts.batches,
        lambda trained: validation_bound(trained, texts.validation), texts.language, label_of,
    )  # fmt: skip


def validation_bound(model: DiffusionModel, x0: Tensor) -> float:
    """Bound on held-out sequences (N, L), nats per token, with the same masks every time."""
    rng = Generator().manual_seed(VALIDATION_SEED)
    return nelbo(model.process, model, x0.to(model.device), rng=rng).mean / x0.shape[1]


def read(data: DataSettings, seed: int) -> Texts:
    """Corpus and tokenizer, batches to train on, and sequences held out."""
    if data.corpus in GRAMMARS:
        language = load_language(data.corpus)
        batches = StoryBatches(language, data.batch_size, seed)
        return Texts(language.tokenizer, batches, _fresh(language, data), language.length, language)
    tokenizer = load_tokenizer(data.tokenizer)
    train, validation = _split(data, seed)
    held_out = _sequences(validation, tokenizer, data, seed)
    if isinstance(train, IterableDataset):
        stream = StreamBatches(train, tokenizer, data.length, data.batch_size, seed=seed)
        return Texts(tokenizer, stream, held_out, data.length, None)
    chunks = tokenize_corpus(train, tokenizer, data.length, workers=data.workers)
    return Texts(tokenizer, ChunkBatches(chunks, data.batch_size, seed), held_out, data.length, None)


def learn_tokenizer(data: DataSettings, seed: int, folder: Path, vocab_size: int) -> DataSettings:
    """Train a tokenizer on the documents that a run with this seed learns from, none of those held out, and save it.

    Returns: the same settings with the folder as their tokenizer.
    Raises:  ValueError if the folder is there already, for a built-in language, and as `train_tokenizer`.
    """
    if folder.exists():
        raise ValueError(f"learn_tokenizer: {folder} is there already. Choose another folder, or delete it.")
    if data.corpus in GRAMMARS:
        raise ValueError(
            f"learn_tokenizer: {data.corpus!r} has words of its own and no documents. Choose another corpus."
        )
    learned = train_tokenizer((row["text"] for row in _split(data, seed)[0]), vocab_size)
    with atomic_folder(folder) as draft:
        learned.save_pretrained(draft)
    return replace(data, tokenizer=str(folder))


def read_held_out(data: DataSettings, seed: int) -> Tensor:
    """Only the sequences that `read` holds out, (N, L); all of the text if validation_fraction is 1."""
    if data.corpus in GRAMMARS:
        return _fresh(load_language(data.corpus), data)
    tokenizer = load_tokenizer(data.tokenizer)
    whole = data.validation_fraction == 1
    texts = load_corpus(data.corpus, limit=data.limit or None) if whole else _split(data, seed)[1]
    return _sequences(texts, tokenizer, data, seed)


def _fresh(language: StoryLanguage, data: DataSettings) -> Tensor:
    return language.sample(data.validation_sequences, Generator().manual_seed(VALIDATION_SEED))


def _sequences(
    dataset: Dataset | IterableDataset, tokenizer: PreTrainedTokenizerBase, data: DataSettings, seed: int
) -> Tensor:
    """The first sequences of a data set, `validation_sequences` of them if there are so many."""
    if isinstance(dataset, IterableDataset):
        return next(StreamBatches(dataset, tokenizer, data.length, data.validation_sequences, seed=seed))
    chunks = tokenize_corpus(dataset, tokenizer, data.length, workers=data.workers)
    return next(fixed_batches(chunks, data.validation_sequences))


def _split(data: DataSettings, seed: int) -> tuple[Dataset | IterableDataset, Dataset | IterableDataset]:
    """The corpus's own validation split where it has one, else a share of its documents."""
    limit = data.limit or None
    corpus = CORPORA.get(data.corpus)
    train = load_corpus(data.corpus, "train", limit=limit)
    if corpus is not None and "validation" in corpus.splits:
        return train, load_corpus(data.corpus, "validation", limit=limit)
    return split_documents(train, validation_fraction=data.validation_fraction, seed=seed)


def default_output(data: DataSettings, model: ModelSettings) -> Path:
    """Where a run goes when nobody says: runs/CORPUS-PROCESS-SIZE."""
    return Path("runs") / f"{Path(data.corpus).stem}-{model.process}-{model.size}"
