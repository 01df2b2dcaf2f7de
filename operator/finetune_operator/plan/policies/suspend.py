"""Suspension: runPolicy.suspend takes the running stage's pods down and keeps the next ones from starting."""

from __future__ import annotations

from finetune_operator.api.status import Phase, Reason
from finetune_operator.plan.model.context import Decision, Health, PolicyContext
from finetune_operator.plan.policies.accounting import suspend_attempt
from finetune_operator.plan.policies.gang import gang_of

_SUSPENDED = "suspended by spec.runPolicy.suspend; set it to false to go on"
SUSPENDING = "spec.runPolicy.suspend: the pods checkpoint and stop"


def suspend(context: PolicyContext) -> Decision | None:
    """Pods checkpoint and go; the job is Suspended once they are gone. Nobody is charged for it."""
    if not context.job.spec.run_policy.suspend:
        return None
    job, attempt = context.stage_job, context.attempt
    if job is not None and job.has_ended:
        return None
    ended = () if attempt is None or attempt.is_over else (suspend_attempt(context, attempt),)
    if job is None:
        return Decision(Phase.SUSPENDED, Reason.SUSPENDED, _SUSPENDED, attempts=ended)
    return Decision(
        Phase.PENDING if context.status.start_time is None else context.status.phase,
        Reason.SUSPENDING,
        SUSPENDING,
        after_status=gang_of(context).suspend(job),
        attempts=ended,
        health=Health.CHANGING,
    )
