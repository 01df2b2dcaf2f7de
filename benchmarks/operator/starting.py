"""What it costs to start a job, against a bare batch/v1 Job of one pod, in turns."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field

from benchmarks.control_plane import ControlPlane, Request
from benchmarks.installed import OPERATOR, gone, operator, pid, settle
from benchmarks.kubelet import Fate, Kubelet, Pod, trains
from benchmarks.load import (
    Api,
    Body,
    batch_job,
    batch_jobs,
    finetune_job,
    finetune_jobs,
    in_parallel,
    new_namespace,
    percentile,
)
from benchmarks.operator.floor import Pairs, floor
from benchmarks.processes import cpu_seconds
from benchmarks.table import machine, show

BARE, OURS, FLOOR = "bare", "ours", "floor"
BATCH = 50
PAUSE = 0.4


@dataclass
class Timed:
    """Milliseconds from applying one job while nothing else goes on."""

    bare: list[float] = field(default_factory=list)
    """To its pod."""
    copied: list[float] = field(default_factory=list)
    """To the pod of the operator's own Job, applied by hand: what the size of that Job costs."""
    made: list[float] = field(default_factory=list)
    """To the arrival of the operator's request for the first stage's Job."""
    first: list[float] = field(default_factory=list)
    """To the first stage's pod."""
    train: list[float] = field(default_factory=list)
    """To the train stage's pod, the first stage having ended at once."""
    copies: list[Body] = field(default_factory=list)
    """The operator's own Jobs, as they were applied by hand."""


@dataclass(frozen=True)
class Cost:
    """Per job, of a batch; CPU in milliseconds."""

    plane: float
    operator: float
    requests: Counter[Request]


async def starting(plane: ControlPlane, api: Api, rounds: int) -> None:
    """The section."""
    for namespace in (BARE, OURS, FLOOR):
        await new_namespace(api, namespace)
    with operator(plane) as process:
        timed = Timed()
        async with Kubelet(api).playing() as kubelet:
            for number in range(-1, rounds * 5):  # the first warms everything up
                await _one_of_each(plane, api, kubelet, number, timed if number >= 0 else Timed())
        to_pod: dict[str, list[Cost]] = {BARE: [], OURS: [], "whole": []}
        for number in range(rounds):
            for kind, costs in to_pod.items():
                costs.append(await _batch(plane, api, pid(process), f"{kind}-{number}"))
    report(timed, to_pod, await floor(api, FLOOR, timed.copies[0], rounds * 5, PAUSE))


async def _one_of_each(plane: ControlPlane, api: Api, kubelet: Kubelet, number: int, timed: Timed) -> None:
    name = f"timed-{number}"
    began = time.monotonic()
    await api.send("POST", batch_jobs(BARE), batch_job(name))
    timed.bare.append((await kubelet.first(Pod(BARE, name, "train", 0)) - began) * 1e3)
    await asyncio.sleep(PAUSE)
    mark, offset, began = plane.requests_so_far(), time.time() - time.monotonic(), time.monotonic()
    await api.send("POST", finetune_jobs(OURS), finetune_job(name, "lora"))
    timed.first.append((await kubelet.first(Pod(OURS, name, "prepare", 0)) - began) * 1e3)
    timed.train.append((await kubelet.first(Pod(OURS, name, "train", 0)) - began) * 1e3)
    await asyncio.sleep(PAUSE)
    asked = (entry for entry in plane.audited_since(mark) if _makes_job(entry.request))
    timed.made.append((next(asked).received - offset - began) * 1e3)
    copy = by_hand(await api.send("GET", f"{batch_jobs(OURS)}/{name}-prepare"), f"copy-{number}")
    timed.copies.append(copy)
    began = time.monotonic()
    await api.send("POST", batch_jobs(BARE), copy)
    timed.copied.append((await kubelet.first(Pod(BARE, f"copy-{number}", "train", 0)) - began) * 1e3)
    await asyncio.sleep(PAUSE)


def by_hand(job: Body, name: str) -> Body:
    """A Job like this one that belongs to nobody."""
    template = job["spec"]["template"]
    own = {key: value for key, value in job["spec"].items() if key not in {"selector", "template"}}
    spec = own | {"template": {"metadata": {}, "spec": template["spec"]}}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": spec}


def _makes_job(request: Request) -> bool:
    return request.user == OPERATOR and request.resource == "jobs" and request.verb in {"create", "patch"}


async def _batch(plane: ControlPlane, api: Api, operator_pid: int, name: str) -> Cost:
    """Apply a batch at once; to the first pods, or with `whole` to the train pods, and all is at rest."""
    kind = name.partition("-")[0]
    namespace = BARE if kind == BARE else OURS
    path = batch_jobs(namespace) if kind == BARE else finetune_jobs(namespace)
    stage = "prepare" if kind == OURS else "train"
    fate = trains if kind == "whole" else lambda _: Fate.WAITS
    async with Kubelet(api, fate).playing() as kubelet:
        await settle(plane, OPERATOR)
        mark, plane_cpu, operator_cpu = plane.requests_so_far(), sum(plane.cpu().values()), cpu_seconds(operator_pid)
        names = [f"{name}-{number:03d}" for number in range(BATCH)]
        await in_parallel(api.send("POST", path, _manifest(kind, one)) for one in names)
        for one in names:
            await kubelet.first(Pod(namespace, one, stage, 0))
        await settle(plane, OPERATOR)
        cost = Cost(
            (sum(plane.cpu().values()) - plane_cpu) / BATCH * 1e3,
            (cpu_seconds(operator_pid) - operator_cpu) / BATCH * 1e3,
            plane.requests_since(mark),
        )
        await gone(api, namespace, path)
    return cost


def _manifest(kind: str, name: str) -> Body:
    return batch_job(name) if kind == BARE else finetune_job(name, "lora")


def report(timed: Timed, costs: dict[str, list[Cost]], floors: Pairs) -> None:
    bare = percentile(timed.bare, 0.5)
    rows = [
        [f"apply to {what}, p50", f"{percentile(ours, 0.5):.0f} ms", f"{bare:.0f} ms", _ratio(ours, timed.bare), goal]
        for what, ours, goal in (
            ("our Job", timed.made, ""),
            ("first pod", timed.first, "1.5"),
            ("pod of the same Job applied by hand", timed.copied, ""),
            ("train pod", timed.train, ""),
        )
    ]
    ideal, beside = ([pair[place] for pair in floors] for place in (0, 1))
    name = "apply to the pod of a bare watch that only posts that Job, p50"
    medians = [f"{percentile(values, 0.5):.0f} ms" for values in (ideal, beside)]
    rows.append([name, *medians, _ratio(ideal, beside), ""])
    peer = [cost.plane for cost in costs[BARE]]
    for what, kind, goal in (("to the first pod", OURS, "2.5"), ("to the train pod", "whole", "")):
        found = [cost.plane for cost in costs[kind]]
        own = percentile([cost.operator for cost in costs[kind]], 0.5)
        asked = percentile([_of_operator(cost).total() / BATCH for cost in costs[kind]], 0.5)
        name = f"control-plane CPU per job, {what}"
        rows += [
            [name, f"{percentile(found, 0.5):.1f} ms", f"{percentile(peer, 0.5):.1f} ms", _ratio(found, peer), goal],
            [f"operator's CPU per job, {what}", f"{own:.1f} ms", "", "", ""],
            [f"our requests per job, {what}", f"{asked:.1f}", "", "", ""],
        ]
    note = machine("finetune-operator", "kopf", "kubernetes")
    show("Starting a job", ["figure", "operator", "bare Job", "ratio", "target"], rows, note)
    for kind in (BARE, OURS, "whole"):
        kinds = costs[kind][-1].requests.most_common()
        shown = [[f"{one.user}: {one.verb} {one.resource}", f"{count / BATCH:.2f}"] for one, count in kinds]
        show(f"Requests per job: {kind}", ["request", "per job"], [row for row in shown if float(row[1]) >= 0.05])


def _of_operator(cost: Cost) -> Counter[Request]:
    mine = {one: count for one, count in cost.requests.items() if one.user == OPERATOR and one.resource != "leases"}
    return Counter(mine)


def _ratio(ours: list[float], theirs: list[float]) -> str:
    """Median of the ratios of neighbours in time."""
    return f"{percentile([mine / other for mine, other in zip(ours, theirs, strict=True)], 0.5):.2f}"
