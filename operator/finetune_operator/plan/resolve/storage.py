"""Where a job's workspace, checkpoints and result are kept."""

from __future__ import annotations

from dataclasses import dataclass

from finetune_operator.api.resources import FineTuneJob
from finetune_operator.api.spec import SecretRef, WorkspaceSpec
from finetune_operator.api.status import Reason
from finetune_operator.plan.model import names
from finetune_operator.plan.model.claim_uris import claim_of, claim_uri
from finetune_operator.plan.model.problems import SpecProblem
from finetune_operator.plan.model.resolved import ClaimToCreate
from finetune_operator.plan.model.settings import PlanSettings
from finetune_trainer.contract import OutputTarget, WorkspacePolicy


@dataclass(frozen=True)
class Storage:
    output: OutputTarget
    workspace: WorkspacePolicy
    claim: str | None = None
    """The claim that holds the workspace; an emptyDir without it."""
    create: ClaimToCreate | None = None


def storage(job: FineTuneJob, nodes: int, settings: PlanSettings) -> Storage:
    """Raises `SpecProblem` when the result would have no home."""
    wanted, workspace = job.spec.output, job.spec.workspace
    if workspace is None and wanted is not None:
        return _without_workspace(job, OutputTarget(uri=wanted.uri, secret=_secret(wanted.secret_ref)))
    workspace = workspace or _default_workspace(settings)
    claim, outlives = _claim(job, workspace)
    output = _output(job, claim)
    create = None if workspace.claim else _claim_to_create(workspace, nodes, settings, outlives_job=outlives)
    return Storage(output, WorkspacePolicy(persistent=True), claim, create)


def _claim(job: FineTuneJob, workspace: WorkspaceSpec) -> tuple[str, bool]:
    """Name of the claim that holds the workspace, and whether it has to outlive the job: with the only result in it."""
    if workspace.claim:
        return workspace.claim, True
    name, wanted = names.workspace_claim(job.metadata.name), job.spec.output
    if wanted is not None and claim_of(wanted.uri) != name:
        return name, False
    if wanted is not None:
        raise SpecProblem(
            Reason.INVALID_SPEC,
            f"spec.output.uri: the claim {name} is made for this job and has no name before; leave spec.output out to "
            "keep the result in it, or name a claim that exists",
        )
    return names.lasting_claim(job.metadata.name, job.metadata.uid), True


def _default_workspace(settings: PlanSettings) -> WorkspaceSpec:
    if settings.default_workspace_size is None:
        raise SpecProblem(
            Reason.NO_OUTPUT,
            "the result would have no home: set spec.output.uri (s3://bucket/folder or pvc://claim/folder), or "
            "spec.workspace.size or spec.workspace.claim to keep it in a volume",
        )
    return WorkspaceSpec(size=settings.default_workspace_size)


def _without_workspace(job: FineTuneJob, output: OutputTarget) -> Storage:
    """The workspace dies with its pod, so what train made goes to publish by way of object storage."""
    home, secret = output.uri, output.secret
    checkpoints = job.spec.checkpoints
    if checkpoints.uri is not None:
        home, secret = checkpoints.uri, _secret(checkpoints.secret_ref)
    handover = f"{home.rstrip('/')}/.handover/{job.metadata.uid}"
    return Storage(output, WorkspacePolicy(persistent=False, handover_uri=handover, handover_secret=secret))


def _output(job: FineTuneJob, claim: str) -> OutputTarget:
    """Where the user said; else a folder of the workspace claim."""
    if job.spec.output is not None:
        return OutputTarget(uri=job.spec.output.uri, secret=_secret(job.spec.output.secret_ref))
    folder = names.workspace_folder(job.metadata.name, job.metadata.uid)
    return OutputTarget(uri=claim_uri(claim, folder, "output"))


def _claim_to_create(
    workspace: WorkspaceSpec, nodes: int, settings: PlanSettings, *, outlives_job: bool
) -> ClaimToCreate:
    return ClaimToCreate(
        size=workspace.size or "",
        storage_class_name=workspace.storage_class_name or settings.default_storage_class,
        access_mode="ReadWriteOnce" if nodes == 1 else "ReadWriteMany",
        outlives_job=outlives_job,
    )


def _secret(ref: SecretRef | None) -> str | None:
    return ref.name if ref else None
