"""What no operator can beat: a watch on FineTuneJobs that posts the same Job at once, and does nothing else."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

from benchmarks.kubelet import Kubelet, Pod
from benchmarks.load import Api, Body, batch_job, batch_jobs, finetune_job, finetune_jobs

Pairs = list[tuple[float, float]]
"""Milliseconds: of the watch, and of the bare Job right before."""


async def floor(api: Api, namespace: str, job: Body, times: int, pause: float) -> Pairs:
    """From applying a FineTuneJob to the pod of this Job, and beside it from applying a bare Job to its pod.

    For when no operator runs.
    """
    posting = asyncio.create_task(_post_for_each(api, namespace, job))
    pairs: Pairs = []
    async with Kubelet(api).playing() as kubelet:
        for number in range(-1, times):  # the first warms everything up
            name = f"floor-{number}"
            began = time.monotonic()
            await api.send("POST", batch_jobs(namespace), batch_job(f"{name}-bare"))
            bare = await kubelet.first(Pod(namespace, f"{name}-bare", "train", 0)) - began
            await asyncio.sleep(pause)
            began = time.monotonic()
            await api.send("POST", finetune_jobs(namespace), finetune_job(name, "lora"))
            ours = await kubelet.first(Pod(namespace, name, "train", 0)) - began
            await asyncio.sleep(pause)
            if number >= 0:
                pairs.append((ours * 1e3, bare * 1e3))
    posting.cancel()
    with suppress(asyncio.CancelledError):
        await posting
    return pairs


async def _post_for_each(api: Api, namespace: str, job: Body) -> None:
    async for _, change, found in api.watch(finetune_jobs(namespace)):
        if change == "ADDED":
            name = found["metadata"]["name"]
            await api.send("POST", batch_jobs(namespace), {**job, "metadata": {"name": name}})
