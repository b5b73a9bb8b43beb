"""Pages and notebooks: every link within the project resolves, other hosts are named soundly, what a page says is in a
file is in it."""

import ast
import re
from dataclasses import fields
from pathlib import Path

import nbformat
import pytest

import diffkit
from diffkit.cli.settings import DataSettings, ModelSettings, read_config
from diffkit.training.config import TrainConfig

ROOT = Path(__file__).resolve().parents[2]
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("notebooks/*.md"), *ROOT.glob("data/**/*.md")]
PAGES = sorted([*PAGES, *ROOT.glob("notebooks/[0-9]*.ipynb")])
PAGES.remove(ROOT / "docs" / "index.md")  # the front page of the site, where it lies one folder higher


def prose(page):
    """What is written on a page, without blocks of code, and without code that shows how links are written."""
    text = page.read_text(encoding="utf-8")
    if page.suffix == ".ipynb":
        cells = nbformat.reads(text, as_version=4).cells
        text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    text = re.sub(r"^ *```.*?^ *```", "", text, flags=re.S | re.M)
    return re.sub(r"`[^`]*`", lambda code: "" if "](" in code[0] else code[0], text)


def links(page):
    """Yield (words, target) of every link and picture."""
    yield from re.findall(r"\[((?:[^][]|\[[^][]*\])*)\]\(([^)\s]+)\)", prose(page))


def anchors(page):
    """Headings as links name them: lower case, hyphens for blanks, no other signs."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_links_within_the_project_resolve():
    for page, (_, link) in ((one, link) for one in PAGES for link in links(one)):
        file, _, anchor = link.partition("#")
        if ":" not in file and not file.startswith("//"):
            target = page.parent / file if file else page
            assert not file.startswith("/") and target.exists(), f"{page.name} links to {link}, which is not there"
            assert not anchor or anchor in anchors(target), f"{page.name} links to {link}: there is no such heading"
            on_site = target.suffix in (".md", ".ipynb", ".svg") or (ROOT / "diffkit") in target.resolve().parents
            assert ROOT / "docs" not in page.parents or on_site, f"{page.name} links to {link}, which the site has not"


def test_links_to_other_hosts_are_plain_and_secure():
    for page in PAGES:
        for address in re.findall(r"(?<![\w/])\w+://[^\s)>\]`\"']+", prose(page)):
            assert re.match(r"https://[\w.-]+\.[a-z]{2,}(/|$)", address), f"{page.name}: {address}"
            assert not re.search(r"[.,;]$|utm_", address), f"{page.name}: {address}"
            is_abstract = re.fullmatch(r"https://arxiv\.org/abs/(\d{4}\.\d{4,5}|cs/\d{7})", address)
            assert "arxiv.org" not in address or is_abstract, f"{page.name}: {address}: link to the abstract"


def names_in(path):
    """What a file defines: functions, classes, their methods as Class.method, and names that it assigns."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef):
            yield from (f"{node.name}.{item.name}" for item in node.body if isinstance(item, ast.FunctionDef))
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            yield node.name
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        yield from (target.id for target in targets if isinstance(target, ast.Name))


def test_a_name_that_links_to_a_file_is_defined_there():
    for page, (words, link) in ((one, link) for one in PAGES for link in links(one)):
        if link.endswith(".py") and re.fullmatch(r"`[\w.]+`", words):
            path, name = page.parent / link, words.strip("`")
            assert name == path.name or name in names_in(path), f"{page.name}: {link} does not define {name}"


def blocks(page, kind):
    """The code blocks of one kind on a page."""
    return re.findall(rf"^```{kind}\n(.*?)^```", page.read_text(encoding="utf-8"), re.S | re.M)


SECTIONS = {"data": DataSettings, "model": ModelSettings, "train": TrainConfig}


def test_settings_on_a_page_are_settings(tmp_path):
    """Options of the command line, files in configs/, and whole files of settings."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for section, name in re.findall(r"--(data|model|train)\.([\w-]+)", text):
            assert name.replace("-", "_") in [each.name for each in fields(SECTIONS[section])], f"{page.name}: {name}"
        for name in re.findall(r"configs/[\w/-]+\.yaml", text):
            assert (ROOT / name).is_file(), f"{page.name}: {name} is not there"
        for block in blocks(page, "yaml") if page.suffix == ".md" else []:
            (tmp_path / "block.yaml").write_text(block, encoding="utf-8")
            assert read_config(tmp_path / "block.yaml").train.steps > 0


@pytest.mark.parametrize("name", ["README.md", "docs/coming-from.md", "docs/questions.md"])
def test_python_on_a_page_runs(name, capsys):
    """Block after block, as someone would who reads it from the top."""
    names = {}
    for block in blocks(ROOT / name, "python"):
        exec(compile(block, name, "exec"), names)
    assert "nats" in capsys.readouterr().out


def test_a_question_has_a_short_answer_and_a_snippet():
    page = ROOT / "docs" / "questions.md"
    answers = page.read_text(encoding="utf-8").split("\n## ")[1:]
    for answer in answers:
        lines = answer.partition("```")[0].strip().splitlines()[1:]
        assert len([line for line in lines if line]) <= 5 and answer.count("```python") == 1, answer[:60]
    assert len(answers) == 20 == len(blocks(page, "python")) - 1, "the first block is for all of them"


def test_the_front_door_is_named_where_stability_is_promised():
    text = (ROOT / "docs" / "maintainers" / "stability.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in text for name in diffkit.__all__)
