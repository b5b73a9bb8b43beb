"""Text to token ids and back: a small word-level tokenizer for built-in languages, and any pretrained one."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from huggingface_hub import HfApi
from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE, WordLevel
from tokenizers.trainers import BpeTrainer
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from diffkit.checks import check_whole

MOST_WORDS = 10**6  # in a vocabulary that is learned
# No longer run of letters or of spaces is learned from in one piece: merging takes the square of its length.
LONG_RUN = re.compile(r"(\S{1000}|\s{1000})")
SPECIAL_TOKENS = ("[PAD]", "[MASK]", "[EOS]", "[UNK]")

# A word may have inner apostrophes and hyphens ("don't", "well-known"), but a possessive 's is a token of its own
# ("Tom" + "'s"), so that one name is one id. Every other mark stands alone.
WORD_PATTERN = r"\w+(?:['-](?!s\b)\w+)*|'s\b|[^\w\s]"
# An opening quotation mark has an odd number of marks after it, a closing one an even number.
EVEN_QUOTES_AFTER = r'(?:[^"]*"[^"]*")*[^"]*$'
SPACES_TO_DROP = (
    r" (?=[.,!?;:)”]|'s\b)",
    r"(?<=[(“]) ",
    rf'(?<=") (?=[^"]*"{EVEN_QUOTES_AFTER})',
    rf' (?="{EVEN_QUOTES_AFTER})',
)


def word_level_tokenizer(words: Sequence[str]) -> PreTrainedTokenizerFast:
    """Make a case-sensitive tokenizer with one id per word and per punctuation mark.

    The ids are [PAD]=0, [MASK]=1, [EOS]=2, [UNK]=3, then `words` in their order from 4 on. Decoding writes ordinary
    English spacing, and encoding that text gives the same ids back. Nothing is added around a text: EOS and PAD
    belong to whoever builds the sequences.

    Args:    words: distinct words, marks and "'s"; "don't" and "well-known" are one word each, "Tom's" is two.
    Returns: a fast tokenizer with V = 4 + len(words), which saves and loads like any other.
    Raises:  ValueError for a repeated word, or one that the tokenizer itself would cut into pieces.
    """
    splitter = pre_tokenizers.Split(Regex(WORD_PATTERN), behavior="removed", invert=True)
    vocab = {token: i for i, token in enumerate(SPECIAL_TOKENS)}
    for word in words:
        if word in vocab:
            raise ValueError(f"word_level_tokenizer: every word may appear once, but {word!r} came again. Remove one.")
        if [piece for piece, _ in splitter.pre_tokenize_str(word)] != [word]:
            raise ValueError(
                f"word_level_tokenizer: each entry must be one word or one mark, but {word!r} is not. "
                "Spaces, and marks joined to a word, are split off when text is read: list the parts one by one."
            )
        vocab[word] = len(vocab)
    tokenizer = Tokenizer(WordLevel(vocab, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = splitter
    spacing = [decoders.Replace(Regex(pattern), "") for pattern in SPACES_TO_DROP]
    tokenizer.decoder = decoders.Sequence([decoders.WordPiece(cleanup=False), decoders.Fuse(), *spacing])
    return _fast(tokenizer, unk_token="[UNK]")


def train_tokenizer(texts: Iterable[str], vocab_size: int = 4096) -> PreTrainedTokenizerFast:
    """Train a tokenizer: byte-level byte-pair encoding, without unknown tokens.

    A small vocabulary makes real text affordable for a small network on a CPU: with BERT's 30,522 tokens most
    parameters are in the embeddings and the head. [PAD]=0, [MASK]=1 and [EOS]=2, then 256 bytes, then pieces.

    Args:    texts: read once; vocab_size: V, special tokens and bytes included; fewer if the texts hold fewer pieces.
    Returns: a fast tokenizer, which saves and loads like any other; decoding gives the very text back.
    Raises:  ValueError for a vocabulary that does not even hold the bytes, or no text.
    Source:  arXiv:1508.07909 (BPE of words), on bytes as in GPT-2; by the tokenizers library.
    """
    if isinstance(texts, str):
        raise TypeError(f"train_tokenizer: texts are many, got one: {texts[:40]!r}. Put it into a list.")
    special = [token for token in SPECIAL_TOKENS if token != "[UNK]"]
    if not len(special) + 256 <= vocab_size <= MOST_WORDS:
        raise ValueError(
            f"train_tokenizer: vocab_size must be at least {len(special) + 256}, three special tokens and 256 bytes, "
            f"and at most {MOST_WORDS:,}, got {vocab_size}. 2,000 to 4,000 suit a small network."
        )
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = BpeTrainer(vocab_size=vocab_size, special_tokens=special, initial_alphabet=alphabet)
    tokenizer.train_from_iterator((piece for text in texts for piece in LONG_RUN.split(text)), trainer)
    if tokenizer.get_vocab_size() == len(special) + len(alphabet):
        raise ValueError("train_tokenizer: the texts are empty, or too short to hold a pair of bytes twice.")
    return _fast(tokenizer)


def _fast(tokenizer: Tokenizer, **special: str) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        mask_token="[MASK]",
        eos_token="[EOS]",
        clean_up_tokenization_spaces=False,
        model_input_names=["input_ids", "attention_mask"],
        **special,
    )


class SpecialIds(NamedTuple):
    """The ids of the special tokens that a diffusion language model needs."""

    mask: int
    pad: int
    eos: int


def special_ids(tokenizer: PreTrainedTokenizerBase) -> SpecialIds:
    """Look up the ids of MASK, PAD and EOS.

    Raises:  ValueError if one is missing, lies outside the vocabulary, or if MASK doubles as PAD or EOS (PAD and EOS
             may share an id: a model that pads with EOS knows no difference).
    """
    ids = {role: getattr(tokenizer, f"{role}_token_id") for role in SpecialIds._fields}
    missing = [role.upper() for role, i in ids.items() if i is None]
    if missing:
        raise ValueError(
            f"special_ids: the tokenizer needs MASK, PAD and EOS, but has no {' and no '.join(missing)}. "
            "Load it with load_tokenizer, which adds what is missing."
        )
    outside = {role: i for role, i in ids.items() if not 0 <= i < len(tokenizer)}
    if outside or ids["mask"] in (ids["pad"], ids["eos"]):
        raise ValueError(
            f"special_ids: ids must lie in 0..{len(tokenizer) - 1} and MASK must be a token of its own, but the "
            f"tokenizer has {ids}. Set tokenizer.mask_token to a token that nothing else uses."
        )
    return SpecialIds(**ids)


def load_tokenizer(name_or_folder: str | Path, *, add_mask: bool = True) -> PreTrainedTokenizerBase:
    """Load any pretrained tokenizer and make sure that it has MASK, PAD and EOS.

    Where EOS is missing and there is a separator, the separator serves as EOS (BERT: [SEP]). Whatever is still missing
    is added as a new special token, [MASK], [PAD] or [EOS]; the vocabulary grows by it (GPT-2: from 50,257 to 50,259),
    so take V = len(tokenizer) afterwards. The cache on disk is asked first, the network only if that fails.

    Args:    name_or_folder: a name on the Hugging Face Hub, or a folder written by save_pretrained.
             add_mask: where there is no MASK, add one; if False, that is an error.
    Raises:  OSError if there is no such tokenizer, or no network; ValueError if it cannot be used.
    """
    tokenizer = _pretrained(os.path.expanduser(name_or_folder))
    for name in ("is_local", "local_files_only"):  # how it was found is no part of it, and would be saved with it
        tokenizer.init_kwargs.pop(name, None)
    # From a model's config.json without a vocabulary, transformers makes a tokenizer that knows only special tokens.
    if len(tokenizer) <= len(tokenizer.all_special_tokens):
        raise ValueError(
            f"load_tokenizer: {str(name_or_folder)!r} gave {len(tokenizer)} special tokens and no words. "
            "Is tokenizer.json (or the vocabulary file) missing?"
        )
    if tokenizer.mask_token is None and not add_mask:
        raise ValueError(
            f"load_tokenizer: {str(name_or_folder)!r} has no MASK, as it was made for left-to-right models. Add one "
            "with add_mask=True (--model.add_mask true): the token [MASK], with a new row in the model's tables that "
            "starts at the mean of the others; or set tokenizer.mask_token to a token that no text uses, and save it."
        )
    if tokenizer.eos_token is None and tokenizer.sep_token is not None:
        tokenizer.eos_token = tokenizer.sep_token
    missing = {f"{role}_token": f"[{role.upper()}]" for role in SpecialIds._fields}
    missing = {role: token for role, token in missing.items() if getattr(tokenizer, role) is None}
    tokenizer.add_special_tokens(missing)
    special_ids(tokenizer)
    return tokenizer


def _pretrained(name: str) -> PreTrainedTokenizerBase:
    try:
        return AutoTokenizer.from_pretrained(name, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # a broken tokenizer can fail in any way, and each way means the same here
        if Path(name).is_dir():
            raise ValueError(
                f"load_tokenizer: the folder {name!r} holds no tokenizer that can be read. It needs the files that "
                f"save_pretrained writes (tokenizer.json, tokenizer_config.json). Cause: {error}"
            ) from error
    try:
        HfApi().model_info(name, timeout=10)  # fails at once where from_pretrained would retry for most of a minute
        return AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except Exception as error:
        raise OSError(
            f"load_tokenizer: {name!r} is not a folder here, not in the cache, and could not be fetched from the "
            f"Hub ({type(error).__name__}: {error}). Ways out: check the spelling; give a local folder that "
            "save_pretrained wrote; use the built-in language 'tales', which needs no download; or load it once "
            "with a network, after which the cache serves it."
        ) from error


def text_ids(texts: Any, tokenizer: PreTrainedTokenizerBase) -> Any:
    """The ids of a text, or of each text of a list; a special token that is spelled out is read as plain characters."""
    options = {"add_special_tokens": False, "split_special_tokens": True, "verbose": False}
    return tokenizer(texts, **options)["input_ids"] if texts else []


def canvas_from_text(text: str, tokenizer: PreTrainedTokenizerBase, length: int, *, complete: bool = False) -> Tensor:
    """A text with blanks as a (1, length) canvas with MASK in the blanks: `___` is one token, `___{3}` three.

    The space before what is missing belongs to it, as it does where a tokenizer makes one piece of both. A special
    token that is spelled out, such as "[MASK]", is text like any other.

    Args:    complete: the text is a whole one, so EOS and PAD follow it; otherwise the rest of the canvas is MASK.
    Raises:  ValueError if the text does not fit, or holds a word that the tokenizer does not know.
    """
    check_whole(length, "length", "canvas_from_text")
    text = text if complete else text.rstrip(" ")
    words, *rest = re.split(r" *_{2,}(?:\{(\d+)\})?", text)  # words, then in turn: how many are blank, words
    if not text.isascii() and text != text.encode(errors="replace").decode():
        raise ValueError("canvas_from_text: the text holds bytes that are no UTF-8. Type or save it again as UTF-8.")
    wanted = sum(int(blanks or 1) for blanks in rest[::2])
    if wanted > length:
        raise ValueError(
            f"canvas_from_text: the text has {wanted} blanks, the canvas holds {length} tokens. Shorten the text."
        )
    ids: list[int] = text_ids(words, tokenizer)
    for blanks, piece in zip(rest[::2], rest[1::2], strict=True):
        ids += [tokenizer.mask_token_id] * int(blanks or 1)
        ids += text_ids(piece, tokenizer)
    if tokenizer.unk_token_id is not None and tokenizer.unk_token_id in ids:
        pieces = dict.fromkeys(re.findall(r"\w+|[^\w\s]", " ".join([words, *rest[1::2]])))
        unknown = [w for w in pieces if tokenizer.unk_token_id in text_ids(w, tokenizer)]
        raise ValueError(
            f"canvas_from_text: the model's vocabulary lacks {', '.join(map(repr, unknown))}; use other words, or a "
            "model that spells any word, such as tinystories-mdlm."
        )
    ids += [tokenizer.eos_token_id] if complete else []
    if len(ids) > length:
        raise ValueError(
            f"canvas_from_text: the text has {len(ids)} tokens, the canvas holds {length}. Shorten the text."
        )
    filler = tokenizer.pad_token_id if complete else tokenizer.mask_token_id
    return torch.tensor([ids + [filler] * (length - len(ids))])
