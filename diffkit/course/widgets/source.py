"""Source code of the package, shown in a notebook."""

from __future__ import annotations

import ast
import html
import inspect
import textwrap
from typing import Any

from IPython.display import DisplayObject
from pygments.lexers import PythonLexer
from pygments.token import Comment, Keyword, Name, String

# A tag for each kind of code that stands out. Weight and slant tell the kinds apart; both colours keep a contrast of
# 4.5 on white and on JupyterLab's dark page, so neither needs to know which it is.
TAGS = {Keyword: "b", Comment: "i", String: "q", Name.Function: "u", Name.Class: "u"}
STYLE = (
    "<style>.dk-source b{color:#2f7dc9}.dk-source i{opacity:.75}.dk-source q{color:#b0611a;quotes:none}"
    ".dk-source u{font-weight:bold;text-decoration:none}</style>"
)


class Source(DisplayObject):
    """The source of a function or class of the package, for reading in a notebook.

    Args: core: leave out docstrings, and `if` statements that do nothing but raise an error.
    """

    def __init__(self, thing: Any, core: bool = False):
        code = textwrap.dedent(inspect.getsource(thing))
        self.name, self.code = thing.__qualname__, core_of(code) if core else code

    def __repr__(self) -> str:
        return self.code

    def _repr_html_(self) -> str:
        label = f"source of {html.escape(self.name)}"
        return f'{STYLE}<pre class="dk-source" aria-label="{label}"><code>{coloured(self.code)}</code></pre>'


def coloured(code: str) -> str:
    """Python code as HTML with tags around keywords, comments, strings and the names that are defined."""
    spans = []
    for kind, text in PythonLexer().get_tokens(code):
        tag = next((tag for family, tag in TAGS.items() if kind in family), "")
        spans.append(f"<{tag}>{html.escape(text, quote=False)}</{tag}>" if tag else html.escape(text, quote=False))
    return "".join(spans)


def core_of(code: str) -> str:
    """The code without docstrings and without checks (`if` statements whose whole body raises), comments kept."""
    dropped: set[int] = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node) is not None:
            dropped.update(range(node.body[0].lineno, node.body[0].end_lineno + 1))  # type: ignore[operator]
        if isinstance(node, ast.If) and not node.orelse and all(isinstance(step, ast.Raise) for step in node.body):
            dropped.update(range(node.lineno, node.end_lineno + 1))  # type: ignore[operator]
    return "".join(line for i, line in enumerate(code.splitlines(keepends=True), 1) if i not in dropped)


def show_source(thing: Any, *, core: bool = False) -> Source:
    """Show how something in diffkit is written; core: without its docstrings and checks."""
    return Source(thing, core)
