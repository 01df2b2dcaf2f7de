"""Attempts: the launches of the training pods, each of which is charged to maxRestarts at most once.

The status and the pods' attempt labels together say which attempt is current. Pods are labelled before
the status tells of an attempt's end, and the Job is only resumed when the status has told of it; so
whatever is lost when the operator dies in between is found again from the labels and the Job.
"""

from __future__ import annotations

from datetime import datetime

from finetune_operator.api.status import MAX_ATTEMPTS, Attempt, JobStatus
from finetune_operator.plan.model.observed import PodState, StageJob
from finetune_operator.plan.model.plan import Action, LabelAttempt, SetSuspend
from finetune_operator.plan.model.text import cut

MAX_ATTEMPT_MESSAGE = 256


def current(status: JobStatus, job: StageJob | None, now: datetime) -> Attempt | None:
    """The newest attempt; one that the status has not heard of is known by the Job and by its pods' labels."""
    last = status.attempts[-1] if status.attempts else None
    if job is None:
        return last
    charged = max((pod.attempt for pod in job.pods if pod.attempt is not None), default=0)
    if last is None or charged > last.number:
        return Attempt(number=max(charged, 1), start=job.created)
    was_resumed = not (job.suspended or job.failed or job.complete or job.deleting)
    if last.end is not None and was_resumed:
        return begin(last, now)
    return last


def begin(last: Attempt | None, now: datetime) -> Attempt:
    """The attempt after `last`."""
    return Attempt(number=last.number + 1 if last else 1, start=now)


def end(
    attempt: Attempt, now: datetime, reason: str, *, exit_code: int | None = None, message: str | None = None
) -> Attempt:
    """The attempt with its end."""
    told = cut(message, MAX_ATTEMPT_MESSAGE) if message else None
    return attempt.model_copy(
        update={"end": whole_seconds(now), "reason": reason, "exit_code": exit_code, "message": told}
    )


def record(attempts: tuple[Attempt, ...], *changed: Attempt) -> tuple[Attempt, ...]:
    """`attempts` with `changed` in the places of their numbers; the newest are kept."""
    by_number = {attempt.number: attempt for attempt in (*attempts, *changed)}
    return tuple(by_number[number] for number in sorted(by_number))[-MAX_ATTEMPTS:]


def pods_of(job: StageJob, attempt: Attempt) -> tuple[PodState, ...]:
    """Pods of the current attempt: those that are not charged to an earlier one."""
    return tuple(pod for pod in job.pods if pod.attempt in (None, attempt.number))


def charge(job: StageJob, attempt: Attempt) -> tuple[Action, ...]:
    """Labels the pods of an attempt that ends, so that none of them is taken for one of the next."""
    unlabelled = tuple(pod.name for pod in job.pods if pod.attempt is None)
    return (LabelAttempt(unlabelled, attempt.number),) if unlabelled else ()


def stop(job: StageJob) -> tuple[Action, ...]:
    """Takes the gang down; a Job that has failed does so by itself."""
    return () if job.suspended or job.failed else (SetSuspend(job.name, suspend=True),)


def whole_seconds(moment: datetime) -> datetime:
    """As Kubernetes keeps it."""
    return Attempt(number=1, start=moment).start
