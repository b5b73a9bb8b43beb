"""Walk the built site: links and anchors resolve, nothing is loaded from another host, pictures have alternatives.

python scripts/check_site.py                  # site/, without a network
python scripts/check_site.py site --fetch     # and ask every other host whether its page is there
"""

from __future__ import annotations

import argparse
import re
import sys
import urllib.request
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOADED = {
    "script": "src",
    "img": "src",
    "iframe": "src",
    "source": "src",
    "video": "src",
    "audio": "src",
    "embed": "src",
}
LOADING_LINKS = {"stylesheet", "icon", "preload", "modulepreload", "prefetch", "preconnect", "dns-prefetch", "manifest"}
LOADED_BY_SCRIPT = re.compile(
    r"(?:\bfetch|\bimport|importScripts|\bWorker|\.open|\bEventSource|\bWebSocket)\s*\(\s*[\"'`][^\"'`]*[\"'`]?,?\s*"
    r"[\"'`]?(?:https?:|wss?:)?//[^\s\"'`)]+|\.(?:src|href)\s*=\s*[\"'`](?:https?:)?//[^\s\"'`)]+"
    r"|\bfrom\s+[\"'](?:https?:)?//[^\s\"']+"
)
LOADED_BY_STYLE = re.compile(r"(?:url\(\s*[\"']?|@import\s+[\"'])((?:https?:)?//[^\"')]+)")
LOCAL = re.compile(r"^(?:file:|/|https?://(?:localhost|127\.|0\.0\.0\.0|\[::1\]))")
LEFT_OVER = re.compile(r"\$?\\[a-zA-Z]{2,}|\]\([^)\s]*\)")  # LaTeX or Markdown that was not understood as such
VERBATIM = {"pre", "code", "script", "style", "title"}  # where anything may stand
BROKEN_OUTPUT = re.compile(
    r"Error displaying widget|Error creating widget|Loading widget|&quot;model_id&quot;|model_id"
)


class Page(HTMLParser):
    """What one page links to, loads and shows.

    Args: text: the page's HTML.
    """

    def __init__(self, text: str):
        super().__init__(convert_charrefs=True)
        self.ids: list[str] = []
        self.links: list[str] = []  # href of <a>
        self.loaded: list[str] = []  # addresses that the browser fetches by itself
        self.no_alt: list[str] = []
        self.within: str | None = None  # "script" or "style", when in one
        self.scripts, self.styles, self.visible, self.prose = "", "", "", ""
        self.verbatim = 0  # how many elements of VERBATIM we are in
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.ids += [values["id"]] if "id" in values else []
        self.links += [values["href"]] if tag in ("a", "area") and "href" in values else []
        if LOADED.get(tag, "") in values:
            self.loaded.append(values[LOADED[tag]])
        if "srcset" in values:
            self.loaded += [part.split()[0] for part in values["srcset"].split(",") if part.strip()]
        if tag == "link" and LOADING_LINKS & set(values.get("rel", "").split()):
            self.loaded.append(values.get("href", ""))
        if tag == "img" and not values.get("alt", "").strip() and values.get("role") != "presentation":
            self.no_alt.append(values.get("src", "")[:60])
        self.styles += values.get("style", "") + "\n"
        self.within = tag if tag in ("script", "style") else self.within
        self.verbatim += tag in VERBATIM

    def handle_endtag(self, tag: str) -> None:
        self.within = None if tag == self.within else self.within
        self.verbatim -= tag in VERBATIM

    def handle_data(self, data: str) -> None:
        if self.within == "script":
            self.scripts += data
        elif self.within == "style":
            self.styles += data
        else:
            self.visible += data
            self.prose += "" if self.verbatim else data


def is_elsewhere(address: str) -> bool:
    return bool(urlsplit(address).netloc)


def check_site(folder: Path) -> tuple[list[str], dict[str, list[str]]]:
    """Everything wrong with a built site, and where it links to.

    Returns: problems, one line each; and for every address on another host the pages that link to it.
    Raises:  FileNotFoundError if there is no site in the folder.
    """
    if not (folder / "index.html").is_file():
        raise FileNotFoundError(f"check_site: no index.html in {folder}. Run `make site` first.")
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in sorted(folder.rglob("*.html"))}
    problems: list[str] = []
    external: dict[str, list[str]] = {}
    for path, page in pages.items():
        name = path.relative_to(folder).as_posix()
        problems += [f"{name}: {problem}" for problem in page_problems(page)]
        for link in page.links:
            if is_elsewhere(link):
                external.setdefault(link, []).append(name)
        problems += [f"{name}: {link}: {why}" for link in set(page.links) if (why := link_problem(link, path, pages))]
        inner = {link for link in page.loaded if not is_elsewhere(link)}
        problems += [f"{name}: {link}: {why}" for link in inner if (why := link_problem(link, path, pages))]
    for address, names in external.items():
        if why := external_problem(address):
            problems.append(f"{names[0]}: {address}: {why}")
    return sorted(problems + asset_problems(folder)), external


def page_problems(page: Page) -> list[str]:
    """What is wrong within one page."""
    found = [f"loads {link} from another host" for link in page.loaded if is_elsewhere(link)]
    found += [f"a script loads {text}" for text in LOADED_BY_SCRIPT.findall(page.scripts)]
    found += [f"a style loads {text}" for text in LOADED_BY_STYLE.findall(page.styles)]
    found += [f"a picture without alternative text: {source}" for source in page.no_alt]
    found += [f"the id {name!r} is there {count} times" for name, count in Counter(page.ids).items() if count > 1]
    found += [f"shows {text!r}" for text in set(BROKEN_OUTPUT.findall(page.visible))]
    found += [f"shows {text!r} as it was written" for text in set(LEFT_OVER.findall(page.prose))]
    return found


def link_problem(link: str, path: Path, pages: dict[Path, Page]) -> str | None:
    """Why a link within the site does not work, if it does not."""
    parts = urlsplit(link)
    if parts.netloc or parts.scheme in ("data", "mailto", "javascript"):
        return None
    if parts.scheme or LOCAL.match(link):
        return "a path of one machine"
    target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    if target.is_dir():
        return "a folder: name its index.html, or it does not open from disk"
    if not target.is_file():
        return "there is no such file"
    fragment = unquote(parts.fragment)
    if fragment and fragment != "top" and target in pages and fragment not in pages[target].ids:
        return "there is no such anchor"
    return None


def external_problem(address: str) -> str | None:
    """Why the form of an address on another host is wrong, if it is."""
    if LOCAL.match(address) and not address.startswith("//"):
        return "a path of one machine"
    return None if address.startswith("https://") else "not https"


def asset_problems(folder: Path) -> list[str]:
    """Scripts and style sheets that load from other hosts."""
    found = []
    for path in sorted([*folder.rglob("*.js"), *folder.rglob("*.css")]):
        pattern = LOADED_BY_STYLE if path.suffix == ".css" else LOADED_BY_SCRIPT
        for text in pattern.findall(path.read_text(encoding="utf-8")):
            found.append(f"{path.relative_to(folder).as_posix()}: loads {text}")
    return found


def fetch_problem(address: str, seconds: float = 20) -> str | None:
    """Ask another host for a page; says why it was not there."""
    request = urllib.request.Request(address, headers={"User-Agent": "diffkit-link-check"})
    try:
        with urllib.request.urlopen(request, timeout=seconds):
            return None
    except OSError as error:  # HTTPError and URLError are kinds of it
        return str(error)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=Path(__file__).resolve().parent.parent / "site")
    parser.add_argument("--fetch", action="store_true", help="also ask the other hosts; needs a network")
    args = parser.parse_args()
    problems, external = check_site(args.folder)
    for address, names in sorted(external.items()):
        why = fetch_problem(address.partition("#")[0]) if args.fetch else None
        print(f"{address}  ({len(names)} links){'  FAILS: ' + why if why else ''}")
        problems += [f"{names[0]}: {address}: {why}"] if why else []
    for problem in problems:
        print(problem, file=sys.stderr)
    print(f"{len(problems)} problems, {len(external)} addresses on other hosts")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
