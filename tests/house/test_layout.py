"""House rules that a machine can check. The order of imports is in pyproject.toml, for import-linter (`make lint`)."""

import ast
import re
from pathlib import Path

import make_architecture
import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "diffkit"
README = (ROOT / "README.md").read_text(encoding="utf-8")
FILES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(PACKAGE.rglob("*.py"))}

SPINE = (
    "processes/base.py processes/schedules.py processes/masked.py languages/story_language.py network/transformer.py "
    "network/attention.py training/losses.py training/trainer.py sampling/unmasking.py sampling/sampler.py "
    "evaluation/bounds.py"
).split()
MOST_LINES = {"spine": 2100, "package": 12_000, "function": 50, "most functions": 32}
MOST_FILES = {"root": 8, "folder": 12}
DRAWN_WITH = {"matplotlib", "ipywidgets", "anywidget", "IPython"}
NEVER = {"wandb", "tensorboard", "trackio", "cloudpickle", "dill"}  # accelerate calls the trackers


def lines(path):
    return len(path.read_text(encoding="utf-8").splitlines())


def name(path):
    return path.relative_to(PACKAGE).as_posix()


def test_a_folder_is_seen_at_a_glance():
    root = [path for path in FILES if path.parent == PACKAGE]
    assert len(root) <= MOST_FILES["root"], [path.name for path in root]
    for folder in {path.parent for path in FILES} - {PACKAGE}:
        assert len([*folder.glob("*.py")]) <= MOST_FILES["folder"] + 1, f"{name(folder)}: more than a dozen files"


def test_functions_are_short():
    functions = {
        f"{name(path)}: {node.name}": node.end_lineno - node.lineno + 1
        for path, tree in FILES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert not {name: length for name, length in functions.items() if length > MOST_LINES["function"]}
    short = sum(length < MOST_LINES["most functions"] for length in functions.values())
    assert short >= 0.95 * len(functions)


def test_the_spine_is_read_in_an_afternoon():
    """The files that carry the idea, named in the README with their limit."""
    count = sum(lines(PACKAGE / file) for file in SPINE)
    assert count <= MOST_LINES["spine"], f"{count} lines"
    assert all(f"`{file.removesuffix('.py')}`" in README for file in SPINE) and f"{MOST_LINES['spine']:,}" in README


def test_the_package_without_the_course_is_read_in_a_day():
    count = sum(lines(path) for path in FILES if "course" not in path.relative_to(PACKAGE).parts)
    assert count <= MOST_LINES["package"], f"{count} lines"


def test_readme_says_what_is_where():
    for path in PACKAGE.iterdir():
        if path.suffix == ".py" and path.name[0] != "_" or (path / "__init__.py").is_file():
            assert re.search(rf"^ *.*\b{path.name}{'/' if path.is_dir() else ''} ", README, re.M), path.name


def test_the_picture_shows_the_folders_and_imports_that_there_are():
    stored = (ROOT / "docs" / "maintainers" / "architecture.svg").read_text(encoding="utf-8")
    assert stored == make_architecture.draw(), "the picture is old: run python scripts/make_architecture.py"


def test_heavy_libraries_stay_in_the_course():
    """Only notebooks draw."""
    for path, tree in FILES.items():
        imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
        modules = [getattr(node, "module", None) or node.names[0].name for node in imports]
        allowed = DRAWN_WITH if name(path).startswith("course/") else set()
        assert not {module.split(".")[0] for module in modules} & (DRAWN_WITH | NEVER) - allowed, name(path)


@pytest.mark.parametrize("path", [PACKAGE / "__init__.py", *PACKAGE.glob("*/__init__.py")], ids=name)
def test_importing_a_folder_runs_nothing(path):
    """Definitions and tables of names, but no calls."""
    for node in FILES[path].body:
        assert not (isinstance(node, ast.Expr) and not isinstance(node.value, ast.Constant)), f"{path}:{node.lineno}"
        assert not isinstance(node, ast.For | ast.While | ast.With), f"{path}:{node.lineno}"
