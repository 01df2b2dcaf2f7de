"""The spec of a job after its template and every default: what the stages are planned from."""

from __future__ import annotations

from typing import Self

from pydantic import Field, JsonValue

from finetune_operator.api.base import StatusModel
from finetune_operator.plan.model.settings import PlanSettings
from finetune_trainer.contract import (
    CheckpointPolicy,
    DataPolicy,
    DatasetSource,
    ModelSource,
    OutputTarget,
    Topology,
    TrainingConfig,
    WorkspacePolicy,
)


class ClaimToCreate(StatusModel):
    """A PersistentVolumeClaim that the operator makes for the workspace."""

    size: str
    storage_class_name: str | None = None
    access_mode: str
    """ReadWriteOnce for one node, ReadWriteMany for several."""
    outlives_job: bool
    """Whether it holds the only copy of the result, and so must not be deleted with the job."""


class PodDefaults(StatusModel):
    """What the administrator had set about pods when the job started: an upgrade changes no job that runs.

    A field that is added needs a default here: the specs of jobs that run were written without it.
    """

    image: str
    image_pull_policy: str
    run_as_user: int
    grace_seconds: int
    gpu_resource: str
    cpu_per_gpu: int = 0
    memory_per_gpu_gib: int = 0
    cpu_millis_per_process: int = 0
    memory_mib_per_process: int = 0
    prepare_cpu_millis: int = 0
    prepare_memory_mib: int = 0
    enforced_pod_template: dict[str, JsonValue] = Field(default_factory=dict)
    """Merged last: nothing in a job or template overrides it."""
    propagated_prefixes: tuple[str, ...] = ()

    @classmethod
    def of(cls, settings: PlanSettings) -> Self:
        """As they are set now."""
        same = {name: getattr(settings, name) for name in cls.model_fields if name in PlanSettings.model_fields}
        return cls(image=settings.trainer_image, grace_seconds=settings.termination_grace_seconds, **same)


class ResolvedSpec(StatusModel):
    """Fixed in the ConfigMap <job>-resolved when the job starts, so that a template that is edited later
    changes nothing in a job that runs.
    """

    template: str
    """kind/name@resourceVersion."""
    model: ModelSource
    datasets: tuple[DatasetSource, ...]
    data: DataPolicy
    training: TrainingConfig
    topology: Topology
    checkpoints: CheckpointPolicy
    output: OutputTarget
    workspace: WorkspacePolicy
    workspace_claim: str | None = None
    """The claim mounted as workspace; an emptyDir without it."""
    create_claim: ClaimToCreate | None = None
    pods: PodDefaults
    pod_template: dict[str, JsonValue] = Field(default_factory=dict)
    """Template's and job's podTemplate, merged."""
    claims: tuple[str, ...] = ()
    """Every claim that a pvc:// URI names, mounted below the volumes folder."""
    secrets: tuple[str, ...] = ()
    """Every Secret, mounted below the secrets folder."""
    config_hash: str = ""
    """sha256 over the configuration as canonical JSON, the same for every job that is configured alike."""
