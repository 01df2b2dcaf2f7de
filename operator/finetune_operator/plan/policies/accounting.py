"""What the end of an attempt costs: to the restart budget, and in waiting time."""

from __future__ import annotations

from dataclasses import dataclass

from finetune_operator.api.status import Attempt
from finetune_operator.plan.model import attempts
from finetune_operator.plan.model.context import PolicyContext
from finetune_operator.plan.policies.backoff import has_progressed, newest_checkpoint


@dataclass(frozen=True)
class Ended:
    """An attempt with its end, and what has been charged since the last progress without it."""

    attempt: Attempt
    used: int
    """Restarts charged since the last new verified checkpoint."""


def end_attempt(
    context: PolicyContext, attempt: Attempt, reason: str, *, exit_code: int | None = None, message: str | None = None
) -> Ended:
    """Ends the current attempt after a fault or an interruption."""
    attempt = _resumed(context, attempt)
    newest = newest_checkpoint(context.status, attempt)
    previous = next((a for a in reversed(context.status.attempts) if a.number < attempt.number), None)
    progressed = has_progressed(newest, previous)
    tries = 1 if progressed or previous is None else previous.tries + 1
    closed = attempts.end(attempt, context.now, reason, exit_code=exit_code, message=message)
    kept = {"tries": tries, "checkpoint_step": newest, "last_pod_created": last_pod_created(context, attempt)}
    return Ended(closed.model_copy(update=kept), 0 if progressed else context.status.restarts)


def suspend_attempt(context: PolicyContext, attempt: Attempt) -> Attempt:
    """Ends the current attempt by the user's wish, which costs nothing."""
    closed = attempts.end(_resumed(context, attempt), context.now, attempts.SUSPENDED)
    kept = {
        "checkpoint_step": newest_checkpoint(context.status, closed),
        "last_pod_created": last_pod_created(context, attempt),
    }
    return closed.model_copy(update=kept)


def last_pod_created(context: PolicyContext, attempt: Attempt) -> object:
    """Creation time of the attempt's newest pod, those that are gone included."""
    known = [moment for moment in (attempts.newest_pod(context.members), attempt.last_pod_created) if moment]
    return max(known, default=None)


def _resumed(context: PolicyContext, attempt: Attempt) -> Attempt:
    """The attempt with the checkpoint that its pods say they began with."""
    told = [pod.result.resumed_from_step for pod in context.members if pod.result]
    steps = [step for step in (attempt.resumed_from_step, *told) if step is not None]
    return attempt.model_copy(update={"resumed_from_step": max(steps, default=None)})
