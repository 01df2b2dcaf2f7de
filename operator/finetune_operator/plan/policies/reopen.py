"""Ended jobs: status follows an edit, raising what they ran out of reopens them, and no pod outlives them."""

from __future__ import annotations

from datetime import datetime

from finetune_operator.api.status import Condition, JobStatus, Phase, Reason
from finetune_operator.plan.model.context import Health
from finetune_operator.plan.model.observed import Observed
from finetune_operator.plan.model.plan import EventType, JobEvent, Plan, Removal
from finetune_operator.plan.policies import gang
from finetune_operator.plan.policies.phases import PHASES
from finetune_operator.plan.policies.termination import deadline_of
from finetune_operator.plan.status.conditions import conditions
from finetune_operator.plan.status.results import current_stage

_AGAIN_SOON = 1.0


def follow_up(observed: Observed, before: JobStatus, now: datetime) -> Plan:
    """What an ended job still needs: usually nothing, and then this is the status as it is."""
    if before.phase is Phase.FAILED and observed.resolved is not None:
        message = _goes_on(observed, before, now)
        if message is not None:
            return _reopened(observed, before, message, now)
    after = before
    generation = observed.job.metadata.generation
    if before.observed_generation != generation:
        after = before.model_copy(
            update={"observed_generation": generation, "conditions": _seen(before.conditions, generation)}
        )
    return Plan(after, after_status=_end_pods(observed, before), events=_raised_too_little(observed, before, now))


def _raised_too_little(observed: Observed, before: JobStatus, now: datetime) -> tuple[JobEvent, ...]:
    """Told once for each edit after which the deadline is over still."""
    edited = before.observed_generation != observed.job.metadata.generation
    if not edited or before.reason != Reason.DEADLINE_EXCEEDED or before.start_time is None:
        return ()
    passed = int((now - before.start_time).total_seconds())
    message = f"spec.runPolicy.activeDeadlineSeconds is over still: it has to be more than {passed} to go on"
    return (JobEvent(EventType.WARNING, Reason.DEADLINE_EXCEEDED, message),)


def _goes_on(observed: Observed, before: JobStatus, now: datetime) -> str | None:
    """Why a failed job can go on: what it ran out of was raised."""
    policy = observed.job.spec.run_policy
    if before.reason == Reason.RESTARTS_EXHAUSTED and policy.max_restarts > before.restarts:
        return f"reopened: spec.runPolicy.maxRestarts is {policy.max_restarts} now, {before.restarts} are used"
    if before.reason == Reason.DEADLINE_EXCEEDED:
        due = deadline_of(observed.job, before)
        if due is None or now < due:
            until = "without a deadline" if due is None else f"until {due:%Y-%m-%d %H:%M:%S} UTC"
            return f"reopened: it may run {until} (spec.runPolicy.activeDeadlineSeconds)"
    return None


def _reopened(observed: Observed, before: JobStatus, message: str, now: datetime) -> Plan:
    stage = current_stage(before)
    after = before.model_copy(
        update={
            "phase": PHASES[stage][0],
            "reason": Reason.REOPENED.value,
            "message": message,
            "completion_time": None,
            "observed_generation": observed.job.metadata.generation,
        }
    )
    shown = conditions(before.conditions, after, Reason.REOPENED, Health.CHANGING, now)
    job = observed.stages.get(stage)
    removals = () if job is None else gang.take_away(job)
    told = JobEvent(EventType.NORMAL, Reason.REOPENED, message)
    return Plan(
        after.model_copy(update={"conditions": shown}), after_status=removals, events=(told,), requeue_after=1.0
    )


def _end_pods(observed: Observed, before: JobStatus) -> tuple[Removal, ...]:
    """A failed job's pods, should they have outlived the decision to end them. A success leaves none."""
    if before.phase is not Phase.FAILED:
        return ()
    return tuple(removal for job in observed.stages.values() for removal in gang.end(job))


def _seen(shown: tuple[Condition, ...], generation: int) -> tuple[Condition, ...]:
    return tuple(condition.model_copy(update={"observed_generation": generation}) for condition in shown)
