"""Folds what pods have left behind into the status, so that it outlives them."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from finetune_operator.api.status import MAX_CHECKPOINTS, AttemptEnd, JobStatus, Metrics, ProgressStatus
from finetune_operator.plan.manifests.pods import lasting_uri
from finetune_operator.plan.model import attempts
from finetune_operator.plan.model.observed import Observed, PodPhase, StageJob
from finetune_operator.plan.model.text import number, percent
from finetune_trainer.contract import CheckpointRef, Result, Stage, TrainedModel

MAX_INVALID_REASONS: Final = 5
MAX_REASON: Final = 256


def result_of(job: StageJob | None) -> Result | None:
    """The Result of a stage whose pods have all ended well: that of rank 0, unless only another pod is left.

    It counts as soon as it is there: the Job controller says Complete about a second later.
    """
    if job is None:
        return None
    succeeded = [pod for pod in job.pods if pod.phase is PodPhase.SUCCEEDED]
    if not job.complete and len({pod.index for pod in succeeded}) < job.completions:
        return None
    told = (pod.result for pod in sorted(succeeded, key=lambda pod: pod.index))
    return next((result for result in told if result is not None and _is_whole(result)), None)


def _is_whole(result: Result) -> bool:
    return (result.prepared or result.trained or result.published) is not None


def current_stage(status: JobStatus) -> Stage:
    """The first stage that has no result yet."""
    if status.dataset is None:
        return Stage.PREPARE
    return Stage.TRAIN if status.trained is None else Stage.PUBLISH


def with_results(observed: Observed, now: datetime) -> JobStatus:
    """The job's status with the results of the stages that are complete."""
    status = observed.job.status or JobStatus()
    status = _with_dataset(status, result_of(observed.stages.get(Stage.PREPARE)))
    return _with_training(_with_last_checkpoints(status, observed), observed, now)


def _with_last_checkpoints(status: JobStatus, observed: Observed) -> JobStatus:
    """What training pods that did not reach the end say of their checkpoints: the last one is of their SIGTERM, which
    no report told of.
    """
    job = observed.stages.get(Stage.TRAIN)
    told = [pod.result.checkpoints for pod in (job.pods if job else ()) if pod.result and pod.result.checkpoints]
    newest = max(told, key=lambda found: max(checkpoint.step for checkpoint in found), default=())
    known = max((checkpoint.step for checkpoint in status.checkpoints), default=-1)
    if status.trained is not None or max((checkpoint.step for checkpoint in newest), default=-1) <= known:
        return status
    return status.model_copy(update={"checkpoints": checkpoints_shown(newest, observed)})


def _with_dataset(status: JobStatus, result: Result | None) -> JobStatus:
    if status.dataset is not None or result is None or result.prepared is None:
        return status
    reasons = tuple(reason[:MAX_REASON] for reason in result.prepared.invalid_reasons[:MAX_INVALID_REASONS])
    dataset = result.prepared.model_copy(update={"invalid_reasons": reasons})
    return status.model_copy(update={"dataset": dataset, "total_parameters": dataset.model_parameters})


def _with_training(status: JobStatus, observed: Observed, now: datetime) -> JobStatus:
    job = observed.stages.get(Stage.TRAIN)
    result = result_of(job)
    if status.trained is not None or job is None or result is None or result.trained is None:
        return status
    trained = result.trained
    changes: dict[str, Any] = {
        "trained": trained.model_copy(update={"checkpoints": ()}),
        "metrics": _metrics(status.metrics or Metrics(), trained),
        "progress": _finished(status.progress or ProgressStatus(), trained),
        "trainable_parameters": trained.trainable_parameters,
        "total_parameters": trained.total_parameters,
        "checkpoints": checkpoints_shown(trained.checkpoints, observed) or status.checkpoints,
    }
    return _with_good_end(status.model_copy(update=changes), observed, job, now)


def _with_good_end(status: JobStatus, observed: Observed, job: StageJob, now: datetime) -> JobStatus:
    """Ends the attempt that made the result, which may have ended before anybody saw it run."""
    topology = observed.resolved.topology if observed.resolved else None
    last = attempts.current(status, job, topology)
    if last is None or last.is_over:
        return status
    pods = attempts.pods_of(job, last, status.attempts)
    seen = attempts.seen_running(last, pods, job.completions, now)
    step = status.trained.resumed_from_step if status.trained else None
    ended = attempts.end(seen, now, AttemptEnd.OK, pods=pods, exit_code=0)
    ended = ended.model_copy(update={"resumed_from_step": step})
    changes: dict[str, Any] = {"attempts": attempts.record(status.attempts, ended), "attempt": ended.number}
    if ended.gpu_seconds is not None:
        changes["gpu_seconds"] = (status.gpu_seconds or 0) + ended.gpu_seconds
    return status.model_copy(update=changes)


def checkpoints_shown(found: tuple[CheckpointRef, ...], observed: Observed) -> tuple[CheckpointRef, ...]:
    """The newest checkpoints, oldest first, and where they are for somebody outside the pods."""
    newest = sorted(found, key=lambda checkpoint: checkpoint.step)[-MAX_CHECKPOINTS:]
    spec = observed.resolved
    if spec is None:
        return tuple(newest)
    moved = ((checkpoint, lasting_uri(checkpoint.uri, observed.job, spec)) for checkpoint in newest)
    return tuple(checkpoint.model_copy(update={"uri": uri}) for checkpoint, uri in moved)


def _metrics(before: Metrics, trained: TrainedModel) -> Metrics:
    measured = {
        "loss": number(trained.loss),
        "eval_loss": number(trained.eval_loss),
        "base_eval_loss": number(trained.base_eval_loss),
        "tokens_per_second": number(trained.tokens_per_second),
        "peak_memory_bytes": trained.peak_memory_bytes,
    }
    return before.model_copy(update={name: value for name, value in measured.items() if value is not None})


def _finished(before: ProgressStatus, trained: TrainedModel) -> ProgressStatus:
    return before.model_copy(
        update={
            "step": trained.step,
            "total_steps": trained.total_steps,
            "percent": percent(trained.step, trained.total_steps),
            "epoch": trained.epoch,
            "eta": None,
            "stale": False,
        }
    )
