"""How a job ends: by success, by its deadline, or by a failure that no restart mends."""

from __future__ import annotations

from datetime import timedelta

from finetune_operator.api.status import Attempt, Phase, Reason
from finetune_operator.plan import attempts
from finetune_operator.plan.cause import Cause, cause_of, cause_of_job, last_cause
from finetune_operator.plan.observed import StageJob
from finetune_operator.plan.plan import Action, DeleteJob
from finetune_operator.plan.results import result_of
from finetune_operator.plan.situation import Decision, Situation, Standing
from finetune_operator.plan.text import duration
from finetune_trainer.contract import Stage


def succeed(situation: Situation) -> Decision | None:
    """The job has succeeded when its publish stage has."""
    result = result_of(situation.stage_job) if situation.stage is Stage.PUBLISH else None
    if result is None or result.published is None:
        return None
    where = situation.spec.output.uri
    return Decision(Phase.SUCCEEDED, Reason.SUCCEEDED, f"the result is at {where}", published=result.published)


def deadline(situation: Situation) -> Decision | None:
    """ActiveDeadlineSeconds counts from the start, suspension included."""
    limit, started = situation.job.spec.run_policy.active_deadline_seconds, situation.status.start_time
    if limit is None or started is None or situation.now < started + timedelta(seconds=limit):
        return None
    job = situation.stage_job
    actions: tuple[Action, ...] = () if job is None or job.deleting else (DeleteJob(job.name),)
    message = (
        f"not finished {duration(limit)} after the start (spec.runPolicy.activeDeadlineSeconds); stopped in the stage "
        f"{situation.stage}. Checkpoints are kept; raise the limit in a new FineTuneJob"
    )
    ended = _ended(situation, "deadline-exceeded", None, message)
    return Decision(Phase.FAILED, Reason.DEADLINE_EXCEEDED, message, actions, attempts=ended, standing=Standing.STUCK)


def fail(situation: Situation) -> Decision | None:
    """An exit that would come again ends the job, and so does a Job of prepare or publish that gave up."""
    job = situation.stage_job
    if job is None or job.complete or job.deleting:
        return None
    cause = _final_cause(situation, job)
    if cause is None:
        return None
    actions: tuple[Action, ...] = ()
    if situation.attempt is not None:
        actions = attempts.charge(job, situation.attempt) + attempts.stop(job)
    ended = _ended(situation, cause.code.exit_name, cause.pod_exit_code, cause.text)
    return Decision(Phase.FAILED, cause.reason, cause.text, actions, attempts=ended, standing=Standing.STUCK)


def _final_cause(situation: Situation, job: StageJob) -> Cause | None:
    attempt = situation.attempt
    pods = job.pods if attempt is None else attempts.pods_of(job, attempt)
    cause = cause_of(pods)
    if cause is not None and cause.code.is_final:
        return cause
    if not job.failed:
        return None
    told = cause_of_job(job)
    if situation.stage is not Stage.TRAIN:
        return last_cause(pods) or told
    return told if told.code.is_final else None


def _ended(situation: Situation, reason: str, exit_code: int | None, message: str) -> tuple[Attempt, ...]:
    """The current attempt with its end, if it has not ended before."""
    attempt = situation.attempt
    if attempt is None or attempt.end is not None:
        return ()
    return (attempts.end(attempt, situation.now, reason, exit_code=exit_code, message=message),)
