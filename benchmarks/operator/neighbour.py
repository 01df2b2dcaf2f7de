"""A noisy neighbour: one namespace is full of jobs whose pods crash, another applies a job.

A bare Job in the quiet namespace tells how much of the delay is the API server's and the Job controller's.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

from benchmarks.control_plane import Audited, ControlPlane
from benchmarks.installed import OPERATOR, operator, settle
from benchmarks.kubelet import Fate, Kubelet, Pod, trains
from benchmarks.load import (
    Api,
    batch_job,
    batch_jobs,
    finetune_job,
    finetune_jobs,
    in_parallel,
    new_namespace,
    percentile,
)
from benchmarks.table import machine, show

NOISY, QUIET = "noisy", "quiet"
TIMES = 10
PATIENCE = 20.0
"""Seconds that a pod is waited for: beside the crashes the Job controller is behind by more than that."""
FIRST_CRASHES = 50
"""Pods that crashed before the clock starts."""


@dataclass
class Delays:
    """Milliseconds, one for each time."""

    bare: list[float] = field(default_factory=list)
    applied: list[float] = field(default_factory=list)
    """From sending a job to the API server's answer: what of the next one is not the operator's."""
    made: list[float] = field(default_factory=list)
    """From applying a job to the operator's request for its Job."""
    first: list[float] = field(default_factory=list)
    """To its first pod."""


def fate(pod: Pod) -> Fate:
    """All training of the noisy namespace crashes at once."""
    return Fate.CRASHES if pod.namespace == NOISY and pod.stage == "train" else trains(pod)


async def neighbour(plane: ControlPlane, api: Api, count: int) -> None:
    """The section."""
    for namespace in (NOISY, QUIET):
        await new_namespace(api, namespace)
    async with Kubelet(api, fate).playing() as kubelet:
        with operator(plane):
            await settle(plane, OPERATOR)
            print("timing a job alone ...", flush=True)
            quiet = await _timed(plane, api, kubelet, "before")
            names = (f"crash-{number:04d}" for number in range(count))
            print(f"making {count} crashing jobs ...", flush=True)
            await in_parallel(api.send("POST", finetune_jobs(NOISY), finetune_job(name, "lora")) for name in names)
            await kubelet.until(lambda: _crashes(kubelet) >= FIRST_CRASHES, "pods crash", 600)
            print("timing a job beside them ...", flush=True)
            crashes, began = _crashes(kubelet), time.monotonic()
            noisy = await _timed(plane, api, kubelet, "under-load")
            rate = (_crashes(kubelet) - crashes) / (time.monotonic() - began)
    report(count, rate, quiet, noisy)


def _crashes(kubelet: Kubelet) -> int:
    return sum(len(times) for pod, times in kubelet.appeared.items() if fate(pod) is Fate.CRASHES)


async def _timed(plane: ControlPlane, api: Api, kubelet: Kubelet, label: str) -> Delays:
    delays = Delays()
    for number in range(TIMES):
        name = f"{label}-{number}"
        began = time.monotonic()
        await api.send("POST", batch_jobs(QUIET), batch_job(name))
        delays.bare.append(await _until_pod(kubelet, Pod(QUIET, name, "train", 0), began))
        mark, offset, began = plane.requests_so_far(), time.time() - time.monotonic(), time.monotonic()
        await api.send("POST", finetune_jobs(QUIET), finetune_job(name, "lora"))
        delays.applied.append((time.monotonic() - began) * 1e3)
        delays.first.append(await _until_pod(kubelet, Pod(QUIET, name, "prepare", 0), began))
        asked = (entry.received for entry in plane.audited_since(mark) if _makes_quiet_job(entry))
        delays.made.append((next(asked, time.time()) - offset - began) * 1e3)
        await asyncio.sleep(0.3)
    return delays


async def _until_pod(kubelet: Kubelet, pod: Pod, began: float) -> float:
    """Milliseconds to a pod, or those that were waited for it in vain."""
    try:
        return (await kubelet.first(pod, PATIENCE) - began) * 1e3
    except TimeoutError:
        return PATIENCE * 1e3


def _makes_quiet_job(entry: Audited) -> bool:
    return entry.namespace == QUIET and (entry.request.user, entry.request.resource) == (OPERATOR, "jobs")


def report(count: int, rate: float, quiet: Delays, noisy: Delays) -> None:
    rows = []
    for what, before, after, target in (
        ("job, apply to the API server's answer", quiet.applied, noisy.applied, ""),
        ("job, apply to our Job", quiet.made, noisy.made, "2"),
        ("job, apply to first pod", quiet.first, noisy.first, "2"),
        ("bare Job, apply to pod", quiet.bare, noisy.bare, ""),
    ):
        row = [f"{percentile(values, share):.0f} ms" for share in (0.5, 0.9) for values in (before, after)]
        ratio = percentile(after, 0.5) / percentile(before, 0.5)
        rows.append([what, *row, f"{ratio:.2f}", target])
    head = [
        "in a quiet namespace",
        "alone p50",
        "beside them p50",
        "alone p90",
        "beside them p90",
        "p50 ratio",
        "target",
    ]
    title = f"{count} crashing jobs in another namespace, {rate:.1f} crashes a second meanwhile"
    show(title, head, rows, machine("finetune-operator", "kopf", "kubernetes"))
