"""Reads batch/v1 Jobs."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from finetune_operator.cluster.reported import Json, condition, words
from finetune_operator.plan.model.names import LABEL_ATTEMPT, LABEL_QUEUE
from finetune_operator.plan.model.observed import PodState, StageJob

AT_ONCE_SECONDS: Final = 1
"""activeDeadlineSeconds of a Job that is to end: it is over as soon as the Job controller looks."""
_FIRST: Final = 1
"""metadata.generation of a Job whose spec nobody has changed since it was created."""
_SETTLED: Final = ("Complete", "Failed", "FailureTarget", "SuccessCriteriaMet")


def stage_job(job: Json, pods: tuple[PodState, ...]) -> StageJob:
    """A Job's JSON and its pods as a StageJob."""
    metadata, spec, status = job["metadata"], job.get("spec", {}), job.get("status", {})
    labels = metadata.get("labels") or {}
    attempt = labels.get(LABEL_ATTEMPT, "")
    failed = condition(status, "Failed")
    return StageJob(
        name=metadata["name"],
        uid=metadata["uid"],
        created=datetime.fromisoformat(metadata["creationTimestamp"]),
        attempt=int(attempt) if attempt.isdecimal() else 1,
        completions=spec.get("completions") or 1,
        suspended=bool(spec.get("suspend")),
        created_suspended=bool(spec.get("suspend")) and metadata.get("generation") == _FIRST,
        active=status.get("active") or 0,
        complete=condition(status, "Complete") is not None,
        failed=failed is not None,
        failure=words(failed or {}),
        deleting="deletionTimestamp" in metadata,
        ending=spec.get("activeDeadlineSeconds") == AT_ONCE_SECONDS,
        queued=LABEL_QUEUE in labels,
        pods=tuple(sorted(pods, key=lambda pod: (pod.index, pod.created, pod.name))),
    )


def lacks_pod(job: Json, pods: tuple[PodState, ...]) -> int | None:
    """The first rank without a pod in a Job that should have one for each: only the Job's events can say why.

    None where pods have ended: the Job controller waits before it makes the next, and that is no problem. None where
    it counts as many as it should: then they are on their way here.
    """
    status, spec = job.get("status", {}), job.get("spec", {})
    if (status.get("active") or 0) >= (spec.get("completions") or 1):
        return None
    settled = any(condition(status, done) for done in _SETTLED)
    if settled or spec.get("suspend") or "deletionTimestamp" in job["metadata"] or any(pod.ended for pod in pods):
        return None
    there = {pod.index for pod in pods}
    return next((index for index in range(spec.get("completions") or 1) if index not in there), None)


def is_taken_up(job: Json) -> bool:
    """Whether the Job controller has come to it: until then nobody has said anything about it."""
    return any(field in job.get("status", {}) for field in ("active", "ready", "terminating"))
