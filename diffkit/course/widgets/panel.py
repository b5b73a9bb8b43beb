"""What all widgets share: how results and errors look, and which controls are open."""

from __future__ import annotations

import html
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import ipywidgets as ipw
from IPython.display import DisplayObject

OPEN_AT_ONCE = 3  # how many displays of one object stay alive
OPEN_IN_ALL = 24  # and of all objects: a notebook has five at most, and cells are run again
# Colours of JupyterLab's theme where there is one, of the page around elsewhere: light and dark alike.
LOOK = (
    "<style>.dk-panel{font:14px/1.5 var(--jp-ui-font-family,system-ui,sans-serif);"
    "color:var(--jp-ui-font-color1,inherit)}"
    ".dk-panel table{border-collapse:collapse;margin:.4em 0}"
    ".dk-panel caption{text-align:left;font-weight:600;white-space:nowrap}"
    ".dk-panel th,.dk-panel td{padding:.1em .7em .1em 0;text-align:left;border-bottom:1px solid #8888}"
    ".dk-panel p{margin:.3em 0}.dk-panel h4{margin:.5em 0 .1em;font-size:1em}"
    ".dk-panel .dk-story{font:14px/1.7 ui-monospace,Menlo,Consolas,monospace}"
    ".dk-panel .dk-two{display:flex;flex-wrap:wrap;gap:0 2em}.dk-panel .dk-two>div{flex:1 1 18em}"
    ".dk-alert{border:2px solid var(--jp-error-color1,#d55e00);padding:.3em .6em;margin:.3em 0}</style>"
)


def panel_html(inner: str, role: str = "status") -> str:
    """A piece of a widget's page, read out by screen readers when it changes; `inner` is HTML, escaped before."""
    return f'{LOOK}<div class="dk-panel" role="{role}">{inner}</div>'


def alert_html(sentence: str) -> str:
    """A problem as one sentence inside the widget."""
    return f'{LOOK}<div class="dk-panel dk-alert" role="alert">⚠ <b>Problem:</b> {html.escape(sentence)}</div>'


@contextmanager
def guarded(output: ipw.HTML) -> Iterator[None]:
    """Show an error of the block in `output`, where a callback would leave a traceback in the log.

    The last error is cleared. A ValueError of the package is a sentence already; others get their type.
    """
    output.value = ""
    try:
        yield
    except Exception as error:
        message = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        output.value = alert_html(message)


def deliver_while_busy(widget: ipw.Widget) -> None:
    """Let clicks on a widget reach Python while a cell runs; call after everything that is sent to the widget.

    JupyterLab sends widget messages to a second loop of the kernel (a subshell). ipykernel 7.4 hands it over to the
    loop that wrote to the widget last, which is the busy one; without that note it stays where JupyterLab sent it.
    """
    if widget.comm is not None:
        vars(widget.comm).pop("_reply_subshell_id", None)


class Display(DisplayObject):
    """A widget of the course: fresh controls for every display, and HTML for a page without a kernel.

    ipywidgets keeps every open widget alive, with its callbacks and all that they hold, until someone closes it. So the
    oldest controls are closed where there are many.
    """

    _open: ClassVar[list[tuple[weakref.ref[Display], ipw.Widget, tuple[ipw.Widget, ...]]]] = []  # oldest first

    def controls(self) -> ipw.Widget:
        """Fresh controls, noted as open."""
        raise NotImplementedError

    def still(self) -> str:
        """What a page without a kernel shows, as HTML."""
        raise NotImplementedError

    def metadata(self) -> dict[str, Any]:
        """What a notebook stores with the output."""
        return {}

    def opened(self, controls: ipw.Widget, links: Iterable[ipw.Widget] = ()) -> ipw.Widget:
        """Note controls that are about to be shown, and the links between their parts; returns the controls."""
        mine = [shown for shown in self._open if shown[0]() is self]
        for shown, most in ((mine, OPEN_AT_ONCE), (self._open, OPEN_IN_ALL)):
            if len(shown) >= most:
                oldest = shown[0]
                self._open.remove(oldest)
                close(*oldest[1:])
                break
        self._open.append((weakref.ref(self), controls, tuple(links)))
        return controls

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> tuple[dict[str, Any], dict[str, Any]]:
        live = self.controls()._repr_mimebundle_() or {}
        live = live[0] if isinstance(live, tuple) else live  # anywidget adds metadata
        return live | {"text/plain": repr(self), "text/html": self.still()}, self.metadata()


def close(controls: ipw.Widget, links: Iterable[ipw.Widget] = ()) -> None:
    """Close controls, all that they are made of, and the links between them."""
    for link in links:
        link.close()
    for part in list(parts_of(controls)):
        part.close()


def parts_of(widget: ipw.Widget) -> Iterator[ipw.Widget]:
    """A widget and everything inside it: children, layouts, styles."""
    yield widget
    for child in getattr(widget, "children", ()):
        yield from parts_of(child)
    for name in ("layout", "style"):
        part = getattr(widget, name, None)
        if isinstance(part, ipw.Widget):
            yield part
