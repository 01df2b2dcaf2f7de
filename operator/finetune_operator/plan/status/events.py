"""Events: what changed from the status before to the status after, told so that the events alone are the story."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from finetune_operator.api.status import JobStatus, Phase, Reason
from finetune_operator.plan.model.plan import EventType, JobEvent
from finetune_operator.plan.model.resolved import ResolvedSpec
from finetune_operator.plan.model.text import count, layout, number
from finetune_trainer.contract import PreparedData, TrainedModel

CANNOT_RESUME = (
    "without a persistent workspace training starts over after losing its pods: set spec.workspace.size, "
    "spec.workspace.claim or spec.checkpoints.uri in a new FineTuneJob"
)


def can_resume(spec: ResolvedSpec) -> bool:
    """Whether checkpoints outlive the pods."""
    return spec.workspace.persistent or spec.checkpoints.uri is not None


def events_between(before: JobStatus, after: JobStatus, spec: ResolvedSpec) -> Iterator[JobEvent]:
    """The events of an accepted job's step from `before` to `after`, in the order in which it happened."""
    if before.start_time is None and after.start_time is not None:
        yield from _accepted(spec)
    if before.phase is Phase.SUSPENDED and after.phase not in (Phase.SUSPENDED, Phase.FAILED):
        yield _normal(Reason.RESUMED, "resumed")
    yield from milestones(before, after)
    if after.phase is not before.phase or after.attempt != before.attempt:
        yield from _entered(after)
    if after.reason in _WARNED and (before.reason, _words(before)) != (after.reason, _words(after)):
        yield JobEvent(EventType.WARNING, Reason(after.reason), after.message)


_WARNED: Final = frozenset({Reason.POD_PROBLEM, Reason.POD_STUCK})


_UNSCHEDULABLE: Final = "Unschedulable: "
_CHANGES: Final = re.compile(r"-[bcdfghjklmnpqrstvwxz2456789]{5}(?![\w-])|\d|\(combined from similar events\): ")
"""The end of a name that Kubernetes has made up (a pod's that a quota refuses is another at each try), numbers, and
what is put before an event that came again too often."""


def _words(status: JobStatus) -> str:
    """The message without what changes all the time, and without for which reasons the nodes there are do not do."""
    before, unschedulable, _ = status.message.partition(_UNSCHEDULABLE)
    return _CHANGES.sub("", before + unschedulable)


def milestones(before: JobStatus, after: JobStatus) -> Iterator[JobEvent]:
    """The results that came in."""
    if before.dataset is None and after.dataset is not None:
        yield _prepared(after.dataset)
    if before.trained is None and after.trained is not None:
        yield _trained(after.trained)


def refusal(before: JobStatus, after: JobStatus, reason: Reason) -> tuple[JobEvent, ...]:
    """Told once, not at every try."""
    if (before.reason, _words(before)) == (after.reason, _words(after)):
        return ()
    return (JobEvent(EventType.WARNING, reason, after.message),)


def _accepted(spec: ResolvedSpec) -> Iterator[JobEvent]:
    method = spec.training.method
    yield _normal(Reason.ACCEPTED, f"{method} of {spec.model.uri} on {layout(spec.topology)}, template {spec.template}")
    if not can_resume(spec):
        yield JobEvent(EventType.WARNING, Reason.CANNOT_RESUME, CANNOT_RESUME)


def _prepared(data: PreparedData) -> JobEvent:
    held_out = f", {data.eval_rows} of them held out" if data.eval_rows else ""
    left_out = "".join(f"; {part}" for part in _left_out(data))
    return _normal(Reason.PREPARED, f"{count(data.rows, 'row')}{held_out}, {count(data.tokens, 'token')}{left_out}")


_NOTABLE: Final = 0.01
"""Share of the rows, or of the tokens, from which on it is told that they were cut."""


def _left_out(data: PreparedData) -> Iterator[str]:
    if data.invalid_rows:
        yield f"{count(data.invalid_rows, 'row')} unusable"
    if data.truncated_rows > _NOTABLE * data.rows or data.cut_tokens > _NOTABLE * data.tokens:
        yield f"{count(data.truncated_rows, 'row')} cut at maxSequenceLength ({count(data.cut_tokens, 'token')})"
    if data.unlearned_answers:
        yield f"{count(data.unlearned_answers, 'answer')} not learned, or without their reasoning"


def _trained(trained: TrainedModel) -> JobEvent:
    losses = {"loss": trained.loss, "eval loss": trained.eval_loss, "base model's eval loss": trained.base_eval_loss}
    told = "".join(f", {name} {number(value)}" for name, value in losses.items() if value is not None)
    return _normal(Reason.TRAINED, f"{count(trained.step, 'step')}{told}")


def _entered(after: JobStatus) -> Iterator[JobEvent]:
    """The phase that begins. Restarts and acceptance have events of their own."""
    match after.phase:
        case Phase.QUEUED if after.reason != Reason.RESTARTING:
            yield _normal(Reason.QUEUED, after.message)
        case Phase.TRAINING:
            yield _normal(Reason.TRAINING, after.message)
        case Phase.SUSPENDED:
            yield _normal(Reason.SUSPENDED, after.message)
        case Phase.PUBLISHING:
            yield _normal(Reason.PUBLISHING, after.message)
        case Phase.SUCCEEDED:
            yield from (_normal(Reason.PUBLISHED, f"{artifact.kind}: {artifact.uri}") for artifact in after.artifacts)
            yield _normal(Reason.SUCCEEDED, after.message)
        case Phase.FAILED:
            yield JobEvent(EventType.WARNING, Reason(after.reason or Reason.INTERNAL), after.message)
        case _:
            return


def _normal(reason: Reason, message: str) -> JobEvent:
    return JobEvent(EventType.NORMAL, reason, message)
