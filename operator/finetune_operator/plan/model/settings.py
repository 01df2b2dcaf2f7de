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
    enforced_pod_template: dict[str, JsonValue] = Field(default_factory=dict)
    """A partial PodTemplateSpec (JSON) that is merged last, over every template's and job's own, so that none of
    them can override it: a security context, a runtime class, an image."""
    propagated_prefixes: tuple[str, ...] = ("kueue.x-k8s.io/priority-class",)
    """Labels and annotations of a FineTuneJob that begin with one of these (a JSON list) pass to its Jobs and pods: a
    cost centre, a priority class."""
    cpu_per_gpu: int = Field(default=4, ge=0, le=256)
    """CPUs that a pod asks for by default for each of its GPUs; 0 asks for none."""
    memory_per_gpu_gib: int = Field(default=16, ge=0, le=4096)
    """Memory in GiB that a pod asks for by default for each of its GPUs; 0 asks for none."""
    cpu_millis_per_process: int = Field(default=250, ge=0, le=256_000)
    """Thousandths of a CPU that a pod asks for by default for each process that trains on CPU; 0 asks for none."""
    memory_mib_per_process: int = Field(default=1024, ge=0, le=4_194_304)
    """Memory in MiB that a pod asks for by default for each process that trains on CPU; 0 asks for none."""
    prepare_cpu_millis: int = Field(default=500, ge=0, le=256_000)
    """Thousandths of a CPU that the prepare stage's pod asks for by default; 0 asks for none."""
    prepare_memory_mib: int = Field(default=1024, ge=0, le=4_194_304)
    """Memory in MiB that the prepare stage's pod asks for by default; 0 asks for none."""
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
