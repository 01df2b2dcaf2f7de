"""Where a job begins that goes on from another one's checkpoints."""

from __future__ import annotations

from finetune_operator.api.resources import FineTuneJob
from finetune_operator.api.spec import ResumeFrom
from finetune_operator.api.status import JobStatus, Phase, Reason
from finetune_operator.plan.model.problems import SpecProblem
from finetune_trainer.contract import ResumeSource

_FIELD = "spec.checkpoints.resumeFrom"
_LASTING = ("pvc://", "s3://")


def resume_source(job: FineTuneJob, source: FineTuneJob | None) -> ResumeSource | None:
    """The folder of checkpoints that spec.checkpoints.resumeFrom means. Raises `SpecProblem`."""
    wanted = job.spec.checkpoints.resume_from
    if wanted is None:
        return None
    if wanted.uri is not None:
        return ResumeSource(uri=wanted.uri, secret=wanted.secret_ref.name if wanted.secret_ref else None)
    return _of_job(job, wanted, source)


def _of_job(job: FineTuneJob, wanted: ResumeFrom, source: FineTuneJob | None) -> ResumeSource:
    if wanted.job == job.metadata.name:
        raise _problem(Reason.INVALID_SPEC, "names the job itself; name another one")
    if source is None:
        listed = f"kubectl get ftj -n {job.metadata.namespace or 'default'}"
        raise _problem(
            Reason.RESUME_NOT_FOUND,
            f"there is no FineTuneJob `{wanted.job}` in the namespace ({listed}). If it was deleted, name the folder "
            "of its checkpoints in resumeFrom.uri",
        )
    status = source.status or JobStatus()
    if not (status.phase.is_terminal or status.phase is Phase.SUSPENDED):
        raise _problem(
            Reason.RESUME_NOT_FOUND,
            f"the job `{wanted.job}` still runs, and removes its older checkpoints. This job starts by itself once "
            "that one has ended or is suspended",
        )
    lasting = [c for c in status.checkpoints if c.verified and c.uri.startswith(_LASTING)]
    if not lasting:
        raise _problem(
            Reason.RESUME_NOT_FOUND,
            f"the job `{wanted.job}` has left no verified checkpoint in a claim or a bucket (kubectl get ftj "
            f"{wanted.job} -o jsonpath='{{.status.checkpoints}}')",
        )
    newest = max(lasting, key=lambda checkpoint: checkpoint.step)
    folder = newest.uri.rstrip("/").rpartition("/")[0]
    return ResumeSource(uri=folder, secret=_secret(wanted, source))


def _secret(wanted: ResumeFrom, source: FineTuneJob) -> str | None:
    """The job's own, else the one by which the other job wrote its checkpoints."""
    ref = wanted.secret_ref or source.spec.checkpoints.secret_ref
    return ref.name if ref else None


def _problem(reason: Reason, message: str) -> SpecProblem:
    return SpecProblem(reason, f"{_FIELD}.job: {message}")
