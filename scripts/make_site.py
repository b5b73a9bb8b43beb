"""Build the course as a static site in site/: every notebook with its outputs, players that play, search, the API.

    python scripts/make_site.py            # what is unchanged since the last time is not built again
    python scripts/make_site.py --fresh    # everything

The sources are gathered in build/site/source in the layout of the repository, so that links between files stay as they
are. Nothing is executed and no network is used.
"""

from __future__ import annotations

import argparse
import ast
import html
import json
import re
import shutil
import sys
import time
from pathlib import Path

import nbformat
from check_site import check_site
from make_architecture import rooms
from make_playground import write_playground
from nbformat import NotebookNode
from sphinx.cmd.build import main as sphinx_build

from diffkit.paths import PRETRAINED

ROOT = Path(__file__).resolve().parent.parent
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
EXPORTS = "export { mount };\nexport default { render };\n"
PAGES = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "EXPERIMENTS.md", "notebooks/glossary.md", "data/README.md"]

RUN_HINT = """\
```{{admonition}} Run it yourself
:class: note

This page shows a stored run; nothing is computed here. To run it, change it and have your exercises checked: `make lab`
in the folder of the course opens JupyterLab; there open `notebooks/{name}`.
```"""

MOUNT_ALL = """
  for (const place of document.querySelectorAll(".dk-mount")) {
    const still = [...place.children];
    const box = place.appendChild(document.createElement("div"));
    try {
      mount(box, JSON.parse(place.querySelector(".dk-data").textContent));
      still.forEach((element) => element.remove());
    } catch (error) {
      box.remove(); // the film strip stays
      console.error(error);
    }
  }
"""


# ------------------------------------------------------------------------------------------------- notebooks for a page


def page_of(notebook: NotebookNode, name: str) -> NotebookNode:
    """A notebook as it goes to the site: players as data for the script, sources as code, a hint how to run it.

    Args: notebook: as stored, with outputs; changed in place. name: its file name.
    """
    for cell in notebook.cells:
        pictures = [output for output in cell.get("outputs", []) if "image/png" in output.get("data", {})]
        if len(pictures) == 1:
            cell.metadata["mystnb"] = {"image": {"alt": alt_of(pictures[0])}}
        for output in cell.get("outputs", []):
            if "data" in output:
                output.data = shown(output, inline_picture=len(pictures) > 1)
    hint = nbformat.v4.new_markdown_cell(RUN_HINT.format(name=name), id="run-it-yourself")
    notebook.cells.insert(1, hint)
    return notebook


def alt_of(output: NotebookNode) -> str:
    return output.metadata.get("image/png", {}).get("alt", "")


def shown(output: NotebookNode, inline_picture: bool) -> NotebookNode:
    """The forms of an output that a page can show."""
    data = NotebookNode({kind: content for kind, content in output.data.items() if kind != WIDGET_VIEW})
    player = output.metadata.get("diffkit", {}).get("player")
    if player is not None:
        data["text/html"] = mount_html(player, data.get("text/html", ""))
    elif '<pre class="dk-source"' in data.get("text/html", ""):
        data = NotebookNode({"text/markdown": f"```python\n{data['text/plain'].rstrip()}\n```"})
    elif inline_picture and "image/png" in data:  # the alternative text is one for the whole cell, so it goes in here
        picture = data["image/png"].replace("\n", "")
        data = NotebookNode(
            {"text/html": f'<img alt="{html.escape(alt_of(output))}" src="data:image/png;base64,{picture}">'}
        )
    return data


def mount_html(player: dict, still: str) -> str:
    """The place of a player: its frames as JSON, and the film strip that shows until the script has replaced it."""
    frames = json.dumps(player, allow_nan=False, ensure_ascii=False, separators=(",", ":")).replace("</", "<\\/")
    frames = frames.replace("<!--", "<\\u0021--")
    return f'<div class="dk-mount"><script type="application/json" class="dk-data">{frames}</script>{still}</div>'


def classic_script(module: str) -> str:
    """player.js as a script without exports, which a page opened from disk may load; it mounts every player.

    Raises: ValueError if the module does not end with the two export lines.
    """
    if not module.endswith(EXPORTS):
        raise ValueError(f"make_site: player.js must end with {EXPORTS!r}, got {module[-80:]!r}.")
    return f"(() => {{\n{module.removesuffix(EXPORTS)}{MOUNT_ALL}}})();\n"


# ----------------------------------------------------------------------------------------------- pages of the interface


def module_page(path: Path) -> str:
    """The page of a module, or of a folder with all modules in it, for autodoc."""
    page = f"{path.stem}\n{'=' * len(path.stem)}\n\n{automodule(f'diffkit.{path.stem}', path)}"
    for part in sorted(path.rglob("*.py")):
        if not part.stem.startswith("_"):
            title = ".".join(part.relative_to(ROOT / "diffkit").with_suffix("").parts)
            page += f"\n{title}\n{'-' * len(title)}\n\n{automodule(f'diffkit.{title}', part)}"
    return page


def automodule(name: str, path: Path) -> str:
    """The directive for one module: what is public and written there, so nothing that it imports."""
    body = [] if path.is_dir() else parsed(path).body
    names = [node.name for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    public = [name for name in names if not name.startswith("_")]
    links = ", ".join(f":py:obj:`~{name}.{thing}`" for thing in public)
    members = f"   :members: {', '.join(public)}\n\n   Here: {links}.\n" if public else ""
    return f".. automodule:: {name}\n{members}"


def parsed(path: Path) -> ast.Module:
    file = path / "__init__.py" if path.is_dir() else path
    return ast.parse(file.read_text(encoding="utf-8"))


def modules() -> dict[str, Path]:
    """Every folder and module in the root of the package by name, in the order in which data flows."""
    folder = ROOT / "diffkit"
    names = [name for room in rooms() for name in room]
    return {name: folder / name if (folder / name).is_dir() else folder / f"{name}.py" for name in names}


def first_line(path: Path) -> str:
    return (ast.get_docstring(parsed(path)) or "").partition("\n")[0]


def api_index(paths: dict[str, Path]) -> str:
    """The front page of the API: folders and modules, each with the first line of its docstring."""
    page = "# The package\n\nData flows one way, and so does this list. Every name links to its source.\n\n"
    page += "\n".join(f"- [`diffkit.{name}`](api/{name}.rst): {first_line(path)}" for name, path in paths.items())
    return page + "\n\n```{toctree}\n:hidden:\n\n" + "\n".join(f"api/{name}" for name in paths) + "\n```\n"


# ------------------------------------------------------------------------------------------------------ source and site


def sources() -> dict[str, bytes]:
    """Everything Sphinx reads, by its place in the source folder."""
    files = {name: (ROOT / name).read_bytes() for name in PAGES}
    cards = (ROOT / "data" / "pretrained").glob("*/README.md")
    pages = [path for place in ("*", "maintainers/*") for path in (ROOT / "docs").glob(place)]
    for path in [*(path for path in pages if path.suffix in (".md", ".svg")), *cards]:
        files[path.relative_to(ROOT).as_posix()] = path.read_bytes()
    files |= {name: to_api(page) for name, page in files.items() if name.startswith("docs/") and name.endswith(".md")}
    files["index.md"] = files.pop("docs/index.md")
    for folder in ("_static", "_templates", "_extensions"):
        files |= tree(ROOT / "docs" / folder, folder)
    files["conf.py"] = (ROOT / "docs" / "conf.py").read_bytes()
    for path in sorted((ROOT / "notebooks").glob("[0-9]*.ipynb")):
        notebook = page_of(nbformat.read(path, as_version=4), path.name)
        files[f"notebooks/{path.name}"] = nbformat.writes(notebook).encode()
    files["api.md"] = api_index(modules()).encode()
    files |= {f"api/{name}.rst": module_page(path).encode() for name, path in modules().items()}
    return files | player_files(ROOT / "diffkit" / "cli" / "show")


def to_api(page: bytes) -> bytes:
    """Links to files of the package lead to their pages in the API, which show the source."""
    return re.sub(rb"\]\(((?:\.\./)+)diffkit/(\w+)(\.py|/[\w/]*\.py|/)\)", rb"](\1api/\2.rst)", page)


def tree(folder: Path, place: str) -> dict[str, bytes]:
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and "__pycache__" not in path.parts]
    return {f"{place}/{path.relative_to(folder).as_posix()}": path.read_bytes() for path in paths}


def player_files(folder: Path) -> dict[str, bytes]:
    if not (folder / "player.js").is_file():
        return {}
    script = classic_script((folder / "player.js").read_text(encoding="utf-8"))
    return {"_static/player.js": script.encode(), "_static/player.css": (folder / "player.css").read_bytes()}


def write_sources(files: dict[str, bytes], folder: Path) -> bool:
    """Bring a folder to these files, leaving alone what is already right.

    Returns: whether all pages must be made anew: something is gone, or how pages are made has changed.
    """
    is_other = False
    for name, content in files.items():
        path = folder / name
        if not path.is_file() or path.read_bytes() != content:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            is_other |= name == "conf.py" or name.startswith("_extensions/")
    stale = [path for path in folder.rglob("*") if path.is_file() and path.relative_to(folder).as_posix() not in files]
    stale = [path for path in stale if "__pycache__" not in path.parts]
    for path in stale:
        path.unlink()
    return bool(stale) or is_other


def run_sphinx(source: Path, built: Path) -> None:
    """Warnings are errors. One process: two would each import torch, and be no faster on two cores.

    Raises: SystemExit if Sphinx is not content; it has said why.
    """
    options = ["-b", "html", "-W", "--keep-going", "-q", "-d", str(built.parent / "doctrees")]
    if sphinx_build([*options, str(source), str(built)]):
        sys.exit("make_site: Sphinx is not content, see above; the pages of the last time are left as they were.")


def publish(built: Path, out: Path) -> None:
    """Put a copy of the built pages, and the playground, in the place of the last ones."""
    draft = out.with_name(out.name + ".tmp")
    shutil.rmtree(draft, ignore_errors=True)
    shutil.copytree(built, draft, ignore=shutil.ignore_patterns(".buildinfo*", ".doctrees", "_sources"))
    write_playground(PRETRAINED / "tales-mdlm", draft / "playground")
    shutil.rmtree(out, ignore_errors=True)
    draft.rename(out)


def build(out: Path, work: Path) -> None:
    """Build the site in the folder `work` and publish its pages in `out`."""
    if write_sources(sources(), work / "source"):
        for folder in ("html", "doctrees"):  # Sphinx would leave the pages of what is gone
            shutil.rmtree(work / folder, ignore_errors=True)
    run_sphinx(work / "source", work / "html")
    publish(work / "html", out)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "site", help="where the pages go (default: site)")
    parser.add_argument("--fresh", action="store_true", help="build everything again")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "site", help="what is kept for the next time")
    args, start = parser.parse_args(), time.perf_counter()
    if args.fresh:
        shutil.rmtree(args.work, ignore_errors=True)
    build(args.out, args.work)
    problems, external = check_site(args.out)
    for problem in problems:
        print(problem, file=sys.stderr)
    pages = [path for path in args.out.rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in pages) / 1e6
    count = sum(path.suffix == ".html" for path in pages)
    print(f"{count} pages, {size:.1f} MB, {time.perf_counter() - start:.0f} s; {len(problems)} problems, ", end="")
    print(f"{len(external)} links to other hosts (not fetched)")
    print(f"Open {(args.out / 'index.html').as_uri()}, or serve it: python -m http.server -d {args.out.name}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
