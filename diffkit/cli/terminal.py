"""Texts in a terminal: hidden tokens as blocks, each frame drawn over the last; and output that never ends a run."""

from __future__ import annotations

import errno
import io
import os
import shutil
import sys
import time
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import TYPE_CHECKING, Any, TextIO, cast

from wcwidth import wrap

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from diffkit.sampling.sampler import Frame

HIDDEN = "░░░"  # a masked token; its own glyph, so that colour is not needed to see it
WIDTH = 100  # columns at most
STILLS = 6  # frames shown where nothing can be drawn over
TURNS = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}  # these change the reading direction
NO_READER = (errno.EPIPE, errno.EIO)  # a pipe that was closed, a terminal that is gone


class Lasting:
    """A text stream that outlives its reader: what nobody can read any more is dropped."""

    def __init__(self, stream: TextIO | None, nowhere: TextIO):
        self._stream, self._nowhere = stream or nowhere, nowhere  # None: it was closed before we started
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a console may not know every letter

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> None:
        """Write to the stream if anybody reads it."""
        self._try(self._stream.write, text)

    def flush(self) -> None:
        """As of any stream."""
        self._try(self._stream.flush)

    def _try(self, act: Callable[..., Any], *given: str) -> None:
        try:
            act(*given)
        except OSError as error:
            os.dup2(self._nowhere.fileno(), self._stream.fileno())  # Python flushes once more at its end
            if error.errno not in NO_READER:
                raise


@contextmanager
def lasting_output() -> Iterator[None]:
    """Let commands print without looking whether anybody reads."""
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        out, err = Lasting(sys.stdout, nowhere), Lasting(sys.stderr, nowhere)
        with redirect_stdout(cast(TextIO, out)), redirect_stderr(cast(TextIO, err)):
            try:
                yield
            finally:
                out.flush()
                err.flush()


def printable(text: str) -> str:
    """Text with � for characters that control a terminal or change the reading direction."""
    return "".join(
        "�" if (unicodedata.category(c) == "Cc" and c not in "\n\t") or unicodedata.bidirectional(c) in TURNS else c
        for c in text
    )


def columns() -> int | None:
    """Columns to wrap a text at; None where no terminal shows it."""
    return min(WIDTH, shutil.get_terminal_size().columns) if sys.stdout.isatty() else None


def paragraph(ids: Tensor, tokenizer: PreTrainedTokenizerBase, width: int | None = None) -> str:
    """Ids (L,) as text, a block for every hidden token; PAD is not shown, and EOS starts a new line.

    Blocks after an EOS are left out until a token appears there: usually PAD follows. With a `width` in columns long
    lines are wrapped; else the text is as the model has it.
    """
    texts: list[list[str]] = [[]]
    for i in ids.tolist():
        if i == tokenizer.eos_token_id:
            texts.append([])
        elif i == tokenizer.mask_token_id:
            texts[-1].append(HIDDEN)
        elif i != tokenizer.pad_token_id:
            texts[-1].append(str(tokenizer.convert_ids_to_tokens(i)))
    shown = [tokens for k, tokens in enumerate(texts) if k == 0 or set(tokens) - {HIDDEN}]
    text = "\n".join(printable(tokenizer.convert_tokens_to_string(tokens)) for tokens in shown)
    if width is None:
        return text
    return "\n".join(part for line in text.split("\n") for part in wrap(line, width) or [""])


def play(frames: Iterable[Frame], tokenizer: PreTrainedTokenizerBase, *, steps: int, seconds: float = 0.12) -> Frame:
    """Play the first text of every frame, in place on a terminal, else a few frames one below the other.

    A frame taller than the screen is cut, but for the last one. Returns: the last frame.
    """
    width, drawn = columns(), 0
    stills = {round(steps * k / (STILLS - 1)) for k in range(STILLS)}
    for frame in frames:
        lines = [*paragraph(frame.tokens[0], tokenizer, width).split("\n"), f"[step {frame.step} of {steps}]"]
        if width is None:
            if frame.step in stills:
                print(*lines, sep="\n", flush=True)
            continue
        seen = lines if frame.step == steps else [*lines[:-1][: shutil.get_terminal_size().lines - 2], lines[-1]]
        print(f"\033[{drawn}F\033[J" if drawn else "", "\n".join(seen), sep="", flush=True)
        drawn = len(seen)
        time.sleep(seconds)
    return frame


def stream(frames: Iterable[Frame], tokenizer: PreTrainedTokenizerBase) -> Frame:
    """Print the first text of the frames as far as it is known from its start, while it is revealed.

    Where words change until the end (no token is hidden at the start), all of it comes at the end. Returns: the last
    frame.
    """
    said, keeps = "", False
    for frame in frames:
        is_hidden = frame.tokens[0] == tokenizer.mask_token_id
        keeps |= frame.step == 0 and bool(is_hidden.any())
        if keeps and is_hidden.any():
            known = paragraph(frame.tokens[0, : int(is_hidden.int().argmax())], tokenizer).rstrip("\ufffd\n")
            if known.startswith(said):
                print(known[len(said) :], end="", flush=True)
                said = known
    whole = paragraph(frame.tokens[0], tokenizer)
    print(whole[len(said) :] if whole.startswith(said) else f"\n{whole}", flush=True)
    return frame
