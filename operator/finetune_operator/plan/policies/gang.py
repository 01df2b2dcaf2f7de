"""Stopping a gang: the same three wishes for two kinds of Job, plain ones and those that Kueue has.

The operator never sets or clears `suspend` on a Job that exists: Kueue unsuspends whatever it has admitted, and
suspends what it has not, so that two who write that field never come to rest. What both respect is deletion, the Job's
own deadline, and creating with `suspend: true`.

| wish | plain | Kueue |
| --- | --- | --- |
| start | create | create suspended: Kueue starts it once the quota is there |
| restart | delete the Job, make the next attempt's | delete the attempt's pods: the Job keeps its quota |
| take away | delete the Job | delete the Job: the quota is given back, and it queues again |
| end | the Job fails by its deadline | the same; deleted while it waits, when no deadline runs |

So what tells them apart is whether the Job goes on to the next attempt (`attempts.goes_on`). Even one that does is
deleted where it could not come back whole, and where the gang has ended several times in a row without a new
checkpoint: that waits as long as others do, gives its quota back meanwhile, and queues again.

A plain Job is not merely resumed, since the Job controller's back-off doubles with every pod that failed
(docs/decisions/0001).
"""

from __future__ import annotations

from typing import Final

from finetune_operator.api.status import Attempt
from finetune_operator.plan.model import attempts
from finetune_operator.plan.model.observed import PodPhase, StageJob
from finetune_operator.plan.model.plan import DeleteJob, DeletePods, EndJob, Removal
from finetune_operator.plan.policies.backoff import delay_seconds

_LONG_SECONDS: Final = 20.0
"""A wait for which quota is given back."""


def keeps_job(job: StageJob, ended: Attempt) -> bool:
    """Whether the attempt after `ended` begins in the same Job, as soon as its pods are replaced."""
    if not attempts.goes_on(job, ended):
        return False
    comes_back_whole = not (job.has_ended or any(pod.phase is PodPhase.SUCCEEDED for pod in job.pods))
    return comes_back_whole and delay_seconds(ended.tries) < _LONG_SECONDS


def restart(job: StageJob, ended: Attempt) -> tuple[Removal, ...]:
    """Takes down what is left of an attempt that has ended, so that the next one can start."""
    if not keeps_job(job, ended):
        return take_away(job)
    left = tuple(pod.name for pod in job.pods if attempts.is_left(pod, ended))
    return (DeletePods(job.name, left),) if left else ()


def take_away(job: StageJob) -> tuple[Removal, ...]:
    """Takes the pods down and gives back what they held."""
    return () if job.deleting else (DeleteJob(job.name, job.uid),)


def end(job: StageJob) -> tuple[Removal, ...]:
    """Ends the pods for good; what has ended stays to be read."""
    if job.suspended:
        return take_away(job)
    return () if job.has_ended or job.deleting or job.ending else (EndJob(job.name, job.uid),)
