"""How a text on its way is shown in a terminal."""

import sys

import pytest
import torch

from diffkit.cli import terminal
from diffkit.cli.terminal import HIDDEN, paragraph, play
from diffkit.data.tokenizer import word_level_tokenizer
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
