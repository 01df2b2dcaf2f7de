"""Our operator as a process beside the control plane, with its default settings but for the addresses."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from tests.cluster.support.operator import OperatorProcess

from benchmarks.control_plane import ControlPlane
from benchmarks.load import Api

REPOSITORY = Path(__file__).resolve().parents[1]
OPERATOR = "finetune-operator"
"""Its name, and that of its user in the audit log."""
QUIET_REQUESTS = 4
"""Requests in a second of an operator that has nothing to do, its lease included."""
PATIENCE = 600.0


def operator(plane: ControlPlane) -> OperatorProcess:
    """Not started yet."""
    defaults = {"SCRAPE_SECONDS": "15", "LEASE_DURATION_SECONDS": "15", "LEASE_RENEW_SECONDS": "2"}
    return OperatorProcess(plane.kubeconfig(OPERATOR), plane.folder / f"{OPERATOR}.log", {}, **defaults)


def install(plane: ControlPlane) -> None:
    """Its CRDs."""
    plane.apply(*(definition.read_text() for definition in sorted((REPOSITORY / "crds").glob("*.yaml"))))
    plane.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")


def pid(process: OperatorProcess) -> int:
    assert process.process is not None
    return process.process.pid


async def settle(plane: ControlPlane, *users: str) -> None:
    """Wait until these users ask the API server for nothing but what they always do."""

    async def quiet() -> bool:
        mark = plane.requests_so_far()
        await asyncio.sleep(1)
        return sum(entry.request.user in users for entry in plane.audited_since(mark)) <= QUIET_REQUESTS

    await until(quiet, f"{' and '.join(users)} come to rest")


async def gone(api: Api, namespace: str, path: str) -> None:
    """Delete all jobs at a path of a collection, and wait until their pods are gone."""
    await api.send("DELETE", f"{path}?propagationPolicy=Background")

    async def empty() -> bool:
        await asyncio.sleep(0.3)
        return await api.count(f"/api/v1/namespaces/{namespace}/pods") == 0

    await until(empty, f"the pods of {namespace} are gone")


async def until(done: Callable[[], Awaitable[bool]], what: str) -> None:
    """Ask until it is so."""
    deadline = time.monotonic() + PATIENCE
    while not await done():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not after {PATIENCE:.0f} s")
