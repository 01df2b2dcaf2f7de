"""The objects that a job's stages are made of, as they are applied."""

from __future__ import annotations

from collections.abc import Mapping

from finetune_trainer.contract import PreparedData, Stage, TrainedModel

from finetune_operator.api.resources import FineTuneJob
from finetune_operator.plan.plan import Manifest
from finetune_operator.plan.resolved import ResolvedSpec
from finetune_operator.plan.settings import PlanSettings


def resolved_config_map(job: FineTuneJob, resolved: ResolvedSpec) -> Manifest:
    """The immutable ConfigMap that fixes the spec a job has started with."""
    raise NotImplementedError


def parse_resolved(data: Mapping[str, str]) -> ResolvedSpec:
    """The spec from the data of the ConfigMap that `resolved_config_map` made."""
    raise NotImplementedError


def stage_manifests(  # noqa: PLR0913 - each stage takes what the ones before it found
    job: FineTuneJob,
    resolved: ResolvedSpec,
    stage: Stage,
    settings: PlanSettings,
    prepared: PreparedData | None = None,
    trained: TrainedModel | None = None,
) -> tuple[Manifest, ...]:
    """The objects of a stage in the order to apply them, its Job last."""
    raise NotImplementedError
