"""Interactive displays for notebooks."""

from importlib.util import find_spec

for _needed in ("anywidget", "ipywidgets"):
    if find_spec(_needed) is None:
        message = f"diffkit.course.widgets needs {_needed}: pip install 'diffkit[notebooks]'."
        raise ModuleNotFoundError(message, name=_needed)
