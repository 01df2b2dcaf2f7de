"""Many jobs at once, against as many bare Jobs."""

from __future__ import annotations

import time

from benchmarks.control_plane import ControlPlane
from benchmarks.installed import OPERATOR, gone, operator, settle
from benchmarks.kubelet import Kubelet, Pod
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
from benchmarks.table import machine, show

NAMESPACE = "burst"


async def burst(plane: ControlPlane, api: Api, count: int) -> None:
    """The section."""
    await new_namespace(api, NAMESPACE)
    names = [f"burst-{number:04d}" for number in range(count)]
    with operator(plane):
        bare = await _at_once(plane, api, batch_jobs(NAMESPACE), {name: batch_job(name) for name in names}, "train")
        jobs = {f"ours-{name}": finetune_job(f"ours-{name}", "lora") for name in names}
        ours = await _at_once(plane, api, finetune_jobs(NAMESPACE), jobs, "prepare", "train")
    rows = [
        [f"{count} jobs to their {what}", f"{max(found):.1f} s", f"{count / max(found):.1f}", *_against(found, bare[0])]
        for what, found in (("bare Jobs' pods", bare[0]), ("first pods", ours[0]), ("train pods", ours[1]))
    ]
    head = ["figure", "last", "jobs/s", "median", "against bare Jobs"]
    show(f"{count} jobs at once", head, rows, machine("finetune-operator", "kopf", "kubernetes"))


def _against(found: list[float], bare: list[float]) -> tuple[str, str]:
    return f"{percentile(found, 0.5):.1f} s", f"{max(found) / max(bare):.2f}"


async def _at_once(
    plane: ControlPlane, api: Api, path: str, manifests: dict[str, Body], *stages: str
) -> list[list[float]]:
    """Seconds from the first request to each job's pod, for each stage."""
    async with Kubelet(api).playing() as kubelet:
        await settle(plane, OPERATOR)
        began = time.monotonic()
        await in_parallel(api.send("POST", path, manifest) for manifest in manifests.values())
        found = [
            [await kubelet.first(Pod(NAMESPACE, name, stage, 0), 1200) - began for name in manifests]
            for stage in reversed(stages)
        ]
        await settle(plane, OPERATOR)
        await gone(api, NAMESPACE, path)
    return found[::-1]
