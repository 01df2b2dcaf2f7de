"""What a stage is told: the RunConfig."""

from __future__ import annotations

from finetune_operator.api.resources import FineTuneJob
from finetune_operator.plan.model.resolved import ResolvedSpec
from finetune_trainer.contract import JobRef, PreparedData, RunConfig, Stage, TrainedModel


def run_config(
    job: FineTuneJob,
    resolved: ResolvedSpec,
    stage: Stage,
    prepared: PreparedData | None = None,
    trained: TrainedModel | None = None,
) -> RunConfig:
    """Everything that `stage` needs to know, apart from where its folders are mounted.

    `samples` come from the job, not from what was fixed at its start: they may change until publish.
    """
    return RunConfig(
        job=JobRef(name=job.metadata.name, namespace=job.metadata.namespace or "default", uid=job.metadata.uid),
        stage=stage,
        model=resolved.model,
        datasets=resolved.datasets,
        data=resolved.data,
        training=resolved.training,
        topology=resolved.topology,
        workspace=resolved.workspace,
        checkpoints=resolved.checkpoints,
        samples=job.spec.samples.prompts,
        output=resolved.output,
        prepared=prepared,
        trained=trained,
    )
