"""Other jobs that have run on this machine, as a cluster would know them."""

from __future__ import annotations

from pydantic import ValidationError

from finetune_operator.api.resources import FineTuneJob
from finetune_operator.api.status import JobStatus, Phase
from finetune_operator.local.artifacts import uri_in_claim
from finetune_operator.local.beginning import read_status
from finetune_operator.local.folders import JobFolder


def read_job(folder: JobFolder) -> FineTuneJob | None:
    """The job as it was run last, without its status; None before it was run."""
    try:
        return FineTuneJob.model_validate_json(folder.job_file.read_text(encoding="utf-8"))
    except (OSError, ValidationError):
        return None


def job_named(name: str, folder: JobFolder) -> FineTuneJob | None:
    """The job of this name, in the namespace of the job with this folder, with its last status; None without one."""
    other = folder.neighbour(name)
    job = read_job(other)
    return None if job is None else job.model_copy(update={"status": _status(other)})


def _status(folder: JobFolder) -> JobStatus | None:
    """As a cluster would show it to other jobs: with its checkpoints in claims.

    A run that was killed could not say so: as long as nobody runs it again, it is suspended.
    """
    status = read_status(folder)
    if status is None:
        return None
    kept = (one.model_copy(update={"uri": uri_in_claim(one.uri, folder)}) for one in status.checkpoints)
    phase = status.phase if status.phase.is_terminal or folder.is_locked() else Phase.SUSPENDED
    return status.model_copy(update={"checkpoints": tuple(kept), "phase": phase})
