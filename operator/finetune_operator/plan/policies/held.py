"""A Job that somebody else holds suspended: Kueue until there is quota, or a person. The operator never resumes it."""

from __future__ import annotations

from finetune_operator.api.status import Reason
from finetune_operator.plan.model.context import Decision, PolicyContext
from finetune_operator.plan.model.names import LABEL_QUEUE, queue_of
from finetune_operator.plan.model.plan import QueueJob
from finetune_operator.plan.policies.phases import PHASES


def is_held(context: PolicyContext) -> bool:
    """Whether the stage's Job is suspended."""
    job = context.stage_job
    return job is not None and job.suspended and not (job.has_ended or job.deleting)


def held(context: PolicyContext) -> Decision:
    """Waits. One that is suspended since its creation, although nothing says in which queue it waits, is put into the
    job's queue, if that names one: Kueue manages every Job here (manageJobsWithoutQueueName), and holds those without
    a queue for ever. A Job that was suspended later is never touched. Mostly a person did it and will resume it; should
    Kueue have done it (its webhook was down when the Job was created), the words say what to do.
    """
    job = context.stage_job
    assert job is not None  # noqa: S101 - asked only where `is_held`
    phase, _, _ = PHASES[context.stage]
    queue = queue_of(context.job.metadata.labels)
    if job.queued:
        which = f" {queue}" if queue else ""
        message = (
            f"the Job {job.name} waits in its Kueue queue{which}; `kubectl get workloads,localqueues -n "
            f"{context.job.metadata.namespace}` says for what. Without Kueue nobody starts it"
        )
        return Decision(phase, Reason.HELD, message)
    if queue is not None and job.created_suspended:
        message = f"the Job {job.name} was created suspended by Kueue: it is put into the Kueue queue {queue}"
        return Decision(phase, Reason.HELD, message, (QueueJob(job.name, job.uid, queue),))
    label, value = ("the job's label", "") if queue is None else (f"the label of the Job {job.name}", f"={queue}")
    message = (
        f"the Job {job.name} was suspended, not by the operator. If Kueue manages every Job here, name a queue in "
        f"{label} {LABEL_QUEUE}{value}; if a person did it, set the Job's spec.suspend to false"
    )
    return Decision(phase, Reason.HELD, message)
