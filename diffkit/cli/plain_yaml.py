"""Settings as YAML, and no more of it: no aliases, no key twice, no depths that fill the memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml
from jsonargparse import get_loader, set_loader

MODE = "plain yaml"  # its name as a parser_mode of jsonargparse
LONGEST, DEEPEST = 100_000, 10  # characters, brackets within brackets
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # safe: tags such as !!python/object are refused


def load(text: str) -> Any:
    """What a text says, as jsonargparse reads YAML. Raises: yaml.YAMLError with the place of what is not allowed."""
    if len(text) > LONGEST:
        raise yaml.YAMLError(f"settings have at most {LONGEST:,} characters, here are {len(text):,}")
    depth = 0
    for event in yaml.parse(text, Loader=LOADER):
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent):
            raise yaml.YAMLError(f"line {line}: *{event.anchor} stands for another place; write out what is meant")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise yaml.YAMLError(f"line {line}: more than {DEEPEST} brackets within brackets")
    for name, line in _repeated(yaml.compose(text, Loader=LOADER)):
        raise yaml.YAMLError(f"line {line}: {name!r} is set a second time; delete one of them")
    return get_loader("yaml")(text)


def _repeated(node: yaml.Node | None) -> Iterator[tuple[str, int]]:
    """Keys that a mapping has before, and their lines."""
    pairs = node.value if isinstance(node, yaml.MappingNode) else []
    seen: set[str] = set()
    for key, value in pairs:
        if isinstance(key, yaml.ScalarNode) and key.value in seen:
            yield key.value, key.start_mark.line + 1
        seen.add(str(key.value))
        yield from _repeated(value)
    for item in node.value if isinstance(node, yaml.SequenceNode) else []:
        yield from _repeated(item)


set_loader(MODE, load, exceptions=(yaml.YAMLError,))
