"""From a decision to the status that shows it."""

from __future__ import annotations

from typing import Any

from finetune_operator.api.status import MAX_MESSAGE, JobStatus, Phase, ProgressStatus, Provenance
from finetune_operator.plan.manifests.pods import trainer_image
from finetune_operator.plan.model import attempts
from finetune_operator.plan.model.context import Decision, PolicyContext
from finetune_operator.plan.model.text import cut
from finetune_operator.plan.status.conditions import conditions
from finetune_operator.plan.status.progress import at_rest, begun_anew


def next_status(context: PolicyContext, decision: Decision) -> JobStatus:
    """The status after `decision`."""
    before = context.status
    changes: dict[str, Any] = {
        "phase": decision.phase,
        "reason": decision.reason.value,
        "message": cut(decision.message, MAX_MESSAGE),
        "observed_generation": context.job.metadata.generation,
        "progress": _progress(context, decision),
        **_history(context, decision),
    }
    if begins(context, decision):
        changes["start_time"] = before.start_time or attempts.whole_seconds(context.now)
        changes["stage"] = context.stage
        changes["provenance"] = _provenance(context)
    if decision.phase.is_terminal:
        changes["completion_time"] = attempts.whole_seconds(context.now)
    if decision.published is not None:
        changes["artifacts"] = decision.published.artifacts
        changes["samples"] = decision.published.samples
    status = before.model_copy(update=changes)
    told = conditions(before.conditions, status, decision.reason, decision.health, context.now)
    return status.model_copy(update={"conditions": told})


def begins(context: PolicyContext, decision: Decision) -> bool:
    """Whether the job has started by now: one that is suspended from the outset has not."""
    started = context.status.start_time is not None or context.observed.resolved is not None
    return started or decision.phase is not Phase.SUSPENDED


def _progress(context: PolicyContext, decision: Decision) -> ProgressStatus | None:
    """What an attempt or a stage was doing, and how long it would take, are told only while it is at it."""
    shown, known = context.status.progress, context.attempt
    if shown is None:
        return None
    newest = decision.attempts[-1] if decision.attempts else known
    if newest is not None and (known is None or newest.number > known.number):
        return begun_anew(shown)
    at_it = not decision.phase.is_terminal and decision.phase is not Phase.SUSPENDED
    return shown if at_it and not (newest and newest.is_over) else at_rest(shown)


def _history(context: PolicyContext, decision: Decision) -> dict[str, Any]:
    known = () if context.attempt is None else (context.attempt,)
    history = attempts.record(context.status.attempts, *known, *decision.attempts)
    changes: dict[str, Any] = {"attempts": history, "attempt": history[-1].number if history else None}
    if decision.restarts is not None:
        changes["restarts"] = decision.restarts
    before = {attempt.number for attempt in context.status.attempts if attempt.is_over}
    spent = [a.gpu_seconds for a in history if a.is_over and a.number not in before and a.gpu_seconds is not None]
    if spent:
        changes["gpu_seconds"] = (context.status.gpu_seconds or 0) + sum(spent)
    return changes


def _provenance(context: PolicyContext) -> Provenance:
    """As it was at the start: an operator that is updated later planned nothing of it."""
    return context.status.provenance or Provenance(
        config_hash=context.spec.config_hash,
        template=context.spec.template,
        image=trainer_image(context.spec),
        operator_version=context.settings.operator_version,
    )
