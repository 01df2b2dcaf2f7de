"""What becomes of an object while a test runs: each of its versions, as a watch tells them."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.harness.cluster import Cluster
from tests.cluster.support.waiting import until


@dataclass(frozen=True)
class Versions:
    """Of the objects of one kind in one namespace."""

    log: Path

    def of(self, name: str) -> list[str]:
        """The resourceVersions of the objects of this name since the watch began, that of the beginning first."""
        lines = (line.split() for line in self.log.read_text().splitlines())
        return [version for found, version in lines if found == name]

    def writes(self, name: str) -> int:
        """How often an object that was there already was written."""
        return len(self.of(name)) - 1


@contextmanager
def versions(cluster: Cluster, kind: str, namespace: str, log: Path) -> Iterator[Versions]:
    """Watch the objects of a kind, of which there must be one."""
    form = '{.metadata.name} {.metadata.resourceVersion}{"\\n"}'
    watch = ["get", kind, "--namespace", namespace, "--watch", f"--output=jsonpath={form}"]
    with log.open("wb") as file:
        command = [str(cluster.kubectl_program), "--kubeconfig", str(cluster.kubeconfig), *watch]
        process = subprocess.Popen(command, stdout=file)
    try:
        until(lambda: log.stat().st_size, f"the watch of {kind} has begun", seconds=30)
        yield Versions(log)
    finally:
        process.terminate()
        process.wait()


def seconds_since(began: float) -> float:
    return time.monotonic() - began
