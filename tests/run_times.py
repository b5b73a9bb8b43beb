"""A pytest plugin for the run of all notebooks: none takes far longer than its opening says. `make test` loads it.

PYTHONPATH=tests pytest -p run_times --nbval notebooks
"""

import re
from collections import Counter
from pathlib import Path

TIMES_LONGER = 8  # machines differ, and two notebooks may share one core
OPENING = re.compile(r"\*\*Time:\*\* (\d+) minutes to read and try, (\d+) seconds to run\.")

spent = Counter()  # seconds by notebook


def promised_seconds(text):
    """The seconds to run that a notebook's text promises; None where there is no such line."""
    found = OPENING.search(text)
    return int(found[2]) if found else None


def too_long(seconds, folder):
    """Yield a sentence for each notebook that took too long; seconds: by path relative to the folder."""
    for name, took in sorted(seconds.items()):
        promised = promised_seconds((folder / name).read_text(encoding="utf-8"))
        if promised is not None and took > TIMES_LONGER * promised:
            yield f"{name} took {took:.0f} s; its opening says {promised} s, and {TIMES_LONGER} times that is too long."


def pytest_runtest_logreport(report):
    spent[report.nodeid.split("::")[0]] += report.duration


def pytest_sessionfinish(session):
    if any(too_long(spent, Path(session.config.rootpath))):
        session.exitstatus = 1


def pytest_terminal_summary(terminalreporter, config):
    terminalreporter.section("seconds by notebook")
    for name, seconds in sorted(spent.items()):
        terminalreporter.line(f"{seconds:7.1f}  {name}")
    for sentence in too_long(spent, Path(config.rootpath)):
        terminalreporter.line(sentence, red=True)
