"""Plays the kubelet of a cluster without nodes: tells when each pod came to be, and how it fares.

All pods stay without a node, so that the API server removes them at once when they are deleted.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum, auto
from typing import NamedTuple

from benchmarks.load import MERGE, Api, ApiError, Body
from finetune_trainer.contract import DataFormat, ExitCode, PreparedData, Result, Stage

PREPARED = Result(
    stage=Stage.PREPARE,
    exit_code=ExitCode.OK,
    message="1000 rows",
    prepared=PreparedData(
        format=DataFormat.CHAT,
        rows=1000,
        train_rows=950,
        eval_rows=50,
        tokens=100_000,
        digest="0" * 64,
        source_digests=("1" * 64,),
        model_revision="main",
        model_parameters=135_000_000,
    ),
).to_json()


class Pod(NamedTuple):
    """A pod, by what it belongs to and not by its own name."""

    namespace: str
    job: str
    stage: str
    """`prepare`, `train` or `publish` of a FineTuneJob; `train` of any other."""
    rank: int


class Fate(Enum):
    """What becomes of a pod as soon as it is there."""

    WAITS = auto()
    RUNS = auto()
    SUCCEEDS = auto()
    """With the Result that the operator waits for after the prepare stage."""
    CRASHES = auto()


KILLED = 137
"""Exit code of a process that the kernel killed."""


def trains(pod: Pod) -> Fate:
    """The prepare stage succeeds at once, training runs on."""
    return Fate.SUCCEEDS if pod.stage == "prepare" else Fate.RUNS


@dataclass
class Kubelet:
    """Of all namespaces."""

    api: Api
    fate: Callable[[Pod], Fate] = trains
    appeared: dict[Pod, list[tuple[float, str]]] = field(default_factory=lambda: defaultdict(list))
    """When each pod and its successors came to be (monotonic seconds), and their names."""
    running: dict[Pod, tuple[str, str]] = field(default_factory=dict)
    """The pods that run: their names, and their containers'."""
    problems: list[str] = field(default_factory=list)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @asynccontextmanager
    async def playing(self) -> AsyncIterator[Kubelet]:
        """Watch and answer for as long as the block lasts."""
        watching = asyncio.create_task(self._watch())
        await asyncio.sleep(0.5)  # the watch is there before the first pod is
        try:
            yield self
        finally:
            for task in (watching, *self._tasks):
                task.cancel()
            with suppress(asyncio.CancelledError):
                await asyncio.gather(watching, *self._tasks, return_exceptions=True)

    async def until(self, done: Callable[[], bool], what: str, seconds: float = 120) -> None:
        """Wait until something is so; looked at whenever a pod changes."""
        async with asyncio.timeout(seconds) as limit:
            while not done():
                self._changed.clear()
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), min(1.0, seconds))
                if limit.expired():
                    break
        if not done():
            raise TimeoutError(f"{what}: not after {seconds:.0f} s {self.problems[:3]}")

    async def first(self, pod: Pod, seconds: float = 120) -> float:
        """When a pod came to be."""
        await self.until(lambda: pod in self.appeared, f"{pod}", seconds)
        return self.appeared[pod][0][0]

    async def kill(self, pod: Pod) -> None:
        """Let a running pod fail."""
        name, container = self.running.pop(pod)
        await self._set(pod.namespace, name, _status(Fate.CRASHES, container))

    async def _watch(self) -> None:
        async for moment, kind, found in self.api.watch("/api/v1/pods"):
            pod = identify(found["metadata"])
            if pod is None:
                continue
            if kind == "ADDED":
                self.appeared[pod].append((moment, found["metadata"]["name"]))
                self._start(pod, found)
            elif kind == "DELETED" and self.running.get(pod, ("", ""))[0] == found["metadata"]["name"]:
                del self.running[pod]
            self._changed.set()

    def _start(self, pod: Pod, found: Body) -> None:
        fate = self.fate(pod)
        if fate is Fate.WAITS:
            return
        status = _status(fate, found["spec"]["containers"][0]["name"])
        task = asyncio.create_task(self._answer(pod, found["metadata"]["name"], status))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, pod: Pod, name: str, status: Body) -> None:
        try:
            await self._set(pod.namespace, name, status)
        except ApiError as error:
            if error.status not in (404, 409):  # it is gone already
                self.problems.append(str(error))
            return
        if status["phase"] == "Running":
            self.running[pod] = name, status["containerStatuses"][0]["name"]
            self._changed.set()

    async def _set(self, namespace: str, name: str, status: Body) -> None:
        path = f"/api/v1/namespaces/{namespace}/pods/{name}/status"
        await self.api.send("PATCH", path, {"status": status}, MERGE)


def identify(metadata: Mapping[str, object]) -> Pod | None:
    """What a pod belongs to, by its labels; None for one that is nobody's."""
    labels = metadata.get("labels")
    if not isinstance(labels, dict):
        return None
    rank = int(labels.get("batch.kubernetes.io/job-completion-index", 0))
    namespace = str(metadata["namespace"])
    if "finetune-operator.io/job" in labels:
        return Pod(namespace, labels["finetune-operator.io/job"], labels["finetune-operator.io/stage"], rank)
    owner = labels.get("jobset.sigs.k8s.io/jobset-name") or labels.get("batch.kubernetes.io/job-name")
    return Pod(namespace, owner, "train", rank) if owner else None


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _status(fate: Fate, container: str) -> Body:
    """The status of a pod with one container."""
    shared = {"name": container, "image": "localhost/trainer:test", "imageID": "", "restartCount": 0}
    scheduled = {"type": "PodScheduled", "status": "True"}
    if fate is Fate.RUNS:
        conditions = [scheduled, {"type": "Ready", "status": "True"}]
        statuses = [{**shared, "ready": True, "state": {"running": {"startedAt": _now()}}}]
        return {"phase": "Running", "startTime": _now(), "conditions": conditions, "containerStatuses": statuses}
    crashes = fate is Fate.CRASHES
    terminated = {
        "exitCode": KILLED if crashes else 0,
        "reason": "OOMKilled" if crashes else "Completed",
        "message": "" if crashes else PREPARED,
        "startedAt": _now(),
        "finishedAt": _now(),
    }
    statuses = [{**shared, "ready": False, "state": {"terminated": terminated}}]
    phase = "Failed" if crashes else "Succeeded"
    return {"phase": phase, "startTime": _now(), "conditions": [scheduled], "containerStatuses": statuses}
