"""The spec of a job after its template and every default: what the stages are planned from."""

from __future__ import annotations

from pydantic import Field, JsonValue

from finetune_operator.api.base import ApiModel
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


class ClaimToCreate(ApiModel):
    """A PersistentVolumeClaim that the operator makes for the workspace."""

    size: str
    storage_class_name: str | None = None
    access_mode: str
    """ReadWriteOnce for one node, ReadWriteMany for several."""
    outlives_job: bool
    """Whether it holds the only copy of the result, and so must not be deleted with the job."""


class ResolvedSpec(ApiModel):
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
    pod_template: dict[str, JsonValue] = Field(default_factory=dict)
    """Template's and job's podTemplate, merged."""
    claims: tuple[str, ...] = ()
    """Every claim that a pvc:// URI names, mounted below the volumes folder."""
    secrets: tuple[str, ...] = ()
    """Every Secret, mounted below the secrets folder."""
    config_hash: str = ""
    """sha256 over the configuration as canonical JSON, the same for every job that is configured alike."""
