"""Reads batch/v1 Jobs."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from finetune_operator.plan.model.names import LABEL_STAGE
from finetune_operator.plan.model.observed import PodState, StageJob
from finetune_trainer.contract import Stage

Json = Mapping[str, Any]
_STAGES: Final = {stage.value: stage for stage in Stage}


def stage_of(job: Json) -> Stage | None:
    """The stage that a Job runs."""
    return _STAGES.get((job["metadata"].get("labels") or {}).get(LABEL_STAGE, ""))


def stage_job(job: Json, pods: tuple[PodState, ...]) -> StageJob:
    """A Job's JSON and its pods as a StageJob."""
    metadata, status = job["metadata"], job.get("status", {})
    failed = _condition(status, "Failed")
    return StageJob(
        name=metadata["name"],
        uid=metadata["uid"],
        created=datetime.fromisoformat(metadata["creationTimestamp"]),
        suspended=bool(job.get("spec", {}).get("suspend")),
        active=status.get("active") or 0,
        terminating=status.get("terminating") or 0,
        complete=_condition(status, "Complete") is not None,
        failed=failed is not None,
        failure=_words(failed or {}),
        deleting="deletionTimestamp" in metadata,
        pods=tuple(sorted(pods, key=lambda pod: (pod.index, pod.created, pod.name))),
    )


def lacks_pods(job: Json, pods: int) -> bool:
    """Whether a Job that should run has no pods: only its events can say why."""
    status, spec = job.get("status", {}), job.get("spec", {})
    settled = any(_condition(status, done) for done in ("Complete", "Failed", "FailureTarget", "SuccessCriteriaMet"))
    return not (pods or settled or spec.get("suspend") or "deletionTimestamp" in job["metadata"])


def is_owned_by(child: Json, uid: str) -> bool:
    """Whether the object with this uid is an owner of the child."""
    return any(owner.get("uid") == uid for owner in child["metadata"].get("ownerReferences") or ())


def _condition(status: Json, wanted: str) -> Json | None:
    found = (c for c in status.get("conditions") or () if c["type"] == wanted and c["status"] == "True")
    return next(found, None)


def _words(condition: Json) -> str:
    reason, message = condition.get("reason", ""), condition.get("message", "")
    return f"{reason}: {message}" if reason and message else reason or message
