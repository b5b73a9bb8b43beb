"""Source code of the package, shown in a notebook."""

from __future__ import annotations

import html
import inspect
from typing import Any

from IPython.display import DisplayObject


class Source(DisplayObject):
    """The source of a function or class of the package, as it is, for reading in a notebook."""

    def __init__(self, thing: Any):
        self.name, self.code = thing.__qualname__, inspect.getsource(thing)

    def __repr__(self) -> str:
        return self.code

    def _repr_html_(self) -> str:
        return f'<pre aria-label="source of {html.escape(self.name)}"><code>{html.escape(self.code)}</code></pre>'


def show_source(thing: Any) -> Source:
    """Show how something in diffkit is written."""
    return Source(thing)
