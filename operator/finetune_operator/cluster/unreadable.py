"""A job that this version of the operator cannot read is told so in its status, of which the rest stays as it is."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import pydantic_core
from pydantic import ValidationError

from finetune_operator.api.resources import ObjectMeta, Resource
from finetune_operator.api.status import MAX_MESSAGE, Condition, ConditionStatus, ConditionType, Phase, Reason
from finetune_operator.plan.model.plan import EventType, JobEvent
from finetune_operator.plan.model.text import cut
from finetune_operator.runtime.kinds import TOO_LARGE
from finetune_operator.runtime.store import LARGEST_JOB

_SUMMARY: Final = {
    ConditionType.READY: ConditionStatus.FALSE,
    ConditionType.RECONCILING: ConditionStatus.FALSE,
    ConditionType.STALLED: ConditionStatus.TRUE,
}
"""The conditions that kstatus reads."""


@dataclass(frozen=True)
class Unreadable:
    """What to say of a job that cannot be read."""

    metadata: ObjectMeta
    event: JobEvent
    changes: dict[str, Any] | None
    """Fields of the status to set; None when it says so already."""


def unreadable(raw: bytes, error: ValidationError, now: datetime) -> Unreadable:
    """What the status and an event say of a job (JSON) that could not be read."""
    body = pydantic_core.from_json(raw)
    metadata, status = Resource.model_validate(body).metadata, body.get("status") or {}
    size = (body.get("spec") or {}).get(TOO_LARGE)
    problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
    message = cut(f"this version of the operator cannot read the job: {problems}", MAX_MESSAGE - 64)
    message = f"{message}. Install the operator's own CRDs"
    if size is not None:
        message = f"the job takes {size // 1024} KiB, and no more than {LARGEST_JOB // 1024} are read: shorten its spec"
    event = JobEvent(EventType.WARNING, Reason.INVALID_SPEC, message)
    changes = {
        "phase": status.get("phase") or Phase.PENDING.value,
        "reason": Reason.INVALID_SPEC.value,
        "message": message,
        "observedGeneration": metadata.generation,
        "conditions": _conditions(status.get("conditions") or (), message, metadata.generation, now),
    }
    is_told = all(status.get(field) == changes[field] for field in ("message", "observedGeneration"))
    return Unreadable(metadata, event, None if is_told else changes)


def _conditions(before: Any, message: str, generation: int, now: datetime) -> list[dict[str, Any]]:
    kept = [condition for condition in before if condition.get("type") not in _SUMMARY]
    told = (
        Condition(
            type=kind,
            status=status,
            reason=Reason.INVALID_SPEC.value,
            message=message,
            last_transition_time=_since(before, kind, status, now),
            observed_generation=generation,
        )
        for kind, status in _SUMMARY.items()
    )
    return [*(one.model_dump(mode="json", by_alias=True, exclude_none=True) for one in told), *kept]


def _since(before: Any, kind: ConditionType, status: ConditionStatus, now: datetime) -> datetime:
    same = (c for c in before if c.get("type") == kind and c.get("status") == status)
    return next((datetime.fromisoformat(c["lastTransitionTime"]) for c in same if c.get("lastTransitionTime")), now)
