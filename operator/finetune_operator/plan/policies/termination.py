"""How a job ends: by success, by its deadline, or by a failure that no restart mends."""

from __future__ import annotations

from datetime import timedelta

from finetune_operator.api.status import Attempt, Phase, Reason
from finetune_operator.plan.model import attempts
from finetune_operator.plan.model.context import Decision, Health, PolicyContext
from finetune_operator.plan.model.observed import StageJob
from finetune_operator.plan.model.plan import Action, DeleteJob
from finetune_operator.plan.model.text import duration
from finetune_operator.plan.policies.failure_cause import Cause, cause_of, cause_of_job, last_cause
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
    limit, started = context.job.spec.run_policy.active_deadline_seconds, context.status.start_time
    if limit is None or started is None or context.now < started + timedelta(seconds=limit):
        return None
    job = context.stage_job
    actions: tuple[Action, ...] = () if job is None or job.deleting else (DeleteJob(job.name),)
    message = (
        f"not finished {duration(limit)} after the start (spec.runPolicy.activeDeadlineSeconds); stopped in the stage "
        f"{context.stage}. Checkpoints are kept; raise the limit in a new FineTuneJob"
    )
    ended = _ended(context, "deadline-exceeded", None, message)
    return Decision(Phase.FAILED, Reason.DEADLINE_EXCEEDED, message, actions, attempts=ended, health=Health.STUCK)


def fail(context: PolicyContext) -> Decision | None:
    """An exit that would come again ends the job, and so does a Job of prepare or publish that gave up."""
    job = context.stage_job
    if job is None or job.complete or job.deleting:
        return None
    cause = _final_cause(context, job)
    if cause is None:
        return None
    actions: tuple[Action, ...] = ()
    if context.attempt is not None:
        actions = attempts.charge(job, context.attempt) + attempts.stop(job)
    ended = _ended(context, cause.code.exit_name, cause.pod_exit_code, cause.text)
    return Decision(Phase.FAILED, cause.reason, cause.text, actions, attempts=ended, health=Health.STUCK)


def _final_cause(context: PolicyContext, job: StageJob) -> Cause | None:
    attempt = context.attempt
    pods = job.pods if attempt is None else attempts.pods_of(job, attempt)
    cause = cause_of(pods)
    if cause is not None and cause.code.is_final:
        return cause
    if not job.failed:
        return None
    told = cause_of_job(job)
    if context.stage is not Stage.TRAIN:
        return last_cause(pods) or told
    return told if told.code.is_final else None


def _ended(context: PolicyContext, reason: str, exit_code: int | None, message: str) -> tuple[Attempt, ...]:
    """The current attempt with its end, if it has not ended before."""
    attempt = context.attempt
    if attempt is None or attempt.end is not None:
        return ()
    return (attempts.end(attempt, context.now, reason, exit_code=exit_code, message=message),)
