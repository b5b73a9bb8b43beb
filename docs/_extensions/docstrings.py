"""Our docstrings for Sphinx: plain sentences, then Args, Returns, Raises and Source in a few lines each, an example.

They are written to be read in the code, not in reStructuredText, so everything that would mean something there is
escaped.
"""

import re
import textwrap

LABEL = re.compile(r"(Args|Returns|Yields|Raises|Source):\s*(.*)")
MARKED = re.compile(r"(`[^`]+`|arXiv:\d{4}\.\d{4,5})")
NAME = re.compile(r"[A-Za-z_]\w*(\.\w+)*(\(\))?")


def inline(text):
    """One stretch of text: names in backticks become links where there is such a thing, papers links to arXiv."""
    return "".join(marked(part) if i % 2 else plain(part) for i, part in enumerate(MARKED.split(text)))


def plain(text):
    return re.sub(r"([\\*_|`])", r"\\\1", text)


def marked(part):
    if part.startswith("arXiv:"):
        return rf"\ `{part} <https://arxiv.org/abs/{part.removeprefix('arXiv:')}>`__\ "
    name = part.strip("`")
    return rf"\ :py:obj:`{name}`\ " if NAME.fullmatch(name) else rf"\ ``{name}``\ "


def blocks(lines):
    """Group lines: a label starts a block and so does a list item; an empty line ends one."""
    block = []
    for line in lines:
        starts = LABEL.match(line) or line.lstrip().startswith("- ")
        if block and (starts or not line.strip()):
            yield block
            block = []
        if line.strip():
            block.append(line)
    if block:
        yield block


def to_rst(lines):
    """The lines of a docstring as reStructuredText."""
    written = []
    for block in blocks(lines):
        label, text = LABEL.match(block[0]), " ".join(line.strip() for line in block)
        if text.startswith(">>> "):
            written += ["", *block, ""]
        elif label:
            written += [f":{label[1]}: {inline(LABEL.match(text)[2])}"]
        elif block[0].startswith("    "):
            written += ["::", "", *textwrap.indent(textwrap.dedent("\n".join(block)), "    ").splitlines(), ""]
        elif text.startswith("- "):
            written += [f"- {inline(text[2:])}", ""]
        else:
            written += [inline(text), ""]
    return [*written, ""]


def process(app, what, name, thing, options, lines):
    lines[:] = to_rst(lines)


def name_aliases(app, what, name, thing, options, signature, returns):
    """Our names for kinds of functions stand in signatures as they do in the code; a protocol is never called."""
    if signature == "(*args, **kwargs)" and what == "class":
        return "", None
    return tuple(re.sub(r"TypeAliasForwardRef\('(\w+)'\)", r"\1", part or "") or None for part in (signature, returns))


def skip_bare_fields(app, what, name, thing, skip, options):
    """Leave out the fields of named tuples, for which Python itself writes a docstring that says nothing."""
    return True if (getattr(thing, "__doc__", None) or "").startswith("Alias for field number") else None


def setup(app):
    app.connect("autodoc-process-docstring", process)
    app.connect("autodoc-process-signature", name_aliases)
    app.connect("autodoc-skip-member", skip_bare_fields)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
