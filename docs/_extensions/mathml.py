"""Mathematics as MathML, written while the site is built: no script, no fonts, no network.

latex2mathml does the work. What is set right here looks wrong in a browser without a font for mathematics.
"""

import re
import xml.etree.ElementTree as ElementTree
from html import escape

from docutils.nodes import SkipNode, reference
from latex2mathml.converter import convert
from sphinx.errors import ExtensionError

NAMESPACE = "http://www.w3.org/1998/Math/MathML"
ElementTree.register_namespace("", NAMESPACE)
UNKNOWN_HERE = {
    r"\arg": r"\operatorname{arg}",
    r"\ ": r"\;",
}  # what Jupyter knows and the converter does not, or not well
SCRIPTED = {"msub", "msup", "msubsup", "munder", "munderover"}
PRIME, BRACE = "\u2032", "\u23df"


def mathml(latex, display):
    """One formula as a <math> element; its LaTeX is kept as alttext.

    Args:   display: "inline" or "block".
    Raises: ExtensionError for what cannot be converted, or what the converter would print as it stands.
    """
    latex = " ".join(latex.split())
    known = re.sub(r"\\[A-Za-z]+|\\ ", lambda command: UNKNOWN_HERE.get(command[0], command[0]), latex)
    try:
        root = ElementTree.fromstring(convert(known, display=display))
    except Exception as error:  # the converter raises many kinds
        raise ExtensionError(f"mathml: cannot convert {latex!r}: {error!r}. Is it valid LaTeX?") from error
    if "\\" in "".join(root.itertext()):
        raise ExtensionError(f"mathml: latex2mathml does not know a command in {latex!r}. Write it another way.")
    for element in root.iter():
        raise_primes(element)
        draw_braces(element)
        space_functions(element)
    root.set("alttext", latex)
    return ElementTree.tostring(root, encoding="unicode")


def kind(element):
    return element.tag.removeprefix(f"{{{NAMESPACE}}}")


def made(tag, **attributes):
    return ElementTree.Element(f"{{{NAMESPACE}}}{tag}", attributes)


def raise_primes(element):
    """A prime is raised by its own shape; as an exponent it would become a dot."""
    if kind(element) == "msup" and element[1].text == PRIME:
        element.tag = f"{{{NAMESPACE}}}mrow"
        prime = made("mo", lspace="0", rspace="0", **{"class": "prime"})
        prime.text = PRIME
        element[1] = prime


def draw_braces(element):
    """A brace below a term becomes a line, which every browser can stretch."""
    if kind(element) == "munder" and element[1].text == BRACE:
        element.tag = f"{{{NAMESPACE}}}mrow"
        element.set("class", "braced")
        del element[1]


def is_function(element):
    """Whether this is log, cos, ... with or without an index."""
    base = element[0] if kind(element) in SCRIPTED else element
    return kind(base) == "mi" and len(base.text or "") > 1 and (base.text or "").isalpha()


def space_functions(element):
    """A thin space between a function's name and what is not in brackets, as in print."""
    if kind(element) in SCRIPTED | {"mfrac"}:
        return  # their children are places, not a row
    for i in reversed(range(len(element))):
        if not is_function(element[i]):
            continue
        if i + 1 < len(element) and kind(element[i + 1]) not in {"mo", "mspace"}:
            element.insert(i + 1, made("mspace", width="0.167em"))
        if i and (kind(element[i - 1]) not in {"mo", "mspace"} or element[i - 1].text == ")"):
            element.insert(i, made("mspace", width="0.167em"))


def visit_inline(translator, node):
    written = mathml(node.astext(), "inline")
    # A link that is only a formula has no name that can be read out.
    if any(isinstance(confidence_threshold, reference) for confidence_threshold in (node.parent, node.parent.parent)):
        spoken = "".join(ElementTree.fromstring(written).itertext())
        written = f'<span role="img" aria-label="{escape(spoken)}">{written}</span>'
    translator.body.append(written)
    raise SkipNode


def visit_block(translator, node):
    translator.body.append(f'<div class="math-block">{mathml(node.astext(), "block")}</div>\n')
    raise SkipNode


def setup(app):
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
