"""Suspension: runPolicy.suspend takes the running stage's pods down and keeps the next ones from starting."""

from __future__ import annotations

from finetune_operator.api.status import Phase, Reason
from finetune_operator.plan.model import attempts
from finetune_operator.plan.model.context import Decision, Health, PolicyContext
from finetune_operator.plan.model.observed import StageJob
from finetune_operator.plan.model.plan import SetSuspend
from finetune_trainer.contract import Stage

_SUSPENDED = "suspended by spec.runPolicy.suspend; set it to false to go on"


def suspend(context: PolicyContext) -> Decision | None:
    """Pods checkpoint and go; the job is Suspended once they are gone."""
    if not context.job.spec.run_policy.suspend:
        return None
    job = context.stage_job
    if job is None:
        return Decision(Phase.SUSPENDED, Reason.SUSPENDED, _SUSPENDED)
    if job.complete or job.failed:
        return None
    if not job.is_quiet:
        return Decision(
            Phase.PENDING if context.status.start_time is None else context.status.phase,
            Reason.SUSPENDING,
            "spec.runPolicy.suspend: the pods checkpoint and stop",
            attempts.stop(job),
            health=Health.CHANGING,
        )
    return _suspended(context, job)


def _suspended(context: PolicyContext, job: StageJob) -> Decision:
    """Nobody is charged for a suspension."""
    attempt = context.attempt
    if attempt is None:
        return Decision(Phase.SUSPENDED, Reason.SUSPENDED, _SUSPENDED)
    ended = () if attempt.end else (attempts.end(attempt, context.now, "suspended"),)
    return Decision(Phase.SUSPENDED, Reason.SUSPENDED, _SUSPENDED, attempts.charge(job, attempt), attempts=ended)


def resume(context: PolicyContext) -> Decision | None:
    """A Job of prepare or publish goes on where it was; training resumes as a new attempt (see restart)."""
    job = context.stage_job
    if job is None or not job.suspended or context.stage is Stage.TRAIN or context.queued_elsewhere:
        return None
    phase, reason = (
        (Phase.PREPARING, Reason.PREPARING) if context.stage is Stage.PREPARE else (Phase.PUBLISHING, Reason.PUBLISHING)
    )
    return Decision(phase, reason, f"the stage {context.stage} goes on", (SetSuspend(job.name, suspend=False),))
