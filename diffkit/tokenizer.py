"""Text to token ids and back: a small word-level tokenizer for built-in languages, and any pretrained one."""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

SPECIAL_TOKENS = ("[PAD]", "[MASK]", "[EOS]", "[UNK]")

# A word may hold inner apostrophes and hyphens ("don't", "well-known"), but a possessive 's is a token of its own
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
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        mask_token="[MASK]",
        eos_token="[EOS]",
        unk_token="[UNK]",
        clean_up_tokenization_spaces=False,
        model_input_names=["input_ids", "attention_mask"],
    )
