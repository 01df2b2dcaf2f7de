"""What the end of an attempt costs: to the restart budget, and in waiting time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from finetune_operator.api.status import Attempt, AttemptEnd
from finetune_operator.plan.model import attempts
from finetune_operator.plan.model.context import PolicyContext
from finetune_operator.plan.policies.backoff import has_progressed, newest_checkpoint, tries_until


@dataclass(frozen=True)
class Closed:
    """What a decision has to record of an attempt that ends with it: nothing where none is open."""

    attempts: tuple[Attempt, ...] = ()
    restarts: int | None = None


@dataclass(frozen=True)
class Ended:
    """An attempt with its end, and what has been charged since the last progress without it."""

    attempt: Attempt
    used: int
    """Restarts charged since the last new verified checkpoint."""


def end_attempt(
    context: PolicyContext,
    attempt: Attempt,
    reason: AttemptEnd,
    *,
    exit_code: int | None = None,
    message: str | None = None,
) -> Ended:
    """Ends the current attempt after a fault or an interruption."""
    attempt = _resumed(context, attempt)
    newest = newest_checkpoint(context.status, attempt)
    previous = next((a for a in reversed(context.status.attempts) if a.number < attempt.number), None)
    progressed = has_progressed(newest, previous)
    mark = newest if previous is None or progressed else previous.checkpoint_step
    closed = attempts.end(attempt, context.now, reason, pods=context.members, exit_code=exit_code, message=message)
    tries = tries_until(closed, previous, progressed=progressed)
    kept = {"tries": tries, "checkpoint_step": mark, "last_pod_created": last_pod_created(context, attempt)}
    return Ended(closed.model_copy(update=kept), 0 if progressed else context.status.restarts)


def close_attempt(
    context: PolicyContext, reason: AttemptEnd, *, exit_code: int | None = None, message: str | None = None
) -> Closed:
    """Ends the current attempt, if it is open, without charging it; progress that it made is credited all the same."""
    attempt = context.attempt
    if attempt is None or attempt.is_over:
        return Closed()
    ended = end_attempt(context, attempt, reason, exit_code=exit_code, message=message)
    tries = 0 if reason in attempts.NOT_TRIES else ended.attempt.tries
    return Closed((ended.attempt.model_copy(update={"tries": tries}),), ended.used)


def last_pod_created(context: PolicyContext, attempt: Attempt) -> datetime | None:
    """Creation time of the attempt's newest pod, those that are gone included."""
    known = [moment for moment in (attempts.newest_pod(context.members), attempt.last_pod_created) if moment]
    return max(known, default=None)


def _resumed(context: PolicyContext, attempt: Attempt) -> Attempt:
    """The attempt with the checkpoint that its pods say they began with."""
    told = [pod.result.resumed_from_step for pod in context.members if pod.result]
    steps = [step for step in (attempt.resumed_from_step, *told) if step is not None]
    return attempt.model_copy(update={"resumed_from_step": max(steps, default=None)})
