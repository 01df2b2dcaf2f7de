"""Suspension: runPolicy.suspend takes the running stage's pods down and keeps the next ones from starting."""

from __future__ import annotations

from finetune_operator.api.status import AttemptEnd, Phase, Reason
from finetune_operator.plan.model.context import Decision, Health, PolicyContext
from finetune_operator.plan.policies import gang
from finetune_operator.plan.policies.accounting import close_attempt

_SUSPENDED = "suspended by spec.runPolicy.suspend; set it to false to go on"
SUSPENDING = "spec.runPolicy.suspend: the pods checkpoint and stop"


def suspend(context: PolicyContext) -> Decision | None:
    """Pods checkpoint and go; the job is Suspended once they are gone. Nobody is charged for it."""
    if not context.job.spec.run_policy.suspend:
        return None
    job = context.stage_job
    if job is not None and job.has_ended:
        return None
    closed = close_attempt(context, AttemptEnd.SUSPENDED)
    if job is None and context.observed.strays:
        return None
    if job is None:
        return Decision(
            Phase.SUSPENDED, Reason.SUSPENDED, _SUSPENDED, attempts=closed.attempts, restarts=closed.restarts
        )
    return Decision(
        Phase.PENDING if context.status.start_time is None else context.status.phase,
        Reason.SUSPENDING,
        SUSPENDING,
        after_status=gang.take_away(job),
        attempts=closed.attempts,
        restarts=closed.restarts,
        health=Health.CHANGING,
    )
