"""Other jobs that have run on this machine, as a cluster would know them."""

from __future__ import annotations

from pydantic import ValidationError

from finetune_operator.api.resources import FineTuneJob
from finetune_operator.local.beginning import read_status
from finetune_operator.local.folders import JobFolder


def job_named(name: str, folder: JobFolder) -> FineTuneJob | None:
    """The job of this name, in the namespace of the job with this folder, with its last status; None without one."""
    other = folder.neighbour(name)
    try:
        job = FineTuneJob.model_validate_json(other.job_file.read_text(encoding="utf-8"))
    except (OSError, ValidationError):
        return None
    return job.model_copy(update={"status": read_status(other)})
