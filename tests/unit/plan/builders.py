"""Jobs, templates and results for the planner's tests, each with everything that a test does not care about."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from finetune_operator.api.resources import ClusterFineTuneTemplate, FineTuneJob
from finetune_operator.plan.model.settings import PlanSettings
from finetune_trainer.contract import (
    Artifact,
    CheckpointRef,
    DataFormat,
    ExitCode,
    PreparedData,
    Progress,
    Published,
    Result,
    Sample,
    Stage,
    TrainedModel,
)

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
SETTINGS = PlanSettings(default_workspace_size="10Gi")
UID = "0f9c2b7e-5d1c-4f0a-9f57-0d6f3a1b2c3d"


def a_job(*, labels: dict[str, str] | None = None, name: str = "support-bot", **spec: Any) -> FineTuneJob:
    """The smallest job on two GPU nodes, with `spec` over it."""
    smallest = {
        "model": {"uri": "hf://HuggingFaceTB/SmolLM2-135M-Instruct"},
        "template": {"name": "lora"},
        "datasets": [{"uri": "s3://team/support.jsonl"}],
        "gpus": 2,
        "gpusPerNode": 1,
    }
    metadata = {"name": name, "namespace": "team", "uid": UID, "generation": 1, "labels": labels or {}}
    return FineTuneJob.model_validate({"metadata": metadata, "spec": smallest | spec})


def a_template(**spec: Any) -> ClusterFineTuneTemplate:
    """A LoRA template."""
    usual = {"training": {"method": "lora", "peftConfig": {"r": 16, "target_modules": ["q_proj", "v_proj"]}}}
    metadata = {"name": "lora", "resourceVersion": "42"}
    return ClusterFineTuneTemplate.model_validate({"metadata": metadata, "spec": usual | spec})


def prepared(**changes: Any) -> PreparedData:
    usual = PreparedData(
        format=DataFormat.CHAT,
        rows=1200,
        train_rows=1140,
        eval_rows=60,
        invalid_rows=3,
        invalid_reasons=("row 17: no completion",),
        tokens=180_000,
        digest="d" * 64,
        model_parameters=135_000_000,
    )
    return usual.model_copy(update=changes)


def trained(**changes: Any) -> TrainedModel:
    usual = TrainedModel(
        step=100,
        total_steps=100,
        epoch=3.0,
        loss=1.23456,
        eval_loss=1.5,
        base_eval_loss=3.25,
        trainable_parameters=460_000,
        total_parameters=135_000_000,
        digest="e" * 64,
    )
    return usual.model_copy(update=changes)


def published() -> Published:
    uri = "pvc://support-bot-workspace/support-bot-0f9c2b7e/output"
    return Published(
        artifacts=(Artifact(kind="adapter", uri=uri, sha256="f" * 64, bytes=1_800_000),),
        samples=(Sample(prompt="Hello?", before="?", after="Hello!"),),
    )


def a_result(stage: Stage, code: ExitCode = ExitCode.OK, message: str = "done", **changes: Any) -> Result:
    """A stage's last word, with what it made when it ended well."""
    by_stage: dict[Stage, dict[str, Any]] = {
        Stage.PREPARE: {"prepared": prepared()},
        Stage.TRAIN: {"trained": trained()},
        Stage.PUBLISH: {"published": published()},
    }
    made = by_stage[stage] if code is ExitCode.OK else {}
    return Result(stage=stage, exit_code=code, message=message, **(made | changes))


def a_report(at: datetime = NOON, **changes: Any) -> Progress:
    """Half-way through training."""
    usual: dict[str, Any] = {
        "stage": Stage.TRAIN,
        "message": "training",
        "step": 45,
        "total_steps": 100,
        "eta_seconds": 190.0,
        "loss": 1.23412,
        "learning_rate": 0.00002,
        "tokens_per_second": 12345.6,
        "checkpoints": (a_checkpoint(40),),
    }
    return Progress(updated_at=at, **(usual | changes))


def a_checkpoint(step: int) -> CheckpointRef:
    return CheckpointRef(step=step, uri=f"checkpoints/step-{step:06d}", verified=True, bytes=5_000_000, loss=1.5)
