"""The Lease as other tools read it, and what of it the operator goes by."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from tests.unit.cluster.api_server import ApiServer, status

from finetune_operator.cluster.client import Client
from finetune_operator.cluster.leases import ClusterLease
from finetune_operator.runtime.lease import LeaseState, LeaseUnavailableError

ROOT = "/apis/coordination.k8s.io/v1/namespaces/ops/leases"
NOW = "2026-03-01T12:00:00.250000Z"


@pytest.fixture
def lease(client: Client) -> ClusterLease:
    return ClusterLease(client, "ops", "finetune", lambda: datetime(2026, 3, 1, 12, 0, 0, 250_000, tzinfo=UTC))


def stored(version: str = "7", **spec: Any) -> dict[str, Any]:
    usual = {"holderIdentity": "a", "leaseDurationSeconds": 15, "leaseTransitions": 3, "acquireTime": "before"}
    return {"metadata": {"name": "finetune", "resourceVersion": version}, "spec": usual | spec}


async def test_a_lease_that_is_not_there_is_created_with_its_holder(server: ApiServer, lease: ClusterLease) -> None:
    assert await lease.read() is None
    server.answer("POST", ROOT, stored(leaseTransitions=0))
    assert await lease.create("a", 14.6) == LeaseState("a", 15.0, 0, "7")
    assert server.asked[-1].body == {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": "finetune"},
        "spec": {
            "holderIdentity": "a",
            "leaseDurationSeconds": 15,
            "leaseTransitions": 0,
            "renewTime": NOW,
            "acquireTime": NOW,
        },
    }


@pytest.mark.parametrize(
    ("acquired", "transitions", "since"), [(True, 4, NOW), (False, 3, "before")], ids=["taken over", "renewed"]
)
async def test_a_lease_is_written_only_over_the_version_that_was_read(
    server: ApiServer,
    lease: ClusterLease,
    acquired: bool,  # noqa: FBT001 - drawn
    transitions: int,
    since: str,
) -> None:
    server.answer("GET", f"{ROOT}/finetune", stored())
    server.answer("PUT", f"{ROOT}/finetune", stored("8"))
    held = await lease.read()
    assert held == LeaseState("a", 15.0, 3, "7")
    assert (await lease.renew(held, "b", 0.2, acquired=acquired)).version == "8"
    assert server.asked[-1].body == {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": "finetune", "resourceVersion": "7"},
        "spec": {
            "holderIdentity": "b",
            "leaseDurationSeconds": 1,
            "leaseTransitions": transitions,
            "renewTime": NOW,
            "acquireTime": since,
        },
    }


async def test_a_renewal_goes_on_from_the_one_before(server: ApiServer, lease: ClusterLease) -> None:
    server.answer("POST", ROOT, stored(acquireTime="at first"))
    server.answer("PUT", f"{ROOT}/finetune", stored("8", acquireTime="later"))
    held = await lease.create("a", 15)
    for since in ("at first", "later"):
        held = await lease.renew(held, "a", 15, acquired=False)
        assert server.asked[-1].body["spec"]["acquireTime"] == since


async def test_a_lease_without_a_holder_is_anybodys_after_a_second(server: ApiServer, lease: ClusterLease) -> None:
    for spec in ({}, {"holderIdentity": None, "leaseDurationSeconds": None, "leaseTransitions": None}):
        server.answer("GET", f"{ROOT}/finetune", {"metadata": {"resourceVersion": "7"}, "spec": spec})
        assert await lease.read() == LeaseState("", 1.0, 0, "7")
    server.answer("GET", f"{ROOT}/finetune", {"metadata": {"resourceVersion": "7"}})
    assert await lease.read() == LeaseState("", 1.0, 0, "7")


async def test_whatever_goes_wrong_the_lease_is_not_to_be_had_and_says_why(
    server: ApiServer, lease: ClusterLease
) -> None:
    for method, path in (("GET", f"{ROOT}/finetune"), ("PUT", f"{ROOT}/finetune"), ("POST", ROOT)):
        server.answer(method, path, status(409, "Conflict", "somebody was quicker"))
    held = LeaseState("a", 15.0, 3, "7")
    for request in (lease.read(), lease.create("a", 15), lease.renew(held, "a", 15, acquired=True)):
        with pytest.raises(LeaseUnavailableError, match="409 Conflict: somebody was quicker"):
            await request
    server.answer("GET", f"{ROOT}/finetune", {"spec": {"leaseDurationSeconds": "soon"}})
    with pytest.raises(LeaseUnavailableError, match="what the API server answered is no Lease: ValueError"):
        await lease.read()
