"""Folds the trainer's newest report into the status."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from finetune_operator.api.status import JobStatus, Metrics, ProgressStatus
from finetune_operator.plan.model import attempts
from finetune_operator.plan.model.context import PolicyContext
from finetune_operator.plan.model.observed import Observed, PodPhase
from finetune_operator.plan.model.settings import PlanSettings
from finetune_operator.plan.model.text import cut, duration, number, percent
from finetune_operator.plan.status.results import checkpoints_shown
from finetune_trainer.contract import Progress, Stage

_MAX_MESSAGE = 256


def with_progress(context: PolicyContext) -> JobStatus:
    """The status with what the running stage reports. What is shown belongs to a stage and an attempt: of another
    one's report only the measurements and checkpoints are kept.
    """
    status, report = _of_this_launch(context), context.observed.progress
    if report is not None and report.stage is context.stage:
        status = _reported(status, report, context)
    shown = status.progress
    heard = shown.updated_at if shown and shown.updated_at else context.now
    job = context.stage_job
    runs = job is not None and any(pod.phase is PodPhase.RUNNING for pod in job.pods)
    return _with_age(status, heard if runs else context.now, context.now, context.settings)


def begun_anew(shown: ProgressStatus) -> ProgressStatus:
    """Of a stage or an attempt that has not reported yet: how far the training had got, and nothing that ages."""
    return at_rest(shown).model_copy(update={"updated_at": None})


def at_rest(shown: ProgressStatus) -> ProgressStatus:
    """What nobody is at has no time left, and does not grow stale."""
    return shown.model_copy(update={"message": "", "eta": None, "stale": False})


def stale_after(status: JobStatus, now: datetime, settings: PlanSettings) -> float | None:
    """Seconds until the progress shown is stale unless the trainer is heard of."""
    shown = status.progress
    if shown is None or shown.updated_at is None or shown.stale:
        return None
    return max(1.0, settings.progress_stale_seconds + 1 - (now - shown.updated_at).total_seconds())


def _of_this_launch(context: PolicyContext) -> JobStatus:
    """The status without what another stage, or the attempt before, was doing."""
    status, attempt = context.status, context.attempt
    same = status.stage is context.stage and (attempt is None or attempt.number == status.attempt)
    if status.progress is None or same:
        return status
    return status.model_copy(update={"progress": begun_anew(status.progress)})


def _reported(status: JobStatus, report: Progress, context: PolicyContext) -> JobStatus:
    told: dict[str, Any] = {}
    if any(pod.index == 0 and not pod.ended for pod in context.members):
        told["progress"] = _shown(status.progress or ProgressStatus(), report, context.settings)
    if report.stage is Stage.TRAIN:
        told |= _training(status, report, context.observed)
    return status.model_copy(update=told)


def _shown(before: ProgressStatus, report: Progress, settings: PlanSettings) -> ProgressStatus:
    changes: dict[str, Any] = {"message": cut(report.message, _MAX_MESSAGE)}
    if report.stage is Stage.TRAIN:
        changes |= _position(report)
    after = before.model_copy(update={name: value for name, value in changes.items() if value is not None})
    return _with_time(before, after, report.updated_at, settings)


def _with_time(
    before: ProgressStatus, after: ProgressStatus, moment: datetime, settings: PlanSettings
) -> ProgressStatus:
    """A sign of life alone is no news: it is shown only when the last one would soon be stale."""
    shown = before.updated_at
    if shown is not None and (
        shown >= moment or (after == before and (moment - shown).total_seconds() < settings.progress_stale_seconds / 2)
    ):
        return after
    return after.model_copy(update={"updated_at": attempts.whole_seconds(moment)})


def _position(report: Progress) -> dict[str, Any]:
    position: dict[str, Any] = {"step": report.step, "total_steps": report.total_steps, "epoch": report.epoch}
    if report.step is not None and report.total_steps is not None:
        position["percent"] = percent(report.step, report.total_steps)
    if report.eta_seconds is not None:
        position["eta"] = duration(report.eta_seconds)
    return position


def _training(status: JobStatus, report: Progress, observed: Observed) -> dict[str, Any]:
    measured = {
        "loss": number(report.loss),
        "eval_loss": number(report.eval_loss),
        "base_eval_loss": number(report.base_eval_loss),
        "learning_rate": number(report.learning_rate),
        "grad_norm": number(report.grad_norm),
        "tokens_per_second": number(report.tokens_per_second),
        "peak_memory_bytes": report.peak_memory_bytes,
    }
    known = {name: value for name, value in measured.items() if value is not None}
    changes: dict[str, Any] = {
        "trainable_parameters": report.trainable_parameters or status.trainable_parameters,
        "total_parameters": report.total_parameters or status.total_parameters,
        "checkpoints": checkpoints_shown(report.checkpoints, observed) or status.checkpoints,
    }
    if known:
        changes["metrics"] = (status.metrics or Metrics()).model_copy(update=known)
    return changes


def _with_age(status: JobStatus, heard: datetime, now: datetime, settings: PlanSettings) -> JobStatus:
    shown = status.progress
    stale = (now - heard).total_seconds() > settings.progress_stale_seconds
    if shown is None or shown.stale == stale:
        return status
    return status.model_copy(update={"progress": shown.model_copy(update={"stale": stale})})
