"""What a stage is told: the RunConfig."""

from __future__ import annotations

from finetune_operator.api.resources import FineTuneJob
from finetune_operator.api.status import Attempt
from finetune_operator.plan.model.resolved import ResolvedSpec
from finetune_trainer.contract import JobRef, PreparedData, RunConfig, Stage, Topology, TrainedModel


def topology_of(resolved: ResolvedSpec, attempt: Attempt | None) -> Topology:
    """Where the processes of an attempt run; those of the other stages are told of the spec's."""
    return attempt.topology if attempt is not None and attempt.topology is not None else resolved.topology


def run_config(  # noqa: PLR0913, PLR0917 - each stage takes what the ones before it found
    job: FineTuneJob,
    resolved: ResolvedSpec,
    stage: Stage,
    attempt: Attempt | None = None,
    prepared: PreparedData | None = None,
    trained: TrainedModel | None = None,
) -> RunConfig:
    """Everything that `stage` needs to know, apart from where its folders are mounted.

    `samples` come from the job, not from what was fixed at its start: they may change until publish.
    """
    return RunConfig(
        job=JobRef(name=job.metadata.name, namespace=job.metadata.namespace or "default", uid=job.metadata.uid),
        attempt=attempt.number if attempt else 1,
        stage=stage,
        model=resolved.model,
        datasets=resolved.datasets,
        data=resolved.data,
        training=resolved.training,
        topology=topology_of(resolved, attempt),
        workspace=resolved.workspace,
        checkpoints=resolved.checkpoints,
        samples=job.spec.samples.prompts,
        output=resolved.output,
        prepared=prepared,
        trained=trained,
    )
