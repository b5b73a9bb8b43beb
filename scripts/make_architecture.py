"""Draw docs/maintainers/architecture.svg: the folders of the package as data flows, and what each imports.

Files and imports are read from diffkit/, the order from the import-linter contract in pyproject.toml. An import goes
down along a line: from the room that is imported to a dot at each room that imports it. One that went up would be
orange.
"""

from __future__ import annotations

import ast
import re
import textwrap
import tomllib
from collections.abc import Iterator
from pathlib import Path

from diffkit.io import write_atomic

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "diffkit"
# pixels, and characters of a line of names
WIDTH, LEFT, BOX, NAMES, LINE, GAP, LANE, COLUMNS = 880, 20, 590, 150, 20, 14, 22, 51
STYLE = (
    "text{font:14px system-ui,sans-serif;fill:#24292f}.title{font-weight:bold;font-size:16px}"
    ".names{font:14px ui-monospace,Menlo,Consolas,monospace}.quiet{fill:#57606a}.panel{fill:#f6f8fa}"
    ".room{fill:#fff;stroke:#0072b2;stroke-width:1.5}.down{stroke:#0072b2;stroke-width:1.5;fill:none}"
    ".dot{fill:#0072b2}.up{stroke:#d55e00;stroke-width:3;fill:none}"
    "@media(prefers-color-scheme:dark){text{fill:#e6edf3}.quiet{fill:#9da7b3}.panel{fill:#161b22}"
    ".room{fill:#0d1117;stroke:#56b4e9}.down{stroke:#56b4e9}.dot{fill:#56b4e9}}"
)


def rooms() -> list[list[str]]:
    """Folders and modules of the root, those that everything imports first; modules of one rank share a room."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    return [re.split(r" [:|] ", layer) for layer in reversed(layers)]


def files_of(name: str) -> list[Path]:
    """The files of a folder and of those in it, or the one module."""
    folder = PACKAGE / name
    return sorted(folder.rglob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]


def shown(name: str) -> str:
    """What lies in a folder, by name; nothing for a module."""
    inside = [path for path in sorted((PACKAGE / name).glob("*")) if path.name[0] not in "_."]
    return "  ".join(f"{path.name}/" if path.is_dir() else path.stem for path in inside if path.suffix in ("", ".py"))


def about(name: str) -> str:
    """The first line of a docstring, up to its first full stop or colon."""
    init = PACKAGE / name / "__init__.py"
    tree = ast.parse((init if init.is_file() else files_of(name)[0]).read_text(encoding="utf-8"))
    return re.split(r"[.:]", ast.get_docstring(tree) or "")[0]


def imports(name: str) -> Iterator[str]:
    """The folder or module of the root that each import of a room comes from."""
    for path in files_of(name):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "diffkit":
                yield from str(node.module).split(".")[1:2] or [alias.name for alias in node.names]


def text(x: int, y: int, words: str, kind: str = "") -> str:
    return f'<text x="{x}" y="{y}" class="{kind}" xml:space="preserve">{words}</text>'


def lane(number: int, middles: list[int], importers: list[int]) -> str:
    """The line of a room beside the boxes, with a dot for each room that imports it."""
    x, y = BOX + LEFT + LANE * number, middles[number]
    parts = []
    for other in importers:
        kind = "down" if other > number else "up"
        parts.append(f'<path class="{kind}" d="M{BOX} {y}H{x}V{middles[other]}"/>')
        parts.append(f'<circle class="dot" cx="{x}" cy="{middles[other]}" r="4"/>')
    return "".join(parts)


def draw() -> str:
    """The picture as SVG: a box for each room, and a line for each that is imported."""
    parts, middles, y, order = [], [], LEFT, rooms()
    for names in order:
        lines = [(textwrap.shorten(about(name), 58, placeholder=" ..."), "quiet") for name in names]
        lines += [(line, "names") for name in names for line in textwrap.wrap(shown(name), COLUMNS)]
        height = LINE * len(lines) + 18
        parts.append(f'<rect class="room" x="{LEFT}" y="{y}" width="{BOX - LEFT}" height="{height}" rx="8"/>')
        parts += [text(LEFT + 12, y + 24 + LINE * i, name, "title") for i, name in enumerate(names)]
        parts += [text(NAMES, y + 24 + LINE * i, line, kind) for i, (line, kind) in enumerate(lines)]
        middles.append(y + height // 2)
        y += height + GAP
    room_of = {name: number for number, names in enumerate(order) for name in names}
    used = [{room_of[one] for name in names for one in imports(name) if one in room_of} for names in order]
    for number in range(len(order)):
        importers = [other for other, found in enumerate(used) if number in found and other != number]
        parts.append(lane(number, middles, importers))
    said = "; ".join(f"{name}: {shown(name) or about(name)}" for names in order for name in names)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y - GAP + LEFT}" role="img" '
        f'aria-labelledby="t d"><title id="t">The folders of diffkit, in the order in which data flows</title>'
        f'<desc id="d">{said}</desc><style>{STYLE}</style><rect class="panel" width="100%" height="100%" rx="10"/>'
        f"{''.join(parts)}</svg>\n"
    )


if __name__ == "__main__":
    write_atomic(ROOT / "docs" / "maintainers" / "architecture.svg", draw())
