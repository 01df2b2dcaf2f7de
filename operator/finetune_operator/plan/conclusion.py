"""From a decision to the status that shows it."""

from __future__ import annotations

from typing import Any

from finetune_operator.api.status import MAX_MESSAGE, JobStatus, Phase, ProgressStatus, Provenance
from finetune_operator.plan import attempts
from finetune_operator.plan.conditions import conditions
from finetune_operator.plan.pods import trainer_image
from finetune_operator.plan.situation import Decision, Situation
from finetune_operator.plan.text import cut


def conclude(situation: Situation, decision: Decision) -> JobStatus:
    """The status after `decision`."""
    before = situation.status
    changes: dict[str, Any] = {
        "phase": decision.phase,
        "reason": decision.reason.value,
        "message": cut(decision.message, MAX_MESSAGE),
        "observed_generation": situation.job.metadata.generation,
        "progress": _progress(situation, decision),
        **_history(situation, decision),
    }
    if begins(situation, decision):
        changes["start_time"] = before.start_time or attempts.whole_seconds(situation.now)
        changes["stage"] = situation.stage
        changes["provenance"] = _provenance(situation)
    if decision.phase.is_terminal:
        changes["completion_time"] = attempts.whole_seconds(situation.now)
    if decision.published is not None:
        changes["artifacts"] = decision.published.artifacts
        changes["samples"] = decision.published.samples
    status = before.model_copy(update=changes)
    told = conditions(before.conditions, status, decision.reason, decision.standing, situation.now)
    return status.model_copy(update={"conditions": told})


def begins(situation: Situation, decision: Decision) -> bool:
    """Whether the job has started by now: one that is suspended from the outset has not."""
    started = situation.status.start_time is not None or situation.observed.resolved is not None
    return started or decision.phase is not Phase.SUSPENDED


def _progress(situation: Situation, decision: Decision) -> ProgressStatus | None:
    """What a stage was doing, and how long it would take, are told only while it is at it."""
    before = situation.status
    at_it = not decision.phase.is_terminal and decision.phase is not Phase.SUSPENDED
    if before.progress is None or (at_it and before.stage == situation.stage):
        return before.progress
    return before.progress.model_copy(update={"message": "", "eta": None})


def _history(situation: Situation, decision: Decision) -> dict[str, Any]:
    known = () if situation.attempt is None else (situation.attempt,)
    history = attempts.record(situation.status.attempts, *known, *decision.attempts)
    return {
        "attempts": history,
        "attempt": history[-1].number if history else None,
        "restarts": situation.status.restarts + decision.charged,
    }


def _provenance(situation: Situation) -> Provenance:
    """As it was at the start: an operator that is updated later planned nothing of it."""
    return situation.status.provenance or Provenance(
        config_hash=situation.spec.config_hash,
        template=situation.spec.template,
        image=trainer_image(situation.spec, situation.settings),
        operator_version=situation.settings.operator_version,
    )
