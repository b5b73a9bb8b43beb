"""What the tests of every notebook's exercises assert."""


def assert_passes(check, solution):
    """The worked solution."""
    verdict = check(solution)
    assert verdict.passed, verdict


def assert_named(check, answer, says):
    """A likely mistake, and what is said of it."""
    verdict = check(answer)
    assert not verdict.passed and says in verdict.message, verdict


def assert_met_kindly(check):
    """An untouched stub, and one that raises."""

    def raising(*arguments):
        raise KeyError("oops")

    assert "Not attempted yet" in check(lambda *arguments: ...).message
    assert "KeyError" in check(raising).message
