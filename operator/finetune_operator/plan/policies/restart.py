"""Restarts: when one rank is lost the whole gang goes down, and comes back from the newest checkpoint.

In steps, each of which can be repeated: the status tells of the attempt's end and its cause; its pods are taken down
(see gang); they go; the next attempt is launched, after a wait when the last ones made no progress.
"""

from __future__ import annotations

from finetune_operator.api.status import Attempt, AttemptEnd, Phase, Reason
from finetune_operator.plan.model.context import Decision, Health, PolicyContext
from finetune_operator.plan.model.observed import StageJob
from finetune_operator.plan.model.plan import EventType, JobEvent
from finetune_operator.plan.model.text import count, duration
from finetune_operator.plan.policies import gang
from finetune_operator.plan.policies.accounting import Closed, Ended, close_attempt, end_attempt
from finetune_operator.plan.policies.backoff import delay_seconds, newest_checkpoint
from finetune_operator.plan.policies.dead_nodes import draining
from finetune_operator.plan.policies.failure_cause import Cause, cause_of, cause_of_job, vanished
from finetune_operator.plan.policies.held import held, is_held
from finetune_operator.plan.policies.uncounted import awaiting_count

_RECHECK_SECONDS = 30.0


def restart(context: PolicyContext) -> Decision | None:
    """Restart the gang when a rank is gone and the budget allows it; fail the job when it does not."""
    job, attempt = context.stage_job, context.attempt
    if job is None or attempt is None or job.complete or job.deleting:
        return None
    if attempt.is_over:
        return _clear_away(context, job, attempt)
    if job.suspended:
        return _preempted(context, attempt) if _is_taken_down(context, attempt) else None
    cause = cause_of(context.members) or (cause_of_job(job) if job.failed else None)
    cause = cause or vanished(context.members, attempt)
    return None if cause is None else take_down(context, job, attempt, cause)


def beginning(context: PolicyContext) -> str:
    """Where the next attempt begins, as far as the operator knows."""
    spec, newest = context.spec, newest_checkpoint(context.status, context.attempt)
    if newest is None or not (spec.workspace.persistent or spec.checkpoints.uri):
        return "the beginning"
    return f"the checkpoint of step {newest}"


def ran_whole(context: PolicyContext, attempt: Attempt) -> bool:
    """Whether every rank has had its pod run: before that, a failure is nobody's fault but the cluster's."""
    nodes = context.topology.nodes
    return attempt.running_since is not None or {pod.index for pod in context.members if pod.ran} >= set(range(nodes))


def take_down(context: PolicyContext, job: StageJob, attempt: Attempt, cause: Cause) -> Decision:
    free = cause.is_free or not ran_whole(context, attempt)
    ended = end_attempt(context, attempt, AttemptEnd.of(cause.code), exit_code=cause.pod_exit_code, message=cause.text)
    budget = context.job.spec.run_policy.max_restarts
    if not free and ended.used >= budget:
        return awaiting_count(context, job) or _exhausted(job, ended, cause, budget)
    charge = "not counted" if free else f"restart {ended.used + 1} of {budget}"
    told = JobEvent(
        EventType.NORMAL if free else EventType.WARNING,
        Reason.RESTARTING,
        f"attempt {attempt.number} ended ({cause.code.exit_name}, {charge}): {cause.text}",
    )
    wait = 0.0 if gang.keeps_job(job, ended.attempt) else delay_seconds(ended.attempt.tries)
    when = f" in {duration(wait)}" if wait else ""
    return Decision(
        Phase.QUEUED,
        Reason.RESTARTING,
        f"attempt {attempt.number} ended, the pods restart{when} from {beginning(context)} ({charge}): {cause.text}",
        after_status=gang.restart(job, ended.attempt),
        events=(told,),
        attempts=(ended.attempt.model_copy(update={"counted": not free}),),
        restarts=ended.used + (0 if free else 1),
        requeue_after=_RECHECK_SECONDS,
        health=Health.CHANGING,
    )


def _exhausted(job: StageJob, ended: Ended, cause: Cause, budget: int) -> Decision:
    message = (
        f"{cause.text}. All {count(budget, 'restart')} of spec.runPolicy.maxRestarts are used without a new "
        "checkpoint in between; raise it to go on from the last one"
    )
    return Decision(
        Phase.FAILED,
        Reason.RESTARTS_EXHAUSTED,
        message,
        after_status=gang.end(job),
        attempts=(ended.attempt,),
        restarts=ended.used,
        health=Health.STUCK,
    )


def _is_taken_down(context: PolicyContext, attempt: Attempt) -> bool:
    """Whether a suspended Job's pods go or are gone. Jobs and pods are watched each by themselves: pods that were just
    started may be seen before the Job is seen to be resumed.
    """
    members = context.members
    if not members:
        return attempt.running_since is not None
    return all(pod.deleting or pod.ended for pod in members)


def _preempted(context: PolicyContext, attempt: Attempt) -> Decision:
    """Kueue, or somebody else, has suspended the Job: its pods checkpoint and go."""
    cause = cause_of(context.members)
    closed = close_attempt(context, AttemptEnd.PREEMPTED, message=cause.text if cause else None)
    return interrupted(attempt, closed, Reason.HELD, "its Job was suspended, not by the operator")


def interrupted(
    attempt: Attempt, closed: Closed, reason: Reason, how: str, *, requeue_after: float | None = None
) -> Decision:
    """An attempt that ends because somebody else did something to its Job: nobody is charged."""
    message = f"attempt {attempt.number} was interrupted: {how}"
    return Decision(
        Phase.QUEUED,
        reason,
        message,
        events=(JobEvent(EventType.NORMAL, reason, message),),
        attempts=closed.attempts,
        restarts=closed.restarts,
        requeue_after=requeue_after,
        health=Health.CHANGING,
    )


def _clear_away(context: PolicyContext, job: StageJob, ended: Attempt) -> Decision:
    """Takes down what is left of an attempt that has ended, and waits until it is gone."""
    if is_held(context):
        return held(context)
    drained = draining(job.pods, context.now)
    return Decision(
        Phase.QUEUED,
        Reason.POD_STUCK if drained.message else Reason.RESTARTING,
        drained.message
        or f"attempt {ended.number} ended ({ended.reason}), attempt {ended.number + 1} starts from "
        f"{beginning(context)} once its pods are gone",
        after_status=gang.restart(job, ended),
        requeue_after=drained.recheck_after or _RECHECK_SECONDS,
        health=Health.CHANGING,
    )
