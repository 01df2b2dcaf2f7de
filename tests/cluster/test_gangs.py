"""A gang that loses a rank, or a rank that does not go: it restarts by itself, whole, and for nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from tests.cluster.support.fake_node import TOLERATION, FakeNode, fake_node
from tests.cluster.support.fakes import HOLD, Parts, end, fake, running
from tests.cluster.support.jobs import Jobs, Manifest, merged
from tests.cluster.support.operator import OperatorProcess
from tests.cluster.support.waiting import until

ATTEMPT = "finetune-operator.io/attempt"
ALONE = {
    "topologyKey": "kubernetes.io/hostname",
    "labelSelector": {"matchLabels": {"finetune-operator.io/stage": "train"}},
}
"""A node takes one training pod of the namespace."""
DEAD = {"shut down": FakeNode.shut_down, "removed": FakeNode.remove}


def gang(name: str, parts: Parts | None = None, **spec: Any) -> Manifest:
    """Two ranks, which run until they are told otherwise."""
    return fake(name, parts or {"train": HOLD}, gpus=2, gpusPerNode=1, **spec)


def until_training(jobs: Jobs, name: str, attempt: int) -> Manifest:
    """The status once all ranks of this attempt run."""

    def trains() -> Manifest | None:
        status = jobs.status(name)
        return status if status.get("phase") == "Training" and status.get("attempt") == attempt else None

    return until(trains, f"attempt {attempt} of {name} trains", seconds=90, story=lambda: jobs.story(name))


def rank(jobs: Jobs, name: str, number: int) -> Manifest:
    """The pod of this rank, where both run."""
    return next(pod for pod in running(jobs, name, "train", 2) if rank_of(pod) == number)


def rank_of(pod: Manifest) -> int:
    return int(pod["metadata"]["labels"]["batch.kubernetes.io/job-completion-index"])


def delete_by_force(jobs: Jobs, pod: Manifest) -> None:
    """As an impatient person does. The Job controller's finalizer keeps the object until the pod has ended."""
    where = ("-n", jobs.namespace, "--ignore-not-found")
    jobs.cluster.kubectl(
        "delete", "pod", pod["metadata"]["name"], *where, "--grace-period=0", "--force", "--wait=false"
    )


def wipe_out(jobs: Jobs, pod: Manifest) -> None:
    """Remove the object at once, without a word of the kubelet."""
    patch = json.dumps({"metadata": {"finalizers": None}})
    jobs.cluster.kubectl("patch", "pod", pod["metadata"]["name"], "-n", jobs.namespace, "--type=merge", "-p", patch)
    delete_by_force(jobs, pod)


def restarted_for_nothing(jobs: Jobs, name: str) -> None:
    """Its second attempt trains, whole and alone, and the first one is not counted."""
    status = until_training(jobs, name, attempt=2)
    first, _ = status["attempts"]
    assert not first.get("counted")
    assert status.get("restarts", 0) == 0
    assert {rank_of(pod) for pod in running(jobs, name, "train", 2)} == {0, 1}
    assert {pod["metadata"]["labels"][ATTEMPT] for pod in jobs.pods(name, "train")} == {"2"}


def spread(manifest: Manifest) -> Manifest:
    """Each training pod on a node of its own, which may be a played one, and soon killed."""
    pod = {
        "terminationGracePeriodSeconds": 1,
        "tolerations": [TOLERATION],
        "affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [ALONE]}},
    }
    return merged(manifest, {"spec": {"podTemplate": {"spec": pod}}})


def play(jobs: Jobs, name: str, node: FakeNode) -> str:
    """Let the training pod run that is scheduled to this node; its name."""

    def scheduled() -> Manifest | None:
        return next((pod for pod in jobs.pods(name, "train") if pod["spec"].get("nodeName") == node.name), None)

    pod = until(scheduled, f"a pod is on {node.name}", seconds=120, story=lambda: jobs.story(name))
    node.run(pod)
    return str(pod["metadata"]["name"])


@pytest.mark.parametrize("loss", [delete_by_force, wipe_out])
def test_a_rank_that_is_deleted_restarts_the_gang_at_once_and_is_not_counted(
    loss: Callable[[Jobs, Manifest], None], bare_jobs: Jobs
) -> None:
    bare_jobs.apply(gang("forced"))
    until_training(bare_jobs, "forced", attempt=1)
    loss(bare_jobs, rank(bare_jobs, "forced", 1))
    restarted_for_nothing(bare_jobs, "forced")
    for pod in running(bare_jobs, "forced", "train", 2):
        end(bare_jobs, pod)
    bare_jobs.until_phase("forced", "Succeeded", seconds=60)


def test_a_failed_pod_that_is_removed_by_hand_is_counted_once(bare_jobs: Jobs) -> None:
    bare_jobs.apply(gang("tidied"))
    until_training(bare_jobs, "tidied", attempt=1)
    failing = rank(bare_jobs, "tidied", 1)
    end(bare_jobs, failing, 70)
    until(
        lambda: bare_jobs.status("tidied").get("restarts"),
        "the restart is counted",
        seconds=30,
        story=lambda: bare_jobs.story("tidied"),
    )
    wipe_out(bare_jobs, failing)
    status = until_training(bare_jobs, "tidied", attempt=2)
    assert status["restarts"] == 1
    assert [attempt["reason"] for attempt in status["attempts"][:-1]] == ["internal"]


def test_a_failed_pod_that_is_removed_before_anybody_saw_it_is_not_counted(
    bare_jobs: Jobs, operator: OperatorProcess
) -> None:
    bare_jobs.apply(gang("unseen"))
    until_training(bare_jobs, "unseen", attempt=1)
    failing = rank(bare_jobs, "unseen", 1)
    operator.kill()
    try:
        end(bare_jobs, failing, 70)
        name = failing["metadata"]["name"]
        bare_jobs.cluster.kubectl(
            "wait", f"pod/{name}", "-n", bare_jobs.namespace, "--for=jsonpath={.status.phase}=Failed", "--timeout=30s"
        )
        wipe_out(bare_jobs, failing)
    finally:
        operator.start()
    restarted_for_nothing(bare_jobs, "unseen")


@pytest.mark.parametrize("fate", DEAD)
def test_a_pod_on_a_dead_node_is_named_and_the_gang_goes_on_once_the_node_is(fate: str, bare_jobs: Jobs) -> None:
    name, cluster = f"lost-{fate.replace(' ', '-')}", bare_jobs.cluster
    bare_jobs.apply(spread(gang(name, workspace=None, output={"uri": "s3://bucket/out"})))
    running(bare_jobs, name, "train", 1)
    with fake_node(cluster, f"{bare_jobs.namespace}-1") as node:
        lost = play(bare_jobs, name, node)
        until_training(bare_jobs, name, attempt=1)
        cluster.kubectl("delete", "pod", lost, "-n", bare_jobs.namespace, "--wait=false")
        status = until(
            lambda: s if (s := bare_jobs.status(name)).get("reason") == "PodStuckTerminating" else None,
            "the pod is called stuck",
            seconds=60,
            story=lambda: bare_jobs.story(name),
        )
        assert lost in status["message"]
        assert node.name in status["message"]
        # The spare node is there first: a scheduler that found none looks again only minutes later.
        with fake_node(cluster, f"{bare_jobs.namespace}-2") as spare:
            DEAD[fate](node)
            play(bare_jobs, name, spare)
            restarted_for_nothing(bare_jobs, name)
