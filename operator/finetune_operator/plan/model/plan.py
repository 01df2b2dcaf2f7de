"""What the planner decides: things to do in order, the status to show and the events to send."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from finetune_operator.api.status import JobStatus, Reason

Manifest = dict[str, Any]


@dataclass(frozen=True)
class Create:
    """Make an object that is not there yet. One that has its name already must be ours: nothing is taken over."""

    manifest: Manifest


@dataclass(frozen=True)
class DeleteJob:
    """Delete a stage's Job in the foreground: its pods get SIGTERM and checkpoint, and it stays until they are gone."""

    job: str
    uid: str


@dataclass(frozen=True)
class EndJob:
    """Have the Job controller fail a Job for good: its running pods get SIGTERM, those that have ended stay readable.

    Done through the Job's own activeDeadlineSeconds, which Kueue respects, too: it counts the Job as finished.
    """

    job: str
    uid: str


@dataclass(frozen=True)
class DeletePods:
    """Delete pods of a Job that stays, as a gang restart under Kueue does, which keeps the Job's quota."""

    job: str
    pods: tuple[str, ...]


@dataclass(frozen=True)
class QueueJob:
    """Put a Job that Kueue holds back, although nothing says in which queue it waits, into the job's queue."""

    job: str
    uid: str
    queue: str


Removal = DeleteJob | EndJob | DeletePods
Action = Create | Removal | QueueJob


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
    """First `actions` in order, then one status write if it differs, then `after_status`, then events (best effort).

    What takes pods down comes after the status that says why: an operator that dies in between finds the reason in
    the status and takes them down then, so that no failure is lost or charged twice.
    """

    status: JobStatus
    actions: tuple[Create | QueueJob, ...] = ()
    after_status: tuple[Removal, ...] = ()
    events: tuple[JobEvent, ...] = ()
    requeue_after: float | None = None
    """Seconds after which to look again although nothing happened (deadlines, back-off, things that are missing)."""
    told_later: bool = False
    """Whether status and events may wait: the next look finds what the actions have made, and plans the same ones."""


@dataclass(frozen=True)
class Refusal:
    """The API server refused an action."""

    status: int
    """HTTP status: 422 invalid, 403 forbidden (quota, admission, rights)."""
    reason: str
    """The reason of its Status object: Invalid, Forbidden, ..."""
    message: str


@dataclass(frozen=True)
class NameTaken:
    """An object that is not ours has the name that a child needs."""

    kind: str
    name: str
    owner: str
    """Its controller in words (`FineTuneJob x, uid ...`), or `nobody`."""
    is_going: bool
    """Whether it is being deleted, or belongs to an earlier job of this name and so will be."""


@dataclass(frozen=True)
class Fault:
    """The same thing went wrong again and again: a server error, a webhook, a mistake of the operator."""

    tries: int
    message: str


Obstacle = Refusal | NameTaken | Fault
"""What keeps a plan from being carried out."""


def soonest(*delays: float | None) -> float | None:
    """When to look again, if any of several says so."""
    return min((delay for delay in delays if delay is not None), default=None)
