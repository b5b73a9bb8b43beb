"""The command line of diffkit: prepare a text, train a small diffusion language model, generate text, evaluate.

Start with `diffkit doctor`, then `diffkit demo`. Every command lists its options: `diffkit train --help`.
"""

from __future__ import annotations

import argparse
import re
import sys
from importlib import import_module
from pathlib import Path

from diffkit import __version__
from diffkit.cli.terminal import lasting_output, printable
from diffkit.paths import CONFIGS

COMMANDS = {  # name: (its module in diffkit.cli, imported when the command is run; what it does)
    "demo": ("generate", "watch a story unmask, written by the shipped model"),
    "doctor": ("doctor", "check this machine: versions, device, memory, shipped models, speed"),
    "data": ("train", "prepare a text for training, and show what a model sees of it"),
    "train": ("train", "train a model; Ctrl-C saves, --resume goes on"),
    "sample": ("generate", "generate texts"),
    "infill": ("generate", "fill the blanks of a text"),
    "report": ("run_page", "make a page of a run: curves, samples along training, settings"),
    "evaluate": ("evaluate", "bound the likelihood of a text, and compare with the exact one where it is known"),
}
FLAGS = ("--all", "--animate", "--complete", "--frames", "--json", "--resume", "--stream")
LONGEST_LINE = 1200  # characters of an error message
REFUSED = re.compile(  # how jsonargparse refuses the value of a setting
    r"""Parser key "([\w.]+)": .*?Expected an? (?:<class '(\w+)'>|typing\.Literal\[(.*?)\])"""
    r"""(?:.* Given value:|. Got value:) (.*)"""
)
KINDS = {"int": "a whole number", "float": "a number", "bool": "true or false"}
MISTAKES = (ValueError, OSError, FloatingPointError)  # shown without a traceback; the last is a run that diverged


def overview() -> argparse.ArgumentParser:
    """The parser of `diffkit --help`, which needs no other module."""
    parser = argparse.ArgumentParser(
        "diffkit", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, exit_on_error=False
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(metavar="COMMAND")
    for name, (_, text) in COMMANDS.items():
        commands.add_parser(name, help=text)
    return parser


def normalised(arguments: list[str]) -> list[str]:
    """Arguments as jsonargparse takes them: the command first, underscores in names, =true for flags, a config."""
    at = next((i for i, word in enumerate(arguments) if word in COMMANDS), 0)
    arguments = [*arguments[at : at + 1], *arguments[:at], *arguments[at + 1 :]]  # options may stand before the command
    words = [config_file(word) if arguments[i - 1 : i] == ["--config"] else word for i, word in enumerate(arguments)]
    for i, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name.startswith("--"):
            name = name[:2] + name[2:].replace("-", "_")
            words[i] = name + equals + (config_file(value) if name == "--config" else value)
        if word in FLAGS and words[i + 1 : i + 2] not in (["true"], ["false"]):
            words[i] = f"{word}=true"
    asked = any(word.split("=")[0] in ("--config", "-h", "--help") for word in words)
    if words[:1] in (["data"], ["train"]) and not asked:
        words[1:1] = ["--config", str(CONFIGS / "default.yaml")]
    is_text = words[1:2] and not words[1].startswith("-")  # beside --input, which is then refused
    if words[:1] == ["infill"] and not is_text and any(word.split("=")[0] == "--input" for word in words):
        words.insert(1, "")  # the texts are in the file
    return words or ["--help"]


def config_file(name: str) -> str:
    """A file of settings: the one at this path or, if there is none, the shipped one, such as "configs/tiny.yaml"."""
    ours = CONFIGS.parent / name
    return str(ours) if ours.is_file() and not Path(name).exists() else name


def run(words: list[str]) -> None:
    """Run a command on its options."""
    if words[0] not in COMMANDS:
        overview().parse_known_args(words[:1])  # --help and --version end here, and so do unknown commands
        raise argparse.ArgumentError(None, f"expected one of the commands {', '.join(COMMANDS)}, got {words[0]!r}")
    from jsonargparse import auto_cli  # not needed for the overview

    from diffkit.cli.parser import Parser

    command = getattr(import_module(f"diffkit.cli.{COMMANDS[words[0]][0]}"), words[0])
    auto_cli(command, args=words[1:], prog=f"diffkit {words[0]}", parser_class=Parser, exit_on_error=False)


def plain(text: str) -> str:
    """A refusal of jsonargparse in the words of the command line."""
    text = re.sub(r"- Expected a path but (.+?) either .* string: .*", r"a class such as diffkit.D3PM, not \1", text)
    if not (found := REFUSED.fullmatch(text)):
        return re.sub(r'^Parser key "([\w.]+)":', r"--\1:", text)
    name, kind, choices, value = found.groups()
    return f"--{name} must be {KINDS.get(kind, kind) if kind else f'one of {choices}'}, got {value}"


def message(mistake: BaseException, command: str) -> str | None:
    """A user's mistake in one printable line; None for a bug of ours."""
    text = printable(" ".join(str(mistake).split()))
    text = text if len(text) <= LONGEST_LINE else f"{text[:LONGEST_LINE]} ..."  # it may quote a whole file
    if isinstance(mistake, argparse.ArgumentError):
        return f"{plain(text)} ({command} --help lists the options)"
    if isinstance(mistake, UnicodeDecodeError):  # errors of texts and tokenizers name their file
        return f"the file of settings is not UTF-8 text ({text}). Save it as UTF-8."
    if isinstance(mistake, MISTAKES):
        return text
    if isinstance(mistake, MemoryError) or "memory" in text:
        return f"not enough memory ({text}). Choose fewer texts at once, or a smaller batch, length or model."
    return None


def main(arguments: list[str] | None = None) -> int:
    """Entry point of the command `diffkit`; 0 if all went well, 2 for a mistake of the user's."""
    words = normalised(sys.argv[1:] if arguments is None else arguments)
    command = f"diffkit {words[0]}" if words[0] in COMMANDS else "diffkit"
    with lasting_output():
        try:
            run(words)
            sys.stdout.flush()
        except (argparse.ArgumentError, MemoryError, RuntimeError, *MISTAKES) as mistake:
            text = message(mistake, command)
            if text is None:
                raise
            print(f"{command}: {text}", file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            print(f"{command}: stopped.", file=sys.stderr)
            return 130
    return 0
