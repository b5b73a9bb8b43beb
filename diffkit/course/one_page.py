"""The one-file models of examples/, as modules, and their difference, for reading in a notebook."""

from __future__ import annotations

import difflib
import html
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from IPython.display import DisplayObject

from diffkit.course.widgets.source import STYLE, coloured

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def load_example(name: str) -> ModuleType:
    """The file examples/NAME.py as a module, found from anywhere."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where `inspect` looks for the source of a class
    spec.loader.exec_module(module)
    return module


class Difference(DisplayObject):
    """Two pieces of code side by side: what differs in full, what is the same as a count of lines.

    Args: first, second: (heading, code).
    """

    def __init__(self, first: tuple[str, str], second: tuple[str, str]):
        self.names = (first[0], second[0])
        self.lines = (first[1].splitlines(), second[1].splitlines())
        self.steps = difflib.SequenceMatcher(None, *self.lines, autojunk=False).get_opcodes()
        self.equal = sum(b - a for kind, a, b, _, _ in self.steps if kind == "equal")

    def __repr__(self) -> str:
        left, right = map(len, self.lines)
        return f"{self.names[0]}, {left} lines, and {self.names[1]}, {right} lines: {self.equal} are the same"

    def _repr_html_(self) -> str:
        rows = []
        for kind, a, b, c, d in self.steps:
            if kind == "equal":
                what = "line" if b - a == 1 else "lines"
                rows.append(f'<tr><td colspan="2" class="dk-same">{b - a} {what} the same</td></tr>')
            else:
                sides = (self.lines[0][a:b], self.lines[1][c:d])
                cells = (coloured("\n".join(side)) if any(side) else "" for side in sides)
                rows.append("<tr>" + "".join(f"<td><pre>{cell}</pre></td>" for cell in cells) + "</tr>")
        heads = "".join(f"<th>{html.escape(name)}</th>" for name in self.names)
        return (
            f"{STYLE}<style>.dk-diff{{border-collapse:collapse;width:100%}}.dk-diff td{{vertical-align:top;"
            "border:1px solid #8886;text-align:left!important;width:50%}.dk-diff pre{white-space:pre-wrap;"
            "font-size:.85em}.dk-diff th{text-align:left!important}.dk-diff .dk-same{opacity:.7;font-size:.85em;"
            "text-align:center!important}</style>"
            f'<table class="dk-diff dk-source" aria-label="{html.escape(repr(self))}"><tr>{heads}</tr>{"".join(rows)}'
            "</table>"
        )


def difference(first: ModuleType, second: ModuleType) -> Difference:
    """Two example files side by side, from their first function or class to their last, without what runs them."""
    return Difference(*((module.__name__ + ".py", _body(module)) for module in (first, second)))


def _body(module: ModuleType) -> str:
    """The code of a file after its imports and data: network, loss, sampling, training."""
    code = Path(str(module.__file__)).read_text(encoding="utf-8")
    return code[code.index("class Block(") : code.index("def save(")]
