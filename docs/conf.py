"""Settings of the site. `make site` first gathers its sources in build/site/source; this file is read there, not here.

Nothing is executed: the notebooks are committed with their outputs. Nothing comes from another host: mathematics is
turned into MathML while building, fonts are those of the reader's system, and what moves is a script of our own.
"""

import sys
from pathlib import Path

SOURCE = Path(__file__).resolve().parent
sys.path.insert(0, str(SOURCE / "_extensions"))

project = "diffkit"
author = "the diffkit authors"
copyright = "the diffkit authors. Code MIT, text of the course CC BY 4.0"

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.viewcode", "sphinx_copybutton", "mathml", "docstrings"]
exclude_patterns = ["README.md"]  # the front page includes what it needs of it
templates_path = ["_templates"]

nb_execution_mode = "off"
nb_ipywidgets_js = {}  # the manager of widgets would come from a CDN, and has nothing to talk to on a page
nb_mime_priority_overrides = [("html", "application/vnd.jupyter.widget-view+json", None)]
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_dmath_allow_labels = False  # as in Jupyter: brackets after a formula are brackets
myst_dmath_double_inline = True
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_type_aliases = {name: name for name in "Choose Classify Curve Denoise Opinion Plan Rate Sampler Score".split()}
autodoc_inherit_docstrings = False  # of torch and transformers, whose pages these are not
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
add_module_names = False
toc_object_entries = False  # each page lists its names itself; in the tables of contents they make the build slow
viewcode_line_numbers = False

html_theme = "furo"
html_title = "diffkit"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_js_files = [("site.js", {"loading_method": "defer"})]
html_math_renderer = "mathml"
html_copy_source = False
html_show_search_summary = False  # it fetches each page found, which a page opened from disk may not do
html_sidebars = {
    "**": [
        "sidebar/brand.html",
        "sidebar/search.html",
        "sidebar/scroll-start.html",
        "sidebar/playground.html",
        "sidebar/navigation.html",
        "sidebar/scroll-end.html",
    ]
}

pygments_style = "a11y-high-contrast-light"  # both come with the theme, and are readable at a contrast of 7 to 1
pygments_dark_style = "a11y-high-contrast-dark"
copybutton_selector = "div:not(.output) > div.highlight pre"
copybutton_prompt_text = r"\$ |>>> |\.\.\. "
copybutton_prompt_is_regexp = True


def add_player(app, pagename, templatename, context, doctree):
    """Load the player's script and style on the pages that have something to play."""
    if 'class="dk-mount"' in context.get("body", "") and (SOURCE / "_static" / "player.js").is_file():
        app.add_css_file("player.css")
        app.add_js_file("player.js", loading_method="defer")


def give_levels(app, pagename, templatename, context, doctree):
    """Captions in the navigation say that they are headings, but not of which level, which screen readers need."""
    tree = context.get("furo_navigation_tree") or ""
    context["furo_navigation_tree"] = tree.replace('role="heading"', 'role="heading" aria-level="2"')


def setup(app):
    app.connect("html-page-context", add_player)
    app.connect("html-page-context", give_levels, priority=900)  # after the theme has made its tree
