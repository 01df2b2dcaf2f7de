"""Suspension: runPolicy.suspend takes the running stage's pods down and keeps the next ones from starting."""

from __future__ import annotations

from finetune_operator.api.status import Phase, Reason
from finetune_operator.plan import attempts
from finetune_operator.plan.observed import StageJob
from finetune_operator.plan.plan import SetSuspend
from finetune_operator.plan.situation import Decision, Situation, Standing
from finetune_trainer.contract import Stage

_SUSPENDED = "suspended by spec.runPolicy.suspend; set it to false to go on"


def suspend(situation: Situation) -> Decision | None:
    """Pods checkpoint and go; the job is Suspended once they are gone."""
    if not situation.job.spec.run_policy.suspend:
        return None
    job = situation.stage_job
    if job is None:
        return Decision(Phase.SUSPENDED, Reason.SUSPENDED, _SUSPENDED)
    if job.complete or job.failed:
        return None
    if not job.is_quiet:
        return Decision(
            Phase.PENDING if situation.status.start_time is None else situation.status.phase,
            Reason.SUSPENDING,
            "spec.runPolicy.suspend: the pods checkpoint and stop",
            attempts.stop(job),
            standing=Standing.CHANGING,
        )
    return _suspended(situation, job)


def _suspended(situation: Situation, job: StageJob) -> Decision:
    """Nobody is charged for a suspension."""
    attempt = situation.attempt
    if attempt is None:
        return Decision(Phase.SUSPENDED, Reason.SUSPENDED, _SUSPENDED)
    ended = () if attempt.end else (attempts.end(attempt, situation.now, "suspended"),)
    return Decision(Phase.SUSPENDED, Reason.SUSPENDED, _SUSPENDED, attempts.charge(job, attempt), attempts=ended)


def resume(situation: Situation) -> Decision | None:
    """A Job of prepare or publish goes on where it was; training resumes as a new attempt (see restart)."""
    job = situation.stage_job
    if job is None or not job.suspended or situation.stage is Stage.TRAIN or situation.queued_elsewhere:
        return None
    phase, reason = (
        (Phase.PREPARING, Reason.PREPARING)
        if situation.stage is Stage.PREPARE
        else (Phase.PUBLISHING, Reason.PUBLISHING)
    )
    return Decision(phase, reason, f"the stage {situation.stage} goes on", (SetSuspend(job.name, suspend=False),))
