"""The operator's process: who leads, how it ends, and what it leaves alone."""

from __future__ import annotations

import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.cluster.harness.cluster import Cluster
from tests.cluster.support.jobs import Jobs, condition, job
from tests.cluster.support.operator import OperatorProcess
from tests.cluster.support.store import SECRET, Store
from tests.cluster.support.waiting import until

LEASE_SECONDS = 6


class Replica(OperatorProcess):
    """An operator that may have to wait for its turn to lead."""

    def start(self) -> Replica:
        self.launch()
        until(lambda: self.probe("readyz") == 200, "the replica is ready", seconds=60, story=self.log.read_text)
        return self

    def probe(self, name: str) -> int:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.health}/{name}", timeout=5) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return 0


@pytest.fixture
def replicas(product: Cluster, namespace: str, tmp_path: Path) -> Iterator[list[Replica]]:
    """Two replicas with a Lease of their own, in a namespace without jobs."""
    settings = {"LEASE_NAME": namespace, "LEASE_NAMESPACE": namespace, "NAMESPACES": namespace}
    with ExitStack() as stack:
        yield [
            stack.enter_context(Replica(product.kubeconfig, tmp_path / f"{number}.log", {}, **settings))
            for number in range(2)
        ]


def test_one_replica_leads_and_the_other_takes_over_when_it_is_killed(
    replicas: list[Replica], product: Cluster, namespace: str
) -> None:
    until(lambda: any(replica.leads() for replica in replicas), "a replica leads", seconds=30)
    leader = next(replica for replica in replicas if replica.leads())
    follower = next(replica for replica in replicas if replica is not leader)
    assert not follower.leads()
    assert follower.probe("healthz") == 200
    leader.kill()
    until(follower.leads, "the other replica leads", seconds=LEASE_SECONDS + 30, story=follower.log.read_text)
    jobs = Jobs(product, namespace)
    jobs.apply(job("after", "s3://bucket/model", "s3://bucket/rows.jsonl", template={"name": "not-there"}))
    until(
        lambda: jobs.status("after").get("reason") == "TemplateNotFound",
        "the new leader looks after the jobs of its namespace",
        seconds=30,
        story=follower.log.read_text,
    )


def test_a_leader_that_is_told_to_stop_hands_over_at_once(
    replicas: list[Replica], product: Cluster, namespace: str
) -> None:
    until(lambda: any(replica.leads() for replica in replicas), "a replica leads", seconds=30)
    leader = next(replica for replica in replicas if replica.leads())
    follower = next(replica for replica in replicas if replica is not leader)
    assert leader.process is not None
    process = leader.process
    leader.stop()
    assert process.returncode == 0
    until(follower.leads, "the other replica leads", seconds=30, story=follower.log.read_text)
    assert "lease_released" in leader.log.read_text()


def test_a_bad_setting_is_named_and_ends_the_process(product: Cluster) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "finetune_operator", "--kubeconfig", str(product.kubeconfig)],
        env={"FINETUNE_OPERATOR_WORKERS": "none", "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2
    assert "FINETUNE_OPERATOR_WORKERS" in ended.stderr


def test_watching_leaves_no_annotation_and_no_finalizer(jobs: Jobs, store: Store) -> None:
    jobs.apply(job("watched", store.model, store.data, template={"name": "not-there"}))
    until(
        lambda: condition(jobs.status("watched"), "Stalled").get("status") == "True",
        "the job is stalled",
        seconds=60,
        story=lambda: jobs.story("watched"),
    )
    metadata = jobs.get("watched")["metadata"]
    assert "finalizers" not in metadata
    assert set(metadata.get("annotations", {})) <= {"kubectl.kubernetes.io/last-applied-configuration"}


def test_a_quota_that_is_used_up_is_shown_in_the_jobs_own_words(
    jobs: Jobs, store: Store, product: Cluster, namespace: str
) -> None:
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "no-pods"},
        "spec": {"hard": {"pods": "0"}},
    }
    product.apply(quota, namespace)
    manifest = job("refused", store.model, store.data, output={"uri": store.output("refused")})
    for holder in (manifest["spec"]["model"], *manifest["spec"]["datasets"], manifest["spec"]["output"]):
        holder["secretRef"] = {"name": SECRET}
    jobs.apply(manifest)
    until(
        lambda: "exceeded quota" in jobs.status("refused").get("message", ""),
        "the status says that the quota is used up",
        seconds=90,
        story=lambda: jobs.story("refused"),
    )
