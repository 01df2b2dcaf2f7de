"""The operator against the real API server: `python -m benchmarks.operator [--idle N] [--active N]`.

Idle jobs have succeeded; active ones wait for a template that is not there, so that the operator has to keep
looking after them. Everything runs on this machine, and every figure stands beside a bare peer: a raw watch for
latency, a batch/v1 Job for the time to a pod, the operator without jobs for memory.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from tests.cluster.harness import cluster as clusters
from tests.cluster.harness.cluster import Cluster
from tests.cluster.support.operator import OperatorProcess

from benchmarks.load import JOBS, MERGE, Api, Body, connect, in_parallel, job, percentile
from benchmarks.table import machine, show

REPOSITORY = Path(__file__).resolve().parents[1]
SUCCEEDED: Body = {
    "phase": "Succeeded",
    "startTime": "2026-01-01T00:00:00Z",
    "completionTime": "2026-01-01T01:00:00Z",
    "reason": "Succeeded",
    "message": "published 1 artifact",
}
WRITES = {"POST", "PUT", "PATCH", "APPLY", "DELETE"}


def memory(operator: OperatorProcess) -> float:
    """Resident memory of the process in MB."""
    assert operator.process is not None
    status = Path(f"/proc/{operator.process.pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")) / 1000


async def fill(api: Api, idle: int, active: int) -> None:
    """Make the jobs, and let the idle ones have succeeded."""

    async def make(number: int) -> None:
        name = f"job-{number:05d}"
        await api.send("POST", JOBS, job(name))
        if number < idle:
            await api.send("PATCH", f"{JOBS}/{name}/status", {"status": SUCCEEDED}, MERGE)

    await in_parallel(make(number) for number in range(idle + active))


async def settle(operator: OperatorProcess, count: int, seconds: float = 300) -> None:
    """Wait until so many reconciles are done."""
    deadline = time.monotonic() + seconds
    while operator.reconciles() < count:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{operator.reconciles()} of {count} reconciles after {seconds} s")
        await asyncio.sleep(0.1)


async def listed(operator: OperatorProcess, count: int, seconds: float = 120) -> None:
    """Wait until Kopf's own first list is through: before that, changes are seen late."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if operator.total("finetune_watch_events_total", 'kind="finetunejobs"', 'type="listed"') >= count:
            return
        await asyncio.sleep(0.2)
    raise TimeoutError(f"the first list of {count} jobs was not through after {seconds} s")


@dataclass(frozen=True)
class Latency:
    """Milliseconds from sending a change of a job's spec."""

    watched: list[float]
    """To its event on a raw watch, the peer."""
    reconciled: list[float]
    """To the operator's decision."""
    written: list[float]
    """To the status that answers it, as a watch sees it."""


async def latencies(api: Api, log: Path, idle: int, active: int, count: int) -> Latency:
    """Changes the spec of so many jobs, one after another, and times what follows."""
    sent: dict[str, float] = {}
    seen: dict[str, float] = {}
    told: dict[str, float] = {}
    ready = asyncio.Event()

    async def listen() -> None:
        ready.set()
        async for moment, _, found in api.watch(JOBS):
            name, wanted = found["metadata"]["name"], found["spec"]["template"]["name"]
            if name in sent and wanted == "elsewhere":
                seen.setdefault(name, moment)
                if "elsewhere" in found.get("status", {}).get("message", ""):
                    told.setdefault(name, moment)
            if len(told) == count:
                return

    listener = asyncio.create_task(listen())
    await ready.wait()
    await asyncio.sleep(1)
    for number in range(count):
        name = f"job-{idle + number % active:05d}"
        sent[name] = time.monotonic()
        await api.send("PATCH", f"{JOBS}/{name}", {"spec": {"template": {"name": "elsewhere"}}}, MERGE)
        await asyncio.sleep(0.02)
    await asyncio.wait_for(listener, 120)
    decided = decisions(log)
    return Latency(*([(moments[name] - sent[name]) * 1e3 for name in sent] for moments in (seen, decided, told)))


def decisions(log: Path) -> dict[str, float]:
    """When each job's reconcile had decided what to say of the change, by the operator's log, as a monotonic time."""
    offset = time.time() - time.monotonic()
    found: dict[str, float] = {}
    for line in log.read_text().splitlines():
        entry = json.loads(line) if line.startswith("{") else {}
        if entry.get("event") == "event_emitted" and "elsewhere" in entry["message"]:
            found.setdefault(entry["job"], datetime.fromisoformat(entry["timestamp"]).timestamp() - offset)
    return found


async def pod_times(api: Api, count: int) -> tuple[list[float], list[float]]:
    """Milliseconds from applying a bare Job, and a FineTuneJob, to the existence of its first pod."""
    bare, ours = [], []
    for number in range(count):
        plain = {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": f"bare-{number}"},
            "spec": {
                "suspend": False,
                "template": {
                    "spec": {
                        "restartPolicy": "Never",
                        "nodeSelector": {"none": "such"},
                        "containers": [{"name": "a", "image": "localhost/finetune-base:test"}],
                    }
                },
            },
        }
        bare.append(await _until_pod(api, "/apis/batch/v1/namespaces/default/jobs", plain, f"bare-{number}-"))
        manifest = job(f"timed-{number}", "lora")
        manifest["spec"]["podTemplate"] = {"spec": {"nodeSelector": {"none": "such"}}}
        ours.append(await _until_pod(api, JOBS, manifest, f"timed-{number}-"))
        await api.send("DELETE", f"{JOBS}/timed-{number}")
    return bare, ours


async def _until_pod(api: Api, path: str, manifest: Body, prefix: str) -> float:
    events = api.watch("/api/v1/namespaces/default/pods")
    first = asyncio.ensure_future(anext(events))
    await asyncio.sleep(0.3)
    began = time.monotonic()
    await api.send("POST", path, manifest)
    while True:
        moment, _, pod = await first
        if pod["metadata"]["name"].startswith(prefix):
            await events.aclose()  # type: ignore[attr-defined]
            return (moment - began) * 1e3
        first = asyncio.ensure_future(anext(events))


def writes(cluster: Cluster) -> Counter[str]:
    counts: Counter[str] = Counter()
    for request, count in cluster.apiserver_request_counts().items():
        if request.verb in WRITES and request.resource in {"finetunejobs", "jobs", "configmaps", "events"}:
            counts[f"{request.resource}/{request.subresource}"] += count
    return counts


async def run(cluster: Cluster, idle: int, active: int, log: Path) -> None:
    assert cluster.instance is not None
    settings = {"SCRAPE_SECONDS": "15", "LOG_LEVEL": "info"}
    with OperatorProcess(cluster.kubeconfig, log, {}, **settings) as empty:
        await asyncio.sleep(2)
        bare_memory = memory(empty)
    async with connect(cluster.instance) as api:
        print(f"making {idle} idle and {active} active jobs ...", flush=True)
        await fill(api, idle, active)
        operator = OperatorProcess(cluster.kubeconfig, log, {}, **settings)
        with operator:  # the first look writes the active jobs' status
            await settle(operator, active)
        before, began = writes(cluster), time.monotonic()
        with operator:
            await settle(operator, active)
            start = time.monotonic() - began
            unchanged = sum((writes(cluster) - before).values())
            await listed(operator, idle + active)
            latency = await latencies(api, log, idle, active, min(active, 500))
            used = memory(operator)
            bare, ours = await pod_times(api, 15)
    report(idle, active, Figures(bare_memory, used, start, unchanged, latency, (bare, ours)))


@dataclass(frozen=True)
class Figures:
    """What was measured; pods are (peer, operator), in milliseconds."""

    bare_megabytes: float
    megabytes: float
    start_seconds: float
    unchanged_writes: int
    latency: Latency
    pods: tuple[list[float], list[float]]


def report(idle: int, active: int, figures: Figures) -> None:
    def versus(name: str, peer: str, pair: tuple[list[float], list[float]], share: float) -> list[str]:
        theirs, ours = percentile(pair[0], share), percentile(pair[1], share)
        return [name, f"{ours:.0f} ms", f"{peer}: {theirs:.0f} ms", f"{ours / theirs:.2f}"]

    latency = figures.latency
    rows = [
        [
            "memory",
            f"{figures.megabytes:.0f} MB",
            f"without jobs: {figures.bare_megabytes:.0f} MB",
            f"{figures.megabytes / figures.bare_megabytes:.2f}",
        ],
        [
            f"start to {active} reconciles",
            f"{figures.start_seconds:.1f} s",
            f"{(idle + active) / figures.start_seconds:.0f} jobs/s",
            "",
        ],
        [
            "writes for unchanged jobs",
            str(figures.unchanged_writes),
            f"{active} reconciles",
            f"{figures.unchanged_writes / active:.2f}",
        ],
        *(
            versus(f"change to {what}, p{share * 100:.0f}", "raw watch", (latency.watched, ours), share)
            for what, ours in (("reconcile", latency.reconciled), ("status", latency.written))
            for share in (0.5, 0.99)
        ),
        versus("apply to first pod, p50", "bare Job", figures.pods, 0.5),
        versus("apply to first pod, p90", "bare Job", figures.pods, 0.9),
    ]
    note = machine("finetune-operator", "kopf", "kubernetes")
    show(f"Operator, {idle} idle and {active} active jobs", ["figure", "operator", "peer", "ratio"], rows, note)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--idle", type=int, default=9000, help="jobs that have succeeded (default %(default)s)")
    options.add_argument("--active", type=int, default=1000, help="jobs that wait (default %(default)s)")
    chosen = options.parse_args()
    cluster = clusters.start()
    try:
        for definition in sorted((REPOSITORY / "crds").glob("*.yaml")):
            cluster.apply(definition.read_text())
        cluster.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
        with tempfile.TemporaryDirectory() as folder:
            asyncio.run(run(cluster, chosen.idle, chosen.active, Path(folder) / "operator.log"))
    finally:
        assert cluster.instance is not None
        clusters.stop(cluster.instance)


if __name__ == "__main__":
    main()
