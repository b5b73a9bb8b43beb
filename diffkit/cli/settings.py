"""A whole run as plain settings, and `build`, the one function that sees all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from datasets import Dataset, IterableDataset
from torch import Generator, Tensor
from transformers import PreTrainedTokenizerBase

from diffkit.cli.parser import Parser
from diffkit.data.batches import Batches, ChunkBatches, StoryBatches, StreamBatches
from diffkit.data.chunks import tokenize_corpus
from diffkit.data.corpus import CORPORA, load_corpus, shadowed, split_documents
from diffkit.data.tokenizer import load_tokenizer, special_ids, train_tokenizer
from diffkit.evaluation.bounds import nelbo
from diffkit.io import atomic_folder
from diffkit.languages.exact import Language
from diffkit.languages.story_language import LANGUAGES, endings, load_language
from diffkit.model import DiffusionModel, build_model, check_tokenizer, load_pretrained, start_from
from diffkit.network.transformer import SIZES, TIMES
from diffkit.processes import PROCESSES
from diffkit.processes.base import Process
from diffkit.processes.masked import MaskedDiffusion
from diffkit.training.config import MOST, TrainConfig, refuse_null

MOST_TOKENS = {"batch_size": 2**24, "validation_sequences": 2**26}  # at most, in all sequences together
VALIDATION_SEED = 12345  # of the masks, and of the fresh stories: the same at every check, and in every run
RANGES = {"length": (1, MOST), "batch_size": (1, MOST), "validation_sequences": (1, MOST), "limit": (0, MOST)}
RANGES |= {"workers": (1, 1024)}


@dataclass(frozen=True)
class DataSettings:
    """What the model reads."""

    corpus: str  # tales, micro, sagas, tinystories, wikitext-2, openwebtext, or a .txt, .jsonl, .parquet file or folder
    tokenizer: str = "bert-base-uncased"  # a name on the Hub or a local folder; the built-in languages bring their own
    length: int = 128  # tokens in a sequence; the built-in languages have their own
    batch_size: int = 64  # sequences in a batch
    validation_sequences: int = 256  # sequences of the held-out bound
    validation_fraction: float = 0.01  # share of the documents held out, where the corpus has no validation split
    limit: int = 0  # read only this many documents, from the start (0: all)
    workers: int = 1  # processes that tokenize

    def __post_init__(self) -> None:
        refuse_null(self)
        if not self.corpus:
            raise ValueError("DataSettings: corpus is empty; give a text file, or the built-in language 'tales'.")
        for name, (least, most) in RANGES.items():
            if not least <= getattr(self, name) <= most:
                raise ValueError(f"DataSettings: {name} must lie in {least}..{most:,}, got {getattr(self, name):,}.")
        if not 0 < self.validation_fraction <= 1:
            raise ValueError(f"DataSettings: validation_fraction must lie in (0, 1], got {self.validation_fraction}.")
        for name, most in MOST_TOKENS.items():
            if getattr(self, name) * self.length > most:
                raise ValueError(
                    f"DataSettings: {name} times length must be at most {most:,} tokens, got {getattr(self, name):,} "
                    f"times {self.length:,}. Choose a smaller one; --train.accumulate makes a step of several batches."
                )


@dataclass(frozen=True)
class ModelSettings:
    """What is trained: a process, which brings its own settings, and a network."""

    size: dict[str, int | bool] | str  # pico, nano, tiny, small, medium, or {hidden_size: 96, num_layers: 2, ...}
    process: Callable[[int, int], Process] = MaskedDiffusion  # its class; --model.process.help NAME lists settings
    time: str = "none"  # how the network sees t: none, sinusoidal, table or adaln
    rotary: bool = True  # rotate queries and keys by position
    dropout: float = 0.0  # share of activations dropped in training
    conditional: bool = False  # also learn to end a story as its label says; for a built-in language with labels
    init: str = ""  # train on from the weights of this model, a folder or the name of a shipped one
    pretrained: str = ""  # instead of size: a masked or left-to-right model of transformers, on the Hub or a folder
    add_mask: bool = False  # give the tokenizer of a pretrained model a MASK, where it has none
    lora: int = 0  # of a pretrained model train only matrices of this rank beside the others (0: train all)
    anneal: int = 0  # steps until a pretrained left-to-right model sees all of the future (0: at once)

    def __post_init__(self) -> None:
        refuse_null(self)
        if isinstance(self.size, str) and self.size not in SIZES:
            raise ValueError(f"ModelSettings: size must be one of {[*SIZES]}, got {self.size!r}.")
        if self.time not in TIMES:
            raise ValueError(f"ModelSettings: time must be one of {[*TIMES]}, got {self.time!r}.")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"ModelSettings: dropout must lie in [0, 1), got {self.dropout}.")
        if min(self.lora, self.anneal) < 0 or max(self.lora, self.anneal) > MOST:
            raise ValueError(f"ModelSettings: lora and anneal are 0 or more, got {self.lora} and {self.anneal}.")
        if not self.pretrained and (self.lora or self.anneal or self.add_mask):
            raise ValueError(
                "ModelSettings: lora, anneal and add_mask need a pretrained model; name one, or leave them."
            )
        if self.pretrained and (self.conditional or self.time != "none"):
            raise ValueError("ModelSettings: a pretrained model has no labels and no time; leave both settings out.")
        self._trial()

    def plain(self) -> dict[str, Any]:
        """All settings as JSON holds them, those of the process under their own names."""
        own = self._trial().settings()
        name, _, _ = own.pop("name"), own.pop("vocab_size"), own.pop("mask_id")
        return vars(self) | own | {"process": name}

    def _trial(self) -> Process:
        """The process for a small vocabulary: its name and settings, which are checked by building it."""
        try:
            process = self.process(8, 1)
        except (ArithmeticError, RuntimeError, TypeError, ValueError) as error:
            raise ValueError(f"ModelSettings: the process cannot be built: {error}") from error
        if type(process) not in PROCESSES.values():
            names = [kind.__name__ for kind in PROCESSES.values()]
            raise ValueError(f"ModelSettings: process must be one of {names}, got {type(process).__name__}.")
        return process


class Config(NamedTuple):
    """All settings of a run: the contents of one file of configs/."""

    data: DataSettings
    model: ModelSettings
    train: TrainConfig

    def plain(self) -> dict[str, dict[str, Any]]:
        """The settings of every section, as JSON holds them."""
        return {"data": asdict(self.data), "model": self.model.plain(), "train": asdict(self.train)}


def read_config(path: Path) -> Config:
    """The settings of a YAML file, each key and type checked, as `diffkit train --config` reads it.

    Raises: argparse.ArgumentError that names the key that is unknown, missing or of the wrong type.
    """
    parser = Parser(exit_on_error=False)
    for section, settings in (("data", DataSettings), ("model", ModelSettings), ("train", TrainConfig)):
        parser.add_class_arguments(settings, section)
    return Config(**vars(parser.instantiate(parser.parse_path(str(path)))))


class Texts(NamedTuple):
    """A corpus, ready to be read."""

    tokenizer: PreTrainedTokenizerBase
    batches: Batches
    validation: Tensor  # (N, L)
    length: int
    language: Language | None  # None for real text


class Setup(NamedTuple):
    """Everything a run needs, built."""

    model: DiffusionModel
    tokenizer: PreTrainedTokenizerBase
    batches: Batches
    validate: Callable[[DiffusionModel], float]  # bound on held-out text, nats per token
    language: Language | None  # None for real text
    label_of: Callable[[Tensor], Tensor] | None  # (B, L) to labels (B,), for a conditional model


def build(data: DataSettings, model: ModelSettings, seed: int, tell: Callable[[str], Any] = str) -> Setup:
    """Build corpus, tokenizer, model and validation from settings; nothing is trained yet.

    Args:   tell: takes one line about the text: what was read and left out, how many documents, the share held out.
    Raises: ValueError, OSError or ConnectionError that names the setting.
    """
    if model.conditional and data.corpus not in LANGUAGES:
        raise ValueError(
            f"build: a conditional model needs labels, which {data.corpus!r} does not have; choose one of "
            f"{', '.join(LANGUAGES)}, or leave `conditional` out."
        )
    if model.pretrained and data.corpus not in LANGUAGES:
        data = replace(data, tokenizer=model.pretrained)
        load_tokenizer(data.tokenizer, add_mask=model.add_mask)  # says now what is missing, not when the text is read
    texts = read(data, seed, tell)
    torch.manual_seed(seed)
    label_of = partial(endings, texts.language) if texts.language and model.conditional else None
    built = _pretrained_model(model, texts) if model.pretrained else _fresh_model(model, texts)
    built.config.language = data.corpus if texts.language else None
    if not texts.language:
        built.config.split = {"fraction": data.validation_fraction, "seed": seed}
    if model.init:
        start_from(built, model.init)
    validate = partial(validation_bound, x0=texts.validation)
    return Setup(built, texts.tokenizer, texts.batches, validate, texts.language, label_of)


def _fresh_model(model: ModelSettings, texts: Texts) -> DiffusionModel:
    """A new network. Raises ValueError if the process learns where texts end and the text does not say."""
    process = model.process(len(texts.tokenizer), special_ids(texts.tokenizer).mask)
    if not process.aligned and not texts.language:
        raise ValueError(
            f"build: {type(process).__name__} learns where texts end, but this corpus is read as documents in one "
            f"row. Choose the corpus {', '.join(LANGUAGES)}, or another process."
        )
    labels = len(texts.language.labels) if texts.language and model.conditional else 0
    return build_model(
        process, model.size, time=model.time, rotary=model.rotary, dropout=model.dropout, labels=labels,
        max_length=texts.length,
    )  # fmt: skip


def _pretrained_model(model: ModelSettings, texts: Texts) -> DiffusionModel:
    """A model of transformers. Raises ValueError if it has another vocabulary than the text."""
    built, _ = load_pretrained(
        model.pretrained, model.process, length=texts.length, add_mask=model.add_mask, lora=model.lora,
        anneal=model.anneal,
    )  # fmt: skip
    check_tokenizer(built, texts.tokenizer)
    return built


def validation_bound(model: DiffusionModel, x0: Tensor) -> float:
    """Bound on held-out sequences (N, L), nats per token, with the same masks every time."""
    rng = Generator().manual_seed(VALIDATION_SEED)
    return nelbo(model.process, model, x0.to(model.device), rng=rng).mean / x0.shape[1]


def read(data: DataSettings, seed: int, tell: Callable[[str], Any] = str) -> Texts:
    """Corpus and tokenizer, batches to train on, and sequences held out."""
    if data.corpus in LANGUAGES:
        tell(f"{data.corpus}: the built-in language{shadowed(data.corpus)}.")
        language = load_language(data.corpus)
        batches = StoryBatches(language, data.batch_size, seed)
        return Texts(language.tokenizer, batches, _fresh(language, data), language.length, language)
    tokenizer = load_tokenizer(data.tokenizer)
    train, validation = _split(data, seed)
    tell(f"{train.info.description}.")
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
    if data.corpus in LANGUAGES:
        raise ValueError(
            f"learn_tokenizer: {data.corpus!r} has its own vocabulary and no documents. Choose another corpus."
        )
    learned = train_tokenizer((row["text"] for row in _split(data, seed)[0]), vocab_size)
    with atomic_folder(folder) as draft:
        learned.save_pretrained(draft)
    return replace(data, tokenizer=str(folder))


def read_held_out(data: DataSettings, seed: int) -> Tensor:
    """Only the sequences that `read` holds out, (N, L); all of the text if validation_fraction is 1."""
    if data.corpus in LANGUAGES:
        return _fresh(load_language(data.corpus), data)
    tokenizer = load_tokenizer(data.tokenizer)
    whole = data.validation_fraction == 1
    texts = load_corpus(data.corpus, limit=data.limit or None) if whole else _split(data, seed)[1]
    return _sequences(texts, tokenizer, data, seed)


def _fresh(language: Language, data: DataSettings) -> Tensor:
    return language.sample(data.validation_sequences, Generator().manual_seed(VALIDATION_SEED))


def _sequences(
    dataset: Dataset | IterableDataset, tokenizer: PreTrainedTokenizerBase, data: DataSettings, seed: int
) -> Tensor:
    """The first sequences of a data set, at most `validation_sequences`."""
    if isinstance(dataset, IterableDataset):
        return next(StreamBatches(dataset, tokenizer, data.length, data.validation_sequences, seed=seed))
    chunks = tokenize_corpus(dataset, tokenizer, data.length, workers=data.workers)
    return chunks.with_format("torch")[: data.validation_sequences]["input_ids"]


def _split(data: DataSettings, seed: int) -> tuple[Dataset | IterableDataset, Dataset | IterableDataset]:
    return split_corpus(data.corpus, data.validation_fraction, seed, limit=data.limit or None)


def split_corpus(
    name: str, fraction: float, seed: int, *, limit: int | None = None, streaming: bool | None = None
) -> tuple[Dataset | IterableDataset, Dataset | IterableDataset]:
    """The corpus's own validation split where it has one, else a share of its documents."""
    corpus = CORPORA.get(name)
    train = load_corpus(name, "train", limit=limit, streaming=streaming)
    if corpus is not None and "validation" in corpus.splits:
        return train, load_corpus(name, "validation", limit=limit, streaming=streaming)
    return split_documents(train, validation_fraction=fraction, seed=seed)


def default_output(data: DataSettings, model: ModelSettings) -> Path:
    """The folder of a run by default: runs/CORPUS-PROCESS-SIZE."""
    size = Path(model.pretrained).name or (model.size if isinstance(model.size, str) else "custom")
    return Path("runs") / f"{Path(data.corpus).stem}-{model.plain()['process']}-{size}"
