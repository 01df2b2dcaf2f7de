"""Restarts: when one rank is lost the whole gang goes down, and comes back from the newest checkpoint.

In steps, each of which can be repeated and none of which begins before the status tells of the one before
it: the attempt's pods are labelled and the Job is suspended; its pods go; the Job is deleted; it is made
anew. A Job that is merely resumed would wait for the Job controller's back-off, which doubles with every
pod that failed (measured: 7, 16, 37, 77, 150 s from the first restart to the fifth; 1.4 s when made anew).
A Job that Kueue manages is resumed nevertheless, since a new one would queue again.
"""

from __future__ import annotations

from dataclasses import replace

from finetune_operator.api.status import Attempt, Phase, Reason
from finetune_operator.plan.model import attempts
from finetune_operator.plan.model.context import Decision, Health, PolicyContext
from finetune_operator.plan.model.observed import PodPhase, StageJob
from finetune_operator.plan.model.plan import DeleteJob, EventType, JobEvent, SetSuspend
from finetune_operator.plan.model.text import count
from finetune_operator.plan.policies.failure_cause import Cause, cause_of, cause_of_job
from finetune_operator.plan.policies.launch import beginning

_AGAIN_SOON = 1.0


def restart(context: PolicyContext) -> Decision | None:
    """Restart the gang when a rank is gone and the budget allows it; fail the job when it does not."""
    job, attempt = context.stage_job, context.attempt
    if job is None or attempt is None or job.complete or job.deleting:
        return None
    if attempt.end is not None:
        return _bring_back(context, job, attempt)
    cause = cause_of(attempts.pods_of(job, attempt))
    if cause is None and job.failed:
        cause = cause_of_job(job)
    if cause is not None:
        return _take_down(context, job, attempt, cause)
    if job.is_quiet and not context.queued_elsewhere:
        return _notice_interruption(context, job, attempt)
    return None


def _take_down(context: PolicyContext, job: StageJob, attempt: Attempt, cause: Cause) -> Decision:
    used, budget = context.status.restarts, context.job.spec.run_policy.max_restarts
    actions = attempts.charge(job, attempt) + attempts.stop(job)
    ended = attempts.end(attempt, context.now, cause.code.exit_name, exit_code=cause.pod_exit_code, message=cause.text)
    if not cause.is_free and used >= budget:
        message = f"{cause.text}. All {count(budget, 'restart')} of spec.runPolicy.maxRestarts are used"
        return Decision(
            Phase.FAILED, Reason.RESTARTS_EXHAUSTED, message, actions, attempts=(ended,), health=Health.STUCK
        )
    charge = "not counted" if cause.is_free else f"restart {used + 1} of {budget}"
    told = JobEvent(
        EventType.NORMAL if cause.is_free else EventType.WARNING,
        Reason.RESTARTING,
        f"attempt {attempt.number} ended ({cause.code.exit_name}, {charge}): {cause.text}",
    )
    return Decision(
        Phase.QUEUED,
        Reason.RESTARTING,
        f"attempt {attempt.number} ended, the pods restart from {beginning(context)} ({charge}): {cause.text}",
        actions,
        events=(told,),
        attempts=(ended.model_copy(update={"counted": not cause.is_free}),),
        charged=0 if cause.is_free else 1,
        health=Health.CHANGING,
    )


def _bring_back(context: PolicyContext, job: StageJob, ended: Attempt) -> Decision:
    waiting = Decision(
        Phase.QUEUED,
        Reason.RESTARTING,
        f"attempt {ended.number} ended ({ended.reason}), attempt {ended.number + 1} starts from "
        f"{beginning(context)} once its pods are gone",
        health=Health.CHANGING,
    )
    if not job.is_quiet:
        return waiting
    if _is_over(job) or (not context.queued_elsewhere and _has_ended_pods(job)):
        return replace(waiting, actions=(DeleteJob(job.name),))
    if context.queued_elsewhere:
        return waiting
    resumed = attempts.begin(ended, context.now)
    return Decision(
        Phase.QUEUED,
        Reason.QUEUED,
        f"attempt {resumed.number} starts from {beginning(context)}",
        (*attempts.charge(job, ended), SetSuspend(job.name, suspend=False)),
        attempts=(resumed,),
    )


def _is_over(job: StageJob) -> bool:
    """A Job that failed, and one with a rank that has ended well: it would come back without that rank."""
    return job.failed or any(pod.phase is PodPhase.SUCCEEDED for pod in job.pods)


def _has_ended_pods(job: StageJob) -> bool:
    """Each of them lengthens the Job controller's back-off. A suspension leaves none."""
    return any(pod.ended for pod in job.pods)


def _notice_interruption(context: PolicyContext, job: StageJob, attempt: Attempt) -> Decision:
    """The Job is suspended and nobody wants that any more: what is left is to resume it."""
    return Decision(
        Phase.QUEUED,
        Reason.RESTARTING,
        f"attempt {attempt.number} was interrupted",
        attempts.charge(job, attempt),
        attempts=(attempts.end(attempt, context.now, "interrupted"),),
        requeue_after=_AGAIN_SOON,
        health=Health.CHANGING,
    )
