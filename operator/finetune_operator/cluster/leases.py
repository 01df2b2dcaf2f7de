"""The Lease in the API server."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from finetune_operator.cluster.client import ApiError, Client, NotFoundError
from finetune_operator.runtime.kinds import object_name
from finetune_operator.runtime.lease import LeaseState, LeaseUnavailableError


class ClusterLease:
    """coordination.k8s.io/v1 Lease. Its client must have no fence: this is how writing is earned.

    The times in it are for people and other tools to read: nothing here decides by them.
    """

    def __init__(self, client: Client, namespace: str, name: str, now: Callable[[], datetime]) -> None:
        self._client = client
        self._root = f"/apis/coordination.k8s.io/v1/namespaces/{object_name(namespace)}/leases"
        self._name = object_name(name)
        self._now = now
        self._newest: dict[str, Any] = {}

    async def read(self) -> LeaseState | None:
        try:
            self._newest = await self._client.get(f"{self._root}/{self._name}")
        except NotFoundError:
            return None
        except ApiError as error:
            raise LeaseUnavailableError(str(error)) from error
        return _state(self._newest)

    async def create(self, holder: str, duration: float) -> LeaseState:
        body = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": self._name},
            "spec": self._spec(holder, duration, 0) | {"acquireTime": self._micro_time()},
        }
        try:
            self._newest = await self._client.create(self._root, body)
        except ApiError as error:
            raise LeaseUnavailableError(str(error)) from error
        return _state(self._newest)

    async def renew(self, held: LeaseState, holder: str, duration: float, *, acquired: bool) -> LeaseState:
        spec = self._spec(holder, duration, held.transitions + (1 if acquired else 0))
        before = self._newest.get("spec", {})
        spec["acquireTime"] = self._micro_time() if acquired else before.get("acquireTime")
        metadata = {"name": self._name, "resourceVersion": held.version}
        body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}
        try:
            self._newest = await self._client.replace(f"{self._root}/{self._name}", body)
        except ApiError as error:
            raise LeaseUnavailableError(str(error)) from error
        return _state(self._newest)

    def _spec(self, holder: str, duration: float, transitions: int) -> dict[str, Any]:
        return {
            "holderIdentity": holder,
            "leaseDurationSeconds": max(1, round(duration)),
            "leaseTransitions": transitions,
            "renewTime": self._micro_time(),
        }

    def _micro_time(self) -> str:
        return self._now().strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _state(lease: dict[str, Any]) -> LeaseState:
    try:
        spec = lease.get("spec", {})
        return LeaseState(
            holder=spec.get("holderIdentity") or "",
            duration=float(spec.get("leaseDurationSeconds") or 1),
            transitions=int(spec.get("leaseTransitions") or 0),
            version=lease["metadata"]["resourceVersion"],
        )
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise LeaseUnavailableError(f"what the API server answered is no Lease: {error!r}") from error
