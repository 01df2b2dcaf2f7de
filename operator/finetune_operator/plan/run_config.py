"""What a stage is told: the RunConfig."""

from __future__ import annotations

from finetune_trainer.contract import PreparedData, RunConfig, Stage, TrainedModel

from finetune_operator.api.resources import FineTuneJob
from finetune_operator.plan.resolved import ResolvedSpec


def run_config(
    job: FineTuneJob,
    resolved: ResolvedSpec,
    stage: Stage,
    prepared: PreparedData | None = None,
    trained: TrainedModel | None = None,
) -> RunConfig:
    """Everything that `stage` needs to know, apart from where its folders are mounted."""
    raise NotImplementedError
