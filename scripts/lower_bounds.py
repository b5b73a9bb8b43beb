"""Print the oldest version that pyproject.toml allows of every dependency, as constraints for pip (see `make lock`)."""

import itertools
import re
import tomllib
from pathlib import Path

PYPROJECT = Path(__file__).resolve().parent.parent / "pyproject.toml"


def lower_bounds() -> list[str]:
    """The lines "name==version" of all dependencies, extras included, in their order."""
    settings = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))
    project, lines = settings["project"], settings["build-system"]["requires"]
    lines = [*lines, *project["dependencies"], *itertools.chain(*project["optional-dependencies"].values())]
    return ["{}=={}".format(*re.match(r"([\w-]+)(?:\[.*\])?>=([\d.]+)", line).groups()) for line in lines]


if __name__ == "__main__":
    print(*lower_bounds(), sep="\n")
