"""Typed settings from the command line and YAML files: jsonargparse, with our help texts and checks of a file."""

from __future__ import annotations

import inspect
import re
from dataclasses import is_dataclass
from typing import Any, get_type_hints

import yaml
from jsonargparse import ArgumentParser, get_loader, set_loader

LONGEST = 100_000  # characters of a file of settings
CLASSES = ("class_path", "process", "schedule")  # keys whose value may name a class


class Parser(ArgumentParser):
    """A parser that reads `checked_yaml` and takes the help of a setting from the comment beside it."""

    def __init__(self, *args: Any, **kwargs: Any):
        set_loader("checked yaml", checked_yaml, exceptions=(yaml.YAMLError,))
        super().__init__(*args, **{"parser_mode": "checked yaml"} | kwargs)

    def add_function_arguments(self, function: Any, *args: Any, **kwargs: Any) -> list[str]:
        """As in jsonargparse."""
        added = super().add_function_arguments(function, *args, **kwargs)
        texts = comments(function)
        for action in self._actions:
            action.help = texts.get(action.dest, action.help)
        return added


def comments(owner: Any, prefix: str = "") -> dict[str, str]:
    """The comment beside each field of the dataclasses among the parameters of a function, by dotted name."""
    found: dict[str, str] = {}
    for name, kind in get_type_hints(owner).items():
        if isinstance(kind, type) and is_dataclass(kind):
            pairs = re.findall(r"^ {4}(\w+):.*?  # (.+)$", inspect.getsource(kind), re.MULTILINE)
            found |= {f"{prefix}{name}.{key}": text for key, text in pairs} | comments(kind, f"{prefix}{name}.")
    return found


def checked_yaml(text: str) -> Any:
    """Read YAML safely, as jsonargparse does, but yes, no, on and off are words.

    Raises: yaml.YAMLError also for aliases, and for a key set twice.
    """
    if len(text) > LONGEST:
        raise yaml.YAMLError(f"settings have at most {LONGEST:,} characters, got {len(text):,}")
    seen: dict[int, yaml.Node] = {}
    try:
        _check(yaml.compose(text, Loader=yaml.SafeLoader), seen)
    except RecursionError:
        raise yaml.YAMLError("too many brackets within brackets") from None
    for node in sorted(seen.values(), key=lambda node: -node.start_mark.index):
        if node.tag == "tag:yaml.org,2002:bool" and node.value.lower() not in ("true", "false"):
            text = f'{text[: node.start_mark.index]}"{node.value}"{text[node.end_mark.index :]}'
    return get_loader("yaml")(text)


def _check(node: yaml.Node | None, seen: dict[int, yaml.Node]) -> None:
    """Refuse a node that an alias repeats (it may grow without bound), a repeated key, and code that is not ours."""
    if node is None:
        return
    line = f"line {node.start_mark.line + 1}"
    if id(node) in seen:
        raise yaml.YAMLError(f"{line} has an alias, which is not read; write the value out")
    seen[id(node)] = node
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _check(item, seen)
    elif isinstance(node, yaml.MappingNode):
        keys = [key.value for key, _ in node.value]
        for key, value in node.value:
            if keys.count(key.value) > 1:
                raise yaml.YAMLError(f"{line}: {key.value!r} is set twice; delete one of them")
            if key.value in CLASSES and "." in value.value and not value.value.startswith("diffkit."):
                raise yaml.YAMLError(f"{line}: {key.value} must name a class of diffkit, got {value.value!r}")
            _check(value, seen)
