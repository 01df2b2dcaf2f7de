"""Many jobs: those that run with a Job and a pod each, those that wait, and those that have ended.

Memory of the process that started them and of one that found them, the time to find them, and from a change of one of
them to what the operator makes of it.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from tests.cluster.support.operator import OperatorProcess

from benchmarks.control_plane import ControlPlane
from benchmarks.installed import OPERATOR, operator, pid, settle, until
from benchmarks.kubelet import Kubelet, Pod
from benchmarks.load import MERGE, Api, Body, finetune_job, finetune_jobs, in_parallel, new_namespace, percentile
from benchmarks.processes import cpu_seconds, memory
from benchmarks.table import machine, show

NAMESPACE = "fleet"
JOBS = finetune_jobs(NAMESPACE)
CHANGES = 500
ENDED: Body = {
    "phase": "Succeeded",
    "observedGeneration": 1,
    "startTime": "2026-01-01T00:00:00Z",
    "completionTime": "2026-01-01T01:00:00Z",
    "reason": "Succeeded",
    "message": "published 1 artifact",
}
WRITES = {"create", "update", "patch", "delete"}


@dataclass(frozen=True)
class Fleet:
    """How many jobs of which kind."""

    running: int
    waiting: int
    ended: int

    @property
    def open(self) -> int:
        return self.running + self.waiting


@dataclass(frozen=True)
class Latency:
    """Milliseconds from sending a change of a job's spec."""

    watched: list[float]
    """To its event on a raw watch, the peer."""
    reconciled: list[float]
    """To the arrival of the operator's first write that answers it."""
    written: list[float]
    """To the status that answers it, as a watch sees it."""


@dataclass(frozen=True)
class Figures:
    empty: float
    started: float
    """MB of the process that started the running jobs."""
    found: float
    """MB of one that found them."""
    start: float
    """Seconds from the process's start to the last reconcile."""
    start_cpu: float
    requests: int
    """Of the restarted operator, until it is at rest."""
    writes: int
    """Those of them that change an object, leases left out."""
    latency: Latency


async def fleet(plane: ControlPlane, api: Api, jobs: Fleet) -> None:
    """The section."""
    show_figures(jobs, await measure(plane, api, jobs))


async def measure(plane: ControlPlane, api: Api, jobs: Fleet) -> Figures:
    """Make the jobs, then restart the operator."""
    await new_namespace(api, NAMESPACE)
    process = operator(plane)
    with process:
        await settle(plane, OPERATOR)
        empty = memory(pid(process))
    print(f"making {jobs.waiting} waiting and {jobs.ended} ended jobs ...", flush=True)
    await in_parallel(_ended(api, number) for number in range(jobs.ended))
    await in_parallel(api.send("POST", JOBS, finetune_job(f"waits-{number:05d}")) for number in range(jobs.waiting))
    async with Kubelet(api).playing() as kubelet:
        with process:
            print(f"starting {jobs.running} ...", flush=True)
            names = [f"runs-{number:05d}" for number in range(jobs.running)]
            await in_parallel(api.send("POST", JOBS, finetune_job(name, "lora")) for name in names)
            pods = [Pod(NAMESPACE, name, "train", 0) for name in names]
            await kubelet.until(lambda: all(pod in kubelet.running for pod in pods), "all jobs run", 1800)
            await settle(plane, OPERATOR)
            started = memory(pid(process))
        return await _restarted(plane, api, process, jobs, empty, started)


async def _restarted(  # noqa: PLR0913, PLR0917 - what was measured before it
    plane: ControlPlane, api: Api, process: OperatorProcess, jobs: Fleet, empty: float, started: float
) -> Figures:
    mark, began = plane.requests_so_far(), time.monotonic()
    with process:
        await until(lambda: _has_seen(process, jobs.open), "all open jobs are reconciled")
        start, start_cpu = time.monotonic() - began, cpu_seconds(pid(process))
        await settle(plane, OPERATOR)
        found = memory(pid(process))
        requests = [one.request for one in plane.audited_since(mark) if one.request.user == OPERATOR]
        requests = [request for request in requests if request.resource != "leases"]
        writes = sum(request.verb in WRITES for request in requests)
        await until(lambda: _is_idle(process), "the operator has read everything")
        latency = await latencies(plane, api, min(jobs.waiting, CHANGES))
    return Figures(empty, started, found, start, start_cpu, len(requests), writes, latency)


async def _has_seen(process: OperatorProcess, count: int) -> bool:
    await asyncio.sleep(0.05)
    return await asyncio.to_thread(process.reconciles) >= count


async def _is_idle(process: OperatorProcess) -> bool:
    """Until its first lists are through, changes are seen late."""
    before = cpu_seconds(pid(process))
    await asyncio.sleep(2)
    return cpu_seconds(pid(process)) - before < 0.1


async def _ended(api: Api, number: int) -> None:
    name = f"ended-{number:05d}"
    await api.send("POST", JOBS, finetune_job(name))
    await api.send("PATCH", f"{JOBS}/{name}/status", {"status": ENDED}, MERGE)


async def latencies(plane: ControlPlane, api: Api, count: int) -> Latency:
    """Changes the spec of so many waiting jobs, one after another, and times what follows."""
    sent: dict[str, float] = {}
    seen: dict[str, float] = {}
    told: dict[str, float] = {}

    async def listen() -> None:
        async for moment, _, found in api.watch(JOBS):
            name = found["metadata"]["name"]
            if name in sent and found["spec"]["template"]["name"] == "elsewhere":
                seen.setdefault(name, moment)
                if "elsewhere" in found.get("status", {}).get("message", ""):
                    told.setdefault(name, moment)
            if len(told) == count:
                return

    listener = asyncio.create_task(listen())
    await asyncio.sleep(1)
    mark, offset = plane.requests_so_far(), time.time() - time.monotonic()
    for number in range(count):
        name = f"waits-{number:05d}"
        sent[name] = time.monotonic()
        await api.send("PATCH", f"{JOBS}/{name}", {"spec": {"template": {"name": "elsewhere"}}}, MERGE)
        await asyncio.sleep(0.02)
    await asyncio.wait_for(listener, 120)
    decided: dict[str, float] = {}
    for entry in plane.audited_since(mark):
        if entry.request == (OPERATOR, "patch", "finetunejobs/status"):
            decided.setdefault(entry.name, entry.received - offset)
    return Latency(*([(moments[name] - sent[name]) * 1e3 for name in sent] for moments in (seen, decided, told)))


def show_figures(jobs: Fleet, figures: Figures) -> None:
    latency = figures.latency

    def versus(name: str, ours: list[float], share: float, target: str) -> list[str]:
        mine, watched = percentile(ours, share), percentile(latency.watched, share)
        return [name, f"{mine:.0f} ms", f"raw watch: {watched:.0f} ms", f"{mine / watched:.2f}", target]

    def megabytes(name: str, value: float) -> list[str]:
        return [
            name,
            f"{value:.0f} MB",
            f"without jobs: {figures.empty:.0f} MB",
            f"{value / figures.empty:.2f}",
            "250 MB",
        ]

    rows = [
        megabytes("memory, having started them", figures.started),
        megabytes("memory, after a restart", figures.found),
        [f"start to {jobs.open} reconciles", f"{figures.start:.1f} s", f"CPU: {figures.start_cpu:.1f} s", "", "5 s"],
        ["requests at the restart", str(figures.requests), f"{jobs.open} reconciles", "", ""],
        ["writes for unchanged jobs", str(figures.writes), f"{jobs.open} reconciles", "", "0"],
        versus("change to reconcile, p50", latency.reconciled, 0.5, ""),
        versus("change to reconcile, p99", latency.reconciled, 0.99, "50 ms"),
        versus("change to status, p50", latency.written, 0.5, ""),
        versus("change to status, p99", latency.written, 0.99, ""),
    ]
    title = f"{jobs.running} running, {jobs.waiting} waiting and {jobs.ended} ended jobs"
    note = machine("finetune-operator", "kopf", "kubernetes")
    show(title, ["figure", "operator", "peer", "ratio", "target"], rows, note)
