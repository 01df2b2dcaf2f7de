"""The real Kueue of the tests: plain Jobs are admitted, wait for quota, and are left alone, as it documents."""

from __future__ import annotations

from typing import Any

import pytest
from tests.cluster.harness.cluster import Cluster
from tests.cluster.support.kueue import QUEUE_LABEL, Kueue
from tests.cluster.support.waiting import until
from tests.cluster.test_harness import pod

pytestmark = pytest.mark.kueue


def bare_job(name: str, queue: str | None = "queue", **spec: Any) -> dict[str, Any]:
    """A Job of one pod that requests half a CPU."""
    template = pod("", "sleep", "5")["spec"]
    template["containers"][0]["resources"] = {"requests": {"cpu": "500m"}}
    labels = {QUEUE_LABEL: queue} if queue else {}
    spec = {"template": {"spec": template}, **spec}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name, "labels": labels}, "spec": spec}


def suspended(cluster: Cluster, namespace: str, name: str) -> bool:
    return bool(cluster.get("job", name, namespace)["spec"]["suspend"])


def test_a_suspended_job_is_admitted_and_one_over_quota_waits_its_turn(
    cluster: Cluster, kueue: Kueue, namespace: str
) -> None:
    kueue.queue(namespace, cpu="500m")
    cluster.apply(bare_job("first", suspend=True), namespace)
    until(lambda: not suspended(cluster, namespace, "first"), "Kueue admits the first", seconds=30, story=kueue.log)
    until(lambda: kueue.used(namespace) == {"cpu": "500m"}, "its quota is counted", seconds=30, story=kueue.log)
    cluster.apply(bare_job("second", suspend=True), namespace)
    until(lambda: "insufficient" in str(kueue.workload(namespace, "second")), "the second waits for quota", seconds=30)
    assert suspended(cluster, namespace, "second")
    until(lambda: not suspended(cluster, namespace, "second"), "the first ends and the second has its turn", seconds=60)


def test_restarted_with_another_configuration_it_manages_jobs_without_a_queue(
    cluster: Cluster, kueue: Kueue, namespace: str
) -> None:
    kueue.queue(namespace, cpu="500m")
    cluster.apply(bare_job("free", queue=None), namespace)
    assert not suspended(cluster, namespace, "free")
    kueue.start(manageJobsWithoutQueueName=True)
    cluster.apply(bare_job("held", queue=None), namespace)
    assert suspended(cluster, namespace, "held")
