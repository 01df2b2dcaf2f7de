"""A gang waits for its pods as long as it takes, and one that ends again and again is tried less and less often."""

from __future__ import annotations

import json
import time
from pathlib import Path

from tests.cluster.harness.errors import CommandFailedError
from tests.cluster.support.fake_node import fake_node
from tests.cluster.support.fakes import HOLD, fake, running
from tests.cluster.support.jobs import Jobs, Manifest, condition
from tests.cluster.support.waiting import pause, until
from tests.cluster.support.watching import versions
from tests.cluster.test_gangs import gang, rank_of, spread, until_training

PEER_LOST = 76
GATE = "finetune-operator.io/test"
LABELS = ("app.kubernetes.io/managed-by", "finetune-operator.io/job", "finetune-operator.io/stage")
"""By which the operator watches what is its own."""


def until_message(jobs: Jobs, name: str, *words: str) -> Manifest:
    """The status once its message has all of these words."""

    def told() -> Manifest | None:
        status = jobs.status(name)
        return status if all(word in status.get("message", "") for word in words) else None

    return until(told, f"{name} says {words}", seconds=60, story=lambda: jobs.story(name))


def nothing_is_charged(status: Manifest) -> None:
    (only,) = status["attempts"]
    assert "end" not in only
    assert status.get("restarts", 0) == 0


def test_a_rank_waits_for_one_that_cannot_be_scheduled_and_training_goes_on_in_the_same_attempt(
    bare_jobs: Jobs,
) -> None:
    bare_jobs.apply(spread(gang("patient", workspace=None, output={"uri": "s3://bucket/out"})))
    status = until_message(bare_jobs, "patient", "Unschedulable", "anti-affinity", "1 of 2 run")
    nothing_is_charged(status)
    assert condition(status, "Stalled")["status"] == "False"
    with fake_node(bare_jobs.cluster, bare_jobs.namespace) as node:
        pod = until(
            lambda: next(
                (p for p in bare_jobs.pods("patient", "train") if p["spec"].get("nodeName") == node.name), None
            ),
            "the other rank has a node",
        )
        node.run(pod)
        nothing_is_charged(until_training(bare_jobs, "patient", attempt=1))


def test_what_the_kubelet_says_of_an_image_is_in_the_condition(bare_jobs: Jobs) -> None:
    manifest = fake("imageless")
    manifest["spec"]["podTemplate"]["spec"]["containers"][0]["image"] = "localhost/not-there:1"
    bare_jobs.apply(manifest)
    status = until_message(bare_jobs, "imageless", "imageless-prepare", "localhost/not-there:1")
    assert "Pull" in condition(status, "Reconciling").get("message", "") + condition(status, "Ready")["message"]
    assert status["phase"] == "Preparing"


def test_a_rank_that_gives_up_before_all_ranks_ran_is_not_counted(bare_jobs: Jobs) -> None:
    manifest = gang("early", {"train-1": PEER_LOST, "train": HOLD})
    manifest["spec"]["podTemplate"]["spec"]["schedulingGates"] = [{"name": GATE}]
    bare_jobs.apply(manifest)
    open_gate(bare_jobs, "early", "prepare", 0)
    status = until_message(bare_jobs, "early", "SchedulingGated")
    nothing_is_charged(status)
    open_gate(bare_jobs, "early", "train", 1)
    status = until(
        lambda: s if len((s := bare_jobs.status("early")).get("attempts", [])) == 2 else None,
        "the second attempt begins",
        seconds=60,
        story=lambda: bare_jobs.story("early"),
    )
    assert status["attempts"][0]["reason"] == "peer-lost"
    assert not status["attempts"][0].get("counted")
    assert status.get("restarts", 0) == 0
    for number in (0, 1):
        open_gate(bare_jobs, "early", "train", number)
    until_training(bare_jobs, "early", attempt=2)


def open_gate(jobs: Jobs, name: str, stage: str, rank: int) -> None:
    """Let the scheduler have the stage's pod of this rank."""

    def gated() -> Manifest | None:
        pods = [pod for pod in jobs.pods(name, stage) if pod["spec"].get("schedulingGates")]
        return next((pod for pod in pods if stage != "train" or rank_of(pod) == rank), None)

    pod = until(gated, f"rank {rank} of {name} is gated", seconds=60, story=lambda: jobs.story(name))
    patch = json.dumps([{"op": "remove", "path": "/spec/schedulingGates"}])
    jobs.cluster.kubectl("patch", "pod", pod["metadata"]["name"], "-n", jobs.namespace, "--type=json", "-p", patch)


def test_pods_that_are_evicted_at_once_make_few_attempts_and_few_writes(bare_jobs: Jobs, tmp_path: Path) -> None:
    bare_jobs.apply(fake("evicted", {"train": HOLD}))
    running(bare_jobs, "evicted", "train")
    with versions(bare_jobs.cluster, "ftj", bare_jobs.namespace, tmp_path / "versions") as seen:
        ends, reasons = time.monotonic() + 20, set()
        while time.monotonic() < ends:
            for pod in bare_jobs.pods("evicted", "train"):
                if "deletionTimestamp" not in pod["metadata"] and pod["status"]["phase"] in {"Pending", "Running"}:
                    evict(bare_jobs, pod)
            reasons.add(bare_jobs.status("evicted")["reason"])
            pause(0.3)
        status, writes = bare_jobs.status("evicted"), seen.writes("evicted")
    assert "BackingOff" in reasons
    assert 3 <= len(status["attempts"]) <= 5, status["attempts"]
    assert status.get("restarts", 0) == 0
    assert writes <= 8 * len(status["attempts"])


def evict(jobs: Jobs, pod: Manifest) -> None:
    """By the eviction API; one that has gone in the meantime needs none."""
    name = pod["metadata"]["name"]
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": jobs.namespace}}
    path = f"/api/v1/namespaces/{jobs.namespace}/pods/{name}/eviction"
    try:
        jobs.cluster.kubectl("create", "--raw", path, "-f", "-", input=json.dumps(eviction))
    except CommandFailedError as error:
        if "not found" not in str(error):
            raise


def test_a_job_whose_labels_are_removed_gets_them_back_and_no_new_attempt(bare_jobs: Jobs) -> None:
    bare_jobs.apply(gang("bare"))
    until_training(bare_jobs, "bare", attempt=1)
    before = bare_jobs.cluster.get("job", "bare-train", bare_jobs.namespace)["metadata"]
    removals = [f"{label}-" for label in LABELS]
    bare_jobs.cluster.kubectl("label", "job", "bare-train", "-n", bare_jobs.namespace, *removals)
    until(
        lambda: (
            bare_jobs.cluster.get("job", "bare-train", bare_jobs.namespace)["metadata"]["labels"] == before["labels"]
        ),
        "the labels are back",
        seconds=30,
        story=lambda: bare_jobs.story("bare"),
    )
    pause(3)
    after = bare_jobs.cluster.get("job", "bare-train", bare_jobs.namespace)["metadata"]
    assert after["uid"] == before["uid"]
    nothing_is_charged(bare_jobs.status("bare"))
