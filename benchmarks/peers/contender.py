"""What two operators must both be able to do to be compared, and ours."""

from __future__ import annotations

from typing import Protocol

from benchmarks.control_plane import ControlPlane
from benchmarks.installed import OPERATOR, operator, pid
from benchmarks.load import Body, finetune_job, finetune_jobs
from benchmarks.processes import cpu_seconds, memory


class Contender(Protocol):
    """An operator that turns a manifest into a gang of pods."""

    @property
    def name(self) -> str: ...

    @property
    def users(self) -> tuple[str, ...]:
        """Whose requests in the audit log are its own."""

    def start(self) -> None:
        """Start its processes and wait until they take jobs."""

    def launch(self) -> None:
        """Start its processes without waiting."""

    def stop(self) -> None:
        """End its processes."""

    def pids(self) -> list[int]:
        """Its processes, while they run."""

    def reconciles(self) -> float:
        """Reconciles of its job kind since its start; 0 until it answers."""

    def path(self, namespace: str) -> str:
        """Where its jobs are."""

    def manifest(self, name: str, pods: int) -> Body:
        """A job whose train stage has so many pods."""


class Ours:
    """finetune-operator, as a process with its default settings but for the addresses."""

    name = OPERATOR
    users = (OPERATOR,)

    def __init__(self, plane: ControlPlane) -> None:
        self._process = operator(plane)

    def start(self) -> None:
        self._process.start()

    def launch(self) -> None:
        self._process.launch()

    def stop(self) -> None:
        self._process.stop()

    def pids(self) -> list[int]:
        return [pid(self._process)]

    def reconciles(self) -> float:
        return self._process.reconciles()

    def path(self, namespace: str) -> str:
        return finetune_jobs(namespace)

    def manifest(self, name: str, pods: int) -> Body:
        return finetune_job(name, "lora", pods)


def used(contender: Contender) -> tuple[float, float]:
    """CPU seconds so far, and resident memory in MB, of all its processes."""
    pids = contender.pids()
    return sum(map(cpu_seconds, pids)), sum(map(memory, pids))
