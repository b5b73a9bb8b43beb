"""A run of frames as small JSON: what changes from frame to frame, and the predictions for each position.

Keys: words: every word shown, as text; hidden, pad: which of them are MASK and PAD, -1 where none is shown; spaces: do
words bring the space before them; start: the words of the first frame; moves: of each later frame, "position word" for
each position that changes; given: positions that were given; shows: what the numbers of a table are; tables: of each,
"word chance chance"; predictions: of each position, "frame table" wherever another table holds from then on; asked: the
last frame from whose state something was predicted, -1 for none; far: of each frame, the tenths of the distance between
each point and its word.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor
from transformers import PreTrainedTokenizerBase

from diffkit.cli.show.text import words_of
from diffkit.processes.base import Denoise, Process
from diffkit.sampling.sampler import Frame

CANDIDATES = 5  # words shown for a position, besides the one that came
Table = tuple[int, ...]  # for each candidate: its number in `words`, then its chances in thousandths


def film(
    frames: Sequence[Frame],
    tokenizer: PreTrainedTokenizerBase,
    *,
    fixed: Tensor,
    row: int = 0,
    process: Process | None = None,
    exact: Denoise | None = None,
) -> dict[str, Any]:
    """Frames as the plain data that player.js shows; its keys stand at the top of this file.

    Long lists of numbers are strings with spaces, in base 36: a notebook gives every other number a line of its own.

    Args:   fixed: (L,) bool; row: which text of the batch; process, exact: see `Player`.
    Raises: ValueError for arguments that do not fit the frames.
    """
    check(frames, fixed, row, process, exact)
    tokens = torch.stack([frame.tokens[row] for frame in frames]).cpu()  # (N, L)
    is_hidden = tokens == tokenizer.mask_token_id
    numbers: dict[int, int] = {}  # token id -> index in `words`, in order of appearance

    def number(token: int) -> int:
        return numbers.setdefault(token, len(numbers))

    start, moves = deltas(tokens, number)
    model, posterior = state_probs(frames, row), None
    if exact is not None and process is not None:
        posterior = exact_probs(frames, row, process, exact, model)
        model = {i: probs for i, probs in model.items() if i in posterior}
    came = tokens if frames[0].probs is not None else torch.cat([tokens[1:], tokens[-1:]])  # by each state's prediction
    is_open = (is_hidden if is_hidden.any() else torch.ones_like(is_hidden)) & ~fixed.cpu()
    if frames[0].probs is not None:  # the prediction that revealed a word came with the frame that shows it
        is_open[1:] |= (tokens[1:] != tokens[:-1]) & ~is_hidden[1:]
    tables, predictions = timelines(model, posterior, is_open, came, number)
    ids = torch.tensor(list(numbers))
    data: dict[str, Any] = {
        "words": words_of(ids, tokenizer), "hidden": numbers[tokenizer.mask_token_id] if is_hidden.any() else -1,
        "pad": numbers.get(tokenizer.pad_token_id, -1), "start": joined(start), "moves": rows(moves),
        "given": joined(fixed.nonzero().flatten().tolist()), "tables": rows(tables), "predictions": rows(predictions),
        "shows": [name for name, some in (("prediction", model), ("exact", posterior)) if some],
        "asked": max([-1, *model, *(posterior or {})]),
    }  # fmt: skip
    data["spaces"] = any(word.startswith(" ") for word in data["words"])
    if process is not None and frames[0].z.is_floating_point():  # points
        data["far"] = rows(distances(frames, row, process).mul(10).round().int().tolist())
    return data


def captions_of(frames: Sequence[Frame], tokenizer: PreTrainedTokenizerBase, row: int = 0) -> list[str]:
    """A line below each frame: its step, its time, and how many tokens are hidden or, where none ever is, changed."""
    shown = [frame.tokens[row] for frame in frames]
    counts, what = [int((now == tokenizer.mask_token_id).sum()) for now in shown], "hidden"
    if not any(counts):
        counts, what = [int((now != shown[max(0, i - 1)]).sum()) for i, now in enumerate(shown)], "changed"
    digits = ".0f" if max(frame.t for frame in frames) > 1 else ".2g"  # of an axis that ends at 1
    return [
        f"Step {i} of {len(frames) - 1}, t = {frame.t:{digits}}, {n} token{'' if n == 1 else 's'} {what}"
        for i, (frame, n) in enumerate(zip(frames, counts, strict=True))
    ]


def check(frames: Sequence[Frame], fixed: Tensor, row: int, process: Process | None, exact: Denoise | None) -> None:
    """Raise ValueError for arguments that do not fit the frames."""
    shapes = {tuple(frame.tokens.shape) for frame in frames}
    if len(shapes) > 1:
        raise ValueError(f"Player: all frames must be texts of one shape, got {sorted(shapes)}. Two runs in one list?")
    B, L = frames[0].tokens.shape
    if not 0 <= row < B:
        raise ValueError(f"Player: row must be one of the {B} texts in a frame, 0..{B - 1}, got {row}.")
    if tuple(fixed.shape) != (L,) or fixed.dtype != torch.bool:
        raise ValueError(
            f"Player: fixed marks which of {L} tokens were given, ({L},) bool; got {tuple(fixed.shape)} "
            f"{fixed.dtype}. For a canvas of one row: fixed=canvas[0] != mask_id."
        )
    if exact is None:
        return
    if process is None:
        raise ValueError("Player: exact needs the process too: Player(..., process=p, exact=language.denoiser(p)).")
    if not process.predicts_tokens:
        raise ValueError(
            f"Player: the network of {type(process).__name__} predicts points, not words, so there is no "
            "exact prediction to compare with; leave exact out."
        )


def deltas(tokens: Tensor, number: Callable[[int], int]) -> tuple[list[int], list[list[int]]]:
    """The first of (N, L) texts, and for each later one [position, word, position, word, ...] where it changes."""
    start = [number(token) for token in tokens[0].tolist()]
    moves = []
    for before, after in zip(tokens[:-1], tokens[1:], strict=True):
        positions = (before != after).nonzero().flatten().tolist()
        moves.append([n for i in positions for n in (i, number(int(after[i])))])
    return start, moves


def state_probs(frames: Sequence[Frame], row: int) -> dict[int, Tensor]:
    """Frame number -> the prediction from its state, (L, V).

    A sampler yields a prediction with the frame that it led to; where the first frame has one, each belongs to its own.
    """
    shift = 0 if frames[0].probs is not None else 1
    return {i - shift: frame.probs[row].cpu() for i, frame in enumerate(frames) if frame.probs is not None}


@torch.no_grad()
def exact_probs(
    frames: Sequence[Frame], row: int, process: Process, exact: Denoise, model: dict[int, Tensor]
) -> dict[int, Tensor]:
    """The same with the exact denoiser, at the states the model predicted from, or at all if there are none.

    Not at t = 0, from where no step leads.
    """
    asked = [i for i in sorted(model or range(len(frames))) if frames[i].t > 0]
    if not asked:
        return {}
    z = torch.cat([frames[i].z[row : row + 1] for i in asked])
    t = torch.tensor([frames[i].t for i in asked], dtype=torch.float64)
    probs = process.step(exact, z, t, torch.zeros_like(t), Generator().manual_seed(0)).probs.cpu()
    return dict(zip(asked, probs, strict=True))


def timelines(
    model: dict[int, Tensor],
    exact: dict[int, Tensor] | None,
    is_open: Tensor,
    came: Tensor,
    number: Callable[[int], int],
) -> tuple[list[Table], list[list[int]]]:
    """Different tables, each once; and for each position [frame, table, ...] where another table begins."""
    pool: dict[Table, int] = {}
    lines: list[list[int]] = [[] for _ in range(is_open.shape[1])]
    for i in sorted({*model, *(exact or {})}):
        shown = [some for some in (model.get(i), exact.get(i) if exact else None) if some is not None]
        positions = is_open[i].nonzero().flatten().tolist()
        made = top_tables([some[positions] for some in shown], came[i, positions], number)
        for position, table in zip(positions, made, strict=True):
            n = pool.setdefault(table, len(pool))
            if lines[position][-1:] != [n]:
                lines[position] += [i, n]
    return list(pool), lines


def top_tables(shown: list[Tensor], came: Tensor, number: Callable[[int], int]) -> list[Table]:
    """The likeliest words by the first prediction, (n, V), and the words (n,) that came; thousandths, without zeros."""
    _, ids = shown[0].topk(min(CANDIDATES, shown[0].shape[-1]), dim=-1)
    ids = torch.cat([ids, came[:, None]], -1)
    chances = torch.stack([(some.gather(-1, ids) * 1000).round().int() for some in shown], -1)  # (n, 6, predictions)
    made = []
    for tokens, values in zip(ids.tolist(), chances.tolist(), strict=True):
        ranked = sorted(dict(zip(tokens, values, strict=True)).items(), key=lambda pair: (-pair[1][0], pair[0]))
        made.append(tuple(n for token, each in ranked if each[0] for n in (number(token), *each)))
    return made


def distances(frames: Sequence[Frame], row: int, process: Process) -> Tensor:
    """How far each point is from the vector of the word it is read as, (N, L)."""
    with torch.no_grad():
        vectors = process.vectors()  # type: ignore[operator]
        return torch.stack([(frame.z[row] - vectors[frame.tokens[row]]).norm(dim=-1) for frame in frames]).cpu()


def joined(numbers: Sequence[int]) -> str:
    """Numbers in base 36 with spaces between."""
    return " ".join(np.base_repr(n, 36).lower() for n in numbers)


def rows(lists: Sequence[Sequence[int]]) -> str:
    """Lists of numbers with semicolons between."""
    return ";".join(map(joined, lists))
