"""What the planner decides: things to do in order, the status to show and the events to send."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from finetune_operator.api.status import JobStatus, Reason

Manifest = dict[str, Any]


@dataclass(frozen=True)
class Apply:
    """Make or update an object by server-side apply."""

    manifest: Manifest


@dataclass(frozen=True)
class SetSuspend:
    """Suspend a stage's Job (its pods get SIGTERM and checkpoint) or let it go on."""

    job: str
    suspend: bool


@dataclass(frozen=True)
class LabelAttempt:
    """Label pods that have ended with the attempt they belonged to, so that they are counted once."""

    pods: tuple[str, ...]
    attempt: int


@dataclass(frozen=True)
class DeleteJob:
    """Delete a stage's Job; its pods get SIGTERM and checkpoint."""

    job: str


Action = Apply | SetSuspend | LabelAttempt | DeleteJob


class EventType(StrEnum):
    NORMAL = "Normal"
    WARNING = "Warning"


@dataclass(frozen=True)
class JobEvent:
    """An event on the FineTuneJob."""

    type: EventType
    reason: Reason
    message: str


@dataclass(frozen=True)
class Plan:
    """Actions are idempotent and done in order; then events; then one status write, if it differs."""

    status: JobStatus
    actions: tuple[Action, ...] = ()
    events: tuple[JobEvent, ...] = ()
    requeue_after: float | None = None
    """Seconds after which to look again although nothing happened (deadlines, things that are missing)."""
