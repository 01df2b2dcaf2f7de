"""Jobs under the real Kueue: quota is kept, given back and waited for, and nobody fights over `suspend`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.cluster.harness.cluster import Cluster
from tests.cluster.support import pretend_trainer
from tests.cluster.support.jobs import Jobs, job
from tests.cluster.support.kueue import PRIORITY_LABEL, QUEUE_LABEL, Kueue, SuspendWatch, priority
from tests.cluster.support.operator import OperatorProcess
from tests.cluster.support.waiting import until
from tests.cluster.test_kueue_manager import bare_job

pytestmark = pytest.mark.kueue

REPOSITORY = Path(__file__).resolve().parents[2]
PLENTY = {"cpu": "100", "memory": "1Ti"}
STARTED_ONCE = [True, False]
"""What a Job's `suspend` goes through when Kueue admits it and nobody else touches it."""


@pytest.fixture
def watch(cluster: Cluster, namespace: str, tmp_path: Path) -> Iterator[SuspendWatch]:
    with SuspendWatch(cluster, namespace, tmp_path / "suspend.log") as watch:
        yield watch


@pytest.fixture
def jobs(kueue: Kueue, product: Cluster, operator: OperatorProcess, namespace: str) -> Jobs:
    """Jobs in a namespace with a queue for two pods, looked after by the operator."""
    kueue.queue(namespace, pods="2", **PLENTY)
    return Jobs(product, namespace)


def pretended(name: str, steps: int = 50, queue: str | None = "queue", **spec: Any) -> dict[str, Any]:
    """A job of the pretend trainer, which takes ten steps a second."""
    template = pretend_trainer.pod_template(REPOSITORY, steps)
    output = {"uri": f"s3://bucket/{name}"}
    manifest = job(name, "hf://owner/model", "s3://bucket/rows.jsonl", output=output, podTemplate=template, **spec)
    manifest["metadata"]["labels"] = {QUEUE_LABEL: queue} if queue else {}
    return manifest


def crash(jobs: Jobs, name: str, rank: int) -> None:
    """Let a rank end as by a fault of its own."""
    (pod,) = (pod["metadata"]["name"] for pod in jobs.pods(name, "train") if rank_of(pod) == str(rank))
    jobs.cluster.kubectl("exec", pod, "--namespace", jobs.namespace, "--", "sh", "-c", "kill -USR1 1")


def rank_of(pod: dict[str, Any]) -> str:
    return str(pod["metadata"]["labels"]["batch.kubernetes.io/job-completion-index"])


def pods_in_quota(kueue: Kueue, namespace: str) -> int:
    return int(kueue.used(namespace).get("pods", "0"))


def running(jobs: Jobs, name: str) -> list[str]:
    return [pod["metadata"]["name"] for pod in jobs.pods(name, "train") if pod["status"]["phase"] == "Running"]


def test_suspending_an_admitted_job_gives_its_quota_back_and_resuming_queues_again(
    kueue: Kueue, jobs: Jobs, watch: SuspendWatch
) -> None:
    jobs.apply(pretended("pausing", steps=80, gpus=2, gpusPerNode=1))
    jobs.until_step("pausing", 20)
    assert pods_in_quota(kueue, jobs.namespace) == 2
    jobs.patch("pausing", {"runPolicy": {"suspend": True}})
    jobs.until_phase("pausing", "Suspended", seconds=60)
    assert running(jobs, "pausing") == []
    until(lambda: not pods_in_quota(kueue, jobs.namespace), "the quota is given back", seconds=30, story=kueue.log)
    jobs.patch("pausing", {"runPolicy": {"suspend": False}})
    status = jobs.until_phase("pausing", "Succeeded", seconds=120)
    assert status["attempts"][-1]["resumedFromStep"] >= 20, "the checkpoint of the suspension"
    assert status["restarts"] == 0
    assert watch.of("pausing-train") == [STARTED_ONCE, STARTED_ONCE]


def test_a_job_that_has_used_its_restarts_ends_its_pods_and_gives_its_quota_back(
    kueue: Kueue, jobs: Jobs, watch: SuspendWatch
) -> None:
    jobs.apply(pretended("spent", steps=3000, gpus=2, gpusPerNode=1, runPolicy={"maxRestarts": 0}))
    jobs.until_step("spent", 5)
    crash(jobs, "spent", rank=1)
    status = jobs.until_phase("spent", "Failed", seconds=60)
    assert status["reason"] == "RestartsExhausted"
    until(lambda: not running(jobs, "spent"), "its pods end", seconds=60, story=lambda: jobs.story("spent"))
    until(lambda: not pods_in_quota(kueue, jobs.namespace), "its quota is given back", seconds=30, story=kueue.log)
    assert watch.of("spent-train") == [STARTED_ONCE]


def test_a_job_that_fails_while_it_waits_for_quota_leaves_the_queue(
    kueue: Kueue, jobs: Jobs, watch: SuspendWatch
) -> None:
    jobs.apply(pretended("hopeless", gpus=3, gpusPerNode=1, runPolicy={"activeDeadlineSeconds": 20}))
    jobs.until_phase("hopeless", "Queued", seconds=30)
    status = jobs.until_phase("hopeless", "Failed", seconds=60)
    assert status["reason"] == "DeadlineExceeded"
    until(
        lambda: not jobs.cluster.get("workloads", namespace=jobs.namespace),
        "nothing of it is in the queue",
        seconds=30,
        story=lambda: jobs.story("hopeless"),
    )
    assert watch.of("hopeless-train") == [[True]]


def test_a_gang_restart_keeps_the_job_and_its_quota(kueue: Kueue, jobs: Jobs, watch: SuspendWatch) -> None:
    jobs.apply(pretended("gang", steps=80, gpus=2, gpusPerNode=1))
    jobs.until_step("gang", 20)
    before = kueue.workload(jobs.namespace, "gang-train")
    crash(jobs, "gang", rank=1)
    until(
        lambda: len(jobs.status("gang").get("attempts", [])) == 2,
        "a second attempt began",
        seconds=60,
        story=lambda: jobs.story("gang"),
    )
    jobs.until_step("gang", 40, seconds=60)
    after = kueue.workload(jobs.namespace, "gang-train")
    assert before is not None
    assert after is not None
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert after["status"]["admission"] == before["status"]["admission"]
    status = jobs.until_phase("gang", "Succeeded", seconds=120)
    assert status["attempts"][1]["resumedFromStep"] >= 20
    assert status["restarts"] == 1
    assert watch.of("gang-train") == [STARTED_ONCE]


def test_a_preempted_job_comes_back_from_its_checkpoint_and_is_not_charged(
    kueue: Kueue, jobs: Jobs, watch: SuspendWatch
) -> None:
    jobs.cluster.apply(priority("urgent", 1000))
    jobs.apply(pretended("humble", steps=80, gpus=2, gpusPerNode=1, runPolicy={"maxRestarts": 0}))
    jobs.until_step("humble", 20)
    urgent = bare_job("urgent", suspend=True)
    urgent["metadata"]["labels"][PRIORITY_LABEL] = "urgent"
    jobs.cluster.apply(urgent, jobs.namespace)
    until(
        lambda: jobs.cluster.get("job", "urgent", jobs.namespace)["status"].get("succeeded"),
        "the urgent job had its turn",
        seconds=90,
        story=lambda: jobs.story("humble"),
    )
    status = jobs.until_phase("humble", "Succeeded", seconds=120)
    assert status["attempts"][-1]["resumedFromStep"] >= 20, "the checkpoint of the preemption"
    assert status["restarts"] == 0
    assert watch.of("humble-train") == [STARTED_ONCE * 2]


def test_a_job_that_kueue_puts_into_the_default_queue_waits_there(
    kueue: Kueue, jobs: Jobs, watch: SuspendWatch
) -> None:
    kueue.queue(jobs.namespace, "default", pods="1", **PLENTY)
    kueue.admit(jobs.namespace, "default", "Hold")
    jobs.apply(pretended("adopted", queue=None))
    until(
        lambda: "queue" in jobs.status("adopted").get("message", ""),
        "the job says that it waits in a queue",
        seconds=30,
        story=lambda: jobs.story("adopted"),
    )
    assert watch.of("adopted-prepare") == [[True]]
    kueue.admit(jobs.namespace, "default", "None")
    jobs.until_phase("adopted", "Succeeded", seconds=120)
    for stage in ("prepare", "train", "publish"):
        assert watch.of(f"adopted-{stage}") == [STARTED_ONCE]


def test_where_kueue_manages_every_job_all_stages_go_through_the_jobs_queue(
    kueue: Kueue, jobs: Jobs, watch: SuspendWatch
) -> None:
    kueue.start(manageJobsWithoutQueueName=True)
    jobs.apply(pretended("orderly"))
    jobs.until_phase("orderly", "Succeeded", seconds=120)
    for stage in ("prepare", "train", "publish"):
        assert watch.of(f"orderly-{stage}") == [STARTED_ONCE]


def test_where_kueue_manages_every_job_one_without_a_queue_says_who_holds_it(
    kueue: Kueue, jobs: Jobs, watch: SuspendWatch
) -> None:
    kueue.start(manageJobsWithoutQueueName=True)
    jobs.apply(pretended("stray", queue=None))
    until(
        lambda: QUEUE_LABEL in jobs.status("stray").get("message", ""),
        "the status names the label",
        seconds=30,
        story=lambda: jobs.story("stray"),
    )
    assert watch.of("stray-prepare") == [[True]]
    jobs.cluster.kubectl("label", "ftj", "stray", f"{QUEUE_LABEL}=queue", "--namespace", jobs.namespace)
    jobs.until_phase("stray", "Succeeded", seconds=120)
    assert watch.of("stray-prepare") == [STARTED_ONCE]
