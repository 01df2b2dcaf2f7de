"""How a job ends: by success, by its deadline, or by a failure that no restart fixes."""

from __future__ import annotations

from datetime import datetime, timedelta

from finetune_operator.api.resources import FineTuneJob
from finetune_operator.api.status import AttemptEnd, JobStatus, Phase, Reason
from finetune_operator.plan.model.context import Decision, Health, PolicyContext
from finetune_operator.plan.model.observed import StageJob
from finetune_operator.plan.model.text import duration
from finetune_operator.plan.policies import gang
from finetune_operator.plan.policies.accounting import close_attempt
from finetune_operator.plan.policies.failure_cause import Cause, cause_of, cause_of_job, last_cause
from finetune_operator.plan.policies.phases import PHASES
from finetune_operator.plan.policies.uncounted import awaiting_count
from finetune_operator.plan.status.results import result_of
from finetune_trainer.contract import Stage


def succeed(context: PolicyContext) -> Decision | None:
    """The job has succeeded when its publish stage has."""
    result = result_of(context.stage_job) if context.stage is Stage.PUBLISH else None
    if result is None or result.published is None:
        return None
    where = context.spec.output.uri
    return Decision(Phase.SUCCEEDED, Reason.SUCCEEDED, f"the result is at {where}", published=result.published)


def deadline(context: PolicyContext) -> Decision | None:
    """ActiveDeadlineSeconds counts from the start, suspension included."""
    due = deadline_of(context.job, context.status)
    if due is None or context.now < due:
        return None
    job, limit = context.stage_job, context.job.spec.run_policy.active_deadline_seconds or 0
    message = (
        f"not finished {duration(limit)} after the start (spec.runPolicy.activeDeadlineSeconds); stopped in the stage "
        f"{context.stage}. Checkpoints are kept; to go on, raise the limit beyond the time that has passed since the "
        f"start at {context.status.start_time:%Y-%m-%d %H:%M:%S} UTC"
    )
    closed = close_attempt(context, AttemptEnd.DEADLINE_EXCEEDED, message=message)
    return Decision(
        Phase.FAILED,
        Reason.DEADLINE_EXCEEDED,
        message,
        after_status=() if job is None else gang.end(job),
        attempts=closed.attempts,
        restarts=closed.restarts,
        health=Health.STUCK,
    )


def deadline_of(job: FineTuneJob, status: JobStatus) -> datetime | None:
    """When the job fails unless it has finished; None when it never does."""
    limit = job.spec.run_policy.active_deadline_seconds
    if limit is None or status.start_time is None:
        return None
    try:
        return status.start_time + timedelta(seconds=limit)
    except OverflowError:
        return None


def fail(context: PolicyContext) -> Decision | None:
    """An exit that would come again ends the job, also one of a pod whose Job is going; so does a Job of prepare or
    publish that gave up.
    """
    job = context.stage_job
    if job is None or job.complete:
        return None
    cause = _final_cause(context, job)
    if cause is None:
        return None
    closed = close_attempt(context, AttemptEnd.of(cause.code), exit_code=cause.pod_exit_code, message=cause.text)
    return awaiting_count(context, job) or Decision(
        Phase.FAILED,
        cause.reason,
        cause.text,
        after_status=gang.end(job),
        attempts=closed.attempts,
        restarts=closed.restarts,
        health=Health.STUCK,
    )


def clear_leftover(context: PolicyContext) -> Decision | None:
    """A Job that the operator had ended by its deadline, in a job that was reopened, or before its status told so."""
    job = context.stage_job
    if job is None or job.deleting or not ended_by_operator(job):
        return None
    phase, reason, _ = PHASES[context.stage]
    closed = close_attempt(context, AttemptEnd.INTERRUPTED)
    return Decision(
        phase,
        reason,
        f"the Job {job.name} was ended before; it is deleted, and the stage {context.stage} starts again",
        after_status=gang.take_away(job),
        attempts=closed.attempts,
        restarts=closed.restarts,
        health=Health.CHANGING,
    )


def ended_by_operator(job: StageJob) -> bool:
    """Whether the Job failed by the deadline that only `EndJob` gives it."""
    return job.failed and job.ending and job.failure.startswith("DeadlineExceeded")


def _final_cause(context: PolicyContext, job: StageJob) -> Cause | None:
    cause = cause_of(context.members)
    if cause is not None and cause.code.is_final:
        return cause
    if not job.failed or job.deleting or ended_by_operator(job):
        return None
    told = cause_of_job(job)
    if context.stage is not Stage.TRAIN:
        return last_cause(context.members) or told
    return told if told.code.is_final else None
