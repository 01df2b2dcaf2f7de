"""A job that has started, and what the API server tells of its children."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from tests.unit.cluster.pod_json import condition
from tests.unit.runtime.objects import child, finetune_job

from finetune_operator.api.resources import FineTuneJob
from finetune_operator.runtime.kinds import JobKey

BOT = JobKey("team", "bot")
CREATED = datetime(2026, 1, 1, tzinfo=UTC)
LATER = CREATED + timedelta(minutes=1)
STARTED: dict[str, Any] = {
    "startTime": "2026-01-01T00:00:00Z",
    "phase": "Training",
    "stage": "train",
    "observedGeneration": 1,
}
RESOLVED = "/api/v1/namespaces/team/configmaps/bot-resolved"
LIVE_PODS = "/api/v1/namespaces/team/pods"
TRAIN = "/apis/batch/v1/namespaces/team/jobs/bot-train"
COMPLETE = {"conditions": [condition("Complete")]}
TWO = {"completions": 2}


def job(**more: Any) -> FineTuneJob:
    return FineTuneJob.model_validate(finetune_job(**more))


def rank(index: int, version: int = 1, phase: str = "Running") -> dict[str, Any]:
    body = child("Pod", f"p{index}", version=version, status={"phase": phase})
    body["metadata"]["labels"]["batch.kubernetes.io/job-completion-index"] = str(index)
    return body


def listed(*bodies: dict[str, Any], version: int = 50) -> dict[str, Any]:
    return {"items": list(bodies), "metadata": {"resourceVersion": str(version)}}
