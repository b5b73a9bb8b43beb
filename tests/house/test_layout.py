"""The house rules that a machine can check: which way imports point, how long things are, what is never called."""

import ast
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "diffkit"
sys.path.insert(0, str(ROOT / "scripts"))

from make_architecture import ORDER, draw  # noqa: E402

FILES = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py")

STRANGERS = {("sample", "train")}  # in order, and still not allowed: how text is made does not depend on how we train
ONLY_IN = {
    "matplotlib": "plot",
    "ipywidgets": "widgets",
    "anywidget": "widgets",
    "wandb": "",
    "tensorboard": "",
    "trackio": "",
}
NEVER_IMPORTED = {"pickle", "cloudpickle", "dill", "shelve", "marshal", "utils", "helpers"}
MAX_FILE_LINES, MAX_FUNCTION_LINES = 330, 50

each_file = pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))


def place_of(path):
    """The name in ORDER that a file goes by: its own, or that of the folder it lies in."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def read(path):
    return ast.parse(path.read_text(encoding="utf-8"), filename=path.name)


def imported(tree):
    """Yield (line, dotted name) of every import, also inside functions; `from . import x` counts as diffkit.x."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            module = ".".join(part for part in ("diffkit" if node.level else "", node.module or "") if part)
            if module == "diffkit":
                for alias in node.names:
                    yield node.lineno, f"diffkit.{alias.name}"
            else:
                yield node.lineno, module


def wrong_arrows(name, tree):
    """List the imports of a file that point at itself, at a later file, at a stranger or at the package as a whole."""
    wrong = []
    for line, module in imported(tree):
        if module.split(".")[0] != "diffkit":
            continue
        target = module.split(".")[1] if "." in module else "the whole package"
        if target == "__version__" or (name == target and module.count(".") > 1):  # a folder's own files
            continue
        if target not in ORDER or ORDER.index(target) >= ORDER.index(name) or (name, target) in STRANGERS:
            wrong.append(f"{name}.py:{line} imports {target}")
    return wrong


@each_file
def test_every_file_has_a_place_in_the_order(path):
    assert place_of(path) in ORDER, (
        f"{path.name} has no place in ROOMS of scripts/make_architecture.py: put it where it belongs"
    )


def test_every_place_is_taken_once():
    assert sorted(ORDER) == sorted(
        {*map(place_of, FILES), *(path.parent.name for path in PACKAGE.glob("*/__init__.py"))}
    )


def test_the_picture_shows_the_rooms_and_imports_that_there_are():
    stored = (ROOT / "docs" / "architecture.svg").read_text(encoding="utf-8")
    assert stored == draw(), "docs/architecture.svg is old: run python scripts/make_architecture.py"
    assert set(ORDER) <= set(re.findall(r"\w+", stored))


def test_readme_says_where_every_file_is():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    missing = [name for name in ORDER if name[0] != "_" and f"{name}.py" not in text and f"{name}/" not in text]
    assert not missing, f"README.md, What is where, lacks: {missing}"


@each_file
def test_imports_point_one_way(path):
    assert not wrong_arrows(place_of(path), read(path)), "a file imports only from files before it in ORDER"


@pytest.mark.parametrize(
    "source",
    [
        "from diffkit.model import Denoiser",
        "from .model import Denoiser",
        "from . import model",
        "from diffkit import DiffusionModel",
        "import diffkit",
        "def late():\n    import diffkit.model",
    ],
)
def test_a_wrong_arrow_is_seen(source):
    """The checker itself: noise.py may not import the model, however the import is written."""
    assert wrong_arrows("noise", ast.parse(source))


def test_right_arrows_are_let_through():
    assert not wrong_arrows(
        "model", ast.parse("import torch\nfrom diffkit.noise import corrupt\nfrom . import diffusion")
    )
    assert wrong_arrows("sample", ast.parse("from diffkit.train import fit"))


@each_file
def test_heavy_libraries_stay_in_their_file(path):
    for line, module in imported(read(path)):
        top = module.split(".")[0]
        assert ONLY_IN.get(top, place_of(path)) == place_of(path), (
            f"{path.name}:{line}: {top} belongs in {ONLY_IN[top] or 'no'}"
        )
        assert not NEVER_IMPORTED & set(module.split(".")[:2]), f"{path.name}:{line}: {module} is not used in diffkit"


@each_file
def test_nothing_is_unpickled_or_evaluated(path):
    """A checkpoint from a stranger must not be able to run code."""
    for call in (node for node in ast.walk(read(path)) if isinstance(node, ast.Call)):
        name = ast.unparse(call.func)
        assert name not in {"eval", "exec", "compile", "__import__"}, f"{path.name}:{call.lineno} calls {name}"
        if name == "torch.load":
            options = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
            assert options.get("weights_only") == "True", (
                f"{path.name}:{call.lineno}: torch.load needs weights_only=True"
            )
        if name in {"np.load", "numpy.load"}:
            assert "allow_pickle=True" not in ast.unparse(call), f"{path.name}:{call.lineno} lets numpy unpickle"
        assert "trust_remote_code=True" not in ast.unparse(call), f"{path.name}:{call.lineno} runs code from a hub"


@each_file
def test_files_and_functions_are_short(path):
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= MAX_FILE_LINES, f"{path.name} has {lines} lines; split it by what it does"
    for node in ast.walk(read(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = node.end_lineno - node.lineno + 1
            assert length <= MAX_FUNCTION_LINES, f"{path.name}:{node.lineno}: {node.name} has {length} lines"


def is_protocol(node):
    return any(ast.unparse(base).startswith("Protocol") for base in node.bases)


def described_elsewhere():
    """Methods that a Protocol or a base class of the package documents: whoever brings one need not repeat it."""
    classes = [node for path in FILES for node in read(path).body if isinstance(node, ast.ClassDef)]
    bases = {ast.unparse(base) for node in classes for base in node.bases}
    general = [node for node in classes if is_protocol(node) or node.name in bases]
    methods = [item for node in general for item in node.body if isinstance(item, ast.FunctionDef)]
    return {item.name for item in methods if ast.get_docstring(item)}


def public_definitions(tree, described):
    """Public functions and classes, and the public methods of public classes that nothing else describes."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef) and not is_protocol(node):
                methods = [item for item in node.body if isinstance(item, ast.FunctionDef)]
                yield from (item for item in methods if not item.name.startswith("_") and item.name not in described)


@each_file
def test_files_and_public_names_have_docstrings(path):
    tree = read(path)
    assert ast.get_docstring(tree), f"{path.name} does not say what it is for"
    described = described_elsewhere() | {"forward"}  # what a module computes is said by its class
    public = public_definitions(tree, described)
    bare = [f"{path.name}:{node.lineno} {node.name}" for node in public if not ast.get_docstring(node)]
    assert not bare, f"no docstring: {', '.join(bare)}"


@each_file
def test_text_files_name_their_encoding(path):
    """Windows reads text in another encoding unless told."""
    for call in (node for node in ast.walk(read(path)) if isinstance(node, ast.Call)):
        name = ast.unparse(call.func).split(".")[-1]
        keywords = {keyword.arg for keyword in call.keywords}
        if name in {"read_text", "write_text"}:
            assert "encoding" in keywords, f"{path.name}:{call.lineno}: {name} without encoding='utf-8'"
        if ast.unparse(call.func) == "open":
            mode = ast.unparse(call.args[1]) if len(call.args) > 1 else "'r'"
            assert "b" in mode or "encoding" in keywords, f"{path.name}:{call.lineno}: open without encoding='utf-8'"


def test_package_root_runs_nothing():
    """diffkit/__init__.py holds the version, imports and __all__: importing the package has no effects."""
    allowed = (ast.Import, ast.ImportFrom, ast.Assign, ast.Expr, ast.FunctionDef)
    for node in read(PACKAGE / "__init__.py").body:
        assert isinstance(node, allowed), f"__init__.py:{node.lineno} does more than import"
        if isinstance(node, ast.Expr):
            assert isinstance(node.value, ast.Constant), f"__init__.py:{node.lineno} calls something at import"


def test_no_name_of_the_root_hides_a_module():
    """`import diffkit.sampling.sampler` must give the module, whatever else the package is asked for."""
    names = next(node for node in read(PACKAGE / "__init__.py").body if isinstance(node, ast.Assign)
                 and ast.unparse(node.targets[0]) == "__all__")  # fmt: skip
    assert not {*ast.literal_eval(names.value)} & {*ORDER}
