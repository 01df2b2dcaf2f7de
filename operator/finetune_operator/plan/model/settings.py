"""What a cluster's administrator decides about every job."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, JsonValue


class PlanSettings(BaseModel):
    """Input of the planner, set through the operator's environment (see settings.py) or the CLI."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    trainer_image: str = "finetune-trainer:0.1.0"
    """Image of the trainer container, unless the job's or template's podTemplate names another."""
    image_pull_policy: str = "IfNotPresent"
    """Pull policy of the trainer container."""
    default_workspace_size: str | None = None
    """Size of the claim made for a job that names neither a workspace nor an output."""
    default_storage_class: str | None = None
    """Storage class of claims made for jobs; the cluster's default without it."""
    pod_template: dict[str, JsonValue] = Field(default_factory=dict)
    """A partial PodTemplateSpec (JSON) under every template's and job's own: tolerations, volumes, an image."""
    gpu_resource: str = "nvidia.com/gpu"
    """Extended resource that a GPU is asked for by."""
    run_as_user: int = Field(default=65532, ge=1)
    """User and group of the pods, and their fsGroup."""
    termination_grace_seconds: int = Field(default=120, ge=30)
    """Time that pods have to checkpoint when they are taken down."""
    progress_stale_seconds: int = Field(default=60, ge=5)
    """Progress older than this is shown as stale."""
    operator_version: str = "0.1.0"
    """Recorded in status.provenance."""
