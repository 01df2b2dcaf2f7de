"""For all tests: how Hypothesis judges, and what is said at the end, also of tests that ran in another process."""

from typing import Any

import pytest
from hypothesis import settings
from tests.told import TOLD, tell

settings.register_profile("project", deadline=None)  # it judges by what holds, not by how long a busy machine takes
settings.load_profile("project")


LEFT_OUT = {
    "kueue": "under Kueue were left out, whose manager takes minutes to build: make test-kueue",
    "matrix": "of combinations that take a gang each were left out: make test-matrix",
}
"""Markers of tests that run only when chosen with -m, and how to."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for marker, words in LEFT_OUT.items():
        if marker in config.option.markexpr:
            continue
        without = [item for item in items if item.get_closest_marker(marker)]
        if without:
            tell(config, f"{len(without)} tests {words}")
        config.hook.pytest_deselected(items=without)
        items[:] = [item for item in items if item not in without]


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
