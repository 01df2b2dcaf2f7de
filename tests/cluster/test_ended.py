"""Jobs that have ended: no pod goes on, what they ran out of reopens them, and others go on from what they left."""

from __future__ import annotations

from typing import Any

import pytest
from tests.cluster.harness.cluster import Request
from tests.cluster.support.fakes import HOLD, end, fake, running
from tests.cluster.support.jobs import Jobs, Manifest, condition
from tests.cluster.support.operator import OperatorProcess
from tests.cluster.support.waiting import until

PAIR: Manifest = {"gpus": 2, "gpusPerNode": 1}
STAGES = ("prepare", "train", "publish")
QUIET = 50
NOWHERE = {"spec": {"nodeSelector": {"finetune-operator.io/test": "no-such-node"}}}
"""Pods that are never scheduled, so that jobs end without having run one."""


@pytest.mark.parametrize(
    ("code", "reason"), [(70, "RestartsExhausted"), (64, "InvalidConfig")], ids=["faults", "a-user-error"]
)
def test_a_failure_for_good_ends_the_gang_and_leaves_the_failed_pods_log(
    bare_jobs: Jobs, code: int, reason: str
) -> None:
    bare_jobs.apply(fake("foo", {"train": HOLD}, runPolicy={"maxRestarts": 0}, **PAIR))
    _, guilty = by_rank(running(bare_jobs, "foo", "train", 2))
    end(bare_jobs, guilty, code)
    status = bare_jobs.until_phase("foo", "Failed", seconds=60)
    assert status["reason"] == reason
    until_no_pod_runs(bare_jobs, "foo", "train")
    log = bare_jobs.cluster.kubectl("logs", guilty["metadata"]["name"], "-n", bare_jobs.namespace)
    assert f'"exit": {code}' in log


def test_raising_the_restarts_reopens_a_job_that_has_used_them(bare_jobs: Jobs) -> None:
    bare_jobs.apply(fake("foo", {"train-1": 70, "train": HOLD}, runPolicy={"maxRestarts": 0}))
    assert bare_jobs.until_phase("foo", "Failed", seconds=90)["reason"] == "RestartsExhausted"
    bare_jobs.patch("foo", {"runPolicy": {"maxRestarts": 1}})
    (pod,) = running(bare_jobs, "foo", "train")
    assert bare_jobs.status("foo")["attempt"] == 2
    end(bare_jobs, pod)
    status = bare_jobs.until_phase("foo", "Succeeded", seconds=60)
    assert [attempt["reason"] for attempt in status["attempts"]] == ["internal", "ok"]
    assert condition(status, "Failed").get("status") != "True"
    assert "Reopened" in [event["reason"] for event in bare_jobs.events("foo")]


def test_a_deadline_ends_the_pods_of_every_stage_and_raising_it_goes_on(bare_jobs: Jobs) -> None:
    for stage in STAGES:
        bare_jobs.apply(fake(stage, {stage: HOLD}))
    for stage in STAGES:
        running(bare_jobs, stage, stage)
        bare_jobs.patch(stage, {"runPolicy": {"activeDeadlineSeconds": 1}})
    for stage in STAGES:
        status = bare_jobs.until_phase(stage, "Failed", seconds=60)
        assert status["reason"] == "DeadlineExceeded"
        assert f"stopped in the stage {stage}" in status["message"]
        until_no_pod_runs(bare_jobs, stage, stage)
        bare_jobs.patch(stage, {"runPolicy": {"activeDeadlineSeconds": 3600}})
    for stage in STAGES:
        (pod,) = running(bare_jobs, stage, stage)
        end(bare_jobs, pod)
        status = bare_jobs.until_phase(stage, "Succeeded", seconds=90)
        ends = ["deadline-exceeded", "ok"] if stage == "train" else ["ok"]
        assert [attempt["reason"] for attempt in status["attempts"]] == ends


def test_ended_jobs_cost_a_restarted_operator_nothing_and_an_edit_is_still_observed(
    bare_jobs: Jobs, operator: OperatorProcess
) -> None:
    items = [ending_at_once(f"quiet-{number}") for number in range(QUIET)]
    bare_jobs.apply({"apiVersion": "v1", "kind": "List", "items": items})
    until(lambda: all_are_failed(bare_jobs), "all of them have failed", seconds=240)
    until(lambda: is_settled(bare_jobs), "their Jobs have ended", seconds=60, every=5)
    before, asked = versions(bare_jobs), gets(bare_jobs)
    operator.kill()
    operator.start()
    bare_jobs.apply(fake("waiting", template={"name": "none"}))
    until(lambda: reasons(bare_jobs).get("waiting") == "TemplateNotFound", "the operator is at work", seconds=60)
    assert gets(bare_jobs) - asked < QUIET, "none of them is asked for by itself"
    assert {name: version for name, version in versions(bare_jobs).items() if name != "waiting"} == before
    bare_jobs.patch("quiet-7", {"runPolicy": {"maxRestarts": 7}})
    until(lambda: is_observed(bare_jobs.get("quiet-7")), "the edit is observed", seconds=30)
    assert bare_jobs.status("quiet-7")["phase"] == "Failed"


def test_a_job_that_goes_on_from_another_waits_for_it_and_only_reads_its_checkpoints(bare_jobs: Jobs) -> None:
    bare_jobs.apply(fake("first", {"train": HOLD}))
    (pod,) = running(bare_jobs, "first", "train")
    origin = {"every": 5, "resumeFrom": {"job": "first"}}
    bare_jobs.apply(fake("second", {"train": HOLD}, checkpoints=origin))
    waiting = until(lambda: bare_jobs.status("second").get("message"), "the second job says why it waits", seconds=30)
    assert "`first` still runs" in waiting
    end(bare_jobs, pod)
    checkpoint = bare_jobs.until_phase("first", "Succeeded", seconds=60)["checkpoints"][-1]["uri"]
    (pod,) = running(bare_jobs, "second", "train")
    folder = checkpoint.rpartition("/")[0]
    claim = folder.removeprefix("pvc://").split("/")[0]
    volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
    mounts = {mount["mountPath"]: mount for mount in pod["spec"]["containers"][0]["volumeMounts"]}
    mount = mounts[f"/volumes/{claim}"]
    assert mount["readOnly"]
    assert volumes[mount["name"]]["persistentVolumeClaim"]["claimName"] == claim
    log = bare_jobs.cluster.kubectl("logs", pod["metadata"]["name"], "-n", bare_jobs.namespace)
    assert f'"resumeFrom": {{"uri": "{folder}"}}, "found": ["step-10"]' in log
    end(bare_jobs, pod)
    bare_jobs.until_phase("second", "Succeeded", seconds=60)


def by_rank(pods: list[Manifest]) -> list[Manifest]:
    return sorted(pods, key=lambda pod: str(pod["metadata"]["labels"]["batch.kubernetes.io/job-completion-index"]))


def until_no_pod_runs(jobs: Jobs, name: str, stage: str) -> None:
    until(
        lambda: not [pod for pod in jobs.pods(name, stage) if pod["status"]["phase"] in {"Pending", "Running"}],
        f"no pod of {name} runs",
        seconds=60,
        story=lambda: jobs.story(name),
    )


def ending_at_once(name: str) -> Manifest:
    """A job that runs out of time before it has had a pod."""
    return fake(name, podTemplate=NOWHERE, runPolicy={"activeDeadlineSeconds": 1})


def listed(jobs: Jobs) -> list[Manifest]:
    found: list[Manifest] = jobs.cluster.get("ftj", namespace=jobs.namespace)
    return found


def all_are_failed(jobs: Jobs) -> bool:
    return all(job.get("status", {}).get("phase") == "Failed" for job in listed(jobs))


def is_settled(jobs: Jobs) -> bool:
    """Whether every Job has ended; what the operator does about it is over before this is looked at again."""
    children: list[dict[str, Any]] = jobs.cluster.get("jobs", namespace=jobs.namespace)
    return all(condition(child["status"], "Failed").get("status") == "True" for child in children)


def versions(jobs: Jobs) -> dict[str, str]:
    return {job["metadata"]["name"]: job["metadata"]["resourceVersion"] for job in listed(jobs)}


def reasons(jobs: Jobs) -> dict[str, str]:
    return {job["metadata"]["name"]: job.get("status", {}).get("reason", "") for job in listed(jobs)}


def gets(jobs: Jobs) -> int:
    """Single objects of the kinds that a job is made of that were asked for, by anybody."""
    ours = {"finetunejobs", "jobs", "configmaps", "pods"}

    def counts(request: Request) -> bool:
        return request.verb == "GET" and request.resource in ours

    return sum(count for request, count in jobs.cluster.apiserver_request_counts().items() if counts(request))


def is_observed(job: Manifest) -> bool:
    """Whether the status and its conditions speak of the newest spec."""
    generation, status = job["metadata"]["generation"], job["status"]
    seen = {status["observedGeneration"], *(shown["observedGeneration"] for shown in status["conditions"])}
    return seen == {generation}
