"""How a text on its way is shown in a terminal."""

import io
import sys

import pytest
import torch
from wcwidth import wcswidth

from diffkit.cli import terminal
from diffkit.cli.terminal import HIDDEN, paragraph, play
from diffkit.data.tokenizer import train_tokenizer, word_level_tokenizer
from diffkit.sampling.sampler import Frame

TOKENIZER = word_level_tokenizer(["She", "said", "hi", "Tom", "'s", "hat", ".", ",", '"', "!"])


def ids(text):
    return torch.tensor([TOKENIZER.get_vocab()[word] for word in text.split()])


@pytest.mark.parametrize(
    ("tokens", "shown"),
    [
        ("She said , hi . [EOS] [PAD] [PAD]", "She said, hi."),
        ("Tom 's hat . [EOS] [PAD]", "Tom's hat."),
        ("[MASK] said , [MASK] . [EOS] [PAD]", f"{HIDDEN} said, {HIDDEN}."),
        ("[MASK] 's hat [MASK]", f"{HIDDEN}'s hat {HIDDEN}"),
        ('She said , " hi ! " [EOS] [MASK] [MASK]', 'She said, "hi!"'),
        ("[MASK] [PAD] [MASK]", f"{HIDDEN} {HIDDEN}"),
        ("hi . [EOS] Tom [MASK] [EOS]", f"hi.\nTom {HIDDEN}"),
        ("[EOS] [PAD]", ""),
        ("hi . .", "hi.."),
    ],
)
def test_words_marks_and_blocks(tokens, shown):
    """Spacing is that of ordinary text, a block stands for a word, PAD and EOS are not printed."""
    assert paragraph(ids(tokens), TOKENIZER) == shown


def test_long_texts_are_wrapped():
    lines = paragraph(ids("hi " * 50), TOKENIZER, 20).splitlines()
    assert len(lines) > 5 and max(map(len, lines)) <= 20


def test_a_text_is_printed_as_it_is():
    """Line ends, indents and runs of spaces are part of it; a terminal wraps long lines and keeps the rest."""
    poem = "roses,\n    red\n\n  violets,  blue"
    tokenizer = train_tokenizer([poem] * 9, 270)
    given = torch.tensor(tokenizer.encode(poem, add_special_tokens=False))
    assert paragraph(given, tokenizer) == paragraph(given, tokenizer, 20) == poem


class Screen(io.StringIO):
    """A terminal of 80 columns that counts the rows of what is drawn between two moves up."""

    def isatty(self):
        return True

    def moves(self):
        for before in self.getvalue().split("\033[J")[:-1]:
            drawn, _, up = before.rpartition("\033[")
            yield sum(max(1, -(-wcswidth(line) // 80)) for line in drawn.splitlines()), int(up[:-1])


@pytest.mark.parametrize("letters", [120, 4000])
def test_wide_letters_and_tall_frames_are_drawn_over(letters, monkeypatch):
    """Chinese letters are two columns wide; a frame never goes up further than the screen is high, but ends whole."""
    tokenizer = word_level_tokenizer([chr(0x4E00 + i) for i in range(letters)])
    ids = torch.arange(len(tokenizer) - letters, len(tokenizer))[None]
    monkeypatch.setattr(sys, "stdout", Screen())
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", "24")
    play([Frame(k, 0.0, ids, ids, None) for k in range(4)], tokenizer, steps=3, seconds=0)
    moves = list(sys.stdout.moves())
    assert len(moves) == 3 and all(drawn == up < 24 for drawn, up in moves)
    assert chr(0x4E00 + letters - 1) in sys.stdout.getvalue().rpartition("\033")[2]


def frames(steps):
    texts = [["hi" if k < step else "[MASK]" for k in range(steps)] for step in range(steps + 1)]
    for step, words in enumerate(texts):
        tokens = ids(" ".join(words))[None]
        yield Frame(step, float(steps - step), tokens, tokens, None)


@pytest.mark.parametrize("steps", [1, 2, 7, 48])
def test_a_few_stills_where_nothing_moves(steps, capsys):
    last = play(frames(steps), TOKENIZER, steps=steps)
    told = capsys.readouterr().out
    assert last.step == steps and told.startswith(HIDDEN) and "\033" not in told
    assert 2 <= told.count("[step") <= terminal.STILLS and told.endswith(f"[step {steps} of {steps}]\n")


def test_on_a_terminal_each_frame_is_drawn_over_the_last(monkeypatch, capsys):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    play(frames(3), TOKENIZER, steps=3, seconds=0)
    told = capsys.readouterr().out
    assert told.count("[step") == 4 and told.count("\033[2F\033[J") == 3, "one line of text and one of steps go up"
