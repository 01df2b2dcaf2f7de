"""What is measured of each contender, one at a time on the same control plane."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from benchmarks.control_plane import ControlPlane, Request
from benchmarks.installed import gone, settle, until
from benchmarks.kubelet import Kubelet, Pod
from benchmarks.load import Api, ApiError, in_parallel, new_namespace
from benchmarks.peers.contender import Contender, used

SINGLES = 7
"""Jobs that are timed one by one; the first warms everything up and is not counted."""
GANGS = 3


@dataclass(frozen=True)
class Round:
    """Of one contender in one round. Times are in milliseconds, medians where there are several."""

    first_pods_per_second: float
    train_pods_per_second: float
    first_pod: float
    """From applying one job, with nothing else to do, to its first pod."""
    train_pod: float
    gang: float
    """From a pod's failure to the last of the two pods that replace the gang's."""
    requests: float
    """Per job, by the contender."""
    kinds: Counter[Request]
    cpu: float
    """Per job, of the contender's processes."""
    plane_cpu: float
    """Per job, of API server, etcd and controller manager."""
    memory: float
    """MB, with all the jobs there."""


@dataclass(frozen=True)
class Restart:
    """Of a contender that ended with so many running jobs; seconds since its processes were started again."""

    first: float
    """To its first reconcile. Trainer's webhooks, without which it does not begin, take one to two of these."""
    reconciled: float
    """To as many reconciles as there are jobs."""
    train_pod: float
    """To the train pod of a job that is applied as soon as it is taken: while Trainer is down, its webhook refuses."""
    memory_before: float
    memory_after: float


async def one_round(plane: ControlPlane, api: Api, contender: Contender, namespace: str, jobs: int) -> Round:
    """Single jobs, then gangs that lose a pod, then all the jobs at once."""
    async with _stage(api, contender, namespace) as kubelet:
        singles = [await _single(api, kubelet, contender, namespace, number) for number in range(SINGLES)][1:]
        gangs = [await _lost_pod(api, kubelet, contender, namespace, number) for number in range(GANGS)]
        await settle(plane, *contender.users)
        mark, before, plane_before = plane.requests_so_far(), used(contender)[0], sum(plane.cpu().values())
        names = [f"burst-{number:04d}" for number in range(jobs)]
        began = time.monotonic()
        await in_parallel(api.send("POST", contender.path(namespace), contender.manifest(name, 1)) for name in names)
        ends = [await kubelet.first(Pod(namespace, name, "train", 0), 600) for name in names]
        await settle(plane, *contender.users)
        after, megabytes = used(contender)
        plane_after, kinds = sum(plane.cpu().values()), _of(contender.users, plane.requests_since(mark))
        starts = [_first_pod(kubelet, namespace, name) for name in names]
    return Round(
        first_pods_per_second=jobs / (max(starts) - began),
        train_pods_per_second=jobs / (max(ends) - began),
        first_pod=middle([first for first, _ in singles]),
        train_pod=middle([train for _, train in singles]),
        gang=middle(gangs),
        requests=kinds.total() / jobs,
        kinds=kinds,
        cpu=(after - before) / jobs * 1e3,
        plane_cpu=(plane_after - plane_before) / jobs * 1e3,
        memory=megabytes,
    )


async def restart(plane: ControlPlane, api: Api, contender: Contender, namespace: str, jobs: int) -> Restart:
    """Let so many jobs run, end the contender, apply one more job and start it again."""
    async with _stage(api, contender, namespace) as kubelet:
        names = [f"running-{number:04d}" for number in range(jobs)]
        await in_parallel(api.send("POST", contender.path(namespace), contender.manifest(name, 1)) for name in names)
        pods = [Pod(namespace, name, "train", 0) for name in names]
        await kubelet.until(lambda: all(pod in kubelet.running for pod in pods), "all jobs run", 600)
        await settle(plane, *contender.users)
        memory_before = used(contender)[1]
        contender.stop()
        await asyncio.sleep(1)
        began = time.monotonic()
        contender.launch()
        applied = asyncio.create_task(_apply_until_taken(api, contender, namespace))
        first = asyncio.create_task(_reconciled(contender, 1))
        reconciled = asyncio.create_task(_reconciled(contender, jobs))
        late = await kubelet.first(Pod(namespace, "late", "train", 0))
        await applied
        done = await reconciled
        await settle(plane, *contender.users)
        return Restart(await first - began, done - began, late - began, memory_before, used(contender)[1])


def middle(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


@asynccontextmanager
async def _stage(api: Api, contender: Contender, namespace: str) -> AsyncIterator[Kubelet]:
    """A namespace, a kubelet and the running contender; all that was made is gone in the end."""
    await new_namespace(api, namespace)
    async with Kubelet(api).playing() as kubelet:
        await asyncio.to_thread(contender.start)
        try:
            yield kubelet
            await gone(api, namespace, contender.path(namespace))
        finally:
            await asyncio.to_thread(contender.stop)


async def _single(api: Api, kubelet: Kubelet, contender: Contender, namespace: str, number: int) -> tuple[float, float]:
    """Milliseconds from applying a job to its first pod, and to its train pod."""
    name = f"single-{number}"
    began = time.monotonic()
    await api.send("POST", contender.path(namespace), contender.manifest(name, 1))
    train = await kubelet.first(Pod(namespace, name, "train", 0))
    await asyncio.sleep(0.7)
    return (_first_pod(kubelet, namespace, name) - began) * 1e3, (train - began) * 1e3


async def _lost_pod(api: Api, kubelet: Kubelet, contender: Contender, namespace: str, number: int) -> float:
    """Milliseconds from the failure of a gang's second pod to the last of its successors."""
    name = f"gang-{number}"
    pods = [Pod(namespace, name, "train", rank) for rank in range(2)]
    await api.send("POST", contender.path(namespace), contender.manifest(name, 2))
    await kubelet.until(lambda: all(pod in kubelet.running for pod in pods), "the gang runs")
    await asyncio.sleep(1.5)
    began = time.monotonic()
    await kubelet.kill(pods[1])
    await kubelet.until(lambda: all(len(kubelet.appeared[pod]) > 1 for pod in pods), "the gang is back")
    return (max(kubelet.appeared[pod][1][0] for pod in pods) - began) * 1e3


async def _apply_until_taken(api: Api, contender: Contender, namespace: str) -> None:
    async def taken() -> bool:
        try:
            await api.send("POST", contender.path(namespace), contender.manifest("late", 1))
        except ApiError:
            await asyncio.sleep(0.02)
            return False
        return True

    await until(taken, "a job can be applied")


async def _reconciled(contender: Contender, jobs: int) -> float:
    async def done() -> bool:
        await asyncio.sleep(0.02)
        return await asyncio.to_thread(contender.reconciles) >= jobs

    await until(done, f"{contender.name} looks at all its jobs")
    return time.monotonic()


def _first_pod(kubelet: Kubelet, namespace: str, name: str) -> float:
    return min(kubelet.appeared[pod][0][0] for pod in _pods(namespace, name) if pod in kubelet.appeared)


def _pods(namespace: str, name: str) -> tuple[Pod, ...]:
    return tuple(Pod(namespace, name, stage, 0) for stage in ("prepare", "train"))


def _of(users: tuple[str, ...], requests: Counter[Request]) -> Counter[Request]:
    return Counter({request: count for request, count in requests.items() if request.user in users})
