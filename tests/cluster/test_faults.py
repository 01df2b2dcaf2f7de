"""What clusters do to operators and pods, and that nothing is lost by it."""

from __future__ import annotations

from typing import Any

from tests.cluster.support.jobs import Jobs
from tests.cluster.support.operator import OperatorProcess
from tests.cluster.support.store import SECRET, Store
from tests.cluster.support.waiting import until
from tests.cluster.test_jobs import published_artifact_is_whole, stored

LONG = {"trainerConfig": {"num_train_epochs": 10, "per_device_train_batch_size": 2}}
"""About 300 steps of one process: long enough to be disturbed."""
PAIR = {"trainerConfig": {"num_train_epochs": 8, "per_device_train_batch_size": 2}}
"""About 120 steps of two processes, which take longer each."""


def test_an_operator_killed_in_every_stage_loses_nothing(jobs: Jobs, store: Store, operator: OperatorProcess) -> None:
    jobs.apply(stored(store, "survivor"))
    for phase in ("Preparing", "Training", "Publishing"):
        jobs.until_phase("survivor", phase)
        operator.kill()
        operator.start()
    status = jobs.until_phase("survivor", "Succeeded")
    assert len(status["attempts"]) == 1
    assert status["restarts"] == 0
    published_artifact_is_whole(status, store)
    children = jobs.cluster.get("jobs", namespace=jobs.namespace)
    assert len(children) == 3


def test_a_suspended_job_gives_its_pods_back_and_resumes_from_its_checkpoint(jobs: Jobs, store: Store) -> None:
    jobs.apply(stored(store, "pausing", training=LONG, checkpoints={"every": 50}))
    jobs.until_step("pausing", 60)
    jobs.patch("pausing", {"runPolicy": {"suspend": True}})
    status = jobs.until_phase("pausing", "Suspended")
    assert not [pod for pod in jobs.pods("pausing", "train") if pod["status"]["phase"] == "Running"]
    jobs.patch("pausing", {"runPolicy": {"suspend": False}})
    status = jobs.until_phase("pausing", "Succeeded")
    assert status["attempts"][-1]["resumedFromStep"] >= 60, "the checkpoint of the suspension, not an older one"
    assert status["restarts"] == 0
    published_artifact_is_whole(status, store)


def test_without_a_volume_a_suspended_job_resumes_from_the_bucket(jobs: Jobs, store: Store) -> None:
    second_home = {"every": 50, "uri": store.checkpoints, "secretRef": {"name": SECRET}}
    manifest = stored(store, "nomad", training=LONG, checkpoints=second_home, workspace=None)
    jobs.apply(manifest)
    jobs.until_step("nomad", 60)
    jobs.patch("nomad", {"runPolicy": {"suspend": True}})
    status = jobs.until_phase("nomad", "Suspended")
    own = f"{store.checkpoints}/nomad-{jobs.get('nomad')['metadata']['uid'][:8]}/"
    assert status["checkpoints"][-1]["uri"].startswith(own), status["checkpoints"]
    jobs.patch("nomad", {"runPolicy": {"suspend": False}})
    status = jobs.until_phase("nomad", "Succeeded")
    assert status["attempts"][-1]["resumedFromStep"] >= 60
    published_artifact_is_whole(status, store)


def test_a_lost_rank_restarts_the_gang_from_the_newest_checkpoint(jobs: Jobs, store: Store) -> None:
    jobs.apply(stored(store, "gang", training=PAIR, checkpoints={"every": 20}, gpus=2, gpusPerNode=1))
    jobs.until_step("gang", 30)
    kill_trainer(jobs, rank=1)
    status = until(
        lambda: s if len((s := jobs.status("gang")).get("attempts", [])) == 2 else None,
        "a second attempt began",
        seconds=120,
        story=lambda: jobs.story("gang"),
    )
    first = status["attempts"][0]
    assert first["reason"] in {"killed", "peer-lost", "internal"}
    assert first["counted"]
    status = jobs.until_phase("gang", "Succeeded")
    assert status["attempts"][1]["resumedFromStep"] >= 20
    assert status["restarts"] == 1
    assert "Restarting" in [event["reason"] for event in jobs.events("gang")]


def test_restarts_end_when_the_budget_is_used(jobs: Jobs, store: Store) -> None:
    spec: dict[str, Any] = {"training": LONG, "runPolicy": {"maxRestarts": 0}, "checkpoints": {"every": 20}}
    jobs.apply(stored(store, "spent", **spec))
    jobs.until_step("spent", 5)
    kill_trainer(jobs, rank=0)
    status = jobs.until_phase("spent", "Failed", seconds=120)
    assert status["reason"] == "RestartsExhausted"
    assert "maxRestarts" in status["message"]


def test_a_deadline_ends_the_job_and_keeps_its_checkpoint(jobs: Jobs, store: Store) -> None:
    spec: dict[str, Any] = {"training": LONG, "runPolicy": {"suspend": True, "activeDeadlineSeconds": 5}}
    jobs.apply(stored(store, "late", **spec))
    jobs.until_phase("late", "Suspended", seconds=30)
    jobs.patch("late", {"runPolicy": {"suspend": False}})
    status = jobs.until_phase("late", "Failed", seconds=60)
    assert status["reason"] == "DeadlineExceeded"
    assert "activeDeadlineSeconds" in status["message"]


def kill_trainer(jobs: Jobs, rank: int) -> None:
    """SIGKILL the training process of a rank, as the kernel does when memory runs out."""
    (pod,) = (
        pod["metadata"]["name"]
        for pod in jobs.cluster.get("pods", namespace=jobs.namespace)
        if pod["metadata"]["labels"].get("batch.kubernetes.io/job-completion-index") == str(rank)
        and pod["metadata"]["labels"].get("finetune-operator.io/stage") == "train"
    )
    script = (
        "import os, signal, glob\n"
        "lines = {int(p.split('/')[2]): open(p).read().split(chr(0)) for p in glob.glob('/proc/[0-9]*/cmdline')}\n"
        "workers = [pid for pid, line in lines.items() if 'finetune_trainer.train' in line]\n"
        "alone = [pid for pid, line in lines.items() if 'finetune_trainer.pod.launch' in line]\n"  # trains by itself
        "[os.kill(pid, signal.SIGKILL) for pid in workers or alone]\n"
    )
    jobs.cluster.kubectl("exec", pod, "-n", jobs.namespace, "--", "python", "-c", script)
