from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from tests.unit.cluster.pod_json import condition, pod
from tests.unit.runtime.objects import child

from finetune_operator.cluster.jobs import lacks_pod, stage_job
from finetune_operator.cluster.pods import pod_state
from finetune_operator.plan.model.observed import PodState, StageJob
from finetune_operator.runtime.kinds import trim_batch_job

Json = dict[str, Any]


def train_job(**parts: Any) -> Json:
    labels = parts.pop("labels", {})
    body = child("Job", "bot-train", **parts)
    body["metadata"]["labels"] |= labels
    return body


def rank(index: int, phase: str = "Running") -> PodState:
    body = pod(phase)
    body["metadata"]["labels"]["batch.kubernetes.io/job-completion-index"] = str(index)
    body["metadata"]["name"] = f"p{index}"
    return pod_state(body)


def test_a_plain_job_is_attempt_1_of_one_pod() -> None:
    read = stage_job(train_job(), ())
    assert read == StageJob("bot-train", "uid-bot-train", datetime(2026, 1, 1, tzinfo=UTC))
    assert not read.has_ended


def changed(body: Json, generation: int) -> Json:
    return {**body, "metadata": {**body["metadata"], "generation": generation}}


READS: list[tuple[Json, str, Any]] = [
    (train_job(labels={"finetune-operator.io/attempt": "3"}), "attempt", 3),
    (train_job(labels={"finetune-operator.io/attempt": "x"}), "attempt", 1),
    (train_job(labels={"kueue.x-k8s.io/queue-name": "gpus"}), "queued", True),
    (train_job(spec={"completions": 4}), "completions", 4),
    (train_job(spec={"activeDeadlineSeconds": 1}), "ending", True),
    (train_job(spec={"suspend": True}), "suspended", True),
    (changed(train_job(spec={"suspend": True}), 1), "created_suspended", True),
    (changed(train_job(spec={"suspend": True}), 2), "created_suspended", False),
    (changed(train_job(spec={"suspend": False}), 1), "created_suspended", False),
    (train_job(status={"active": 2}), "active", 2),
    (train_job(spec={"activeDeadlineSeconds": 1}), "ending", True),
    (train_job(spec={"activeDeadlineSeconds": 86400}), "ending", False),
    (train_job(status={"conditions": [condition("Complete")]}), "complete", True),
    (train_job(status={"conditions": [condition("Complete", "False")]}), "complete", False),
    (train_job(status={"conditions": [condition("Failed")]}), "failed", True),
    (
        train_job(status={"conditions": [condition("Failed", reason="PodFailurePolicy", message="exit 64")]}),
        "failure",
        "PodFailurePolicy: exit 64",
    ),
    (train_job(status={"conditions": [condition("Failed", reason="DeadlineExceeded")]}), "failure", "DeadlineExceeded"),
]


@pytest.mark.parametrize(("body", "field", "value"), READS)
def test_a_job_is_read_field_by_field_before_and_after_it_is_trimmed(body: Json, field: str, value: Any) -> None:
    assert getattr(stage_job(body, ()), field) == value
    assert stage_job(trim_batch_job(body), ()) == stage_job(body, ())


def test_a_job_without_status_and_spec_is_one_whose_only_pod_is_missing() -> None:
    body = {"metadata": train_job()["metadata"]}
    assert stage_job(body, ()) == stage_job(train_job(), ())
    assert lacks_pod(body, ()) == 0


def test_a_job_that_is_being_deleted_says_so() -> None:
    body = train_job()
    body["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert stage_job(trim_batch_job(body), ()).deleting


def test_labels_that_somebody_changed_count_as_the_job_was_made_with() -> None:
    made_with = {"finetune-operator.io/attempt": "2", "team": "a"}
    body = train_job(
        labels={"finetune-operator.io/attempt": "9"}, spec={"template": {"metadata": {"labels": made_with}}}
    )
    assert stage_job(trim_batch_job(body), ()).attempt == 2
    assert "team" not in trim_batch_job(body)["metadata"]["labels"]


def test_pods_stand_by_rank() -> None:
    assert [p.index for p in stage_job(train_job(), (rank(2), rank(0), rank(1))).pods] == [0, 1, 2]


GANG = train_job(spec={"completions": 3})
LACKS: list[tuple[Json, tuple[PodState, ...], int | None]] = [
    (GANG, (), 0),
    (GANG, (rank(0), rank(2)), 1),
    (GANG, (rank(0), rank(1), rank(2)), None),
    (GANG, (rank(0, "Failed"),), None),
    (train_job(), (rank(0),), None),
    (train_job(spec={"suspend": True}), (), None),
    (train_job(spec={"completions": 2}, status={"active": 1}), (), 0),
    (train_job(spec={"completions": 2}, status={"active": 2}), (), None),
    (train_job(status={"conditions": [condition("Complete")]}), (), None),
    (train_job(status={"conditions": [condition("Failed")]}), (), None),
    (train_job(status={"conditions": [condition("FailureTarget")]}), (), None),
    (train_job(status={"conditions": [condition("SuccessCriteriaMet")]}), (), None),
]


@pytest.mark.parametrize(("body", "pods", "index"), LACKS)
def test_a_job_lacks_a_pod_when_it_should_have_one_and_nothing_explains_it(
    body: Json, pods: tuple[PodState, ...], index: int | None
) -> None:
    assert lacks_pod(body, pods) == index


def test_a_job_that_is_being_deleted_lacks_no_pod() -> None:
    body = train_job()
    body["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert lacks_pod(body, ()) is None
