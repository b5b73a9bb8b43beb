"""The command line of diffkit: prepare a text, train a small diffusion language model, write with it, judge it.

Start with `diffkit doctor`, then `diffkit demo`; every command explains itself: `diffkit train --help`.
"""

from __future__ import annotations

import inspect
import os
import re
import sys
from argparse import ArgumentError
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, auto_cli

from diffkit import __version__
from diffkit.cli import evaluate, generate, plain_yaml, train
from diffkit.cli.terminal import harmless
from diffkit.paths import CONFIGS
from diffkit.training.config import Curriculum, TrainConfig
from diffkit.training.trainer import TrainingDiverged

COMMANDS: dict[str, Any] = {
    command.__name__: command
    for command in (
        generate.demo,
        generate.doctor,
        train.data,
        train.train,
        generate.sample,
        generate.infill,
        evaluate.evaluate,
    )  # fmt: skip
}
FLAGS = ("--all", "--animate", "--complete", "--resume")
LONGEST_LINE = 1200  # characters of what is told
MISTAKES = (ValueError, OSError, TrainingDiverged)  # of the user's, told without a traceback


THEIR_WORDS = {  # of jsonargparse, and ours
    "Parser key ": "", "<class ": "", "'>": "'", "Expected a typing.Literal[": "Expected one of [",
    "Unexpected config:": "a file of settings has sections such as `data:` with settings, but here is",
}  # fmt: skip


class Parser(ArgumentParser):
    """A parser that takes the help of training settings from the comments beside them in train.py."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **{"parser_mode": plain_yaml.MODE} | kwargs)

    def add_function_arguments(self, *args: Any, **kwargs: Any) -> list[str]:
        """As in jsonargparse."""
        added = super().add_function_arguments(*args, **kwargs)
        for prefix, settings in (("train.", TrainConfig), ("train.curriculum.", Curriculum)):
            comments = re.findall(r"^ {4}(\w+):.*?  # (.+)$", inspect.getsource(settings), re.MULTILINE)
            texts = {prefix + name: text for name, text in comments}
            for action in self._actions:
                action.help = texts.get(action.dest, action.help)
        return added


def underscored(word: str) -> str:
    """An option as jsonargparse knows it: --vocab-size=300 is --vocab_size=300; anything else as it is."""
    name, equals, value = word.partition("=")
    return name[:2] + name[2:].replace("-", "_") + equals + value if word.startswith("--") else word


def config_file(name: str) -> str:
    """A file of settings: the one at this path or, if there is none, the shipped one, such as "configs/tiny.yaml"."""
    ours = CONFIGS.parent / name
    return str(ours) if ours.is_file() and not Path(name).exists() else name


def spelled_out(arguments: list[str]) -> list[str]:
    """The arguments with what is left unsaid: a flag alone means true, data and train take configs/default.yaml."""
    words = [underscored(word) for word in arguments] or ["--help"]
    for i, word in enumerate(arguments):
        if word.startswith("--config="):
            words[i] = f"--config={config_file(word.removeprefix('--config='))}"
        elif i and arguments[i - 1] == "--config":
            words[i] = config_file(word)
        if word in FLAGS and arguments[i + 1 : i + 2] not in (["true"], ["false"]):
            words[i] = f"{word}=true"
    asked = any(word.split("=")[0] in ("--config", "-h", "--help") for word in words)
    if words[:1] in (["data"], ["train"]) and not asked:
        words[1:1] = ["--config", str(CONFIGS / "default.yaml")]
    return words


def told(mistake: BaseException, command: str) -> str | None:
    """A user's mistake in one line that does nothing to a terminal; None for a mistake of ours."""
    text = harmless(" ".join(str(mistake).split()))
    text = text if len(text) <= LONGEST_LINE else f"{text[:LONGEST_LINE]} ..."  # it may quote a whole file
    if isinstance(mistake, ArgumentError):
        for theirs, ours in THEIR_WORDS.items():
            text = text.replace(theirs, ours)
        return f"{text} ({command} --help lists what there is)"
    if isinstance(mistake, UnicodeDecodeError):  # texts and tokenizers say themselves which file it is
        return f"the file of settings is no UTF-8 text ({text}). Save it as UTF-8."
    if isinstance(mistake, MISTAKES):
        return text
    if isinstance(mistake, MemoryError) or "memory" in text:
        return f"not enough memory ({text}). Ask for less at once: fewer texts, or a smaller batch, length or model."
    return None


def main(arguments: list[str] | None = None) -> int:
    """Entry point of the command `diffkit`; 0 if all went well, 2 for a mistake of the user's."""
    words = spelled_out(sys.argv[1:] if arguments is None else arguments)
    asked = {name: COMMANDS[name] for name in words[:1] if name in COMMANDS}
    command = " ".join(["diffkit", *asked])
    try:
        auto_cli(
            asked or COMMANDS, args=words, prog="diffkit", description=__doc__, version=__version__,
            parser_class=Parser, exit_on_error=False,
        )  # fmt: skip
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (ArgumentError, MemoryError, RuntimeError, *MISTAKES) as mistake:
        text = told(mistake, command)
        if text is None:
            raise
        print(f"{command}: {text}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{command}: stopped.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
