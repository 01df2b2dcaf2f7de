"""The planner: a chain of policies, the first of which that has something to say decides."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from finetune_operator.api.status import MAX_MESSAGE, JobStatus, Phase, Reason
from finetune_operator.plan.manifests.stages import resolved_config_map
from finetune_operator.plan.model import attempts
from finetune_operator.plan.model.context import Decision, Health, Policy, PolicyContext
from finetune_operator.plan.model.observed import Observed
from finetune_operator.plan.model.plan import Action, Apply, EventType, JobEvent, Plan
from finetune_operator.plan.model.problems import SpecProblem
from finetune_operator.plan.model.resolved import ResolvedSpec
from finetune_operator.plan.model.settings import PlanSettings
from finetune_operator.plan.model.text import cut, sentence
from finetune_operator.plan.policies import launch, restart, suspend, termination
from finetune_operator.plan.policies.running import watch
from finetune_operator.plan.resolve.acceptance import RECHECK_SECONDS, accepted
from finetune_operator.plan.resolve.resolver import resolve
from finetune_operator.plan.status.conditions import conditions
from finetune_operator.plan.status.events import milestones, refusal, story
from finetune_operator.plan.status.next_status import begins, conclude
from finetune_operator.plan.status.progress import with_progress
from finetune_operator.plan.status.results import current_stage, with_results
from finetune_trainer.contract import Stage

POLICIES: Final[tuple[Policy, ...]] = (
    termination.succeed,
    termination.deadline,
    launch.await_deletion,
    termination.fail,
    suspend.suspend,
    launch.recover_result,
    restart.restart,
    suspend.resume,
    launch.launch,
    watch,
)
"""In the order in which they are asked; `watch` always answers."""

_UNPROCESSABLE: Final = 422
_OF_THE_PODS: Final = ("spec.template", "Kind=Job")
"""How a refusal names the part of a Job that podTemplate shapes: by field, or by the kind as a whole."""


@dataclass(frozen=True)
class Rejection:
    """What the API server answered to an action."""

    status: int
    """HTTP status: 422 invalid, 403 forbidden (quota, admission, RBAC)."""
    reason: str
    """The reason of its Status object: Invalid, Forbidden, ..."""
    message: str


def plan(observed: Observed, now: datetime, settings: PlanSettings) -> Plan:
    """What the job needs next: things to do, the status to show, the events to send."""
    before = observed.job.status or JobStatus()
    if observed.job.metadata.deletion_timestamp or before.phase.is_terminal:
        return Plan(before)
    try:
        spec = accepted(observed, settings)
    except SpecProblem as problem:
        return _stalled(observed, problem.reason, problem.message, now)
    context = _context(observed, spec, now, settings)
    decision = decide(context)
    after = conclude(context, decision)
    return Plan(
        status=after,
        actions=decision.actions + _fix_spec(context, decision),
        events=(*_spec_change(context), *decision.events, *story(before, after, spec)),
        requeue_after=_requeue(context, decision),
    )


def decide(context: PolicyContext) -> Decision:
    """The first policy that has something to say."""
    return next(decision for policy in POLICIES if (decision := policy(context)) is not None)


def rejected(observed: Observed, plan: Plan, rejection: Rejection, now: datetime) -> Plan:
    """What to show when the API server refused one of `plan`'s actions: no actions, tried again after a while.

    The status is the one from before the plan (with what pods have left behind), since the plan was not
    carried out; the actions that were done before the refusal are done again, which changes nothing.
    """
    invalid = rejection.status == _UNPROCESSABLE
    from_pods = invalid and any(sign in rejection.message for sign in _OF_THE_PODS)
    advice = (
        "Correct podTemplate, in the job or in its template"
        if from_pods
        else "Correct the field that it names"
        if invalid
        else "Free some quota, or ask whoever sets the policy; it is tried again by itself"
    )
    what = f" in stage {plan.status.stage}" if plan.status.stage else ""
    message = sentence(f"the API server refused what the job needs{what}: {rejection.message}", advice)
    return _stalled(observed, Reason.INVALID_SPEC if from_pods else Reason.REJECTED, message, now)


def _context(observed: Observed, spec: ResolvedSpec, now: datetime, settings: PlanSettings) -> PolicyContext:
    status = with_results(observed, now)
    stage = current_stage(status)
    status = with_progress(status, observed, stage, now, settings)
    attempt = attempts.current(status, observed.stages.get(stage), now) if stage is Stage.TRAIN else None
    return PolicyContext(observed, now, settings, spec, status, stage, attempt)


def _stalled(observed: Observed, reason: Reason, message: str, now: datetime) -> Plan:
    """Nothing is done until somebody mends it; looked at again after a while."""
    before = observed.job.status or JobStatus()
    changes: dict[str, Any] = {
        "phase": Phase.PENDING if before.start_time is None else before.phase,
        "reason": reason.value,
        "message": cut(message, MAX_MESSAGE),
        "observed_generation": observed.job.metadata.generation,
    }
    after = with_results(observed, now).model_copy(update=changes)
    shown = conditions(before.conditions, after, reason, Health.STUCK, now)
    after = after.model_copy(update={"conditions": shown})
    told = (*milestones(before, after), *refusal(before, after, reason))
    return Plan(after, events=told, requeue_after=RECHECK_SECONDS)


def _fix_spec(context: PolicyContext, decision: Decision) -> tuple[Action, ...]:
    """The resolved spec is fixed last of all that a start does: where it stands, the job has started.

    Were it first and the Job refused, a spec that is corrected then would meet one that cannot change.
    """
    if context.observed.resolved is not None or not begins(context, decision):
        return ()
    return (Apply(resolved_config_map(context.job, context.spec)),)


def _spec_change(context: PolicyContext) -> tuple[JobEvent, ...]:
    """Told once for each generation of the spec that resolves to something else than what runs."""
    observed, status = context.observed, context.status
    seen = status.observed_generation in (None, observed.job.metadata.generation)
    if status.start_time is None or observed.template is None or seen:
        return ()
    try:
        fresh = resolve(observed.job, observed.template, context.settings)
        unchanged = fresh.config_hash == context.spec.config_hash
    except SpecProblem:
        unchanged = False
    message = (
        "the spec or its template has changed since the job started; it goes on with what it started with. Apply "
        "the change as a new FineTuneJob"
    )
    return () if unchanged else (JobEvent(EventType.WARNING, Reason.SPEC_CHANGED, message),)


def _requeue(context: PolicyContext, decision: Decision) -> float | None:
    """When the decision wants it, or when the deadline comes, whichever is sooner."""
    due = [] if decision.requeue_after is None else [decision.requeue_after]
    limit, started = context.job.spec.run_policy.active_deadline_seconds, context.status.start_time
    if limit is not None and not decision.phase.is_terminal and begins(context, decision):
        left = (started or context.now) + timedelta(seconds=limit) - context.now
        due.append(max(0.0, left.total_seconds()))
    return min(due, default=None)
