"""What a run finds from the runs before it, and what it makes of that."""

from __future__ import annotations

import shutil
from datetime import datetime
from enum import StrEnum
from typing import Final

from pydantic import ValidationError

from finetune_operator.api.status import JobStatus, Phase, Reason
from finetune_operator.local.artifacts import local_folder
from finetune_operator.local.folders import JobFolder
from finetune_operator.plan.model.resolved import ResolvedSpec
from finetune_trainer.contract import ExitCode

_WORTH_RESUMING: Final = frozenset(
    {
        Reason.RESTARTS_EXHAUSTED,
        Reason.DEADLINE_EXCEEDED,
        *(Reason[code.name] for code in ExitCode if code.is_resumable),
    }
)
"""Failures after which the checkpoints are as good as before."""


class Beginning(StrEnum):
    """How a run starts."""

    NEW = "new"
    RESUME = "resume"
    DONE = "done"
    """Nothing to do: the same job has succeeded here."""
    RETRY = "retry"
    """The same job failed for a reason that its checkpoints survive."""
    START_OVER = "start-over"
    """The same job failed for a reason that training itself or its input has to answer for."""
    CHANGED = "changed"
    """The spec is another one than that of the run before."""
    FRESH = "fresh"
    """The user asked to start over."""


def beginning(status: JobStatus | None, before: ResolvedSpec | None, hash_now: str, *, fresh: bool) -> Beginning:
    """How to start, given the last run's status and spec and the config hash of the spec as it is now."""
    if status is None and before is None:
        return Beginning.NEW
    if fresh:
        return Beginning.FRESH
    if before is not None and before.config_hash != hash_now:
        return Beginning.CHANGED
    return _same_again(status) if status is not None else Beginning.RESUME


def _same_again(status: JobStatus) -> Beginning:
    if status.phase is Phase.SUCCEEDED:
        return Beginning.DONE
    if status.phase is not Phase.FAILED:
        return Beginning.RESUME
    return Beginning.RETRY if status.reason in _WORTH_RESUMING else Beginning.START_OVER


def read_status(folder: JobFolder) -> JobStatus | None:
    """The last run's status; None when there is none that can be read."""
    try:
        return JobStatus.model_validate_json(folder.status_file.read_text(encoding="utf-8"))
    except (OSError, ValidationError):
        return None


def make_room(folder: JobFolder, status: JobStatus | None, how: Beginning, now: datetime) -> None:
    """Clears away what this beginning has no use for. Artifacts of a finished run move to `previous/`."""
    if how in (Beginning.NEW, Beginning.RESUME, Beginning.DONE):
        return
    folder.status_file.unlink(missing_ok=True)
    folder.cluster_file.unlink(missing_ok=True)
    shutil.rmtree(folder.configs_dir, ignore_errors=True)
    if how is Beginning.RETRY:
        return
    if status is not None:
        _keep_artifacts(folder, status, now)
    shutil.rmtree(folder.volumes_dir, ignore_errors=True)
    shutil.rmtree(folder.logs_dir, ignore_errors=True)


def _keep_artifacts(folder: JobFolder, status: JobStatus, now: datetime) -> None:
    """Moves artifacts that lie in the job's own volumes, with the status that describes them."""
    kept = folder.previous_dir / f"{status.completion_time or now:%Y%m%dT%H%M%S}"
    for artifact in status.artifacts:
        path = local_folder(artifact.uri, folder)
        if path is not None and path.exists() and path.is_relative_to(folder.volumes_dir):
            kept.mkdir(parents=True, exist_ok=True)
            shutil.move(path, kept / path.name)
    if kept.is_dir():
        text = status.model_dump_json(by_alias=True, exclude_none=True, indent=2)
        (kept / "status.json").write_text(text, encoding="utf-8")
