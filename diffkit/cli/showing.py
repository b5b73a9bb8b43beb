"""How generated texts reach the reader: printed, played, streamed, as JSON, as a file to share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from diffkit.cli.show.page import player_page
from diffkit.cli.show.picture import check_gif, gif, reel_of, svg
from diffkit.cli.terminal import columns, paragraph, play, stream
from diffkit.io import check_writable, json_text, write_atomic
from diffkit.paths import user_path
from diffkit.sampling.sampler import Frame, last_frame

KINDS = (".html", ".svg", ".gif")
MOST_PLAYERS = 8  # texts in one page


class Shown:
    """What is asked for: see the options of `diffkit sample`."""

    def __init__(
        self, animate: bool = False, stream: bool = False, json: bool = False, frames: bool = False, save: str = "",
        *, is_batch: bool = False,
    ):  # fmt: skip
        self.animate, self.stream, self.json, self.with_frames, self.is_batch = animate, stream, json, frames, is_batch
        self.save = user_path(save) if save else None
        self.kind = self.save.suffix.lower() if self.save else ""
        self.kept: list[Frame] = []

    def check(self, n: int) -> None:
        """Raise ValueError or OSError, before the work, for what does not go together or cannot be written."""
        if self.animate and (self.json or self.stream):
            raise ValueError("--animate draws on the screen; leave it out for --stream and --json.")
        if self.with_frames and not self.json:
            raise ValueError("--frames are part of --json; add it.")
        if self.is_batch and (self.animate or self.save):
            raise ValueError("--animate and --save show one text; with --input leave them out.")
        if self.save is None:
            return
        if self.kind not in KINDS:
            raise ValueError(f"--save writes {', '.join(KINDS)}, by the ending of the name, got {str(self.save)!r}.")
        if self.save.exists():
            raise ValueError(f"--save: {self.save} is there already. Choose another name, or delete it.")
        if n > (MOST_PLAYERS if self.kind == ".html" else 1):
            raise ValueError(
                f"--save: a page holds {MOST_PLAYERS} texts, a picture one; choose a smaller --n, got {n}."
            )
        check_writable(self.save.parent)
        if self.kind == ".gif":
            check_gif()

    def show(
        self, frames: Iterator[Frame], tokenizer: PreTrainedTokenizerBase, steps: int, about: dict[str, Any]
    ) -> None:
        """Run a sampler to its end and print what it makes."""
        self.kept = []
        if self.save or self.with_frames:
            frames = self._keeping(frames)
        if self.json:
            return self._objects(frames, tokenizer, about)
        played = 1 if self.animate or self.stream else 0
        if self.animate:
            frame = play(frames, tokenizer, steps=steps)
        else:
            frame = stream(frames, tokenizer) if self.stream else last_frame(frames)
        texts = [paragraph(ids, tokenizer, columns()) for ids in frame.tokens[played:]]
        apart = "\n" if self.is_batch else "\n\n"
        print(*texts, sep=apart, end="\n" if texts else "", flush=True)

    def _keeping(self, frames: Iterator[Frame]) -> Iterator[Frame]:
        for frame in frames:
            self.kept.append(frame)
            yield frame

    def _objects(self, frames: Iterator[Frame], tokenizer: PreTrainedTokenizerBase, about: dict[str, Any]) -> None:
        """A line of JSON for each text; while it is made one for each step, if streamed."""
        for frame in frames:
            if self.stream:
                texts = [paragraph(ids, tokenizer) for ids in frame.tokens]
                print(json_text(about | {"step": frame.step, "t": frame.t, "texts": texts}), flush=True)
        for i, ids in enumerate(frame.tokens):
            found = {"text": paragraph(ids, tokenizer)} | about | {"index": i}
            if self.with_frames:
                found["frames"] = [paragraph(one.tokens[i], tokenizer) for one in self.kept]
            print(json_text(found), flush=True)

    def keep(self, tokenizer: PreTrainedTokenizerBase, title: str, fixed: Tensor) -> None:
        """Write the file to share; fixed: (L,) bool, tokens that were given."""
        path = Path(str(self.save))
        if self.kind == ".html":
            write_atomic(path, player_page(self.kept, tokenizer, title=title, fixed=fixed))
        else:
            reel = reel_of(self.kept, tokenizer, fixed)
            write_atomic(path, svg(reel, title) if self.kind == ".svg" else gif(reel))
