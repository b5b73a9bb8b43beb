"""The files around the code agree with each other: ranges, lock, conda environment, commands, what is in git."""

import ast
import importlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import diffkit

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
LOCKED_GROUPS = [*PROJECT["dependencies"], *EXTRAS["notebooks"], *EXTRAS["site"], *EXTRAS["test"]]
EVERYTHING = [*LOCKED_GROUPS, *EXTRAS["track"], *EXTRAS["eval"], *EXTRAS["adapt"], *EXTRAS["judge"]]
WITH_PACKAGE = [*PROJECT["dependencies"], *EXTRAS["notebooks"], *EXTRAS["eval"], *EXTRAS["adapt"], *EXTRAS["judge"]]
MAX_BYTES = 1_000_000


def lock_lines(name="requirements.lock"):
    text = (ROOT / name).read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


LOCK = {canonicalize_name(pin.name): pin for pin in map(Requirement, lock_lines())}
OLDEST = {canonicalize_name(pin.name): pin for pin in map(Requirement, lock_lines("requirements-oldest.lock"))}


def test_every_dependency_has_a_lower_and_an_upper_bound():
    for line in EVERYTHING:
        assert {">=", "<"} <= {specifier.operator for specifier in Requirement(line).specifier}, line


def test_locks_hold_the_newest_and_the_oldest_of_every_range():
    """Run `make lock` after a change of the ranges."""
    for wanted in map(Requirement, LOCKED_GROUPS):
        name = canonicalize_name(wanted.name)
        (lowest,) = [Version(one.version) for one in wanted.specifier if one.operator == ">="]
        assert wanted.specifier.contains(version_of(LOCK[name])), f"requirements.lock has {LOCK[name]}"
        assert version_of(OLDEST[name]) == lowest, f"requirements-oldest.lock has {OLDEST[name]}"


def version_of(pin):
    (specifier,) = pin.specifier
    assert specifier.operator == "==" and "*" not in specifier.version, f"{pin} is not an exact pin"
    return Version(specifier.version)


def test_lock_holds_exact_portable_pins_only():
    """Plain `name==version`, no paths, no indexes, no build of torch for one sort of GPU."""
    assert len(LOCK) == len(lock_lines()), "a package is pinned twice"
    for name, pin in [*LOCK.items(), *OLDEST.items()]:
        assert version_of(pin).local is None, f"{pin}: a local version cannot be installed elsewhere"
        assert pin.url is None and not name.startswith(("nvidia-", "triton", "cuda-")), f"{pin} is not portable"
    assert "setuptools" in LOCK and "setuptools" in OLDEST, "the package is installed without build isolation"
    assert not {"diffkit", "pip"} & {*LOCK, *OLDEST}


def test_conda_environment_equals_pyproject():
    conda = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))["dependencies"]
    (pip_section,) = [item["pip"] for item in conda if isinstance(item, dict)]
    assert pip_section == LOCKED_GROUPS
    assert f"python{PROJECT['requires-python']}" in conda


def test_package_imports_only_what_it_declares():
    declared = {canonicalize_name(Requirement(line).name) for line in WITH_PACKAGE}
    declared |= {"ipython", "traitlets", "diffkit"}  # the first two come with ipykernel and ipywidgets
    owners = packages_distributions()
    for path in (ROOT / "diffkit").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module]
            for top in {name.split(".")[0] for name in names} - set(sys.stdlib_module_names):
                owner = {canonicalize_name(name) for name in owners.get(top, [top])}
                assert owner & declared, f"{path.name} imports {top}, which pyproject.toml does not list"


def test_version_is_the_same_everywhere():
    assert diffkit.__version__ == PROJECT["version"]
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["version"] == PROJECT["version"]
    assert f"## {PROJECT['version']}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def targets():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    return set(re.findall(r"^([a-z]+):", makefile, re.M)), set(re.findall(r"^([a-z]+):.*## ", makefile, re.M))


def test_documents_name_the_commands_that_there_are():
    """Only those, and the README all that `make help` lists."""
    every, listed = targets()
    for name in ("README.md", "CONTRIBUTING.md"):
        text = (ROOT / name).read_text(encoding="utf-8")
        assert set(re.findall(r"(?:`|^)make ([a-z]+)", text, re.M)) <= every
        assert name != "README.md" or not [target for target in listed if f"make {target}" not in text]
    assert {"help", "lab", "test", "demo", "notebooks", "check", "clean"} <= listed


def test_no_tracked_file_is_large():
    """Trained models excepted; everything else must stay quick to clone."""
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listing.returncode:
        pytest.skip("not a git checkout")
    paths = [ROOT / name for name in listing.stdout.split("\0") if name and not name.startswith("data/pretrained/")]
    large = {path.name: path.stat().st_size for path in paths if path.is_file() and path.stat().st_size > MAX_BYTES}
    assert not large, f"over {MAX_BYTES} bytes: {large}"


def test_scripts_can_be_started():
    for name in ("scripts/train.sh", "scripts/sample.sh", ".ci/run"):
        path = ROOT / name
        assert path.read_text(encoding="utf-8").startswith("#!/usr/bin/env bash\n")
        assert path.stat().st_mode & 0o111, f"{name} is not executable"
    assert "make test" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


# --------------------------------------------------------------------------------------------------- wheel and archive

MODELS = "data/pretrained/tales-mdlm/*", "data/pretrained/tinystories-mdlm/*"
RUN_WHEEL = """
import sys
sys.modules |= dict.fromkeys(("anywidget", "IPython", "ipywidgets", "jupyterlab"))  # a base install has none of them
import diffkit
from diffkit.cli.main import main
print(diffkit.__file__)
assert main(["demo"]) == main(["evaluate", "--corpus", "own.txt"]) == 0
sys.exit(main(["train", "--model.size=pico", "--train.steps=1", "--data.batch_size=8"]))
"""


def sources(*patterns):
    return {path.relative_to(ROOT).as_posix() for pattern in patterns for path in ROOT.glob(pattern) if path.is_file()}


CODE = sources("diffkit/**/*.py", "diffkit/**/*.js", "diffkit/**/*.css", "diffkit/py.typed")
SETTINGS_AND_MODEL = sources("configs/**/*.yaml", *MODELS)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The source archive, and the wheel made from it."""
    copy, dist = tmp_path_factory.mktemp("build") / "diffkit", tmp_path_factory.mktemp("dist")
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".*", "runs", "site", "__pycache__"))
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", dist, copy]
    done = subprocess.run(build, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (archive,), (wheel,) = dist.glob("*.tar.gz"), dist.glob("*.whl")
    return archive, wheel


@pytest.mark.slow
def test_archive_holds_what_the_wheel_is_built_from(built):
    with tarfile.open(built[0]) as tar:
        names = {name.partition("/")[2] for name in tar.getnames() if not tar.getmember(name).isdir()}
    around = {"LICENSE", "README.md", "CHANGELOG.md", "CITATION.cff", "pyproject.toml", "MANIFEST.in"}
    assert names == CODE | SETTINGS_AND_MODEL | around | {"PKG-INFO", "setup.cfg", "diffkit.egg-info/SOURCES.txt"}


@pytest.mark.slow
def test_wheel_holds_code_settings_and_model(built):
    with zipfile.ZipFile(built[1]) as wheel:
        names = set(wheel.namelist())
    about = {name for name in names if name.startswith(f"diffkit-{PROJECT['version']}.dist-info/")}
    shipped_folder = {f"diffkit/{name.removeprefix('data/')}" for name in SETTINGS_AND_MODEL}
    assert names - about == CODE | shipped_folder
    assert f"diffkit-{PROJECT['version']}.dist-info/licenses/LICENSE" in about
    assert built[1].stat().st_size < 12 * MAX_BYTES


@pytest.mark.slow
def test_wheel_works_without_the_repository(built, tmp_path):
    """Installed in one folder and started in another, without Jupyter: a story appears, and a model is trained."""
    target, here = tmp_path / "installed", tmp_path / "here"
    here.mkdir()
    (here / "own.txt").write_text("Once upon a time there was a cat.", encoding="utf-8")
    install = ["install", "--quiet", "--no-deps", "--no-index", "--target", target, built[1]]
    subprocess.run([sys.executable, "-m", "pip", *install], check=True)
    environment = os.environ | {"PYTHONPATH": str(target), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", RUN_WHEEL], cwd=here, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(target)), "the repository was imported, not the wheel"
    assert "[step 48 of 48]" in done.stdout and "\nDone." in done.stdout
    assert (here / "runs" / "tales-mdlm-pico" / "model.safetensors").is_file()


@pytest.mark.parametrize("name", ["anywidget", "ipywidgets"])
def test_widgets_without_their_extra_say_how_to_get_it(name, monkeypatch):
    for module in [module for module in sys.modules if module.startswith("diffkit.course.widgets")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ModuleNotFoundError, match=rf"needs {name}: pip install 'diffkit\[notebooks\]'"):
        importlib.import_module("diffkit.course.widgets")


# ----------------------------------------------------------------------------------------------- continuous integration

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def job_of(path):
    (job,) = yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"].values()
    return job


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_jobs_only_call_what_anyone_can_call(path):
    """A job is a command of this repository; what it uses from others is pinned by commit and may only read."""
    assert yaml.safe_load(path.read_text(encoding="utf-8"))["permissions"] == {"contents": "read"}
    matrix, steps = job_of(path)["strategy"]["matrix"], job_of(path)["steps"]
    commands = [*matrix["command"], *(entry["command"] for entry in matrix.get("include", []))]
    commands += [step["run"] for step in steps if step.get("run", "${{")[:3] != "${{"]
    every, _ = targets()
    for program, *words in map(str.split, commands):
        assert program == ".ci/run" or program == "make" and {word for word in words if "=" not in word} <= every
    for action in (step["uses"] for step in steps if "uses" in step):
        assert re.fullmatch(r"actions/[\w-]+@[0-9a-f]{40}", action), f"{action} can change under our feet"


def test_python_versions_are_the_same_everywhere():
    listed = [name.rpartition(" ")[2] for name in PROJECT["classifiers"] if name.startswith("Programming Language")]
    minors = [int(version.partition(".")[2]) for version in listed]
    assert PROJECT["requires-python"] == f">=3.{minors[0]},<3.{minors[-1] + 1}"
    assert minors == [*range(minors[0], minors[-1] + 1)]
    assert job_of(ROOT / ".github/workflows/ci.yml")["strategy"]["matrix"]["python"] == listed
    named = f"{', '.join(listed[:-1])} or {listed[-1]}"
    for name in ("README.md", "Makefile", "diffkit/cli/doctor.py"):
        assert f"Python {named}" in " ".join((ROOT / name).read_text(encoding="utf-8").split()), name
