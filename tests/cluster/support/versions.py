"""Operators of other versions or settings, in place of the one that the tests share."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.cluster.support.operator import OperatorProcess

SOURCES = ("operator", "trainer-image")


@contextmanager
def stopped(operator: OperatorProcess) -> Iterator[None]:
    """While the operator that the tests share does not run; afterwards it does again."""
    operator.stop()
    try:
        yield
    finally:
        operator.start()


def alike(operator: OperatorProcess, log: Path, **settings: str) -> OperatorProcess:
    """Another operator with the same settings but these. It is not started."""
    other = OperatorProcess(operator.kubeconfig, log, {})
    ports = {name: other.settings[name] for name in ("HEALTH_PORT", "METRICS_PORT")}
    other.settings = operator.settings | ports | settings
    return other


def of_sources(operator: OperatorProcess, log: Path, sources: Path) -> OperatorProcess:
    """Another operator with the same settings, which runs from these sources."""
    other = alike(operator, log)
    other.environment = {"PYTHONPATH": os.pathsep.join(str(sources / folder) for folder in SOURCES)}
    where = [sys.executable, "-c", "import finetune_operator, finetune_trainer; print(*finetune_operator.__path__)"]
    found = subprocess.run(where, env=other.environment, capture_output=True, text=True, check=True).stdout
    assert found.startswith(str(sources)), f"it would run from {found}"
    return other


def earlier_sources(repository: Path, target: Path) -> str:
    """Writes the sources of the commit before this one, or of this one where a shallow clone has no other.

    Says which of them it was.
    """
    target.mkdir()
    for revision in ("HEAD~1", "HEAD"):
        command = ["git", "-C", str(repository), "archive", "--format=tar", revision, *SOURCES]
        archived = subprocess.run(command, capture_output=True, check=False)
        if archived.returncode == 0:
            subprocess.run(["tar", "-x", "-C", str(target)], input=archived.stdout, check=True)
            return revision
    raise AssertionError(f"git has no sources: {archived.stderr.decode()}")
