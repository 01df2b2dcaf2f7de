"""Stopping a gang: one abstraction, two drivers.

The operator never sets or clears `suspend` on a Job that exists: Kueue unsuspends whatever it has admitted, and
suspends what it has not, so that two who write that field never come to rest. What both respect is deletion, the Job's
own deadline, and creating with `suspend: true`.

| wish | plain | Kueue |
| --- | --- | --- |
| start | create | create suspended: Kueue starts it once the quota is there |
| restart | delete the Job, make the next attempt's | delete the attempt's pods: the Job keeps its quota |
| suspend | delete the Job | delete the Job: the quota is given back, and it queues again |
| end | the Job fails by its deadline | the same; deleted while it waits, when no deadline runs |

A gang in a queue that has ended several times in a row without a new checkpoint waits as long as others do, and gives
its quota back meanwhile: its Job is deleted, and queues again.

A plain Job is not merely resumed, since the Job controller's back-off doubles with every pod that failed
(docs/decisions/0001).
"""

from __future__ import annotations

from typing import Final, Protocol

from finetune_operator.api.resources import FineTuneJob
from finetune_operator.api.status import Attempt, AttemptEnd
from finetune_operator.plan.model import names
from finetune_operator.plan.model.attempts import is_left
from finetune_operator.plan.model.observed import PodPhase, StageJob
from finetune_operator.plan.model.plan import DeleteJob, DeletePods, EndJob, Removal
from finetune_operator.plan.policies.backoff import delay_seconds

_LONG_SECONDS: Final = 20.0
"""A wait for which quota is given back."""


class Gang(Protocol):
    """What can be done to the Job of a gang."""

    def restart(self, job: StageJob, ended: Attempt) -> tuple[Removal, ...]:
        """Takes down what is left of an attempt that has ended, so that the next one can start."""

    def suspend(self, job: StageJob) -> tuple[Removal, ...]:
        """Takes the pods down and gives back what they held."""

    def end(self, job: StageJob) -> tuple[Removal, ...]:
        """Ends the pods for good; what has ended stays to be read."""


class PlainGang:
    """A Job of its own for each attempt."""

    def restart(self, job: StageJob, ended: Attempt) -> tuple[Removal, ...]:  # noqa: ARG002 - the Job is the attempt
        return _deleted(job)

    def suspend(self, job: StageJob) -> tuple[Removal, ...]:
        return _deleted(job)

    def end(self, job: StageJob) -> tuple[Removal, ...]:
        return _ended(job)


class KueueGang:
    """One Job for all attempts, as long as it can come back whole."""

    def restart(self, job: StageJob, ended: Attempt) -> tuple[Removal, ...]:
        if job.has_ended or any(pod.phase is PodPhase.SUCCEEDED for pod in job.pods):
            return _deleted(job)  # it would come back without the rank that has ended well, or not at all
        if delay_seconds(ended.tries) >= _LONG_SECONDS:
            return _deleted(job)  # its pods would be there again at once, and fail again
        left = tuple(pod.name for pod in job.pods if is_left(pod, ended))
        return (DeletePods(job.name, left),) if left else ()

    def suspend(self, job: StageJob) -> tuple[Removal, ...]:
        return _deleted(job)

    def end(self, job: StageJob) -> tuple[Removal, ...]:
        return _deleted(job) if job.suspended else _ended(job)


_PLAIN: Final = PlainGang()
_KUEUE: Final = KueueGang()


def driver_after(job: StageJob, ended: Attempt) -> Gang:
    """The driver by which the Job of an attempt that has ended is cleared: one that somebody else had suspended comes
    back by itself, before its pods do.
    """
    return _KUEUE if ended.reason == AttemptEnd.PREEMPTED else driver_of(job)


def driver_of(job: StageJob) -> Gang:
    """The driver for a Job: Kueue's for what Kueue, or somebody else, holds or queues."""
    return _KUEUE if job.queued or job.suspended else _PLAIN


def queue_of(job: FineTuneJob) -> str | None:
    """The Kueue queue that the job is to wait in."""
    return job.metadata.labels.get(names.LABEL_QUEUE)


def _deleted(job: StageJob) -> tuple[Removal, ...]:
    return () if job.deleting else (DeleteJob(job.name, job.uid),)


def _ended(job: StageJob) -> tuple[Removal, ...]:
    return () if job.has_ended or job.deleting or job.ending else (EndJob(job.name, job.uid),)
