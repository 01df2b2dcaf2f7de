"""Conditions: Ready, Reconciling and Stalled as kstatus reads them, then one for each milestone.

kstatus takes an object for in progress while Reconciling is true or Ready is false, and for failed once
Stalled is true. So Ready turns true as soon as everything is launched or queued, and Reconciling is true
only while the operator puts pods up or takes them down: a training that runs for days must not let Flux
wait for days.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Final

from finetune_operator.api.status import (
    MAX_MESSAGE,
    Condition,
    ConditionStatus,
    ConditionType,
    JobStatus,
    Phase,
    Reason,
)
from finetune_operator.plan.model.context import Health
from finetune_operator.plan.model.text import count, cut, number
from finetune_trainer.contract import Stage

_ORDER: Final = {kind: place for place, kind in enumerate(ConditionType)}
_MILESTONES: Final[Mapping[Stage, ConditionType]] = {
    Stage.PREPARE: ConditionType.PREPARED,
    Stage.TRAIN: ConditionType.TRAINED,
    Stage.PUBLISH: ConditionType.PUBLISHED,
}
_State = tuple[ConditionType, bool, Reason, str]


def conditions(
    before: tuple[Condition, ...], status: JobStatus, reason: Reason, health: Health, now: datetime
) -> tuple[Condition, ...]:
    """The conditions that go with `status`; their time changes only when they do."""
    known = {condition.type: condition for condition in before}
    for kind, holds, why, message in _states(status, reason, health, frozenset(known)):
        known[kind] = _condition(known.get(kind), (kind, holds, why, message), status.observed_generation, now)
    return tuple(sorted(known.values(), key=lambda condition: _ORDER[condition.type]))


def _states(status: JobStatus, reason: Reason, health: Health, known: frozenset[ConditionType]) -> Iterator[_State]:
    stuck = health is Health.STUCK or status.phase is Phase.FAILED
    yield ConditionType.READY, not stuck, reason, status.message
    yield ConditionType.RECONCILING, health is Health.CHANGING, reason, ""
    yield ConditionType.STALLED, stuck, reason, status.message if stuck else ""
    if status.start_time is not None:
        yield from _milestones(status, reason)
    if status.phase is Phase.SUSPENDED:
        yield ConditionType.SUSPENDED, True, Reason.SUSPENDED, status.message
    elif ConditionType.SUSPENDED in known:
        yield ConditionType.SUSPENDED, False, Reason.RESUMED, ""
    if status.phase is Phase.SUCCEEDED:
        yield ConditionType.COMPLETE, True, reason, status.message
    if status.phase is Phase.FAILED:
        yield ConditionType.FAILED, True, reason, status.message
    elif ConditionType.FAILED in known:
        yield ConditionType.FAILED, False, reason, ""


def _milestones(status: JobStatus, reason: Reason) -> Iterator[_State]:
    """Those that are passed, and the one that is next."""
    passed = {
        Stage.PREPARE: _prepared(status),
        Stage.TRAIN: _trained(status),
        Stage.PUBLISH: _published(status),
    }
    reasons = {Stage.PREPARE: Reason.PREPARED, Stage.TRAIN: Reason.TRAINED, Stage.PUBLISH: Reason.PUBLISHED}
    for stage, message in passed.items():
        if message is None:
            yield _MILESTONES[stage], False, reason, ""
            return
        yield _MILESTONES[stage], True, reasons[stage], message


def _prepared(status: JobStatus) -> str | None:
    data = status.dataset
    if data is None:
        return None
    return f"{count(data.rows, 'row')} ({data.invalid_rows} unusable), {count(data.tokens, 'token')}"


def _trained(status: JobStatus) -> str | None:
    trained = status.trained
    if trained is None:
        return None
    return count(trained.step, "step") + (f", loss {number(trained.loss)}" if trained.loss is not None else "")


def _published(status: JobStatus) -> str | None:
    if status.phase is not Phase.SUCCEEDED:
        return None
    return f"{count(len(status.artifacts), 'artifact')} published"


def _condition(before: Condition | None, state: _State, generation: int | None, now: datetime) -> Condition:
    kind, holds, reason, message = state
    status = ConditionStatus.TRUE if holds else ConditionStatus.FALSE
    changed = before is None or before.status is not status
    return Condition(
        type=kind,
        status=status,
        reason=reason.value,
        message=cut(message, MAX_MESSAGE),
        last_transition_time=now if before is None or changed else before.last_transition_time,
        observed_generation=generation,
    )
