"""For all tests: how Hypothesis judges, and what is said at the end, also of tests that ran in another process."""

from typing import Any

import pytest
from hypothesis import settings
from tests.told import TOLD, tell

settings.register_profile("project", deadline=None)  # it judges by what holds, not by how long a busy machine takes
settings.load_profile("project")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A worker of pytest-xdist has no terminal: it hands its words over."""
    if (output := getattr(session.config, "workeroutput", None)) is not None:
        output["told"] = session.config.stash.get(TOLD, [])


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take a worker's words."""
    for line in getattr(node, "workeroutput", {}).get("told", []):
        tell(node.config, line)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print them before the last line, which is pytest's own."""
    for line in config.stash.get(TOLD, []):
        terminalreporter.write_line(line)
