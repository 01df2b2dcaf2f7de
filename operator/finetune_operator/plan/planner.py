"""The planner: a chain of policies, the first of which that has something to say decides."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from finetune_operator.api.status import MAX_MESSAGE, Attempt, ConditionStatus, ConditionType, JobStatus, Phase, Reason
from finetune_operator.plan.manifests.stages import resolved_config_map
from finetune_operator.plan.model import attempts
from finetune_operator.plan.model.context import Decision, Health, Policy, PolicyContext
from finetune_operator.plan.model.observed import Observed
from finetune_operator.plan.model.plan import (
    Create,
    EventType,
    Fault,
    JobEvent,
    NameTaken,
    Obstacle,
    Plan,
    Refusal,
    soonest,
)
from finetune_operator.plan.model.problems import SpecProblem
from finetune_operator.plan.model.resolved import ResolvedSpec
from finetune_operator.plan.model.settings import PlanSettings
from finetune_operator.plan.model.text import cut, sentence
from finetune_operator.plan.policies import launch, restart, running, suspend, termination
from finetune_operator.plan.policies.reopen import follow_up
from finetune_operator.plan.resolve.acceptance import RECHECK_SECONDS, accepted
from finetune_operator.plan.resolve.resolver import resolve
from finetune_operator.plan.status.conditions import conditions
from finetune_operator.plan.status.events import events_between, milestones, refusal
from finetune_operator.plan.status.next_status import begins, next_status
from finetune_operator.plan.status.progress import with_progress
from finetune_operator.plan.status.results import current_stage, with_results
from finetune_trainer.contract import Stage

POLICIES: Final[tuple[Policy, ...]] = (
    termination.succeed,  # before all others: a result that is there ends the job whatever else is the matter
    termination.deadline,  # before what waits, so that waiting ends, too
    termination.fail,  # before what waits, suspends or restarts: a user error comes again however the job goes on
    launch.take_back,  # before what waits or suspends: two stages must not run at the same time
    launch.await_deletion,  # before what else reads the Job: one that is going tells nothing about the next
    termination.clear_leftover,  # before restart, which would take the operator's own deadline for a fault
    suspend.suspend,  # before what starts pods
    launch.recover_result,  # before restart: a Job that is complete has no rank to lose
    restart.restart,  # before launch: the attempt's end has to be in the status before the next one begins
    launch.launch,
    running.running,  # always answers
)
"""In the order in which they are asked. Each says itself when it wants to be asked again (`requeue_after`)."""

_INVALID: Final = frozenset({400, 422})
"""Unknown fields, and values that are not allowed."""
_OF_THE_PODS: Final = ("spec.template", "Kind=Job", "handled as a Job")
"""How a refusal names the part of a Job that podTemplate shapes: by field, or by the kind as a whole."""
_GOING_SECONDS: Final = 2.0
_LONGEST_RECHECK: Final = 300.0


def plan(observed: Observed, now: datetime, settings: PlanSettings) -> Plan:
    """What the job needs next: things to do, the status to show, the events to send."""
    before = observed.job.status or JobStatus()
    if observed.job.metadata.deletion_timestamp:
        return Plan(before)
    if before.phase.is_terminal:
        return follow_up(observed, before, now)
    try:
        spec = accepted(observed, settings)
    except SpecProblem as problem:
        return _stalled(observed, problem.reason, problem.message, now)
    context = _context(observed, spec, now, settings)
    decision = decide(context)
    after = next_status(context, decision)
    told = (*_spec_change(context), *decision.events, *events_between(before, after, spec))
    return Plan(
        status=after,
        actions=decision.actions + _fix_spec(context, decision),
        after_status=decision.after_status,
        events=_once(told, decision.reason),
        requeue_after=_requeue(context, decision, after),
        told_later=decision.told_later,
    )


def decide(context: PolicyContext) -> Decision:
    """The first policy that has something to say."""
    return next(decision for policy in POLICIES if (decision := policy(context)) is not None)


def stalled(observed: Observed, obstacle: Obstacle, now: datetime) -> Plan:
    """What to show when a plan could not be carried out: no actions, tried again after a while.

    The status is the one from before the plan (with what pods have left behind); what was done of it before the
    obstacle is done again, which changes nothing.
    """
    before = observed.job.status
    if before is not None and before.phase.is_terminal:
        return Plan(before, requeue_after=RECHECK_SECONDS)  # how it ended says whether and how it can be reopened
    match obstacle:
        case Refusal():
            reason, message = _refused(observed, obstacle)
        case NameTaken(is_going=True):
            reason = Reason.PREDECESSOR
            message = f"the {obstacle.kind} {obstacle.name} ({obstacle.owner}) has to go first; it is being deleted"
        case NameTaken():
            reason = Reason.NAME_TAKEN
            message = (
                f"the job needs the name of the {obstacle.kind} {obstacle.name}, which belongs to {obstacle.owner}. "
                "Delete or rename that object, or apply the job under another name; nothing is taken over"
            )
        case Fault():
            reason = Reason.FAULT
            message = sentence(
                f"failed {obstacle.tries} times in a row: {obstacle.message}",
                "It is tried again by itself; the operator's log has the whole story",
            )
    return _stalled(observed, reason, message, now)


def _refused(observed: Observed, refusal: Refusal) -> tuple[Reason, str]:
    invalid = refusal.status in _INVALID
    from_pods = invalid and any(sign in refusal.message for sign in _OF_THE_PODS)
    advice = (
        "Correct podTemplate, in the job or in its template"
        if from_pods
        else "Correct the field that it names"
        if invalid
        else "Free some quota, or ask whoever sets the policy; it is tried again by itself"
    )
    stage = observed.job.status.stage if observed.job.status else None
    what = f" in stage {stage}" if stage else ""
    message = sentence(f"the API server refused what the job needs{what}: {refusal.message}", advice)
    return Reason.INVALID_SPEC if from_pods else Reason.REJECTED, message


def _context(observed: Observed, spec: ResolvedSpec, now: datetime, settings: PlanSettings) -> PolicyContext:
    status = with_results(observed, now)
    context = PolicyContext(observed, now, settings, spec, status, current_stage(status))
    if context.stage is Stage.TRAIN:
        context = context.with_attempt(_attempt(context))
    return context.with_status(with_progress(context))


def _attempt(context: PolicyContext) -> Attempt | None:
    """The current attempt, with the moment at which all of its pods ran."""
    job = context.stage_job
    attempt = attempts.current(context.status, job, context.spec.topology)
    if attempt is None or job is None:
        return attempt
    nodes = (attempt.topology or context.spec.topology).nodes
    members = attempts.pods_of(job, attempt, context.status.attempts)
    return attempts.seen_running(attempt, members, nodes, context.now)


def _stalled(observed: Observed, reason: Reason, message: str, now: datetime) -> Plan:
    """Nothing is done until somebody acts (or, for a predecessor, until it is gone); looked at again after a while."""
    going = reason is Reason.PREDECESSOR
    before = observed.job.status or JobStatus()
    health, recheck = (Health.CHANGING, _GOING_SECONDS) if going else (Health.STUCK, _recheck(before, now))
    changes: dict[str, Any] = {
        "phase": Phase.PENDING if before.start_time is None else before.phase,
        "reason": reason.value,
        "message": cut(message, MAX_MESSAGE),
        "observed_generation": observed.job.metadata.generation,
    }
    after = with_results(observed, now).model_copy(update=changes)
    shown = conditions(before.conditions, after, reason, health, now)
    after = after.model_copy(update={"conditions": shown})
    told = (*milestones(before, after), *refusal(before, after, reason))
    return Plan(after, events=told, requeue_after=recheck)


def _recheck(before: JobStatus, now: datetime) -> float:
    """Seconds until what is missing is looked for again: less often the longer it has been missing."""
    stalled_before = before.condition(ConditionType.STALLED)
    if stalled_before is None or stalled_before.status is not ConditionStatus.TRUE:
        return RECHECK_SECONDS
    waited = (now - stalled_before.last_transition_time).total_seconds()
    return min(_LONGEST_RECHECK, max(RECHECK_SECONDS, waited / 10))


def _fix_spec(context: PolicyContext, decision: Decision) -> tuple[Create, ...]:
    """The resolved spec is fixed last of all that a start does: where it is, the job has started.

    Were it first and the Job refused, a spec that is corrected then would meet one that cannot change.
    """
    if context.observed.resolved is not None or not begins(context, decision):
        return ()
    return (Create(resolved_config_map(context.job, context.spec)),)


def _spec_change(context: PolicyContext) -> tuple[JobEvent, ...]:
    """Told once for each generation of the spec that resolves to something else than what runs."""
    observed, status = context.observed, context.status
    if observed.resolved is None or observed.template is None:
        return ()
    unseen = status.start_time is None  # it was started a moment ago, and the status has not been written yet
    if not unseen and status.observed_generation in (None, observed.job.metadata.generation):
        return ()
    try:
        fresh = resolve(observed.job, observed.template, context.settings, observed.resume_from)
        unchanged = fresh.config_hash == context.spec.config_hash
    except SpecProblem:
        unchanged = False
    message = (
        "the spec or its template has changed since the job started; it goes on with what it started with. Apply "
        "the change as a new FineTuneJob"
    )
    return () if unchanged else (JobEvent(EventType.WARNING, Reason.SPEC_CHANGED, message),)


def _once(told: tuple[JobEvent, ...], reason: Reason) -> tuple[JobEvent, ...]:
    """Where two events have the same text, the one with the decision's own reason: a preempted gang is Held, which
    says more than that it is Queued.
    """
    exact = {event.message for event in told if event.reason is reason}
    return tuple(event for event in told if event.reason is reason or event.message not in exact)


def _requeue(context: PolicyContext, decision: Decision, after: JobStatus) -> float | None:
    """When the decision wants it, or when the deadline comes, whichever is sooner."""
    ends = termination.deadline_of(context.job, after)
    if ends is None or decision.phase.is_terminal:
        return decision.requeue_after
    return soonest(decision.requeue_after, max(0.0, (ends - context.now).total_seconds()))
